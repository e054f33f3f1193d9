"""How an endpoint in service goes to sleep, where it holds no instance, and is woken: moves of its record. Pure.

A move that changes nothing returns the record that it was given. When and by whom a move is made is the reconciler's
matter, and the waiting room's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from raymaker.actors.reports import Activity
from raymaker.platform.records import EndpointRecord, EndpointStatus, SleepStage
from raymaker.serving.activity import report_period_s

DID_NOT_WAKE = "It did not wake: "
MISSED_REPORTS = 3
"""After how many reports that did not come a replica's last word counts no longer."""


def is_idle(reports: Sequence[Activity], replica_count: int, idle_s: float, now: float) -> bool:
    """Tell whether every replica of the front has just said that nobody had asked it for as long as `idle_s`."""
    fresh = [each for each in reports if now - each.time <= MISSED_REPORTS * report_period_s(idle_s)]
    if not 0 < replica_count <= len(fresh):
        return False
    return all(each.pending_count == 0 and each.time - each.last_request_at >= idle_s for each in fresh)


def fall_asleep(record: EndpointRecord, generation: int) -> EndpointRecord:
    """Begin to take everything away from an endpoint that is in service, awake and not changing."""
    is_at_rest = record.status is EndpointStatus.IN_SERVICE and record.stage is None and record.sleep is None
    if generation != record.generation or not is_at_rest:
        return record
    return dataclasses.replace(record, sleep=SleepStage.FALLING_ASLEEP)


def be_asleep(record: EndpointRecord) -> EndpointRecord:
    """Take the news that nothing is left of an endpoint that falls asleep."""
    if record.sleep is not SleepStage.FALLING_ASLEEP or record.status is not EndpointStatus.IN_SERVICE:
        return record
    return dataclasses.replace(record, sleep=SleepStage.ASLEEP, running_counts={}, wanted_counts={})


def wake_up(record: EndpointRecord) -> EndpointRecord:
    """Ask for an endpoint that sleeps, or is about to. One that is awake or being woken stays as it is."""
    if record.sleep not in {SleepStage.ASLEEP, SleepStage.FALLING_ASLEEP}:
        return record
    kept = None if why_not_woken(record) is not None else record.failure_reason
    return dataclasses.replace(record, sleep=SleepStage.WAKING, failure_reason=kept)


def why_not_woken(record: EndpointRecord) -> str | None:
    """Say why the last wake failed; None where it did not. An update that failed has another reason, which stays."""
    return record.failure_reason if (record.failure_reason or "").startswith(DID_NOT_WAKE) else None


def be_awake(record: EndpointRecord, wanted_counts: Mapping[str, int]) -> EndpointRecord:
    """Take the news that an endpoint in service answers: whatever it was woken for, or changed to, it is awake."""
    if record.status is not EndpointStatus.IN_SERVICE or record.sleep is SleepStage.FALLING_ASLEEP:
        return record
    if record.sleep is None and record.wanted_counts == wanted_counts:
        return record
    return dataclasses.replace(record, sleep=None, wanted_counts=wanted_counts)


def wake_failed(record: EndpointRecord, generation: int, reason: str) -> EndpointRecord:
    """Take the news that an endpoint could not be woken. It goes back to sleep, and the next request tries again."""
    if generation != record.generation or record.sleep is not SleepStage.WAKING:
        return record
    return dataclasses.replace(record, sleep=SleepStage.FALLING_ASLEEP, failure_reason=f"{DID_NOT_WAKE}{reason}")
