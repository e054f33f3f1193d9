"""Which names a container finds others by, and where they lead. How they are made known is the drivers' matter."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address

from raymaker.actors.spec import ContainerSpec, Network

LOOPBACK = "127.0.0.1"
FIRST_OF_GROUPS = int(IPv4Address("127.1.0.0"))
"""Below it lie the addresses that machines use themselves."""
LAST_OF_GROUPS = int(IPv4Address("127.255.0.0"))


def names_beside_bridge(spec: ContainerSpec) -> dict[str, str]:
    """Names for an engine's container, whose group the engine makes known itself where it has a network of its own.

    Hosts that turn out to be on this very machine, as where several nodes share one, are found in the group's network.
    """
    if spec.network is Network.HOST:
        return names_on_machine(spec)
    if spec.network is Network.OPEN:
        known = {*spec.peers, spec.hostname}
        return {
            name: address
            for name, address in spec.hosts.items()
            if name not in known and (spec.group is None or not is_own_address(address))
        }
    if spec.network is Network.NONE and spec.hostname is not None:
        return {spec.hostname: LOOPBACK}  # engines give a name only to containers with a network
    return {}


def names_on_machine(spec: ContainerSpec) -> dict[str, str]:
    """Names for a container that shares this machine's network, its own included.

    Containers of a group get addresses of their own where all are on this machine, so that servers on a fixed port do
    not collide. Where some are elsewhere they must reach these by the machine's address.
    """
    own = {} if spec.hostname is None else {spec.hostname: LOOPBACK}
    if spec.network not in {Network.OPEN, Network.HOST}:
        return own
    elsewhere = {name: address for name, address in spec.hosts.items() if not is_own_address(address)}
    if spec.group is None:
        return {**own, **spec.hosts}
    if elsewhere:
        machine = address_towards(next(iter(elsewhere.values())))
        return {**own, **dict.fromkeys(spec.peers, machine), **spec.hosts}
    return {**own, **loopback_addresses(spec.group, sorted({*own, *spec.peers, *spec.hosts}))}


def hosts_file(names: Mapping[str, str], machines: str) -> str:
    """Write /etc/hosts: these names, then what `machines`, the machine's own, has besides."""
    local = " ".join(["localhost", *(name for name, address in names.items() if address == LOOPBACK)])
    others = [f"{address} {name}" for name, address in names.items() if address != LOOPBACK]
    return "\n".join([f"{LOOPBACK} {local}", *others, machines])


def loopback_addresses(group: str, names: Sequence[str]) -> dict[str, str]:
    """Give every name an address in 127/8: the same whoever asks, and rarely one that another group has. Pure."""
    digest = int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "big")
    first = FIRST_OF_GROUPS + digest % (LAST_OF_GROUPS - FIRST_OF_GROUPS)
    return {name: str(IPv4Address(first + number)) for number, name in enumerate(names)}


def is_own_address(address: str) -> bool:
    """Tell whether the address is one of this machine's."""
    try:
        with _datagram_socket(address) as trial:
            trial.bind((address, 0))
    except OSError:
        return False
    return True


def address_towards(address: str) -> str:
    """The address that this machine is known by at another one. Sends nothing."""
    try:
        with _datagram_socket(address) as trial:
            trial.connect((address, 9))
            return str(trial.getsockname()[0])
    except OSError:
        return LOOPBACK  # no way leads there


def _datagram_socket(address: str) -> socket.socket:
    return socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
