"""The few calls to a container engine that the docker driver is made of, each with the engine's oddities smoothed.

Knows containers by id and nothing of specs; who retries, and for how long, is `docker.py`'s matter.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import docker
import requests
import urllib3.exceptions
from docker.constants import DEFAULT_DOCKER_API_VERSION
from docker.errors import APIError, DockerException, NotFound
from docker.utils import kwargs_from_env

from raymaker.actors.errors import EngineAway
from raymaker.actors.runtime.base import LogLine
from raymaker.actors.runtime.docker_log import NS_PER_S, parse_log

DEFAULT_SOCKET = "unix:///var/run/docker.sock"
GOING_S = 30.0
"""How long a removal may take that somebody else began."""
RETRY_S = 0.25
LOST = (requests.exceptions.ConnectionError, requests.exceptions.Timeout, requests.exceptions.ChunkedEncodingError)
"""What a call ends with when the engine goes away meanwhile."""


@contextlib.contextmanager
def engine(timeout_s: int) -> Iterator[docker.APIClient]:
    """Connect to this machine's engine (DOCKER_HOST, else its usual socket). Raises EngineAway, also in the block."""
    try:
        api = connect(timeout_s)
    except (DockerException, OSError) as error:
        raise _away(error) from error
    try:
        yield api
    except LOST as error:
        raise _away(error) from error
    finally:
        api.close()


def connect(timeout_s: int) -> docker.APIClient:
    """Connect to this machine's engine; whoever does closes it. Raises DockerException, OSError.

    The engine is asked of itself once in a process, as that takes it longer than to find an image.
    """
    options, url = _where()
    return _client(options, url, _facts(options, url, timeout_s).api_version, timeout_s)


@dataclass(frozen=True)
class EngineFacts:
    """What an engine says of itself."""

    api_version: str
    architecture: str


_known_facts: dict[str, EngineFacts] = {}
"""Of the engines that this process has asked, by address."""


def connect_client(timeout_s: int) -> tuple[docker.DockerClient, EngineFacts]:
    """Connect to this machine's engine by the SDK's wide interface, as `connect` does."""
    options, url = _where()
    facts = _facts(options, url, timeout_s)
    client = docker.DockerClient(version=facts.api_version, timeout=timeout_s, **options)
    _pass_proxies_by(client.api, url)
    return client, facts


def engine_answers(timeout_s: int = 2) -> bool:
    """Tell whether a container engine answers on this machine."""
    try:
        with engine(timeout_s) as api:
            return bool(api.ping())
    except (EngineAway, APIError):
        return False


def find(api: docker.APIClient, name: str) -> dict[str, Any] | None:
    """Look a container up by name or id; None where there is none, or one that is just being removed."""
    try:
        container: dict[str, Any] = api.inspect_container(name)
    except NotFound:
        return None
    return None if container["State"]["Status"] in {"removing", "dead"} else container


def ends_within(api: docker.APIClient, container_id: str, timeout_s: float) -> bool:
    """Have the engine answer when the container has ended; False where it did not in time."""
    try:
        api.wait(container_id, timeout=timeout_s)  # type: ignore[arg-type]  # requests takes fractions of a second
    except NotFound:
        return True  # it was removed just now
    except requests.exceptions.ReadTimeout:
        return False
    except requests.exceptions.ConnectionError as error:
        if error.args and isinstance(error.args[0], urllib3.exceptions.ReadTimeoutError):
            return False
        raise
    return True


def read_log(api: docker.APIClient, container_id: str, since_ns: int = 0, *, follow: bool = False) -> Iterator[LogLine]:
    """Read what came after `since_ns`. The engine is asked for a second more: lines of equal times belong together."""
    since_s = since_ns // NS_PER_S - 1
    stream: Any = api.logs(
        container_id,
        stdout=True,
        stderr=True,
        stream=True,
        follow=follow,
        timestamps=True,
        since=max(since_s, 0) or None,
    )
    # Its own close() leaves the socket open where not everything was read.
    with contextlib.closing(stream._response):  # noqa: SLF001
        yield from (line for line in parse_log(stream) if line.time_ns > since_ns)


def remove(api: docker.APIClient, container_id: str) -> None:
    """Remove it with its volumes; where somebody else is already at it, wait until it is gone."""
    deadline = time.monotonic() + GOING_S
    with unless(requests.codes.not_found, requests.codes.conflict):
        api.remove_container(container_id, v=True, force=True)
    while _exists(api, container_id) and time.monotonic() < deadline:
        time.sleep(RETRY_S)


@contextlib.contextmanager
def unless(*status_codes: int) -> Iterator[None]:
    """Pass over these answers of the engine."""
    try:
        yield
    except APIError as error:
        if error.status_code not in status_codes:
            raise


def _facts(options: Mapping[str, Any], url: str, timeout_s: int) -> EngineFacts:
    if url not in _known_facts:
        with contextlib.closing(_client(options, url, DEFAULT_DOCKER_API_VERSION, timeout_s)) as api:
            found = api.version(api_version=False)
        _known_facts[url] = EngineFacts(str(found["ApiVersion"]), str(found["Arch"]))
    return _known_facts[url]


def _client(options: Mapping[str, Any], url: str, api_version: str, timeout_s: int) -> docker.APIClient:
    api = docker.APIClient(version=api_version, timeout=timeout_s, **options)
    _pass_proxies_by(api, url)
    return api


def _where() -> tuple[dict[str, Any], str]:
    """The SDK's options by which this machine's engine is reached, and its address; raises OSError if it is away."""
    options: dict[str, Any] = {**kwargs_from_env()}
    url = str(options.get("base_url", DEFAULT_SOCKET))
    _knock(url)
    return options, url


def _pass_proxies_by(api: docker.APIClient, url: str) -> None:
    """Have no call to a socket of this machine look for proxies among all variables, a seventh of its time."""
    if url.startswith("unix://"):
        api.trust_env = False


def _knock(url: str) -> None:
    """Try a socket of this machine: the SDK leaves one open for every time that it finds nobody there."""
    if url.startswith("unix://"):
        with socket.socket(socket.AF_UNIX) as trial:
            trial.connect(url.removeprefix("unix://"))


def _exists(api: docker.APIClient, container_id: str) -> bool:
    try:
        api.inspect_container(container_id)
    except NotFound:
        return False
    return True


def _away(error: Exception) -> EngineAway:
    return EngineAway(f"the container engine does not answer: is it running, and may this account use it? ({error})")
