"""The networks that raymaker makes in a container engine: one for scoring, one for all that may go out, one per group.

A group's network is made when its first container needs it, and goes with its last one. No lock guards that: the engine
takes one bridge of a name, and keeps a network that a running container is in; whoever loses a race looks again.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import docker
import requests
from docker.errors import APIError
from docker.types import IPAMConfig, IPAMPool, NetworkingConfig

from raymaker.actors.errors import StartError
from raymaker.actors.runtime.base import LABEL_GROUP, LABEL_HOME, LABEL_OWNER, ContainerHandle, home_tag
from raymaker.actors.runtime.docker_engine import engine, unless
from raymaker.actors.runtime.docker_options import group_label
from raymaker.actors.spec import ContainerSpec, Network

CALL_TIMEOUT_S = 120
BRIDGE_NAME, BRIDGE_ICC = "com.docker.network.bridge.name", "com.docker.network.bridge.enable_icc"
MAX_INTERFACE_NAME = 15
NETWORK_NAMES = {Network.INTERNAL: "raymaker-internal", Network.OPEN: "raymaker-open"}
GROUP_POOL = IPv4Network("10.213.0.0/16")
"""Where the groups' subnets lie. An engine's own pools hold about thirty networks, which as many jobs would use up."""
GROUP_PREFIX = 25
"""125 containers a group, 512 groups."""
MAKE_TRIES = 40
MAKE_RETRY_S = 0.1
REFUSED = frozenset({requests.codes.forbidden, requests.codes.conflict})
"""Answers to who lost a race: the subnet or the name was taken meanwhile."""
ROUTES = Path("/proc/net/route")


def network_of(api: docker.APIClient, spec: ContainerSpec, home: Path) -> str:
    """Name the network that the container belongs to, as the engine is to be asked for it; made where it is missing.

    Raises StartError where it cannot be made, or is not as it must be.
    """
    if spec.network in {Network.NONE, Network.HOST}:
        return str(spec.network.value)
    if group_label(spec):
        return _group_network(api, spec, home)
    return _shared_network(api, spec.network)


def joining(api: docker.APIClient, spec: ContainerSpec, network: str) -> NetworkingConfig | None:
    """Say how the container joins its group's network, where neighbours find its hostname. None: it has no group."""
    if not group_label(spec):
        return None
    aliases = [] if spec.hostname is None else [spec.hostname]
    endpoint = api.create_endpoint_config(aliases=aliases)
    return NetworkingConfig({network: endpoint})  # type: ignore[arg-type]  # one by name, which its stubs do not know


def remove_unused(api: docker.APIClient, home: str, group: str) -> None:
    """Remove the group's network where no container is left in it, running or not."""
    if group not in _used_groups(api, home):
        for network in api.networks(filters={"label": [f"{LABEL_HOME}={home}", f"{LABEL_GROUP}={group}"]}):
            with unless(requests.codes.not_found, requests.codes.forbidden):  # gone, or somebody is just joining it
                api.remove_network(network["Id"])


class UnusedNetworks:
    """The groups' networks of this home that no container is in, as leftovers for the reaper."""

    name = "docker networks"

    def __init__(self, home: Path) -> None:
        self._home = home

    def owned(self, labels: Mapping[str, str]) -> list[tuple[ContainerHandle, Mapping[str, str]]]:
        """List those that carry all of `labels`. Raises EngineAway."""
        with engine(CALL_TIMEOUT_S) as api:
            wanted = [LABEL_GROUP, *(f"{name}={value}" for name, value in labels.items())]
            found = api.networks(filters={"label": wanted})
            used = _used_groups(api, str(self._home)) if found else set()
        return [
            (ContainerHandle(self.name, network["Name"], network["Id"]), network["Labels"])
            for network in found
            if network["Labels"][LABEL_GROUP] not in used
        ]

    def remove(self, handle: ContainerHandle) -> None:
        """Remove one; that it is gone is no error."""
        with engine(CALL_TIMEOUT_S) as api, unless(requests.codes.not_found):
            api.remove_network(handle.id)


def free_subnets(taken: Iterable[IPv4Network], start: int) -> Iterator[IPv4Network]:
    """Yield the subnets of the pool that overlap none of `taken`, beginning at the `start`-th. Pure."""
    taken = list(taken)
    subnets = list(GROUP_POOL.subnets(new_prefix=GROUP_PREFIX))
    start %= len(subnets)
    for subnet in (*subnets[start:], *subnets[:start]):
        if not any(subnet.overlaps(other) for other in taken):
            yield subnet


