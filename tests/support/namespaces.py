"""Network namespaces that stand for machines on one wire, each with an address of its own."""

from __future__ import annotations

import contextlib
import json
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class WiredMachine:
    """One of two machines: the namespace that stands for it, and its address on the wire."""

    namespace: str
    address: str

    @property
    def inside(self) -> list[str]:
        """The start of a command line that runs the rest on this machine, whose folders are everybody's."""
        return ["nsenter", f"--net=/run/netns/{self.namespace}", "--"]

    def cut(self) -> None:
        """Take the wire from this machine, as when somebody pulls it out: nobody is told."""
        self._ip("link", "set", "wire", "down")

    def sent_bytes(self) -> int:
        """How much this machine has sent over the wire."""
        (link,) = json.loads(self._ip("-s", "-j", "link", "show", "wire"))
        return int(link["stats64"]["tx"]["bytes"])

    def _ip(self, *arguments: str) -> str:
        command = ["ip", "-n", self.namespace, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@contextlib.contextmanager
def two_wired_machines() -> Iterator[tuple[WiredMachine, WiredMachine]]:
    """Two machines that reach each other and nothing else; after the block they are gone."""
    one, two = (WiredMachine(f"rm-{uuid.uuid4().hex[:8]}", f"198.51.100.{number}") for number in (1, 2))
    try:
        for machine in (one, two):
            _run("ip", "netns", "add", machine.namespace)
        wire = ["type", "veth", "peer", "name", "wire", "netns", two.namespace]
        _run("ip", "link", "add", "wire", "netns", one.namespace, *wire)
        for machine in (one, two):
            steps = (f"addr add {machine.address}/24 dev wire", "link set wire up", "link set lo up")
            for step in (*steps, "route add default dev wire"):  # by its default route Ray finds a machine's address
                machine._ip(*step.split())
        yield one, two
    finally:
        for machine in (one, two):
            subprocess.run(["ip", "netns", "delete", machine.namespace], check=False)


def _run(*command: str) -> None:
    subprocess.run(command, check=True)
