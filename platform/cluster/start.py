"""Where the platform starts and stops: Ray, Serve, the database's schema, the long-lived actors, the frontend."""

from __future__ import annotations

import logging
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray import serve

from raymaker.actors.pool_folders import remove_ended
from raymaker.actors.reaper import Reaper
from raymaker.actors.runtime.select import available_leftovers, available_runtimes
from raymaker.platform.cluster import head
from raymaker.platform.cluster.control_actor import ControlActor
from raymaker.platform.cluster.frontend import FRONTEND_NAME, build_frontend
from raymaker.platform.cluster.growth import want_nothing
from raymaker.platform.cluster.janitors import place_janitors
from raymaker.platform.cluster.machine_rooms import remove_all_rooms
from raymaker.platform.cluster.nodes import HEAD_RESOURCE, living_nodes
from raymaker.platform.cluster.reporter import CONTROL_NAME, NAMESPACE
from raymaker.platform.cluster.site import site_of
from raymaker.platform.cluster.workers import find_actor
from raymaker.platform.database.engine import Database
from raymaker.platform.errors import PlatformError
from raymaker.platform.node_types import nodes_to_come
from raymaker.platform.settings import Settings
from raymaker.serving.endpoint import APPLICATION
from raymaker.serving.proxy import remove_proxy, start_serve

CONTROL_THREADS = 64
READY_TIMEOUT_S = 60.0
OWN_ACTORS = ("training/", "gang/", "machine/", "transform/", "evaluator/", "janitor/")
"""How the names begin of actors that start containers, or anew what has ended."""


def up(settings: Settings) -> head.HeadState:
    """Start the platform, or see that it runs, and wait until it answers. Raises PlatformError."""
    with head.exclusive(settings.home_path):
        if (state := head.read_state(settings.home_path)) is not None:
            return _finish_up(settings, state)
        Database(settings.resolved_database_url).migrate()
        if settings.ray_address is not None:
            state = head.HeadState(settings.ray_address, settings.url, None, None, None)
        else:
            remove_proxy(settings.home_path)
            nodes_to_come(settings)  # says what is wrong with the file, before anything is started
            _check_ports(settings)
            state = head.start_head(settings)
        head.write_state(settings.home_path, state)
        try:
            return _finish_up(settings, state)
        except BaseException:
            head.stop_head(state)
            head.forget_state(settings.home_path, state)
            remove_proxy(settings.home_path)
            raise


def down(settings: Settings) -> bool:
    """Stop the platform and every container it started. Returns False where it was not up.

    Training jobs that were running start again, as a new attempt, at the next `up`; endpoints come back too.
    """
    with head.exclusive(settings.home_path):
        state = head.read_state(settings.home_path)
        if state is not None:
            with _connected(state):
                _take_down_actors(joined=state.pid is None)
            head.stop_head(state)
            head.forget_state(settings.home_path, state)
        remove_proxy(settings.home_path)
        _remove_containers(settings)
        return state is not None


def status(settings: Settings, state: head.HeadState) -> dict[str, Any]:
    """Tell where a platform that is up answers and what its cluster has."""
    with _connected(state):
        return {
            "status": "up" if _answers(state.url) else "starting",
            "url": state.url,
            "home": str(settings.home_path),
            "ray_address": state.address,
            "dashboard_url": state.dashboard_url,
            "nodes": len(living_nodes()),
            "resources": ray.cluster_resources(),
            "available": ray.available_resources(),
        }


def _finish_up(settings: Settings, state: head.HeadState) -> head.HeadState:
    """Bring up what is not up yet. Every step may be done again."""
    logging.getLogger("ray.serve").setLevel(logging.WARNING)  # the person at the command line asked for none of it
    with _connected(state):
        _check_database(settings)
        _place_actors(settings)
        _run_proxy(settings)
        _run_frontend(settings)
        _wait_for_answer(state.url)
    return state


