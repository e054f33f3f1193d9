"""A real image registry (Debian's docker-registry) on loopback, which every engine treats as one without TLS."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.servers import find_program, free_port, running_server

CONFIGURATION = """\
version: 0.1
log: {{level: warn}}
storage:
  filesystem: {{rootdirectory: {root}}}
  delete: {{enabled: true}}
http: {{addr: "127.0.0.1:{port}"}}
"""


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The registry's `host:port`."""
    folder = tmp_path_factory.mktemp("registry")
    program = find_program("docker-registry", package="docker-registry")
    port = free_port()
    configuration = folder / "config.yml"
    configuration.write_text(CONFIGURATION.format(root=folder / "storage", port=port))
    with running_server([program, "serve", str(configuration)], port, folder / "log"):
        yield f"127.0.0.1:{port}"
