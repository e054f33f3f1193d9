"""The Ray head that `raymaker up` starts: one process group of its own, ended by its recorded pid and no other way.

Everything of Ray listens on loopback unless the settings open the platform to the network, and asks for a token.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from raymaker.platform.errors import PlatformError
from raymaker.platform.settings import Settings
from raymaker.serving.proxy import serve_environment

START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 20.0
_REMEMBERED = {
    "RAY_maximum_gcs_destroyed_actor_cached_count": "200",
    "RAY_task_events_max_num_task_in_gcs": "1000",
}
"""How much Ray remembers of what is over, each job an actor with some calls; by default it is 100,000 of either."""
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(frozen=True)
class HeadState:
    """What is remembered of a running platform, in `<home>/platform.json`. `pid` None: the cluster was joined."""

    address: str
    url: str
    pid: int | None
    pid_started: int | None
    dashboard_url: str | None
    temp_link: str | None = None


@contextlib.contextmanager
def exclusive(home: Path) -> Iterator[None]:
    """Hold the platform's own lock, so that two `up` or `down` of one home never cross."""
    home.mkdir(parents=True, exist_ok=True, mode=0o755)
    with (home / "platform.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PlatformError(f"Another `raymaker up` or `down` is at work on {home}. Wait for it to end.") from None
        yield


def read_state(home: Path) -> HeadState | None:
    """Return the running platform's state; None where there is none or its head has died."""
    try:
        state = HeadState(**json.loads((home / "platform.json").read_text()))
    except (FileNotFoundError, json.JSONDecodeError, TypeError):
        return None
    if state.pid is not None and process_started(state.pid) != state.pid_started:
        return None
    return state


def write_state(home: Path, state: HeadState) -> None:
    """Remember the running platform, whole or not at all."""
    temporary = home / "platform.json.new"
    temporary.write_text(json.dumps(asdict(state), indent=2))
    temporary.replace(home / "platform.json")


def forget_state(home: Path, state: HeadState) -> None:
    """Forget the platform: it is down."""
    if state.temp_link is not None:
        Path(state.temp_link).unlink(missing_ok=True)
    (home / "platform.json").unlink(missing_ok=True)


def ray_environment(settings: Settings) -> dict[str, str]:
    """Return the variables that must stand in the environment of every process that starts or talks to this Ray."""
    environment = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(settings.home_path / "ray-token"),
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        **_REMEMBERED,
        **serve_environment(
            settings.home_path,
            host=settings.host,
            port=settings.port,
            stats_port=settings.haproxy_stats_port,
            metrics_port=settings.haproxy_metrics_port,
        ),
    }
    if settings.host in LOOPBACK:
        # Ray's own switch for machines that form no cluster: every port of it then listens on loopback only.
        environment["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    return environment


def client_environment(settings: Settings) -> dict[str, str]:
    """Return what a shell needs to speak to this platform with `ray` and with the client."""
    found = {"RAYMAKER_ENDPOINT_URL": settings.url}
    state = read_state(settings.home_path)
    if state is not None and state.dashboard_url is not None:
        found["RAY_AUTH_MODE"] = "token"
        found["RAY_AUTH_TOKEN_PATH"] = str(settings.home_path / "ray-token")
        found["RAY_API_SERVER_ADDRESS"] = state.dashboard_url
    return found


def start_head(settings: Settings) -> HeadState:
    """Start a Ray head as a process group of its own and wait until it answers. Raises PlatformError."""
    home = settings.home_path
    _write_token(home / "ray-token")
    log = home / "logs" / "ray-head.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    temp_dir = _temp_dir(home)
    with log.open("wb") as output:
        process = subprocess.Popen(
            _head_command(settings, temp_dir),
            env={**os.environ, **ray_environment(settings)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=home,
        )
    state = HeadState(
        address=f"127.0.0.1:{settings.ray_port}",
        url=settings.url,
        pid=process.pid,
        pid_started=process_started(process.pid),
        dashboard_url=f"http://127.0.0.1:{settings.ray_port + 1}",
        temp_link=str(temp_dir) if temp_dir.is_symlink() else None,
    )
    _wait_for_head(process, log)
    return state


def stop_head(state: HeadState) -> None:
    """End the head that `state` names and all that it started. Nothing happens where it was joined or has died."""
    if state.pid is None or process_started(state.pid) != state.pid_started:
        return
    members = session_members(state.pid)
    os.kill(state.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while any(process_started(pid) == started for pid, started in members):
        if time.monotonic() > deadline:
            break
        time.sleep(0.1)
    for pid, started in members:
        if process_started(pid) == started:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def process_started(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot: with its pid this names it for good."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else int(fields[19])


def session_members(leader: int) -> list[tuple[int, int]]:
    """List `(pid, start)` of the head's process tree: its session, and descendants that began sessions of their own."""
    parents: dict[int, tuple[int, int, int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                parents[int(entry.name)] = (int(fields[1]), int(fields[3]), int(fields[19]))
    members = {pid for pid, (_, session, _) in parents.items() if leader in {session, pid}}
    while grown := {pid for pid, (parent, _, _) in parents.items() if parent in members} - members:
        members |= grown
    return [(pid, parents[pid][2]) for pid in sorted(members)]


def _head_command(settings: Settings, temp_dir: Path) -> list[str]:
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"]
    command += [f"--port={settings.ray_port}", f"--dashboard-port={settings.ray_port + 1}"]
    command += [f"--dashboard-agent-listen-port={settings.ray_port + 2}"]
    command += [f"--ray-client-server-port={settings.ray_port + 3}"]
    # What workers print is read from their files, where somebody looks; nobody listens to its being passed on.
    command.append("--include-log-monitor=false")
    # Workers take any free port: their usual range (10002-19999) would forbid those ports to everything above.
    command += ["--min-worker-port=0", "--max-worker-port=0"]
    command += [f"--temp-dir={temp_dir}"]
    if settings.host in LOOPBACK:
        command.append("--node-ip-address=127.0.0.1")
    if settings.cpus is not None:
        command.append(f"--num-cpus={settings.cpus}")
    if settings.autoscaling_config is not None:
        command.append(f"--autoscaling-config={settings.autoscaling_config.expanduser().resolve()}")
    return command


def _temp_dir(home: Path) -> Path:
    """Ray's own folder. Its socket paths must stay under 107 bytes, so a long home gets a short link for it."""
    folder = home / "ray"
    folder.mkdir(exist_ok=True)
    if len(str(folder)) <= 40:  # noqa: PLR2004 - what Ray's session and socket names leave of 107
        return folder
    short = Path("/tmp") / f"raymaker-{secrets.token_hex(4)}"  # noqa: S108 - a link with a random name
    short.symlink_to(folder)
    return short


def _wait_for_head(process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while b"Ray runtime started" not in log.read_bytes():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise PlatformError(f"Ray did not start. The end of {log}:\n{tail}")
        time.sleep(0.05)


def _write_token(path: Path) -> None:
    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))