def parse_routes(table: str) -> list[IPv4Network]:
    """Read where this machine's routes lead (/proc/net/route), without the default one. Pure."""
    found = []
    for line in table.splitlines()[1:]:
        fields = line.split()
        address, mask = (int.from_bytes(bytes.fromhex(fields[column]), "little") for column in (1, 7))
        if mask:
            found.append(IPv4Network((address, mask.bit_count())))
    return found


def _shared_network(api: docker.APIClient, network: Network) -> str:
    """Return the id of a network that all containers of its kind share, made where it is missing.

    Names of networks need not be unique, those of bridges must: of several made at once only one comes to be.
    """
    name, is_internal = NETWORK_NAMES[network], network is Network.INTERNAL
    options = {BRIDGE_NAME: name[:MAX_INTERFACE_NAME], BRIDGE_ICC: "false" if is_internal else "true"}
    found = _find(api, name)
    for tries_left in reversed(range(MAKE_TRIES)):
        if found is not None:
            break
        try:
            api.create_network(name, driver="bridge", internal=is_internal, check_duplicate=True, options=options)
        except APIError as error:
            if error.status_code not in REFUSED or not tries_left:
                raise StartError(f"network {name} could not be made: {error.explanation}") from error
            time.sleep(MAKE_RETRY_S)  # whoever won holds the bridge's name before the engine lists the network
        found = _find(api, name)
    if found is None or found["Internal"] is not is_internal:
        raise _is_strange(name)
    return str(found["Id"])


def _group_network(api: docker.APIClient, spec: ContainerSpec, home: Path) -> str:
    """Return the name of the group's network: its id would not outlive that it is removed and made again."""
    name = f"raymaker-{home_tag(home)}-{spec.group}"
    labels = {LABEL_HOME: str(home), **group_label(spec), LABEL_OWNER: spec.labels.get(LABEL_OWNER, spec.name)}
    found = _find(api, name) or _make_group_network(api, name, labels)
    if found["Internal"] or any(
        (found["Labels"] or {}).get(label) != labels[label] for label in (LABEL_HOME, LABEL_GROUP)
    ):
        raise _is_strange(name)
    return name


def _make_group_network(api: docker.APIClient, name: str, labels: Mapping[str, str]) -> dict[str, Any]:
    """Make it in the first free subnet; where another makes it at the same time, theirs is taken."""
    digest = hashlib.sha256(name.encode()).hexdigest()
    subnets = free_subnets(_taken(api), int(digest[:8], 16))
    for tries_left in reversed(range(MAKE_TRIES)):
        subnet = next(subnets, None)
        pools = None if subnet is None else IPAMConfig(pool_configs=[IPAMPool(subnet=str(subnet))])
        options = {BRIDGE_NAME: f"rm-{digest}"[:MAX_INTERFACE_NAME]}
        try:
            api.create_network(
                name, driver="bridge", check_duplicate=True, labels=dict(labels), options=options, ipam=pools
            )
        except APIError as error:
            if error.status_code not in REFUSED or not tries_left:
                raise StartError(
                    f"network {name} could not be made: {error.explanation}; see whether the engine has room for "
                    "another (docker network prune removes those that nothing uses)"
                ) from error
        if (found := _find(api, name)) is not None:
            return found
        time.sleep(MAKE_RETRY_S)
    raise StartError(f"network {name} was removed as often as it was made: try again")


def _taken(api: docker.APIClient) -> Iterator[IPv4Network]:
    """Where the engine's networks and this machine's routes lie."""
    for network in api.networks():
        for config in (network.get("IPAM") or {}).get("Config") or []:
            with contextlib.suppress(ValueError):  # it is one of the next Internet Protocol's
                yield IPv4Network(config.get("Subnet", ""), strict=False)
    with contextlib.suppress(OSError):
        yield from parse_routes(ROUTES.read_text())


def _used_groups(api: docker.APIClient, home: str) -> set[str]:
    labels = [LABEL_GROUP, f"{LABEL_HOME}={home}"]
    return {item["Labels"][LABEL_GROUP] for item in api.containers(all=True, filters={"label": labels})}


def _find(api: docker.APIClient, name: str) -> dict[str, Any] | None:
    found: list[dict[str, Any]] = [item for item in api.networks(names=[name]) if item["Name"] == name]
    return found[0] if found else None


def _is_strange(name: str) -> StartError:
    return StartError(f"network {name} is not as raymaker makes it: remove it (docker network rm {name})")
