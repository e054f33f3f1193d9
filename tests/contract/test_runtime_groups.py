"""How containers of a group find each other, and by what address those elsewhere are known: every driver."""

from __future__ import annotations

import uuid

from contract.runtime_harness import SHARED, SOON_S, Harness

from raymaker.actors.runtime.base import ContainerHandle
from raymaker.actors.spec import ContainerSpec, Network

MEET = """
import socket, sys, time
own, *others = sys.argv[1:]
server = socket.create_server((own, 23456))
def call(name):
    deadline = time.monotonic() + 20
    while True:
        try:
            return socket.create_connection((name, 23456), 2)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
for other in others:
    with call(other) as connection:
        connection.sendall(own.encode())
heard = []
while len(heard) < len(others):
    connection, _ = server.accept()
    with connection:
        heard.append(connection.recv(100).decode())
print(*sorted(heard), flush=True)
"""
RESOLVE = """python3 -c '
import socket, sys
for name in sys.argv[1:]:
    try:
        print(name, socket.gethostbyname(name))
    except OSError:
        print(name, "unknown")
' """
FAR = "203.0.113.7"


def _start_group(harness: Harness, names: tuple[str, ...], script: str, **fields: object) -> list[ContainerHandle]:
    group = uuid.uuid4().hex
    defaults = {"group": group, "peers": names, "network": Network.OPEN}
    return [harness.start(script.format(name=name), hostname=name, **{**defaults, **fields}) for name in names]


def _said(harness: Harness, handle: ContainerHandle) -> list[str]:
    status = harness.runtime().wait(handle, SOON_S)
    assert status is not None
    assert status.code == 0, harness.said(handle)
    return harness.said(handle)


def test_containers_of_a_group_reach_each_other_by_name_all_on_one_port(harness: Harness) -> None:
    (harness.shared / "meet.py").write_text(MEET)
    names = ("algo-1", "algo-2", "algo-3")
    run = f"exec python3 {SHARED}/meet.py {{name}} $(echo {' '.join(names)} | sed s/{{name}}//)"
    handles = _start_group(harness, names, run)
    assert [_said(harness, handle) for handle in handles] == [["algo-2 algo-3"], ["algo-1 algo-3"], ["algo-1 algo-2"]]


def test_two_groups_of_equal_names_do_not_meet(harness: Harness) -> None:
    """Each second container calls the first of its own group, not the other's."""
    (harness.shared / "meet.py").write_text(MEET)
    groups = [
        _start_group(harness, ("algo-1", "algo-2"), f"exec python3 {SHARED}/meet.py {{name}} algo-1 algo-2")
        for _ in range(2)
    ]
    for handles in groups:
        assert [_said(harness, handle) for handle in handles] == [["algo-1 algo-2"]] * 2


def test_without_a_network_only_the_own_name_is_known(harness: Harness) -> None:
    hosts = {"algo-3": FAR}
    handles = _start_group(
        harness, ("algo-1", "algo-2"), f"{RESOLVE} algo-1 algo-2 algo-3 localhost", network=Network.NONE, hosts=hosts
    )
    known = {"localhost 127.0.0.1", "algo-3 unknown"}
    assert set(_said(harness, handles[0])) == {"algo-1 127.0.0.1", "algo-2 unknown", *known}
    assert set(_said(harness, handles[1])) == {"algo-1 unknown", "algo-2 127.0.0.1", *known}


def test_hosts_elsewhere_are_known_by_the_address_that_is_told(harness: Harness) -> None:
    (handle,) = _start_group(harness, ("algo-1",), f"{RESOLVE} algo-2", hosts={"algo-2": FAR})
    assert _said(harness, handle) == [f"algo-2 {FAR}"]


def test_hosts_that_are_said_to_be_elsewhere_and_are_here_are_found_all_the_same(harness: Harness) -> None:
    """As where two nodes share a machine: each knows the other's containers by an address that is its own, too."""
    (harness.shared / "meet.py").write_text(MEET)
    group = uuid.uuid4().hex
    handles = [
        harness.start(
            f"exec python3 {SHARED}/meet.py {name} {other}",
            hostname=name,
            group=group,
            peers=(name,),
            hosts={other: "127.0.0.1"},
            network=Network.OPEN,
        )
        for name, other in (("algo-1", "algo-2"), ("algo-2", "algo-1"))
    ]
    assert [_said(harness, handle) for handle in handles] == [["algo-2"], ["algo-1"]]


def test_a_group_of_one_knows_itself(harness: Harness) -> None:
    (handle,) = _start_group(harness, ("algo-1",), f"{RESOLVE} algo-1 algo-2")
    own, other = _said(harness, handle)
    assert own.startswith("algo-1 ")
    assert "unknown" not in own
    assert other == "algo-2 unknown"


def test_a_spec_has_no_neighbours_unless_it_says_so() -> None:
    spec = ContainerSpec("job", ("train",))
    assert (spec.group, spec.peers, dict(spec.hosts), spec.gpu_ids, spec.read_only_root) == (None, (), {}, (), False)
