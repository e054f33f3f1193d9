"""The supervisor as an actor. A module of its own, so that its process imports neither Serve nor the control plane."""

from __future__ import annotations

import ray

from raymaker.actors.runtime.select import select_runtime
from raymaker.actors.site import Site, machine_id
from raymaker.actors.spec import TrainingSpec
from raymaker.actors.supervisor import Supervisor
from raymaker.platform.cluster.reporter import ControlReporter


class SupervisorActor(Supervisor):
    """A supervisor where Ray runs it. It names its machine, so that the platform can fence an attempt that moved.

    Ray makes it again for as long as it dies by accident; when its attempt has ended it takes itself away.
    """

    def __init__(self, spec: TrainingSpec, site: Site) -> None:
        self._self = ray.get_runtime_context().current_actor
        runtime = select_runtime(site.driver, site.home)
        super().__init__(spec, site, runtime, ControlReporter(), machine_id())

    def _run(self) -> None:
        super()._run()
        ray.kill(self._self, no_restart=True)
