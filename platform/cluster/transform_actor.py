"""A machine of a transform job as an actor. A module of its own, so that its process imports only what it runs."""

from __future__ import annotations

import ray

from raymaker.actors.runtime.select import select_runtime
from raymaker.actors.site import Site
from raymaker.platform.cluster.transform_reporter import ControlTransformReporter
from raymaker.serving.transform.machine import TransformMachine
from raymaker.serving.transform.spec import TransformSpec


class TransformActor(TransformMachine):
    """A machine where Ray runs it: made again for as long as it dies by accident, gone when its attempt has ended."""

    def __init__(self, spec: TransformSpec, site: Site) -> None:
        self._self = ray.get_runtime_context().current_actor
        super().__init__(spec, site, select_runtime(site.driver, site.home, site.standbys), ControlTransformReporter())

    def _run(self) -> None:
        super()._run()
        ray.kill(self._self, no_restart=True)
