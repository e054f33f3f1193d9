"""ListEvents: what happened to one training job, one transform job or one endpoint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from sqlalchemy import Connection

from raymaker.platform.database import events, hosting, training, transforms
from raymaker.platform.errors import ValidationException
from raymaker.platform.operations.naming import ENDPOINT, TRAINING_JOB, TRANSFORM_JOB, as_time, not_found
from raymaker.platform.operations.registry import Answer, Context, Request, operation

DEFAULT_PAGE_COUNT = 100


class _Subject(Protocol):
    """What has events."""

    @property
    def arn(self) -> str: ...


_SUBJECTS: dict[str, tuple[str, Callable[[Connection, str], _Subject | None]]] = {
    "TrainingJobName": (TRAINING_JOB, training.find_training_job),
    "TransformJobName": (TRANSFORM_JOB, transforms.find_transform_job),
    "EndpointName": (ENDPOINT, hosting.find_endpoint),
}
"""The request's member for each kind of subject."""


@operation("ListEvents")
def list_events(context: Context, request: Request) -> Answer:
    """Tell a job's or an endpoint's events, oldest first, a page at a time."""
    with context.database.reading() as connection:
        subject = _find_subject(context, connection, request)
        limit_count = request.get("MaxResults", DEFAULT_PAGE_COUNT)
        found, token = events.list_events(connection, subject, limit_count, request.get("NextToken"))
    return {
        "Events": [{"Time": as_time(event.time), "Kind": event.kind, "Message": event.message} for event in found],
        "NextToken": token,
    }


def _find_subject(context: Context, connection: Connection, request: Request) -> str:
    """Find the ARN that is asked about. Raises ValidationException where not exactly one is, or it is not there."""
    given = [member for member in _SUBJECTS if member in request]
    if len(given) != 1:
        raise ValidationException("give exactly one of TrainingJobName, TransformJobName and EndpointName")
    noun, find = _SUBJECTS[given[0]]
    found = find(connection, request[given[0]])
    if found is None:
        raise not_found(context, noun, request[given[0]])
    return found.arn
