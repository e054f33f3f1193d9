"""Everything that may happen to an endpoint under steady load, one after the other, and what each costs: a ledger."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import docker
import pytest

from support.faults import command_line, eventually, kill_process, platform_processes
from support.hosting import Hosting, Traffic, hosting_on
from support.platform import Platform, running_platform

CLIENTS = 4
QUIET_ANSWERS = 60


@pytest.fixture
def hurt_platform(engine: object, base_image: str) -> Iterator[Platform]:
    """A platform of this test's own: its parts are killed."""
    with running_platform(driver="docker", stop_grace_s=5) as running:
        yield running


@pytest.fixture
def hurt_hosting(hurt_platform: Platform, engine: docker.DockerClient, steps_image: str) -> Iterator[Hosting]:
    with hosting_on(hurt_platform, engine, steps_image) as made:
        yield made


@dataclass
class Ledger:
    """What each event cost of the requests that were asked meanwhile."""

    traffic: Traffic
    lines: list[str] = field(default_factory=list)

    @contextmanager
    def event(self, what: str, most_lost: int = 0) -> Iterator[None]:
        """Have something happen in the block and wait until all is quiet again; it may cost so many requests."""
        asked, failed = self.traffic.count, len(self.traffic.failures)
        yield
        self.traffic.count_answers(QUIET_ANSWERS)
        lost = self.traffic.failures[failed:]
        self.lines.append(f"{what:<40} {self.traffic.count - asked:>6} requests, {len(lost)} lost")
        assert len(lost) <= most_lost, (what, lost)


def test_what_happens_to_an_endpoint_under_load_costs_at_most_what_was_in_what_died(
    hurt_platform: Platform, hurt_hosting: Hosting, capsys: pytest.CaptureFixture[str]
) -> None:
    hosting, platform = hurt_hosting, hurt_platform
    name = hosting.create(hosting.config({"SAY": "one"}, InitialInstanceCount=2))
    assert hosting.settle(name)["EndpointStatus"] == "InService"
    with Traffic(hosting, name, CLIENTS) as traffic:
        ledger = Ledger(traffic)
        with ledger.event("container killed", CLIENTS):
            hosting.containers(name)[0].kill()
            has_running(hosting, name, 2)
        with ledger.event("replica killed", CLIENTS):
            kill_one(platform, f"ServeReplica:endpoint-{name}")
            has_running(hosting, name, 2)
        with ledger.event("Serve's controller killed"):
            kill_process(platform.home, "ray::ServeController")
            eventually(lambda: processes(platform, "ray::ServeController"), "Serve has a controller again")
        with ledger.event("control actor and frontend killed"):
            kill_process(platform.home, "ray::Control")
            kill_process(platform.home, "ServeReplica:raymaker-frontend")
            eventually(lambda: described(hosting, name), "the frontend answers again")
        with ledger.event("updated to another container"):
            update(hosting, name, hosting.config({"SAY": "two"}))
        with ledger.event("updated to two variants"):
            update(hosting, name, hosting.split({}, a=1, b=1))
        with ledger.event("weights and counts changed, up"):
            change(hosting, name, ("a", 1, 2), ("b", 3, 1))
        with ledger.event("weights and counts changed, down"):
            change(hosting, name, ("a", 5, 1), ("b", 1, 1))
        with ledger.event("router killed", CLIENTS):
            routers = f"ServeReplica:endpoint-{name}:front"
            before = kill_one(platform, routers)
            eventually(lambda: len(set(processes(platform, routers)) - before) == 1, "there is another router")
        with ledger.event("updated to what cannot start"):
            found = update(hosting, name, hosting.config({"SAY": "never"}, image="raymaker-no-such-image:1"))
            assert "raymaker-no-such-image:1" in found["FailureReason"]
    with capsys.disabled():
        sys.stdout.write("\n" + "\n".join(ledger.lines) + "\n")


def update(hosting: Hosting, name: str, config: str) -> dict[str, Any]:
    hosting.sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=config)
    return in_service(hosting, name)


def change(hosting: Hosting, name: str, *variants: tuple[str, float, int]) -> None:
    changes = [
        {"VariantName": variant, "DesiredWeight": weight, "DesiredInstanceCount": count}
        for variant, weight, count in variants
    ]
    hosting.sagemaker.update_endpoint_weights_and_capacities(EndpointName=name, DesiredWeightsAndCapacities=changes)
    found = in_service(hosting, name)["ProductionVariants"]
    assert [(it["CurrentWeight"], it["CurrentInstanceCount"]) for it in found] == [it[1:] for it in variants]


def in_service(hosting: Hosting, name: str) -> dict[str, Any]:
    found = hosting.settle(name)
    assert found["EndpointStatus"] == "InService", found
    return found


def has_running(hosting: Hosting, name: str, count: int) -> None:
    def running() -> bool:
        return sum(each.status == "running" for each in hosting.containers(name)) == count

    eventually(running, f"{count} containers run")
    eventually(lambda: in_service(hosting, name)["ProductionVariants"][0]["CurrentInstanceCount"] == count, "all serve")


def kill_one(platform: Platform, title: str) -> set[int]:
    """`kill -9` one process with this title, and return all that there were."""
    first, *others = processes(platform, title)
    os.kill(first, signal.SIGKILL)
    return {first, *others}


def processes(platform: Platform, title: str) -> list[int]:
    return [pid for pid in platform_processes(platform.home) if title in command_line(pid)]


def described(hosting: Hosting, name: str) -> bool:
    try:
        return bool(hosting.describe(name))
    except Exception:  # whatever it says while it comes back
        return False
