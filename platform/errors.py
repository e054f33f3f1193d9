"""The errors of the platform, drawn as one tree; those that a client can be answered know their wire code and status.

Class names under ApiError are the wire's own names. An operation raises them with a message that says what happened,
to what, and what to do; `app` turns them into answers. What goes wrong on machines is `raymaker.actors.errors`' matter.

PlatformError                                the platform could not be started, joined or stopped: told to its owner
└── ApiError                                 told to a client
    ├── ClientError                     400  the request cannot be answered as it is
    │   ├── ValidationException         400  a field is wrong; also: no such job, model or endpoint (waiters rely on it)
    │   ├── SerializationException      400  the body is not the JSON that the wire asks for
    │   ├── UnknownOperation            400  no such operation here
    │   ├── ResourceInUse               400  the name is taken, or the resource is busy
    │   ├── ResourceNotFound            400  only where SageMaker itself says so instead of ValidationException
    │   ├── ResourceNotFoundException   400  the same, as CloudWatch Logs says it
    │   ├── InvalidParameterException   400  a wrong field, as CloudWatch Logs says it
    │   ├── ResourceLimitExceeded       400  more than this cluster has or its limits allow
    │   ├── ConflictException           400  somebody else changed it meanwhile
    │   ├── ThrottlingException         400  too many requests; botocore tries again by itself
    │   ├── RequestTimeout              408  the body did not arrive in time
    │   └── RequestTooLarge             413  the body is over the limit
    └── ServerError                     500  the request may be right; the platform could not do it
        ├── InternalFailure             500  a bug here
        └── ServiceUnavailable          503  the database is locked or away, or too many wait; carries Retry-After
"""

from __future__ import annotations

from http import HTTPStatus
from typing import ClassVar


class PlatformError(Exception):
    """The root; where it is nothing more special, the platform could not be started, joined or stopped."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ApiError(PlatformError):
    """What a client is told; `message` is what it sees."""

    status: ClassVar[HTTPStatus]

    @property
    def code(self) -> str:
        """The wire's name of this error: `__type` in the answer, `Error.Code` in botocore."""
        return type(self).__name__


class ClientError(ApiError):
    """The request cannot be answered as it is; sending it again unchanged does not help."""

    status = HTTPStatus.BAD_REQUEST


class ValidationException(ClientError):
    """A field is wrong, or the job, model or endpoint that it names is not there."""


class SerializationException(ClientError):
    """The body is not the JSON (or form) that the wire asks for."""


class UnknownOperation(ClientError):
    """There is no such operation here."""

    @property
    def code(self) -> str:
        """AWS's own name for it, which clients test for."""
        return "UnknownOperationException"


class ResourceInUse(ClientError):
    """The name is taken, or the resource is busy with something that must end first."""


class ResourceNotFound(ClientError):
    """Nothing of that name, for the few SageMaker operations that do not say ValidationException."""


class ResourceNotFoundException(ClientError):
    """Nothing of that name, in CloudWatch Logs' words."""


class InvalidParameterException(ClientError):
    """A field is wrong, in CloudWatch Logs' words."""


class ResourceLimitExceeded(ClientError):
    """More than this cluster has or its limits allow."""


class ConflictException(ClientError):
    """Somebody else changed the same thing meanwhile."""


class ThrottlingException(ClientError):
    """Too many requests at once; botocore tries again by itself."""


class RequestTimeout(ClientError):
    """The body did not arrive in time."""

    status = HTTPStatus.REQUEST_TIMEOUT


class RequestTooLarge(ClientError):
    """The body is over the limit."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE


class ServerError(ApiError):
    """The request may be right, but the platform could not do it."""

    status = HTTPStatus.INTERNAL_SERVER_ERROR


class InternalFailure(ServerError):
    """A bug of this platform. The message names the request id under which the log has the traceback."""


class ServiceUnavailable(ServerError):
    """The platform cannot answer just now, for instance because the database is locked or away."""

    status = HTTPStatus.SERVICE_UNAVAILABLE

    def __init__(self, message: str, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
