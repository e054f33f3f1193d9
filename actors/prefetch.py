"""What a job's machines will need, brought to a node while the gang that will need it still forms.

Only saves time: whatever fails here fails again, and is told, where it counts.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial

from raymaker.actors.algorithm import prepare_algorithm
from raymaker.actors.channels.laying import Laying
from raymaker.actors.channels.once import SharedChannels
from raymaker.actors.contract import is_sharded
from raymaker.actors.errors import WorkError
from raymaker.actors.runtime.base import ContainerRuntime
from raymaker.actors.site import Site
from raymaker.actors.spec import TrainingSpec
from raymaker.actors.storage import ObjectStore

logger = logging.getLogger(__name__)

LOOK_S = 1.0


def prefetch(spec: TrainingSpec, site: Site, runtime: ContainerRuntime, is_over: Callable[[], bool]) -> None:
    """Pull the image and fetch the channels that every container gets whole; keep them here until `is_over`.

    By then the instances that came to this node hold them, or none did and they are removed again.
    """
    channels = SharedChannels(site.jobs / spec.job_name / f"{spec.attempt}-channels")
    channels.hold()
    try:
        store = ObjectStore(site.store)
        laying = Laying.of(store, site, runtime.name, _tell)
        prepare_algorithm(runtime, store, site, image=spec.image, source=spec.source)
        for channel in spec.channels:
            if not (is_sharded(channel) or channel.is_streamed or channel.is_fast):
                channels.fetch(channel.name, partial(laying.lay, channel))
        while not is_over():
            time.sleep(LOOK_S)
    except WorkError as error:
        logger.warning("prefetching for %s failed: %s", spec.job_name, error)
    finally:
        channels.release()


def _tell(kind: str, message: str) -> None:
    logger.info("%s: %s", kind, message)
