"""How much is sent to a container at once: the request's word over the container's own over SageMaker's defaults. Pure.

What a container says of itself is its answer to `GET /execution-parameters`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from raymaker.serving.transform.spec import DEFAULT_PAYLOAD_MIB, HELD_MIB, MIB, TransformSpec

OK = 200
NOT_FOUND = 404
STRATEGIES = {"MULTI_RECORD": "MultiRecord", "SINGLE_RECORD": "SingleRecord"}
"""A container's words for a request's."""


@dataclass(frozen=True)
class ExecutionParameters:
    """What a container asks for; None where it is silent."""

    strategy: str | None = None
    max_payload_mib: int | None = None
    max_concurrency: int | None = None


@dataclass(frozen=True)
class Limits:
    """What holds for one job: how records are put together, the largest payload, and how many are sent at once.

    `max_payload_bytes` None means no limit: an object is streamed.
    """

    strategy: str
    max_payload_bytes: int | None
    max_concurrency: int

    def describe(self) -> str:
        """Say them in the request's words."""
        payload = 0 if self.max_payload_bytes is None else self.max_payload_bytes // MIB
        return (
            f"BatchStrategy {self.strategy}, MaxPayloadInMB {payload}, MaxConcurrentTransforms {self.max_concurrency}"
        )


def read_execution_parameters(status: int, body: bytes) -> tuple[ExecutionParameters, str | None]:
    """Read a container's answer; also what is wrong with it, in words, where something is."""
    if status != OK:
        return ExecutionParameters(), None if status == NOT_FOUND else f"it answered with status {status}"
    try:
        told = json.loads(body)
        parameters = ExecutionParameters(
            STRATEGIES[told["BatchStrategy"]] if "BatchStrategy" in told else None,
            _count(told, "MaxPayloadInMB", least=0),
            _count(told, "MaxConcurrentTransforms", least=1),
        )
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        return ExecutionParameters(), f"its answer is not as it should be ({error!r}): {body[:200]!r}"
    return parameters, None


def settle(spec: TransformSpec, told: ExecutionParameters) -> Limits:
    """Settle what holds. Of what the request does not say, so little is taken that HELD_MIB is kept."""
    payload_mib = _first(spec.max_payload_mib, told.max_payload_mib, DEFAULT_PAYLOAD_MIB)
    concurrency = spec.max_concurrency or told.max_concurrency or 1
    if payload_mib and spec.max_concurrency and spec.max_payload_mib is None:
        payload_mib = min(payload_mib, max(1, HELD_MIB // concurrency))
    elif payload_mib:
        payload_mib = min(payload_mib, HELD_MIB)
        concurrency = min(concurrency, HELD_MIB // payload_mib)
    strategy = spec.strategy or told.strategy or "MultiRecord"
    return Limits(strategy, payload_mib * MIB if payload_mib else None, concurrency)


def environment(spec: TransformSpec) -> dict[str, str]:
    """What the container is told. What the request does not say is left out, as SageMaker has it."""
    found = {"SAGEMAKER_BATCH": "true"}
    if spec.max_payload_mib is not None:
        found["SAGEMAKER_MAX_PAYLOAD_IN_MB"] = str(spec.max_payload_mib)
    if spec.strategy is not None:
        found["SAGEMAKER_BATCH_STRATEGY"] = next(told for told, name in STRATEGIES.items() if name == spec.strategy)
    if spec.max_concurrency is not None:
        found["SAGEMAKER_MAX_CONCURRENT_TRANSFORMS"] = str(spec.max_concurrency)
    return found


def _count(told: dict[str, object], field: str, *, least: int) -> int | None:
    if field not in told:
        return None
    value = told[field]
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{field} is {value!r}")
    return value


def _first(*values: int | None) -> int:
    return next(value for value in values if value is not None)
