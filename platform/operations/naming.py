"""ARNs and names: how they are made and read, and how a name that means nothing is told in SageMaker's words."""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime

from raymaker.platform.errors import ValidationException
from raymaker.platform.operations.registry import Context

TRAINING_JOB = "training-job"
MODEL = "model"
ENDPOINT_CONFIG = "endpoint-config"
ENDPOINT = "endpoint"
TRANSFORM_JOB = "transform-job"

_WORDS = {MODEL: "model", ENDPOINT_CONFIG: "endpoint configuration", ENDPOINT: "endpoint"}
_ARN = re.compile(r"arn:aws[a-z-]*:sagemaker:([a-z0-9-]+):(\d{12}):([a-z-]+)/([a-zA-Z0-9-]{1,63})")
_NAME_CHARACTERS = 63


def make_arn(context: Context, noun: str, name: str) -> str:
    """Make the ARN of a resource, e.g. `arn:aws:sagemaker:us-east-1:000000000000:training-job/digits`."""
    return f"arn:aws:sagemaker:{context.region}:{context.account}:{noun}/{name}"


def read_arn(context: Context, arn: str) -> tuple[str, str]:
    """Take noun and name out of an ARN. Raises ValidationException where it is not one of this platform's."""
    parts = _ARN.fullmatch(arn)
    if parts is None or parts.group(3) not in {TRAINING_JOB, TRANSFORM_JOB, *_WORDS}:
        raise ValidationException(
            f"ResourceArn {arn} names nothing that can be here: it must be the ARN of a training job, a transform job, "
            "a model, an endpoint configuration or an endpoint"
        )
    if parts.group(1, 2) != (context.region, context.account):
        raise ValidationException(
            f"ResourceArn {arn} is not of this platform, whose region is {context.region} and account {context.account}"
        )
    return parts.group(3), parts.group(4)


def make_up_name(stem: str) -> str:
    """Make up a name that is not taken: the stem, cut where it must be, and a short random suffix."""
    suffix = secrets.token_hex(3)
    return f"{stem[: _NAME_CHARACTERS - len(suffix) - 1].rstrip('-')}-{suffix}"


def not_found(context: Context, noun: str, name: str) -> ValidationException:
    """Say that there is nothing of that name; boto3's waiters want a ValidationException."""
    if noun == TRAINING_JOB:
        return ValidationException(f"Requested resource not found. There is no training job {name}.")
    if noun == TRANSFORM_JOB:
        return ValidationException(f"Could not find requested job with name: {name}. There is no transform job {name}.")
    return ValidationException(f'Could not find {_WORDS[noun]} "{make_arn(context, noun, name)}".')


def already_exists(context: Context, noun: str, name: str) -> ValidationException:
    """Say that the name of a model, endpoint configuration or endpoint is taken."""
    return ValidationException(f'Cannot create already existing {_WORDS[noun]} "{make_arn(context, noun, name)}".')


def as_time(epoch_s: float | None) -> datetime | None:
    """Give epoch seconds as the wire's answers want them."""
    return None if epoch_s is None else datetime.fromtimestamp(epoch_s, UTC)


def epoch_s(moment: datetime | None) -> float | None:
    """Give a time of a request as epoch seconds."""
    return None if moment is None else moment.timestamp()
