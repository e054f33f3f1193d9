"""One machine of a gang: what runs in each worker of Ray Train, and how it meets its fellows.

The steps are `attempt.py`'s, as on a lone machine. The machines meet at the gang's supervisor, a Ray actor; weights go
through `exchange/across.py`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import ray
from ray import train
from ray.exceptions import RayError
from ray.train.collective import broadcast_from_rank_zero
from ray.util import get_node_ip_address

from raymaker.actors.attempt import Attempt, make_note
from raymaker.actors.exchange.across import RayAcross, greet_coordinator
from raymaker.actors.exchange.engines import can_gloo
from raymaker.actors.exchange.joining import JoiningAcross
from raymaker.actors.exchange.seam import Across, ExchangeError
from raymaker.actors.gang_ready import ready_runtime
from raymaker.actors.instance import Instance
from raymaker.actors.reports import JobReporter, ReportRefused
from raymaker.actors.runtime.base import ContainerRuntime
from raymaker.actors.runtime.select import select_runtime
from raymaker.actors.site import Site, machine_id
from raymaker.actors.spec import Place, Standing, TrainingSpec, host_name

logger = logging.getLogger(__name__)
T = TypeVar("T")

FIRST_PAUSE_S = 0.003
PATIENCE = 0.1
ASK_AGAIN_S = 0.1
"""Whether the others have come is asked again after a tenth of the time that was waited, within these bounds."""
PREEMPTION_LOOK_S = 2.0
HEARTBEAT_S = 2.0


def run_machine(config: Mapping[str, Any]) -> None:
    """Be one machine of the gang, in a worker of Ray Train. Raises AttemptLost, for the gang to be started again."""
    site, spec, supervisor = config["site"], config["spec"], config["supervisor"]
    context = train.get_context()
    index, count = context.get_world_rank(), context.get_world_size()
    if spec is not None:
        standing = None
        if index == 0 and (standing := begin_start(spec, config["reporter"], f"{count} instances")) is not None:
            ray.get(supervisor.begin.remote(standing.spec.start, count))
        if (standing := broadcast_from_rank_zero(standing)) is not None:
            _run(config, standing, select_runtime(site.driver, site.home))
        return
    with ready_runtime(site, index, config["likely"]) as runtime:
        can_gloo()  # loads torch, where there is one
        config["reporter"].greet()
        greet_coordinator(config["coordinator"])
        told = supervisor.await_attempt.remote(index, ray.get_runtime_context().get_node_id())
        if (standing := ray.get(told)) is not None:
            _run(config, standing, runtime)


def begin_start(spec: TrainingSpec, reporter: JobReporter, machines: str) -> Standing | None:
    """Begin a start of an attempt on `machines`, in words; None where the attempt is no longer the job's."""
    try:
        return reporter.begin_start(spec.job_name, spec.attempt, f"Starting training on {machines}")
    except ReportRefused as refusal:
        logger.warning("attempt %d of %s is fenced: %s", spec.attempt, spec.job_name, refusal)
        return None


def _run(config: Mapping[str, Any], standing: Standing, runtime: ContainerRuntime) -> None:
    """Run one start of an attempt, which the supervisor knows to have begun. Raises AttemptLost."""
    context = train.get_context()
    spec, reporter = standing.spec, config["reporter"]
    place = Place(context.get_world_rank(), context.get_world_size(), spec.containers_per_instance)
    coordinator = config.get("coordinator") if spec.containers_per_instance == 1 else None
    crew = GangCrew(config["supervisor"], spec, config["site"], place, coordinator)
    with Instance(spec, config["site"], runtime, place, make_note(reporter, spec, place)) as instance:
        threading.Thread(target=_watch_preemption, args=(instance,), daemon=True).start()
        try:
            Attempt(instance, reporter, crew, "", standing).run()
        except ReportRefused as refusal:
            logger.warning("start %s of %s is fenced: %s", spec.label, spec.job_name, refusal)
        finally:
            instance.clean_up()
            crew.close()


