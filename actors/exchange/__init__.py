"""Shared weights: how the containers of one training job exchange arrays and values while they train."""
