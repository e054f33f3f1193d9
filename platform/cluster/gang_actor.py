"""The supervisors of gangs as actors. A module of its own, since it alone imports Ray Train."""

from __future__ import annotations

import threading
from typing import Any

import ray

from raymaker.actors.gang import Gang
from raymaker.actors.gang_waiting import WaitingGang
from raymaker.actors.site import Site
from raymaker.actors.spec import TrainingSpec
from raymaker.platform.cluster.reporter import ControlReporter


class GangActor(Gang):
    """A gang's supervisor where Ray runs it, and where the gang's machines meet.

    Ray makes it again for as long as it dies by accident: the gang, which dies with it, is then started again. When its
    attempt has ended it takes itself away.
    """

    def __init__(self, spec: TrainingSpec, site: Site) -> None:
        actor = ray.get_runtime_context().current_actor
        super().__init__(site, ControlReporter(), actor)
        self.run(spec)
        threading.Thread(target=_leave, args=(self, actor), name="leave", daemon=True).start()


class WaitingGangActor(WaitingGang):
    """A supervisor that waits for its attempt, and its gang with it. Ray does not make it again.

    Where it dies while it runs an attempt, the reconciler has that supervised by a `GangActor`.
    """

    def __init__(self, name: str, machine_count: int, site: Site, likely: TrainingSpec | None) -> None:
        actor = ray.get_runtime_context().current_actor
        super().__init__(name, machine_count, site, ControlReporter(), actor, likely=likely)
        threading.Thread(target=_leave, args=(self, actor), name="leave", daemon=True).start()


def _leave(gang: Gang, actor: Any) -> None:
    """End a supervisor's process once it has nothing left to do."""
    try:
        gang.leave()
    finally:
        ray.kill(actor, no_restart=True)
