"""The model and the endpoint configuration behind an endpoint, made and removed with it.

What is made for an endpoint alone carries a tag that names it, so that deleting the endpoint removes that too, and
never what somebody made for themselves.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from raymaker.platform.client.connection import Connection
from raymaker.platform.client.errors import RaymakerError, RequestRefused
from raymaker.platform.client.names import made_up_name
from raymaker.platform.records import OWNER_TAG

JOB_SCHEME = "training-job://"
ROLE = "arn:aws:iam::000000000000:role/raymaker"
"""The wire asks for a role; the platform keeps it and does nothing with it."""


class HostingParts:
    """What stands behind the endpoint of this name."""

    def __init__(self, connection: Connection, endpoint_name: str) -> None:
        self._connection = connection
        self._endpoint = endpoint_name
        self._tags = [{"Key": OWNER_TAG, "Value": endpoint_name}]

    def make(self, container: Mapping[str, Any], variant: Mapping[str, Any]) -> str:
        """Make a model and a configuration with one variant of it, both of a new name, and return the name."""
        name = made_up_name(self._endpoint)
        self._connection.call(
            "create_model", ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=dict(container), Tags=self._tags
        )
        try:
            self._make_config(name, {**variant, "ModelName": name})
        except RaymakerError:
            self._connection.call("delete_model", ModelName=name)
            raise
        return name

    def make_changed(self, config: str, container: Mapping[str, Any], variant: Mapping[str, Any]) -> str:
        """Make a configuration like `config` but for the fields given, with a model of its own where that changes."""
        old = self._variant(config)
        if container:
            described = self._connection.call("describe_model", ModelName=old["ModelName"])
            model = described.get("PrimaryContainer") or described["Containers"][0]
            if container.get("ModelDataUrl", "").startswith(JOB_SCHEME):
                model.pop("Image", None)  # a job brings its own
            return self.make({**model, **container}, {**old, **variant})
        name = made_up_name(self._endpoint)
        self._make_config(name, {**old, **variant})
        return name

    def remove(self, config: str, *, in_favour_of: str | None = None) -> None:
        """Delete a configuration and its model where they were made for this endpoint, but no model of another one's.

        `in_favour_of` names that other configuration. What is gone already is no error.
        """
        with contextlib.suppress(RequestRefused):
            described = self._connection.call("describe_endpoint_config", EndpointConfigName=config)
            model = described["ProductionVariants"][0]["ModelName"]
            if self._owns(described["EndpointConfigArn"]):
                self._connection.call("delete_endpoint_config", EndpointConfigName=config)
            if in_favour_of is not None and self._variant(in_favour_of)["ModelName"] == model:
                return
            if self._owns(self._connection.call("describe_model", ModelName=model)["ModelArn"]):
                self._connection.call("delete_model", ModelName=model)

    def _make_config(self, name: str, variant: Mapping[str, Any]) -> None:
        self._connection.call(
            "create_endpoint_config",
            EndpointConfigName=name,
            ProductionVariants=[{"VariantName": "AllTraffic", **variant}],
            Tags=self._tags,
        )

    def _variant(self, config: str) -> dict[str, Any]:
        described = self._connection.call("describe_endpoint_config", EndpointConfigName=config)
        variant: dict[str, Any] = described["ProductionVariants"][0]
        return variant

    def _owns(self, arn: str) -> bool:
        return any(tag in self._tags for tag in self._connection.items("list_tags", "Tags", ResourceArn=arn))
