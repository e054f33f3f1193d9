"""What endpoints are asked for beside the containers themselves, said in the words of `serving`. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from raymaker.actors.spec import ScoringSpec
from raymaker.platform.hosting.scaling_specs import step_scaling_spec
from raymaker.platform.operations.inference_graphs import DIRECT, scaled_targets
from raymaker.platform.records import ResolvedVariant
from raymaker.serving.graph.document import direct_graph, parse_graph, serial_graph
from raymaker.serving.scaling import ScalingSpec
from raymaker.serving.spec import JSON_LINES, AsyncSpec, CaptureSpec, GraphSpec

BOTH = "InputAndOutput"


def capture_spec(config: Mapping[str, Any] | None) -> CaptureSpec | None:
    """Read a DataCaptureConfig. None where nothing is to be captured."""
    if not is_capturing(config):
        return None
    modes = {option["CaptureMode"] for option in config["CaptureOptions"]}
    types = config.get("CaptureContentTypeHeader", {})
    return CaptureSpec(
        destination_uri=config["DestinationS3Uri"],
        sampled_share=config["InitialSamplingPercentage"] / 100,
        captures_input=bool(modes & {"Input", BOTH}),
        captures_output=bool(modes & {"Output", BOTH}),
        csv_types=frozenset(map(str.lower, types.get("CsvContentTypes", []))),
        json_types=frozenset(map(str.lower, types.get("JsonContentTypes", []))),
        format=config.get("Format", JSON_LINES),
    )


def is_capturing(config: Mapping[str, Any] | None) -> TypeGuard[Mapping[str, Any]]:
    """Tell whether a DataCaptureConfig is there and switched on, as it is where it does not say."""
    return config is not None and bool(config.get("EnableCapture", True))


def graph_spec(variant: ResolvedVariant, scorings: Sequence[ScoringSpec]) -> GraphSpec | None:
    """Say how a variant's containers, which `scorings` describe, work together. None where there is but one."""
    hostnames = [container.hostname or "" for container in variant.containers]
    containers = dict(zip(hostnames, scorings, strict=True))
    if variant.inference_graph is not None:
        return GraphSpec(containers, parse_graph(variant.inference_graph), scalings=_scalings(variant.inference_graph))
    if variant.execution_mode is None:
        return None
    is_direct = variant.execution_mode == DIRECT
    return GraphSpec(containers, (direct_graph if is_direct else serial_graph)(hostnames), is_direct)


def _scalings(document: Mapping[str, Any]) -> dict[str, ScalingSpec]:
    """How steps have the containers scaled that they call, by hostname."""
    scaled = {target: scaling for _, target, scaling in scaled_targets(document)}
    return {target.name: step_scaling_spec(scaling) for target, scaling in scaled.items()}


def async_spec(config: Mapping[str, Any] | None) -> AsyncSpec | None:
    """Read an AsyncInferenceConfig. None where there is none."""
    if config is None:
        return None
    output, topics = config["OutputConfig"], config["OutputConfig"].get("NotificationConfig", {})
    return AsyncSpec(
        output_uri=output["S3OutputPath"],
        failure_uri=output.get("S3FailurePath") or None,
        success_topic=topics.get("SuccessTopic"),
        error_topic=topics.get("ErrorTopic"),
        max_concurrent=config.get("ClientConfig", {}).get(
            "MaxConcurrentInvocationsPerInstance", AsyncSpec.max_concurrent
        ),
    )
