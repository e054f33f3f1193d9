"""What tests do to the parts of a gang, with real kills, and how they bring it to the moment at which it is hurt."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raymaker.actors.lease import is_held
from raymaker.platform.cluster.head import session_members
from support.faults import command_line, eventually, kill_process, platform_processes
from support.gangs import Gangs
from support.gate import Gate

CONTROL, FRONTEND, SUPERVISOR = "ray::Control", "frontend", "ray::GangActor"
PREEMPTION_S = 600
STILL_LOOKS = 6
"""After so many looks in a row at which nobody has made a step, all others are taken to wait for one."""


@dataclass(frozen=True)
class GangFaults:
    """The hurts of gangs on a platform of two nodes that reaches its object store through `gate`."""

    gangs: Gangs
    gate: Gate
    node_cpus: int

    def kill_container(self, name: str, rank: int) -> None:
        """`kill -9` all of a rank's container."""
        self._container(name, rank).kill()

    def kill_rank(self, name: str, rank: int) -> None:
        """`kill -9` the process that is the rank, and no other one of its container."""
        os.kill(self.rank_process(name, rank), signal.SIGKILL)

    def kill_machine(self, name: str, index: int) -> None:
        """`kill -9` the actor that is machine `index` of a gang."""
        os.kill(self._machine_process(name, index), signal.SIGKILL)

    def kill_supervisor(self) -> None:
        """`kill -9` the gang's supervisor, on whichever node it is."""
        platform = self.gangs.platform
        nodes = [pid for node in platform.nodes for pid, _ in session_members(node.pid)]
        found = [pid for pid in {*platform_processes(platform.home), *nodes} if SUPERVISOR in command_line(pid)]
        assert len(found) == 1, f"{len(found)} processes are called {SUPERVISOR}"
        os.kill(found[0], signal.SIGKILL)

    def kill_node(self) -> None:
        """`kill -9` the second node's raylet, and have another node join."""
        platform = self.gangs.platform
        platform.remove_node(platform.nodes[-1])
        platform.add_node(self.node_cpus)

    def kill_control_plane(self, name: str) -> None:
        """`kill -9` the control actor and the frontend; returns when they answer again. It costs the job no start."""
        starts = self.gangs.start_count(name)
        home = self.gangs.platform.home
        kill_process(home, CONTROL)
        kill_process(home, FRONTEND)
        again = eventually(lambda: self._start_count(name), "the platform answers again")
        assert again == starts, self.gangs.events(name)

    def announce_preemption(self) -> None:
        """Have Ray tell that the second node is about to be taken away, as a cloud's autoscaler would."""
        platform = self.gangs.platform
        (node,) = {
            found[1]
            for pid, _ in session_members(platform.nodes[-1].pid)
            if (found := re.search(r"--?node[-_]id[= ](\w+)", command_line(pid)))
        }
        command = ["drain-node", f"--node-id={node}", "--reason=DRAIN_NODE_REASON_PREEMPTION"]
        command += ["--reason-message=spot", f"--deadline-remaining-seconds={PREEMPTION_S}"]
        done = platform.ray(*command)
        assert done.returncode == 0, done.stderr

    def machine_on_second_node(self, name: str) -> int:
        """Which machine of a gang the second node is."""
        there = {pid for pid, _ in session_members(self.gangs.platform.nodes[-1].pid)}
        return next(index for index in (0, 1) if self._machine_process(name, index) in there)

    def rank_process(self, name: str, rank: int) -> int:
        """The last of a container's processes: each but the first was started by the one before."""
        pid = int(self._container(name, rank).attrs["State"]["Pid"])
        while children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            pid = int(children[0])
        return pid

    def let_finish(self, name: str) -> None:
        """Have a job that trains come to its end."""
        os.kill(self.rank_process(name, 0), signal.SIGUSR1)

    @contextlib.contextmanager
    def waiting_for(self, name: str, rank: int) -> Iterator[None]:
        """Stop a rank's process, so that the other waits for it in an all-reduce. After the block it goes on."""
        process = os.pidfd_open(self.rank_process(name, rank))
        signal.pidfd_send_signal(process, signal.SIGSTOP)
        try:
            last: list[int] = []

            def stands_still() -> bool:
                last.append(self.gangs.last_step(name))
                return len(last) >= STILL_LOOKS and len(set(last[-STILL_LOOKS:])) == 1

            eventually(stands_still, f"{name} waits for rank {rank}")
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(process, signal.SIGCONT)
            os.close(process)

    def _container(self, name: str, rank: int) -> Any:
        """Find a rank's container; one that had waited has its number in its name alone."""
        (found,) = [
            each
            for each in self.gangs.jobs.containers(name)
            if each.labels.get("raymaker.rank", each.name.rpartition("-")[2]) == str(rank)
        ]
        return found

    def _machine_process(self, name: str, index: int) -> int:
        home = self.gangs.platform.home
        leases = [path for path in (home / "leases").glob(f"training-{name}-*-m{index}") if is_held(home, path.name)]
        assert len(leases) == 1, f"{len(leases)} processes are machine {index} of {name}"
        return int(leases[0].read_text())

    def _start_count(self, name: str) -> int | None:
        try:
            return self.gangs.start_count(name)
        except Exception:  # however it is away
            return None
