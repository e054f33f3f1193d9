"""What is had ready for an attempt that may come: its image here, and containers like its own that wait."""

from __future__ import annotations

from raymaker.actors.algorithm import prepare_algorithm
from raymaker.actors.contract import Seat
from raymaker.actors.runtime.base import ContainerRuntime
from raymaker.actors.runtime.standby import Standbys
from raymaker.actors.site import Site
from raymaker.actors.spec import Place, TrainingSpec
from raymaker.actors.storage import ObjectStore
from raymaker.actors.training_container import Machine, training_container


def get_ready(
    likely: TrainingSpec, site: Site, runtime: ContainerRuntime, standbys: Standbys | None, index: int = 0
) -> None:
    """Get the image of an attempt like `likely` here, and have the containers of its machine `index` wait.

    Does nothing where containers are plain processes. Raises WorkError.
    """
    if runtime.name != "docker":
        return
    algorithm = prepare_algorithm(runtime, ObjectStore(site.store), site, image=likely.image, source=likely.source)
    if standbys is None:
        return
    place = Place(index, likely.instance_count, likely.containers_per_instance)
    for number in range(place.containers_per_machine):
        seat, machine = Seat(place, number), Machine(site, runtime.name, "")
        standbys.expect(training_container(likely, seat, machine, algorithm, mounts=(), hosts={}))
    standbys.replenish()
