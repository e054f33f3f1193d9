"""Training input: how a channel of data comes to a container."""
