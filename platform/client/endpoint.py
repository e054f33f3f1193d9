"""An endpoint as its user holds it: send it data, update it, read its log, delete it with what was made for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from raymaker.platform.client.asynchronous import AcceptedInvocation, accept_invocation
from raymaker.platform.client.captured import Captured, list_captured
from raymaker.platform.client.connection import Answer, Connection
from raymaker.platform.client.errors import EndpointFailed, RaymakerError, RequestRefused
from raymaker.platform.client.events import follow
from raymaker.platform.client.hosting_parts import HostingParts
from raymaker.platform.client.logs import ENDPOINT_GROUP, LogEvent, LogReader
from raymaker.platform.client.names import given, to_uri
from raymaker.platform.client.payload import Answer as ScoringAnswer
from raymaker.platform.client.payload import encode
from raymaker.platform.client.polling import Clock, look_until
from raymaker.platform.client.progress import progress_display
from raymaker.platform.client.streaming import StreamedAnswer, begin_stream

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
        target_model: str | None = None,
    ) -> ScoringAnswer:
        """Send data to the scoring container. See `payload.encode` for what may be sent.

        `target_model` names one of many models, where the container serves many.
        Raises InvocationFailed where the container answers with an error, RequestRefused where the platform does.
        """
        request = self._request(data, content_type, accept, custom_attributes)
        request |= given(TargetModel=target_model)
        answer = self.connection.call("invoke_endpoint", "sagemaker-runtime", **request)
        return ScoringAnswer(
            body=answer["Body"].read(),
            content_type=answer.get("ContentType", "application/octet-stream"),
            custom_attributes=answer.get("CustomAttributes"),
            variant=answer.get("InvokedProductionVariant"),
        )

    def invoke_stream(
        self,
        data: Any,
        content_type: str | None = None,
        accept: str | None = None,
        custom_attributes: str | None = None,
    ) -> StreamedAnswer:
        """Send data to the scoring container, and return its answer as soon as it begins: iterate over its pieces."""
        return begin_stream(self.connection, self._request(data, content_type, accept, custom_attributes))

    def invoke_async(
        self,
        input_uri: str | Path,
        content_type: str | None = None,
        accept: str | None = None,
        custom_attributes: str | None = None,
    ) -> AcceptedInvocation:
        """Have an input be answered later, an object by URI or a file that the platform sees; returns where to look.

        Raises RequestRefused where the endpoint is not asynchronous.
        """
        request = given(ContentType=content_type, Accept=accept, CustomAttributes=custom_attributes)
        location = to_uri("input_uri", input_uri)
        return accept_invocation(self.connection, {"EndpointName": self.name, "InputLocation": location, **request})

    def captured(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        variant: str | None = None,
        inference_id: str | None = None,
    ) -> Iterator[Captured]:
        """Yield what the endpoint's data capture kept of requests and answers, in the order of writing."""
        return list_captured(
            self.connection, self.name, since=since, until=until, variant=variant, inference_id=inference_id
        )

    def wait(self, timeout_s: float | None = None, *, progress: bool = True) -> Endpoint:
        """Wait until the endpoint is in service. Raises EndpointFailed with its last lines, WaitTimeout."""
        with progress_display(self.name, shown=progress) as show:

            def look() -> Answer:
                seen = self.describe()
                show(seen["EndpointStatus"], seen.get("FailureReason") or describe_rollout(seen))
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
        deployment_config: Mapping[str, Any] | None = None,
        wait: bool = True,
    ) -> Endpoint:
        """Change what is given and leave the rest, without failing a request meanwhile.

        `job` names the training job whose model and image to serve; `model_uri` is an archive for the image there is.
        `deployment_config` is boto3's DeploymentConfig: how the new containers take over, and when they are taken back.
        Raises EndpointFailed where they do not come up or are taken back; the old ones serve on then.
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
            how = given(DeploymentConfig=deployment_config and dict(deployment_config))
            self.connection.call("update_endpoint", EndpointName=self.name, EndpointConfigName=config, **how)
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

    def follow_events(self) -> Iterator[Answer]:
        """Yield what happened to the endpoint, and what happens until it is gone."""
        return follow(lambda: [] if self._is_gone() else self.events(), self._is_gone, self.clock)

    def _request(
        self, data: Any, content_type: str | None, accept: str | None, custom_attributes: str | None
    ) -> Answer:
        body, content_type = encode(data, content_type)
        headers = given(Accept=accept, CustomAttributes=custom_attributes)
        return {"EndpointName": self.name, "Body": body, "ContentType": content_type, **headers}

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


def describe_rollout(seen: Mapping[str, Any]) -> str:
    """Say where the update is that a description tells of; nothing where there is none, or it has no steps."""
    pending = seen.get("PendingDeploymentSummary", {}).get("ProductionVariants", [])
    statuses = pending[0].get("VariantStatus", []) if pending else []
    return str(statuses[0].get("StatusMessage", "")) if statuses else ""