class GangCrew:
    """A machine's fellows in its gang, met on the board beside the supervisor.

    Their first exchange is through `coordinator`; where there is none, the supervisor has one made.
    """

    def __init__(self, supervisor: Any, spec: TrainingSpec, site: Site, place: Place, coordinator: Any) -> None:
        self._supervisor = supervisor
        self._spec = spec
        self._site = site
        self.place = place
        self._across = JoiningAcross(lambda: self._join(0, coordinator))
        threading.Thread(target=self._be_heard, name="heartbeat", daemon=True).start()

    def gather(self, name: str, mine: T) -> Sequence[T]:
        """Give `mine` and return everybody's, by machine."""
        begun = time.monotonic()
        while True:
            ask = self._supervisor.gather.remote(self._spec.start, name, self.place.machine_index, mine)
            found: Sequence[T] | None = ray.get(ask)
            if found is not None:
                return found
            time.sleep(min(max(FIRST_PAUSE_S, (time.monotonic() - begun) * PATIENCE), ASK_AGAIN_S))

    def offer(self, name: str, mine: T) -> Mapping[int, T]:
        """Leave `mine` and return what there is so far, by machine."""
        ask = self._supervisor.offer.remote(self._spec.start, name, self.place.machine_index, mine)
        found: Mapping[int, T] = ray.get(ask)
        return found

    def has_come(self, name: str) -> bool:
        """Tell whether any machine has come there."""
        return bool(ray.get(self._supervisor.has_come.remote(self._spec.start, name)))

    def renew(self, number: int) -> None:
        """Let go of the exchange between the machines, and meet them for another."""
        self.close()
        self._across = JoiningAcross(lambda: self._join(number))

    def wanted_revision(self) -> int:
        """The latest change that was asked for."""
        return int(ray.get(self._supervisor.wanted_revision.remote()))

    def raise_alarm(self) -> None:
        """Tell that a container here ended badly."""
        ray.get(self._supervisor.raise_alarm.remote(self._spec.start))

    def is_alarmed(self) -> bool:
        """Tell whether any machine has raised the alarm."""
        return bool(ray.get(self._supervisor.state.remote(self._spec.start))[1])

    def is_stop_requested(self) -> bool:
        """Tell whether the job is to stop."""
        return bool(ray.get(self._supervisor.state.remote(self._spec.start))[0])

    def hosts(self) -> Mapping[str, str]:
        """Name the containers that run on other machines; two instances of one machine are neighbours in it."""
        machines = self.gather("address", (machine_id(), get_node_ip_address()))
        here = machines[self.place.machine_index][0]
        return {
            host_name(rank): address
            for index, (machine, address) in enumerate(machines)
            if machine != here
            for rank in dataclasses.replace(self.place, machine_index=index).ranks
        }

    def across(self) -> Across | None:
        """Return this machine's end of the exchange between machines, which may still be on their way."""
        return self._across

    def close(self) -> None:
        """Let go of the others."""
        self._across.close()

    def _be_heard(self) -> None:
        """Let the supervisor know, for as long as this process lives, that there are machines which hear of a stop."""
        while True:
            with contextlib.suppress(RayError):  # without it there is nobody to hear this
                self.is_stop_requested()
            time.sleep(HEARTBEAT_S)

    def _join(self, number: int, coordinator: Any = None) -> Across:
        """Meet the other machines. Raises ExchangeError."""
        try:
            if coordinator is None:
                coordinator = ray.get(self._supervisor.coordinator.remote(self._spec.start, number))
        except RayError as error:
            raise ExchangeError(f"the job's supervisor does not say where its machines meet: {error}") from error
        group = f"{self._spec.job_name}-{self._spec.label}" + (f"-r{number}" if number else "")
        return RayAcross(coordinator, self.place, group, timeout_s=self._site.exchange_timeout_s)


def _watch_preemption(instance: Instance) -> None:
    """Tell the containers and the job's events, once, that a node of the gang is about to be taken away.

    All machines must ask Ray Train alike, so each has such a thread for as long as its process lives.
    """
    while (info := train.get_preemption_info()) is None:
        time.sleep(PREEMPTION_LOOK_S)
    deadline_s = None if info.deadline_ms is None else info.deadline_ms / 1000
    instance.announce("preemption", {"machines": info.preempted_ranks, "deadline": deadline_s})
    if instance.place.machine_index == 0:
        where = ", ".join(str(index + 1) for index in info.preempted_ranks)
        instance.note("PreemptionNotice", f"The node of machine {where} is about to be taken away")
