"""Evaluations of training jobs in the control plane: their records, when they come, and what they set off."""
