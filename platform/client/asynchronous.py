"""An invocation that was accepted and is answered later."""

from __future__ import annotations

from dataclasses import dataclass

from raymaker.platform.client.connection import Answer, Connection


@dataclass(frozen=True)
class AcceptedInvocation:
    """Where the answer to an accepted invocation will lie, or what went wrong with it."""

    inference_id: str
    output_uri: str
    failure_uri: str


def accept_invocation(connection: Connection, request: Answer) -> AcceptedInvocation:
    """Send a request that is answered later. Raises RequestRefused."""
    answer = connection.call("invoke_endpoint_async", "sagemaker-runtime", **request)
    return AcceptedInvocation(answer["InferenceId"], answer["OutputLocation"], answer["FailureLocation"])
