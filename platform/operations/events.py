"""ListEvents: what happened to one training job or one endpoint."""

from __future__ import annotations

from sqlalchemy import Connection

from raymaker.platform.database import events, hosting, training
from raymaker.platform.errors import ValidationException
from raymaker.platform.operations.naming import ENDPOINT, TRAINING_JOB, as_time, not_found
from raymaker.platform.operations.registry import Answer, Context, Request, operation

DEFAULT_PAGE_COUNT = 100


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
    job_name, endpoint_name = request.get("TrainingJobName"), request.get("EndpointName")
    if job_name is not None and endpoint_name is None:
        job = training.find_training_job(connection, job_name)
        if job is None:
            raise not_found(context, TRAINING_JOB, job_name)
        return job.arn
    if endpoint_name is not None and job_name is None:
        endpoint = hosting.find_endpoint(connection, endpoint_name)
        if endpoint is None:
            raise not_found(context, ENDPOINT, endpoint_name)
        return endpoint.arn
    raise ValidationException("give exactly one of TrainingJobName and EndpointName")
