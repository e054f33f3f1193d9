"""The supervisor of a gang as an actor. A module of its own, since it alone imports Ray Train."""

from __future__ import annotations

import threading

import ray

from raymaker.actors.gang import Gang
from raymaker.actors.gang_claims import withdraw
from raymaker.actors.site import Site
from raymaker.actors.spec import TrainingSpec
from raymaker.platform.cluster.reporter import ControlReporter


class GangActor(Gang):
    """A gang's supervisor where Ray runs it, and where the gang's machines meet.

    Ray makes it again for as long as it dies by accident: the gang, which dies with it, is then started again. When its
    attempt has ended it takes itself away.
    """

    def __init__(self, spec: TrainingSpec, site: Site) -> None:
        self._self = ray.get_runtime_context().current_actor
        super().__init__(spec, site, ControlReporter(), self._self)
        threading.Thread(target=self._leave, name="leave", daemon=True).start()

    def _leave(self) -> None:
        self.wait()
        try:
            withdraw((self._spec.job_name, self._spec.attempt))
        finally:
            ray.kill(self._self, no_restart=True)
