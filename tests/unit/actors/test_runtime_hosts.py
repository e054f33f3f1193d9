"""Names and where they lead, as far as no socket is asked."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

from raymaker.actors.runtime.hosts import hosts_file, loopback_addresses, names_beside_bridge, names_on_machine
from raymaker.actors.spec import ContainerSpec, Network

NAMES = [f"algo-{number}" for number in range(1, 301)]


def test_every_name_of_a_group_has_an_address_of_its_own_and_another_in_another_group() -> None:
    one, two = loopback_addresses("one", NAMES), loopback_addresses("two", NAMES)
    assert len({*one.values(), *two.values()}) == 600
    assert one == loopback_addresses("one", NAMES)
    assert all(IPv4Address(address) in IPv4Network("127.0.0.0/8") for address in one.values())
    assert not any(IPv4Address(address) in IPv4Network("127.0.0.0/16") for address in one.values())


def test_a_group_on_one_machine_has_loopback_addresses() -> None:
    peers = ("algo-1", "algo-2")
    spec = ContainerSpec("job", (), hostname="algo-2", network=Network.OPEN, group="one", peers=peers)
    assert names_on_machine(spec) == loopback_addresses("one", peers)


def test_beside_a_bridge_only_those_elsewhere_are_named() -> None:
    hosts = {"algo-1": "203.0.113.1", "algo-2": "203.0.113.1", "algo-3": "203.0.113.2"}
    spec = ContainerSpec("job", (), hostname="algo-1", network=Network.OPEN, peers=("algo-1", "algo-2"), hosts=hosts)
    assert names_beside_bridge(spec) == {"algo-3": "203.0.113.2"}


def test_without_a_network_a_container_knows_itself_and_with_an_internal_one_its_engine_says_so() -> None:
    hosts = {"algo-2": "203.0.113.1"}
    alone = ContainerSpec("job", (), hostname="algo-1", group="one", peers=("algo-1", "algo-3"), hosts=hosts)
    assert names_beside_bridge(alone) == names_on_machine(alone) == {"algo-1": "127.0.0.1"}
    assert names_beside_bridge(ContainerSpec("job", (), network=Network.INTERNAL, hosts=hosts)) == {}
    assert names_on_machine(ContainerSpec("job", (), hosts=hosts)) == {}


def test_the_hosts_file_names_each_once_before_what_the_machine_knows() -> None:
    names = {"algo-1": "127.0.0.1", "algo-2": "203.0.113.1"}
    assert hosts_file(names, "192.0.2.1 machine\n").splitlines() == [
        "127.0.0.1 localhost algo-1",
        "203.0.113.1 algo-2",
        "192.0.2.1 machine",
    ]
