"""Where a container starts: the `ContainerRuntime` seam and its drivers."""
