"""Deploy: from a training job that has ended to an endpoint, in one call and one transaction."""

from __future__ import annotations

from sqlalchemy import Connection

from raymaker.platform.database import hosting, training
from raymaker.platform.database.tags import put_tags
from raymaker.platform.errors import ValidationException
from raymaker.platform.operations.checkpoints import pin
from raymaker.platform.operations.checks import find_instance_type
from raymaker.platform.operations.endpoint_configs import new_endpoint_config
from raymaker.platform.operations.endpoints import insert_endpoint, move_to, resolve
from raymaker.platform.operations.models import new_model
from raymaker.platform.operations.naming import TRAINING_JOB, make_up_name, not_found
from raymaker.platform.operations.registry import Answer, Context, Request, operation
from raymaker.platform.records import OWNER_TAG, EndpointConfigRecord, EndpointRecord, ModelRecord, TrainingJobRecord
from raymaker.platform.specs import JOB_SCHEME, explain_no_model

VARIANT_NAME = "AllTraffic"


@operation("Deploy")
def deploy(context: Context, request: Request) -> Answer:
    """Make a model, a configuration and an endpoint of a job; an endpoint of that name is updated to them instead.

    Raises ValidationException where the job has no model to serve.
    """
    checkpoint = request.get("Checkpoint")
    with context.database.reading() as connection:
        job = _find_job(context, connection, request["TrainingJobName"], needs_model=checkpoint is None)
    uri = f"{JOB_SCHEME}{job.name}"
    if checkpoint is not None:
        uri = pin(context, f"{uri}/checkpoints/{checkpoint}")
    instance_type = request.get("InstanceType", job.request["ResourceConfig"]["InstanceType"])
    find_instance_type(context, instance_type, "InstanceType")
    name = make_up_name(job.name)
    model = _make_model(context, name, uri, request)
    config = _make_config(context, name, instance_type, request)
    with context.database.transaction() as connection:
        if not (hosting.insert_model(connection, model) and hosting.insert_endpoint_config(connection, config)):
            raise ValidationException(f"The made-up name {name} happens to be taken. Try again")
        endpoint = _insert_or_update(context, connection, request.get("EndpointName", name), config)
        for made in (model, config):
            put_tags(connection, made.arn, {OWNER_TAG: endpoint.name})
    context.cluster.wake()
    return {
        "EndpointName": endpoint.name,
        "EndpointArn": endpoint.arn,
        "ModelName": model.name,
        "EndpointConfigName": config.name,
    }


def _find_job(context: Context, connection: Connection, name: str, *, needs_model: bool) -> TrainingJobRecord:
    job = training.find_training_job(connection, name)
    if job is None:
        raise not_found(context, TRAINING_JOB, name)
    if needs_model and not job.has_model:
        raise ValidationException(f"TrainingJobName: nothing to deploy, {explain_no_model(job)}")
    return job


def _make_model(context: Context, name: str, uri: str, request: Request) -> ModelRecord:
    container: Request = {"ModelDataUrl": uri}
    if "Environment" in request:
        container["Environment"] = request["Environment"]
    return new_model(context, name, {"ModelName": name, "PrimaryContainer": container})


def _make_config(context: Context, name: str, instance_type: str, request: Request) -> EndpointConfigRecord:
    variant: Request = {
        "VariantName": VARIANT_NAME,
        "ModelName": name,
        "InstanceType": instance_type,
        "InitialInstanceCount": request.get("InitialInstanceCount", 1),
    }
    timeout = "ContainerStartupHealthCheckTimeoutInSeconds"
    if timeout in request:
        variant[timeout] = request[timeout]
    return new_endpoint_config(context, name, {"EndpointConfigName": name, "ProductionVariants": [variant]})


def _insert_or_update(
    context: Context, connection: Connection, name: str, config: EndpointConfigRecord
) -> EndpointRecord:
    desired = resolve(context, connection, config)
    if hosting.find_endpoint(connection, name, lock=True) is not None:
        return move_to(context, connection, name, desired)
    return insert_endpoint(context, connection, name, desired)
