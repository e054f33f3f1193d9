"""Keeps one replica's scoring container alive: makes it ready, starts it, sees it die, starts another in its place.

All of it blocks, on threads of its own. Knows neither Serve nor HTTP: it tells where the container answers.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from raymaker.actors.algorithm import prepare_algorithm
from raymaker.actors.errors import WorkError
from raymaker.actors.lease import Lease, LeaseHeld
from raymaker.actors.runtime.base import LABEL_HOME, LABEL_KIND, LABEL_OWNER, LogLine
from raymaker.actors.runtime.select import select_runtime
from raymaker.actors.scoring import Address, ScoringContainer, fetch_model
from raymaker.actors.site import Site
from raymaker.actors.storage import ObjectStore
from raymaker.serving.spec import EndpointSpec

logger = logging.getLogger(__name__)

LEASE_TIMEOUT_S = 30.0
STEADY_S = 60.0
"""A container that lived this long had started well: its death counts anew."""
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
GIVE_UP_AFTER = 5
"""Deaths and failed starts in a row after which this machine is no longer believed to be the right place."""


class ContainerKeeper:
    """One container on its replica's machine: the one called `hostname`, where the variant has several.

    `on_address` hears where the container answers, None while none does.

    `tell` hears what happened, in words for the endpoint's owner, and whether something failed.
    """

    def __init__(
        self,
        spec: EndpointSpec,
        site: Site,
        replica_id: str,
        hostname: str | None = None,
        *,
        on_address: Callable[[Address | None], None],
        tell: Callable[[str, bool], None],
        on_log: Callable[[Sequence[LogLine]], None],
    ) -> None:
        self._spec = spec
        self._site = site
        self._hostname = hostname
        self._name = "-".join(filter(None, ("scoring", spec.endpoint_name, replica_id, hostname)))
        self._folder = _endpoints(site) / self._name
        self._on_address = on_address
        self._tell = tell
        self._on_log = on_log
        self._stopping = threading.Event()
        self._rests = False
        self._is_wanted = threading.Event()
        """Whether a container that rests is to be started."""
        self._lease: Lease | None = None
        self._container: ScoringContainer | None = None
        self._watcher = threading.Thread(target=self._watch, args=(), name="keeper", daemon=True)
        self._started_at = 0.0
        self.failure_count = 0
        """Deaths and failed starts since the container last was steady."""

    @property
    def model_folder(self) -> Path:
        """Where the container's model lies on this machine, or its models."""
        return self._folder / "model"

    @property
    def given_up(self) -> bool:
        """Whether it has failed so often that another machine should try."""
        return self.failure_count >= GIVE_UP_AFTER

    def start(self) -> None:
        """Make everything ready, start the container and begin to watch it. Raises WorkError; then nothing is left."""
        try:
            self._lease = Lease.acquire(self._site.home, self._name, LEASE_TIMEOUT_S)
            _sweep(self._site)
            self._container = self._prepare()
            self._start_container(self._container)
        except BaseException:
            self._clean_up()
            raise
        self._watcher.start()

    def replace(self, reason: str) -> None:
        """End a container that is no longer believed in; the watcher starts another."""
        if self._container is not None and not self._stopping.is_set():
            self._tell(f"The scoring container is replaced: {reason}", True)
            self._container.kill()

    def expect_rest(self) -> None:
        """Know from now on that the container is to `rest`. Never blocks."""
        self._is_wanted.clear()
        self._rests = True

    def rest(self) -> None:
        """End the container with grace, and start none until `rise`. Its model stays here."""
        if self._rests and self._container is not None and not self._is_wanted.is_set():
            self._container.rest()

    def rise(self) -> None:
        """Have the container that rests started, at once: one that has not ended yet is killed."""
        try:
            if self._rests and self._container is not None and not self._is_wanted.is_set():
                self._container.kill()
        finally:
            self._is_wanted.set()

    def stop(self) -> None:
        """End the container with grace, and leave nothing behind."""
        self._stopping.set()
        self._is_wanted.set()
        if self._container is not None:
            self._container.stop()
        if self._watcher.is_alive():
            self._watcher.join()
        self._clean_up()

    def _prepare(self) -> ScoringContainer:
        """Bring image and model to this machine."""
        scoring = self._spec.variants[0].scorings[self._hostname]
        runtime = select_runtime(self._site.driver, self._site.home, self._site.standbys)
        store = ObjectStore(self._site.store)
        algorithm = prepare_algorithm(runtime, store, self._site, image=scoring.image, source=scoring.source)
        self._folder.mkdir(parents=True, exist_ok=True)
        fetch_model(store, scoring, self.model_folder)
        return ScoringContainer(
            runtime,
            algorithm,
            scoring,
            name=f"raymaker-{self._site.tag}-{self._name}",
            folder=self.model_folder,
            labels={
                LABEL_KIND: "scoring",
                LABEL_OWNER: self._name,
                LABEL_HOME: str(self._site.home),
                "raymaker.endpoint": self._spec.endpoint_name,
                "raymaker.variant": self._spec.variants[0].name,
                **({"raymaker.container": self._hostname} if self._hostname is not None else {}),
            },
            on_log=self._on_log,
        )

    def _start_container(self, container: ScoringContainer) -> None:
        began = time.monotonic()
        address = container.start()
        self._rests = False
        self._started_at = time.monotonic()
        self._on_address(address)
        self._tell(f"The scoring container answers, {self._started_at - began:.1f} s after its start", False)

    def _watch(self) -> None:
        container = self._container
        if container is None:
            raise RuntimeError("there is no container to watch")
        while not self._stopping.is_set():
            how = self._wait_for_end(container)
            if self._stopping.is_set():
                return
            self._on_address(None)
            if self._rests or time.monotonic() - self._started_at > STEADY_S:
                self.failure_count = 0
            if self._rests:
                self._remove(container)
                self._is_wanted.wait()
            else:
                self._tell(f"The scoring container ended: {how}", True)
            self._start_another(container)

    def _remove(self, container: ScoringContainer) -> None:
        """Leave nothing of a container that rests; where that fails now, its next start does it."""
        try:
            container.remove()
        except Exception as error:  # whatever the engine's client comes up with
            logger.warning("removing what is left of %s failed: %s", self._name, error)

    def _wait_for_end(self, container: ScoringContainer) -> str:
        """Wait for the container's end. While its engine is away it may well live: it is then waited for again."""
        while True:
            try:
                return container.wait()
            except Exception as error:  # whatever the engine's client comes up with
                if self._stopping.wait(FIRST_PAUSE_S):
                    return "it was stopped"
                logger.warning("waiting for %s was interrupted: %s", self._name, error)

    def _start_another(self, container: ScoringContainer) -> None:
        """Start the container again, at once the first time, then with longer and longer pauses."""
        self._rests = False
        while not self._stopping.wait(pause_before(self.failure_count)):
            self.failure_count += 1
            try:
                self._start_container(container)
            except WorkError as error:
                self._tell(f"The scoring container could not be started again: {error}", True)
            except Exception as error:
                logger.exception("starting %s again failed", self._name)
                self._tell(f"The scoring container could not be started again: {error!r}", True)
            else:
                return

    def _clean_up(self) -> None:
        if self._container is not None:
            self._container.remove()
        shutil.rmtree(self._folder, ignore_errors=True)
        if self._lease is not None:
            self._lease.release()
            self._lease = None


def pause_before(failure_count: int) -> float:
    """Return how long to wait before another start: nothing the first time, then twice as long each time."""
    return 0.0 if failure_count == 0 else min(FIRST_PAUSE_S * 2 ** (failure_count - 1), LONGEST_PAUSE_S)


def _endpoints(site: Site) -> Path:
    """Where replicas have their folders, each by the name of its lease."""
    return site.home / "endpoints"


def _sweep(site: Site) -> None:
    """Remove the folders of replicas that died: those whose lease nobody holds."""
    with contextlib.suppress(FileNotFoundError):
        for folder in _endpoints(site).iterdir():
            with contextlib.suppress(LeaseHeld):
                lease = Lease.acquire(site.home, folder.name, 0)
                shutil.rmtree(folder, ignore_errors=True)
                lease.release()
