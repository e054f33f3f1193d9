"""Batch transform on one machine: objects split, sent to a scoring container, and their answers put together again."""
