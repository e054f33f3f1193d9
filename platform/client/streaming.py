"""An answer of a scoring container that is read while it comes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Self

from botocore.exceptions import EventStreamError, ReadTimeoutError
from urllib3.exceptions import HTTPError

from raymaker.platform.client.connection import Answer, Connection
from raymaker.platform.client.errors import InvocationFailed, PlatformUnreachable, RequestRefused


@dataclass(frozen=True)
class StreamedAnswer:
    """What a scoring container answers, piece by piece: iterate over it once. Closing it early ends the answer.

    Iterating raises InvocationFailed where the container breaks off, PlatformUnreachable where the platform does.
    """

    content_type: str
    custom_attributes: str | None
    variant: str | None
    _events: Any = field(repr=False)

    def __iter__(self) -> Iterator[bytes]:
        try:
            for event in self._events:
                yield event["PayloadPart"]["Bytes"]
        except EventStreamError as error:
            told = error.response["Error"]
            if told["Code"] == "ModelStreamError":
                raise InvocationFailed(told["Code"], told["Message"], 0, "") from error
            raise RequestRefused(told["Code"], told["Message"]) from error
        except (HTTPError, ReadTimeoutError, OSError) as error:
            raise PlatformUnreachable(f"the platform broke off in the middle of an answer: {error}") from error
        finally:
            self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Take no more of the answer; the container can notice."""
        self._events.close()


def begin_stream(connection: Connection, request: Answer) -> StreamedAnswer:
    """Send a request, and return its answer once it begins. Raises InvocationFailed, RequestRefused."""
    answer = connection.call("invoke_endpoint_with_response_stream", "sagemaker-runtime", **request)
    return StreamedAnswer(
        content_type=answer.get("ContentType", "application/octet-stream"),
        custom_attributes=answer.get("CustomAttributes"),
        variant=answer.get("InvokedProductionVariant"),
        _events=answer["Body"],
    )
