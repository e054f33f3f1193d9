"""Scoring checkpoints against data whose results are known, while training goes on."""
