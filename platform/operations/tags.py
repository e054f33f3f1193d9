"""Tags on any resource that has an ARN: add, list, delete."""

from __future__ import annotations

from sqlalchemy import Connection

from raymaker.platform.database import hosting, tags, training, transforms
from raymaker.platform.errors import ResourceLimitExceeded, ValidationException
from raymaker.platform.operations.checks import read_tags
from raymaker.platform.operations.naming import ENDPOINT, MODEL, TRAINING_JOB, TRANSFORM_JOB, not_found, read_arn
from raymaker.platform.operations.registry import Answer, Context, Request, operation

MAX_TAG_COUNT = 50


@operation("AddTags")
def add_tags(context: Context, request: Request) -> Answer:
    """Set tags; a key that is there gets the new value. Answers with all of them."""
    arn = request["ResourceArn"]
    with context.database.transaction() as connection:
        _require_resource(context, connection, arn)
        tags.put_tags(connection, arn, read_tags(request))
        found = tags.list_tags(connection, arn)
        if len(found) > MAX_TAG_COUNT:
            raise ResourceLimitExceeded(f"{arn} would have {len(found)} tags: {MAX_TAG_COUNT} are the most")
    return _answer(found)


@operation("ListTags")
def list_tags(context: Context, request: Request) -> Answer:
    """Tell all tags of a resource; they always fit in one answer."""
    if "NextToken" in request:
        raise ValidationException("NextToken is not valid here: all tags came in the first answer; leave it out")
    with context.database.reading() as connection:
        _require_resource(context, connection, request["ResourceArn"])
        return _answer(tags.list_tags(connection, request["ResourceArn"]))


@operation("DeleteTags")
def delete_tags(context: Context, request: Request) -> Answer:
    """Remove tags by key; keys that are not there are no error."""
    with context.database.transaction() as connection:
        _require_resource(context, connection, request["ResourceArn"])
        tags.delete_tags(connection, request["ResourceArn"], request["TagKeys"])
    return {}


def _require_resource(context: Context, connection: Connection, arn: str) -> None:
    """Raise ValidationException where nothing here has that ARN."""
    noun, name = read_arn(context, arn)
    if noun == TRAINING_JOB:
        found: object = training.find_training_job(connection, name)
    elif noun == TRANSFORM_JOB:
        found = transforms.find_transform_job(connection, name)
    elif noun == MODEL:
        found = hosting.find_model(connection, name)
    elif noun == ENDPOINT:
        found = hosting.find_endpoint(connection, name)
    else:
        found = hosting.find_endpoint_config(connection, name)
    if found is None:
        raise not_found(context, noun, name)


def _answer(found: dict[str, str]) -> Answer:
    return {"Tags": [{"Key": key, "Value": value} for key, value in found.items()]}
