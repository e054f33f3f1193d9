"""What a machine of a gang has ready while it waits: its driver, and containers like those of the gang before it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from raymaker.actors.errors import WorkError
from raymaker.actors.readiness import get_ready
from raymaker.actors.runtime.base import ContainerRuntime
from raymaker.actors.runtime.select import select_runtime
from raymaker.actors.runtime.standby import Standbys
from raymaker.actors.site import Site
from raymaker.actors.spec import TrainingSpec

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def ready_runtime(site: Site, index: int, likely: TrainingSpec | None) -> Iterator[ContainerRuntime]:
    """The driver of machine `index`, with the image of an attempt like `likely`, and containers that wait where wished.

    What of them was not used ends with the block. Raises StartError without a driver.
    """
    with contextlib.ExitStack() as stack:
        standbys = None
        if site.standby_count:
            standbys = stack.enter_context(contextlib.closing(Standbys(site.home, site.standby_count)))
        runtime = select_runtime(site.driver, site.home, standbys)
        if likely is not None:
            try:
                get_ready(likely, site, runtime, standbys, index)
            except WorkError as error:
                logger.warning("nothing is ready for a job like %s: %s", likely.job_name, error)
        yield runtime
