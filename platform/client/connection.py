"""The way from a client to the platform: botocore's clients at one URL, with this platform's operations added.

Needs no AWS account: where the platform answers on this machine, requests are signed with a made-up key, so that real
ones never go there. Turns botocore's errors into the client's own.
"""

from __future__ import annotations

import ipaddress
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import botocore.config
import botocore.exceptions
import botocore.session

from raymaker.platform.client.errors import (
    InvocationFailed,
    PlatformUnreachable,
    RaymakerError,
    RequestRefused,
    WrongArgument,
)
from raymaker.platform.client.settings import read_settings

Answer = dict[str, Any]

MODEL_FOLDER = Path(__file__).parents[1] / "model"
"""Where botocore finds the operations and fields that SageMaker does not have."""
DEFAULT_REGION = "us-east-1"
LONGEST_INVOCATION_S = 3600
_AWAY = {502, 503, 504}


class Connection:
    """Calls operations of `sagemaker`, `sagemaker-runtime` and `logs` at one URL. Threads may share it."""

    def __init__(self, endpoint_url: str | None = None, region: str | None = None) -> None:
        self.url = (endpoint_url or default_url()).rstrip("/")
        if urlsplit(self.url).scheme not in {"http", "https"}:
            raise WrongArgument(f"endpoint_url is {self.url!r}: give an http:// or https:// URL")
        self._session = botocore.session.Session()
        self._session.get_component("data_loader").search_paths.insert(0, str(MODEL_FOLDER))
        self._region = region or self._session.get_config_variable("region") or DEFAULT_REGION
        self._clients: dict[str, Any] = {}
        self._making = threading.Lock()

    @property
    def is_local(self) -> bool:
        """Tell whether the platform answers on this machine's loopback."""
        host = urlsplit(self.url).hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost" or host.endswith(".localhost")

    def client(self, service: str) -> Any:
        """Return botocore's client of `service`, made at its first use."""
        with self._making:
            if service not in self._clients:
                self._clients[service] = self._session.create_client(
                    service,
                    region_name=self._region,
                    endpoint_url=self.url,
                    config=self._config(service),
                    aws_access_key_id=self._made_up_key,
                    aws_secret_access_key=self._made_up_key,
                )
            return self._clients[service]

    def call(self, operation: str, service: str = "sagemaker", **request: Any) -> Answer:
        """Call one operation by botocore's name (`describe_training_job`). Raises RaymakerError."""
        try:
            answer: Answer = getattr(self.client(service), operation)(**request)
        except botocore.exceptions.BotoCoreError as error:
            raise self._explain(error) from error
        except botocore.exceptions.ClientError as error:
            raise self._translate(error, service) from error
        answer.pop("ResponseMetadata", None)
        return answer

    def items(self, operation: str, key: str, service: str = "sagemaker", **request: Any) -> Iterator[Any]:
        """Yield what an operation lists under `key`, page after page."""
        token = "nextToken" if service == "logs" else "NextToken"
        while True:
            answer = self.call(operation, service, **request)
            yield from answer[key]
            if not answer.get(token):
                return
            request[token] = answer[token]

    def close(self) -> None:
        """Close the connections. Calling afterwards opens new ones."""
        for client in self._clients.values():
            client.close()
        self._clients.clear()

    def _config(self, service: str) -> botocore.config.Config:
        # An invocation may take as long as the endpoint allows, and is not sent again: it may have had effects.
        scoring = service == "sagemaker-runtime"
        return botocore.config.Config(
            connect_timeout=5,
            read_timeout=LONGEST_INVOCATION_S + 60 if scoring else 60,
            retries={"mode": "standard", "total_max_attempts": 1 if scoring else 3},
            proxies={} if self.is_local else None,
        )

    @property
    def _made_up_key(self) -> str | None:
        """A key for this machine, and for users who have none; None otherwise, so that botocore takes the user's."""
        return "local" if self.is_local or self._session.get_credentials() is None else None

    def _explain(self, error: botocore.exceptions.BotoCoreError) -> RaymakerError:
        """Put an error that came without an answer into the user's words."""
        if isinstance(error, botocore.exceptions.ParamValidationError):
            return WrongArgument(str(error))
        if isinstance(error, (botocore.exceptions.ConnectionError, botocore.exceptions.HTTPClientError)):
            cause = "" if isinstance(error, botocore.exceptions.EndpointConnectionError) else f" ({error})"
            return PlatformUnreachable(
                f"no platform answers at {self.url}{cause}. Start it with `raymaker up`, "
                "or set RAYMAKER_ENDPOINT_URL to where yours answers."
            )
        return RaymakerError(str(error))

    def _translate(self, error: botocore.exceptions.ClientError, service: str) -> RaymakerError:
        """Turn an answer that is an error into the client's own error."""
        told: dict[str, Any] = dict(error.response)
        code, message = told["Error"].get("Code", "Unknown"), told["Error"].get("Message") or str(error)
        if "OriginalStatusCode" in told:
            return InvocationFailed(code, message, int(told["OriginalStatusCode"]), told.get("OriginalMessage", ""))
        if service != "sagemaker-runtime" and told["ResponseMetadata"]["HTTPStatusCode"] in _AWAY:
            return PlatformUnreachable(f"the platform at {self.url} cannot answer just now: {message}. Try again soon.")
        return RequestRefused(code, message)


def default_url() -> str:
    """Where the platform answers when nobody says: `RAYMAKER_ENDPOINT_URL`, else the port of the settings."""
    if url := os.environ.get("RAYMAKER_ENDPOINT_URL"):
        return url
    return read_settings().url
