"""The command line, on the Python client. `main` is what `raymaker` runs."""

from raymaker.platform.cli.main import main

__all__ = ["main"]
