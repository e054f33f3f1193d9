"""What stands in the environment before Serve starts, and where the proxy's files lie."""

from __future__ import annotations

import os
import pkgutil
from pathlib import Path

import pytest

from raymaker.serving import proxy

PORTS = {"host": "127.0.0.1", "port": 8000, "stats_port": 8404, "metrics_port": 9101}


@pytest.fixture(autouse=True)
def _own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy, "SHORT_PLACE", tmp_path)


def test_two_platforms_share_no_file_and_no_port(tmp_path: Path) -> None:
    one = proxy.serve_environment(tmp_path / "one", **PORTS)
    other = proxy.serve_environment(tmp_path / "other", host="127.0.0.1", port=8001, stats_port=8405, metrics_port=9102)
    own = {name for name in one if name.endswith(("_PORT", "_LOC", "_PATH", "_BASE", "_FILE"))}
    own -= {"RAY_SERVE_HAPROXY_BINARY_PATH", "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"}
    assert len(own) == 10
    assert all(one[name] != other[name] for name in own)


def test_the_wrapper_and_the_proxy_can_be_run_and_the_middlewares_be_asked_for(tmp_path: Path) -> None:
    environment = proxy.serve_environment(tmp_path, **PORTS)
    assert os.access(environment["RAY_SERVE_HAPROXY_BINARY_PATH"], os.X_OK)
    assert os.access(environment["RAYMAKER_HAPROXY"], os.X_OK)
    assert pkgutil.resolve_name(environment["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"])() == []


def test_a_long_home_gets_a_short_folder_that_only_its_owner_enters(tmp_path: Path) -> None:
    folder = proxy.proxy_folder(tmp_path / ("long" * 20))
    assert folder.parent == tmp_path
    assert len(f"/tmp/{folder.name}") <= proxy.LONGEST_SOCKET_FOLDER
    assert folder == proxy.proxy_folder(tmp_path / ("long" * 20))
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_somebody_else_laid_out_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy, "LONGEST_SOCKET_FOLDER", 4096)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "proxy").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionError, match="RAYMAKER_HOME"):
        proxy.proxy_folder(tmp_path)


def test_the_answer_for_no_replica_is_whole() -> None:
    head, _, body = proxy.UNAVAILABLE.partition(b"\r\n\r\n")
    assert b"Content-Length: %d" % len(body) in head
