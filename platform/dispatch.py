"""One received request to one answer: finds the operation, runs it, and turns every error into the wire's own words.

Everything here blocks. HTTP is `app`'s, bytes are `wire`'s and `query`'s, and what operations do is `operations`'.
"""

from __future__ import annotations

import importlib
import logging
import pkgutil
from collections.abc import Callable
from dataclasses import replace
from urllib.parse import unquote

from botocore.model import OperationModel
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

import raymaker.platform.operations
from raymaker.actors.errors import WorkError
from raymaker.platform import query, wire
from raymaker.platform.errors import (
    ApiError,
    ClientError,
    InternalFailure,
    InvalidParameterException,
    ServiceUnavailable,
    UnknownOperation,
    ValidationException,
)
from raymaker.platform.operations.registry import HANDLERS, Answer, Context, Request
from raymaker.platform.shapes import TARGET_PREFIXES, operation_model
from raymaker.platform.validation import validate
from raymaker.platform.wire import HttpAnswer

log = logging.getLogger(__name__)


def load_operations() -> None:
    """Import every module of `operations`, so that what they answer is registered."""
    for module in pkgutil.iter_modules(raymaker.platform.operations.__path__):
        importlib.import_module(f"{raymaker.platform.operations.__name__}.{module.name}")


def answer_json(context: Context, target: str | None, body: bytes, request_id: str) -> HttpAnswer:
    """Run the operation that X-Amz-Target names."""

    def work() -> HttpAnswer:
        prefix, _, name = (target or "").partition(".")
        operation = _find(TARGET_PREFIXES.get(prefix), name, target)
        return wire.write_answer(operation, HANDLERS[name](context, _read(operation, body)))

    return _guarded(work, wire.write_error, request_id)


def answer_query(context: Context, body: bytes, request_id: str) -> HttpAnswer:
    """Run the operation that a form's Action names."""

    def work() -> HttpAnswer:
        form = query.read_form(body)
        name = form.pop("Action", "")
        form.pop("Version", None)
        operation = _find("sts", name, name)
        return query.write_answer(operation, HANDLERS[name](context, validate(operation, form)), request_id)

    return _guarded(work, lambda error: query.write_error(error, request_id), request_id)


def explain_missing_route(context: Context, path: str, request_id: str) -> HttpAnswer:
    """Say in the runtime's words why an invocation found no endpoint to take it."""

    def work() -> HttpAnswer:
        name = unquote(path.split("/")[2])
        status = _describe_endpoint(context, name)["EndpointStatus"]
        if status == "InService":
            raise ServiceUnavailable(f"Endpoint {name} is InService but cannot be reached just now; try again shortly.")
        raise ValidationException(
            f"Endpoint {name} of account {context.account} is {status}, not InService; DescribeEndpoint says more."
        )

    return _guarded(work, _write_runtime_error, request_id)


def _find(service: str | None, name: str, asked: str | None) -> OperationModel:
    """Find the operation. Raises UnknownOperation, which says whether nobody or only this platform does not know it."""
    operation = operation_model(service, name) if service else None
    if operation is not None and name in HANDLERS:
        return operation
    if not asked:
        raise UnknownOperation("the request names no operation: set the header X-Amz-Target to SageMaker.<Operation>")
    shown = ascii(asked[:100])
    if operation is None:
        raise UnknownOperation(f"{shown} is no operation of this API; GET / lists those that are")
    raise UnknownOperation(f"{shown} is not supported by raymaker; GET / lists the operations that are")


def _read(operation: OperationModel, body: bytes) -> Request:
    """Read a request. A wrong field is a ValidationException, but CloudWatch Logs has its own word for that."""
    try:
        return wire.read_request(operation, body)
    except ValidationException as error:
        if operation.service_model.service_name == "logs":
            raise InvalidParameterException(error.message) from error
        raise


def _describe_endpoint(context: Context, name: str) -> Answer:
    """Describe an endpoint. Raises ValidationException in the runtime's words where there is none."""
    operation = operation_model("sagemaker", "DescribeEndpoint")
    assert operation is not None
    try:
        return HANDLERS["DescribeEndpoint"](context, validate(operation, {"EndpointName": name}))
    except ValidationException:
        shown = ascii(name[:100])[1:-1]
        raise ValidationException(f"Endpoint {shown} of account {context.account} not found.") from None


def _write_runtime_error(error: ApiError) -> HttpAnswer:
    """Serialise an error as the runtime's REST-JSON has it."""
    code = "ValidationError" if isinstance(error, ClientError) else error.code
    answer = wire.write_json(error.status, {"Message": error.message, "ErrorCode": code})
    return replace(answer, headers={**wire.error_headers(error), "x-amzn-ErrorType": code})


def _guarded(work: Callable[[], HttpAnswer], write: Callable[[ApiError], HttpAnswer], request_id: str) -> HttpAnswer:
    """Run `work`; whatever it raises becomes an answer, and a bug leaves its traceback in the log."""
    try:
        return work()
    except ApiError as error:
        return write(error)
    except WorkError as error:
        return write(ValidationException(str(error)))
    except (OperationalError, PoolTimeout):
        log.warning("request %s: the database is locked or away", request_id, exc_info=True)
        return write(ServiceUnavailable("the database is locked or away; send the request again shortly"))
    except Exception:
        log.exception("request %s failed", request_id)
        return write(InternalFailure(f"the platform failed; its log has the reason under request id {request_id}"))
