"""What a request changes about a training job: how it reaches the job, and what the job's own request is afterwards.

Pure: from the request in force and the fields of UpdateTrainingJob.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raymaker.actors.spec import Manner

Fields = Mapping[str, Any]

CHANGES = ("HyperParameters", "AlgorithmSource", "TrainingImage", "ResourceConfig")
KEPT_ONLY = ("ProfilerConfig", "ProfilerRuleConfigurations", "RemoteDebugConfig")
"""What is kept and described back, and does nothing, as with CreateTrainingJob."""
_KEPT_RESOURCES = {"KeepAlivePeriodInSeconds"}
DEFAULT_HEAR_TIMEOUT_S = 60


def manner_of(request: Fields, changes: Fields) -> Manner | None:
    """How a change reaches the job; None where it concerns no container."""
    if moved_resources(request, changes):
        return Manner.MOVE
    if _replaces_image(request, changes):
        return Manner.REPLACE
    if "HyperParameters" in changes or "AlgorithmSource" in changes:
        is_sudden = changes.get("IfNotHeard") == "Restart" and hear_timeout_s(changes) == 0
        return Manner.REPLACE if is_sudden else Manner.TELL
    return None


def moved_resources(request: Fields, changes: Fields) -> dict[str, Any]:
    """What a change asks of machines that is other than what the job has."""
    asked, has = changes.get("ResourceConfig", {}), request["ResourceConfig"]
    return {name: value for name, value in asked.items() if name not in _KEPT_RESOURCES and has.get(name) != value}


def hear_timeout_s(changes: Fields) -> int:
    """How long containers have to hear of a change."""
    return int(changes.get("HearTimeoutInSeconds", DEFAULT_HEAR_TIMEOUT_S))


def changed_request(request: Fields, changes: Fields) -> dict[str, Any]:
    """The job's request with a change in it."""
    changed = {**request, **{name: changes[name] for name in KEPT_ONLY if name in changes}}
    if "HyperParameters" in changes:
        changed["HyperParameters"] = {**request.get("HyperParameters", {}), **changes["HyperParameters"]}
    if "ResourceConfig" in changes:
        changed["ResourceConfig"] = {**request["ResourceConfig"], **changes["ResourceConfig"]}
    algorithm = dict(request["AlgorithmSpecification"])
    if "TrainingImage" in changes:
        algorithm.pop("AlgorithmSource", None)
        algorithm["TrainingImage"] = changes["TrainingImage"]
    if "AlgorithmSource" in changes:
        algorithm.pop("TrainingImage", None)
        algorithm["AlgorithmSource"] = _changed_source(request, changes)
    return {**changed, "AlgorithmSpecification": algorithm}


def summarise(request: Fields, changes: Fields) -> tuple[str, ...]:
    """Say for people what a change makes other than it was."""
    has = request.get("HyperParameters", {})
    said = [
        f"hyperparameter {name} from {has.get(name, 'nothing')} to {value}"
        for name, value in changes.get("HyperParameters", {}).items()
        if has.get(name) != value
    ]
    if "AlgorithmSource" in changes:
        source = changes["AlgorithmSource"]
        said.append(f"code from {source['SourceUri']}, which starts with {source['EntryPoint']}")
    if "TrainingImage" in changes:
        said.append(f"image {changes['TrainingImage']}")
    resources = request["ResourceConfig"]
    said += [
        f"{name} from {resources.get(name, 'nothing')} to {value}"
        for name, value in changes.get("ResourceConfig", {}).items()
        if resources.get(name) != value
    ]
    said += [name for name in KEPT_ONLY if name in changes]
    return tuple(said) or ("what it has already",)


def _changed_source(request: Fields, changes: Fields) -> dict[str, Any]:
    """The new source; on the base image that the job has, unless it names another."""
    before = request["AlgorithmSpecification"].get("AlgorithmSource", {})
    base = {"BaseImage": before["BaseImage"]} if "BaseImage" in before else {}
    return {**base, **changes["AlgorithmSource"]}


def _replaces_image(request: Fields, changes: Fields) -> bool:
    """Whether the containers' image would be another: a container cannot hear of that."""
    if "TrainingImage" in changes:
        return True
    if "AlgorithmSource" not in changes:
        return False
    before = request["AlgorithmSpecification"].get("AlgorithmSource")
    return before is None or _changed_source(request, changes).get("BaseImage") != before.get("BaseImage")