def _run_proxy(settings: Settings) -> None:
    try:
        start_serve(settings.host, settings.port)
    except (RuntimeError, TimeoutError) as error:
        said = [line for line in str(error).splitlines() if line.startswith("[ALERT]")] or [str(error)]
        raise PlatformError("\n".join(["The proxy did not start.", *said])) from error


def _run_frontend(settings: Settings) -> None:
    try:
        serve.run(build_frontend(settings), name=FRONTEND_NAME, route_prefix="/")
    except RuntimeError as error:
        logs = settings.home_path / "ray" / "session_latest" / "logs" / "serve"
        raise PlatformError(f"The frontend did not start: {error} Its log lies in {logs}.") from error


def _place_actors(settings: Settings) -> None:
    control: Any = ray.remote(ControlActor).options(
        name=CONTROL_NAME,
        lifetime="detached",
        get_if_exists=True,
        max_restarts=-1,
        max_concurrency=CONTROL_THREADS,
        num_cpus=0,
        resources={HEAD_RESOURCE: 0.001},
    )
    started = [control.remote(settings).call.remote("wake")]
    started += place_janitors(site_of(settings), [node.id for node in living_nodes()])
    ray.get(started, timeout=READY_TIMEOUT_S)


def _take_down_actors(*, joined: bool) -> None:
    """End what would start containers anew, then the endpoints, each by its own graceful way."""
    for name in ray.util.list_named_actors():
        is_to_end = not joined or name == CONTROL_NAME or name.startswith(OWN_ACTORS)
        if is_to_end and (actor := find_actor(name)) is not None:
            ray.kill(actor)
    if not joined:
        serve.shutdown()
        for left in ray.util.list_named_actors(all_namespaces=True):  # a raylet waits for what Ray Train left to end
            if (actor := find_actor(left["name"], left["namespace"])) is not None:
                ray.kill(actor)
        return
    remove_all_rooms()
    want_nothing()
    for name in serve.status().applications:
        if name == FRONTEND_NAME or name.startswith(APPLICATION):
            serve.delete(name)


def _remove_containers(settings: Settings) -> None:
    """Remove every container of this home, and what they left: with the actors gone, nobody owns one."""
    site = site_of(settings)
    leftovers = available_leftovers(site.driver, site.home)
    reaper = Reaper(available_runtimes(site.driver, site.home), site.home, reap_after_s=0, leftovers=leftovers)
    while reaper.step(time.time()):
        continue
    reaper.step(time.time())
    remove_ended(site.warm_pools, tuple)


def _check_database(settings: Settings) -> None:
    nodes = len(living_nodes())
    if nodes > 1 and settings.resolved_database_url.startswith("sqlite"):
        raise PlatformError(
            f"The cluster has {nodes} nodes and the database is SQLite, which only one machine may open. "
            "Set RAYMAKER_DATABASE_URL to a PostgreSQL database (postgresql://user@host/name)."
        )


def _check_ports(settings: Settings) -> None:
    for name in ("port", "haproxy_stats_port", "haproxy_metrics_port"):
        port = getattr(settings, name)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((settings.host, port))
            except OSError as error:
                raise PlatformError(
                    f"The proxy cannot listen on port {port} of {settings.host}: {error.strerror}. "
                    f"Stop what does, or set RAYMAKER_{name.upper()} to a free port."
                ) from error


@contextmanager
def _connected(state: head.HeadState) -> Iterator[None]:
    ray.init(address=state.address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.WARNING)
    try:
        yield
    finally:
        ray.shutdown()


def _wait_for_answer(url: str) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while not _answers(url):
        if time.monotonic() > deadline:
            raise PlatformError(f"The platform did not answer at {url} within {READY_TIMEOUT_S:.0f} s.")
        time.sleep(0.05)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/ping", timeout=2) as answer:  # noqa: S310 - our own http URL
            return bool(answer.status == 200)  # noqa: PLR2004
    except (urllib.error.URLError, OSError):
        return False
