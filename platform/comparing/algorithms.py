"""Requests that name several algorithms: which of them is meant, or which jobs train side by side. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from raymaker.platform.errors import ValidationException
from raymaker.platform.evaluating.evaluations import EACH_CHECKPOINT
from raymaker.serving.evaluation.metric_names import known_metrics

LONGEST_NAME = 63
_WHERE = "AlgorithmSpecification.Algorithms"

Request = dict[str, Any]


def algorithms_of(request: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The algorithms that a training request names beside each other; none where it has one, as usual."""
    found: Sequence[Mapping[str, Any]] = request.get("AlgorithmSpecification", {}).get("Algorithms", ())
    return found


def is_comparison(request: Mapping[str, Any]) -> bool:
    """Whether all of a request's algorithms train, each in a job of its own."""
    return bool(algorithms_of(request)) and request["AlgorithmSpecification"].get("AlgorithmSelection") == "All"


def choose_by_content(request: Request) -> Request:
    """The request of the algorithm that takes the channels' content types, the first of those that do.

    Raises ValidationException where none does.
    """
    told = [channel["ContentType"] for channel in request.get("InputDataConfig", []) if "ContentType" in channel]
    for algorithm in algorithms_of(request):
        known = {_plain(each) for each in algorithm.get("ContentTypes", [])}
        if any(_plain(each) in known for each in told):
            return resolve(request, algorithm)
    taken = "; ".join(
        f"{each['Name']} takes {', '.join(each.get('ContentTypes', [])) or 'none'}" for each in algorithms_of(request)
    )
    raise ValidationException(
        f"{_WHERE}: none takes the content types of InputDataConfig ({', '.join(told) or 'it tells none'}): {taken}. "
        "Set a channel's ContentType, or AlgorithmSelection to All"
    )


def expand(request: Request) -> dict[str, Request]:
    """The requests of the jobs in which a comparison's algorithms train, by the algorithms' names.

    Each job is named after its algorithm and has a place of its own for checkpoints. Raises ValidationException.
    """
    found: dict[str, Request] = {}
    for algorithm in algorithms_of(request):
        name = child_name(request["TrainingJobName"], algorithm["Name"])
        if len(name) > LONGEST_NAME:
            raise ValidationException(
                f"TrainingJobName: {name}, the job of algorithm {algorithm['Name']}, is longer than {LONGEST_NAME} "
                "characters: choose shorter names"
            )
        child = resolve(request, algorithm)
        child["TrainingJobName"] = name
        for field in ("Algorithms", "AlgorithmSelection", "SelectedAlgorithm", "SelectionMetric"):
            child["AlgorithmSpecification"].pop(field, None)
        if "CheckpointConfig" in child:
            place = child["CheckpointConfig"]["S3Uri"].rstrip("/")
            child["CheckpointConfig"] = {**child["CheckpointConfig"], "S3Uri": f"{place}/{algorithm['Name']}"}
        found[algorithm["Name"]] = child
    return found


def child_name(job_name: str, algorithm: str) -> str:
    """The name of the job in which one algorithm of a comparison trains."""
    return f"{job_name}-{algorithm}"


def resolve(request: Mapping[str, Any], algorithm: Mapping[str, Any]) -> Request:
    """The request as it is for one of its algorithms, which it names as the selected one."""
    told = dict(request["AlgorithmSpecification"])
    if "TrainingImage" in algorithm or "AlgorithmSource" in algorithm:
        told = {key: value for key, value in told.items() if key not in {"TrainingImage", "AlgorithmSource"}}
    told |= {key: algorithm[key] for key in ("TrainingImage", "AlgorithmSource") if key in algorithm}
    if "EntryPoint" in algorithm:
        told["ContainerEntrypoint"] = algorithm["EntryPoint"]
    told["SelectedAlgorithm"] = algorithm["Name"]
    resolved = {**request, "AlgorithmSpecification": told}
    if "HyperParameters" in algorithm:
        resolved["HyperParameters"] = {**request.get("HyperParameters", {}), **algorithm["HyperParameters"]}
    return resolved


def check_algorithms(request: Request) -> None:
    """Raise ValidationException, naming the field, for algorithms that cannot stand beside each other."""
    told = request.get("AlgorithmSpecification", {})
    for field in ("AlgorithmSelection", "SelectionMetric"):
        if field in told and not algorithms_of(request):
            raise ValidationException(
                f"AlgorithmSpecification.{field} goes with Algorithms: leave it out, or name them"
            )
    if "SelectedAlgorithm" in told:
        raise ValidationException("AlgorithmSpecification.SelectedAlgorithm is told, not asked for: leave it out")
    names = [algorithm["Name"] for algorithm in algorithms_of(request)]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise ValidationException(f"{_WHERE}: the name {repeated} comes twice")
    for index, algorithm in enumerate(algorithms_of(request)):
        if "TrainingImage" in algorithm and "AlgorithmSource" in algorithm:
            raise ValidationException(f"{_WHERE}[{index}]: give only one of TrainingImage and AlgorithmSource")
    if "SelectionMetric" in told and not is_comparison(request):
        raise ValidationException("AlgorithmSpecification.SelectionMetric goes with AlgorithmSelection All")
    if "SelectionMetric" in told:
        _check_metric(told["SelectionMetric"], request.get("EvaluationConfig"))


def _check_metric(metric: str, config: Mapping[str, Any] | None) -> None:
    """See that the evaluation of each model will tell the metric that decides."""
    where = "AlgorithmSpecification.SelectionMetric"
    if config is None or config.get("Schedule", EACH_CHECKPOINT) != EACH_CHECKPOINT:
        raise ValidationException(
            f"{where} needs an EvaluationConfig with the Schedule {EACH_CHECKPOINT}, so that each model is judged"
        )
    told = config.get("Metrics", list(known_metrics(config["ProblemType"])))
    if metric not in told and "MetricSource" not in config:
        raise ValidationException(f"{where} {metric} is none of the metrics that are told: {', '.join(told)}")


def _plain(content_type: str) -> str:
    """A content type without its parameters."""
    return content_type.partition(";")[0].strip().lower()
