"""Batch transform jobs: the moves of their records, and the part of the reconciler that makes them."""
