"""Changes of training jobs that run, in the control plane: how they are asked for, kept, and told to machines."""
