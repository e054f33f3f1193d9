"""A job's checkpoints: kept in the store while it trains, each whole or absent, and brought back at the next start."""
