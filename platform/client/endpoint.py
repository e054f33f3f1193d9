"""An endpoint as its user holds it: send it data, update it, read its log, delete it with what was made for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from raymaker.platform.client.connection import Answer, Connection
from raymaker.platform.client.errors import EndpointFailed, RaymakerError, RequestRefused
from raymaker.platform.client.hosting_parts import HostingParts
from raymaker.platform.client.logs import ENDPOINT_GROUP, LogEvent, LogReader
from raymaker.platform.client.names import given
from raymaker.platform.client.payload import Answer as ScoringAnswer
from raymaker.platform.client.payload import encode
from raymaker.platform.client.polling import Clock, look_until
from raymaker.platform.client.progress import progress_display

SETTLED = {"InService", "Failed", "OutOfService", "UpdateRollbackFailed"}
LAST_LINES_COUNT = 20
NOT_FOUND = "ValidationException"
"""SageMaker's way to say that there is no endpoint of a name."""


@dataclass(frozen=True)
class Endpoint:
    """An endpoint on the platform, known by its name. Making a handle asks nothing and changes nothing."""

    name: str
    connection: Connection = field(repr=False)
    clock: Clock = field(default_factory=Clock, repr=False)

    def describe(self) -> Answer:
        """Return DescribeEndpoint's answer. Raises RequestRefused where there is no such endpoint."""
        return self.connection.call("describe_endpoint", EndpointName=self.name)

    @property
    def status(self) -> str:
        """Creating, InService, Updating, RollingBack, Failed, Deleting or UpdateRollbackFailed."""
        return str(self.describe()["EndpointStatus"])

    @property
    def config_name(self) -> str | None:
        """The configuration that is served, None where there is no such endpoint."""
        try:
            return str(self.describe()["EndpointConfigName"])
        except RequestRefused as error:
            if error.code == NOT_FOUND:
                return None
            raise

    def invoke(
        self,
        data: Any,
        content_type: str | None = None,
        accept: str | None = None,
        custom_attributes: str | None = None,
    ) -> ScoringAnswer:
        """Send data to the scoring container. See `payload.encode` for what may be sent.

        Raises InvocationFailed where the container answers with an error, RequestRefused where the platform does.
        """
        body, content_type = encode(data, content_type)
        answer = self.connection.call(
            "invoke_endpoint",
            "sagemaker-runtime",
            EndpointName=self.name,
            Body=body,
            ContentType=content_type,
            **given(Accept=accept, CustomAttributes=custom_attributes),
        )
        return ScoringAnswer(
            body=answer["Body"].read(),
            content_type=answer.get("ContentType", "application/octet-stream"),
            custom_attributes=answer.get("CustomAttributes"),
            variant=answer.get("InvokedProductionVariant"),
        )

    def wait(self, timeout_s: float | None = None, *, progress: bool = True) -> Endpoint:
        """Wait until the endpoint is in service. Raises EndpointFailed with its last lines, WaitTimeout."""
        with progress_display(self.name, shown=progress) as show:

            def look() -> Answer:
                seen = self.describe()
                show(seen["EndpointStatus"], seen.get("FailureReason", ""))
                return seen

            last = look_until(
                look,
                lambda seen: seen["EndpointStatus"] in SETTLED,
                what=f"endpoint {self.name} has not come into service",
                timeout_s=timeout_s,
                clock=self.clock,
            )
        if last["EndpointStatus"] != "InService":
            raise self._failed(last)
        return self

    def update(
        self,
        *,
        job: str | None = None,
        model_uri: str | None = None,
        image: str | None = None,
        environment: Mapping[str, str] | None = None,
        instance_type: str | None = None,
        instance_count: int | None = None,
        wait: bool = True,
    ) -> Endpoint:
        """Change what is given and leave the rest, without failing a request meanwhile.

        `job` names the training job whose model and image to serve; `model_uri` is an archive for the image there is.
        Raises EndpointFailed where the new containers do not come up; the old ones serve on then.
        """
        parts = HostingParts(self.connection, self.name)
        before = self.describe()["EndpointConfigName"]
        config = parts.make_changed(
            before,
            given(
                ModelDataUrl=f"training-job://{job}" if job else model_uri,
                Image=image,
                Environment=environment and dict(environment),
            ),
            given(InstanceType=instance_type, InitialInstanceCount=instance_count),
        )
        try:
            self.connection.call("update_endpoint", EndpointName=self.name, EndpointConfigName=config)
        except RaymakerError:
            parts.remove(config, in_favour_of=before)
            raise
        return self.wait_for(config, before) if wait else self

    def wait_for(self, config: str, before: str | None = None) -> Endpoint:
        """Wait until the endpoint serves `config`, then remove what was made for it and served `before`.

        Raises EndpointFailed, also where the endpoint went back to `before`: both end InService.
        """
        self.wait()
        seen, parts = self.describe(), HostingParts(self.connection, self.name)
        if seen["EndpointConfigName"] != config:
            parts.remove(config, in_favour_of=before)
            raise self._failed(seen, "the update was rolled back, and it serves what it served before: ")
        if before is not None and before != config:
            parts.remove(before, in_favour_of=config)
        return self

    def delete(self, *, wait: bool = False) -> None:
        """Delete the endpoint, and the configuration and the model where they were made for it alone."""
        seen, parts = self.describe(), HostingParts(self.connection, self.name)
        self.connection.call("delete_endpoint", EndpointName=self.name)
        pending = seen.get("PendingDeploymentSummary", {}).get("EndpointConfigName")
        for config in filter(None, (pending, seen["EndpointConfigName"])):
            parts.remove(config)
        if wait:
            look_until(self._is_gone, bool, what=f"endpoint {self.name} is not gone", clock=self.clock)

    def logs(self, *, follow: bool = False) -> Iterator[str]:
        """Yield the lines that its containers have said; with `follow`, go on until the endpoint is deleted."""
        return (event.text for event in self.log_events(follow=follow))

    def log_events(self, *, follow: bool = False) -> Iterator[LogEvent]:
        """Yield the lines with their times and streams."""
        reader = self._log_reader()
        return reader.follow(self._is_gone, self.clock) if follow else reader.read_new()

    def events(self) -> list[Answer]:
        """Return what happened to the endpoint, oldest first."""
        return list(self.connection.items("list_events", "Events", EndpointName=self.name))

    def _failed(self, seen: Answer, prefix: str = "") -> EndpointFailed:
        reason = seen.get("FailureReason") or f"it is {seen['EndpointStatus']}"
        try:
            lines = self._log_reader().last_lines(LAST_LINES_COUNT)
        except RequestRefused:  # the reason is what matters; the lines only help
            lines = []
        return EndpointFailed(self.name, f"{prefix}{reason}", lines)

    def _is_gone(self) -> bool:
        return self.config_name is None

    def _log_reader(self) -> LogReader:
        return LogReader(self.connection, f"{ENDPOINT_GROUP}{self.name}")
