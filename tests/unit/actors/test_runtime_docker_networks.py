"""Which subnet a group's network gets: one that is free, wherever the search begins."""

from __future__ import annotations

from ipaddress import IPv4Network
from itertools import islice

from raymaker.actors.runtime.docker_networks import GROUP_POOL, free_subnets, parse_routes

ROUTES = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
"""


def test_there_are_subnets_for_hundreds_of_groups_and_none_overlap() -> None:
    subnets = list(free_subnets([], 7))
    assert len(subnets) == len(set(subnets)) == 512
    assert all(subnet.subnet_of(GROUP_POOL) and subnet.num_addresses == 128 for subnet in subnets)


def test_the_search_begins_where_it_is_told_and_goes_round() -> None:
    assert [str(subnet) for subnet in islice(free_subnets([], 512 + 511), 2)] == ["10.213.255.128/25", "10.213.0.0/25"]


def test_what_overlaps_is_passed_over() -> None:
    taken = [IPv4Network("10.213.0.0/24"), IPv4Network("10.213.1.7/32"), IPv4Network("172.17.0.0/16")]
    assert str(next(free_subnets(taken, 0))) == "10.213.1.128/25"
    assert list(free_subnets([IPv4Network("10.0.0.0/8")], 0)) == []


def test_routes_are_read_without_the_default_one() -> None:
    assert parse_routes(ROUTES) == [IPv4Network("172.17.0.0/16"), IPv4Network("192.0.2.0/24")]
