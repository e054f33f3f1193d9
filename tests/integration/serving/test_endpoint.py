"""Endpoints on real Ray Serve with real containers, as a stock boto3 client meets them."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError
from integration.serving.serving_cluster import Platform

from raymaker.serving import endpoint
from raymaker.serving.endpoint import EndpointState


@pytest.fixture(scope="module")
def echo(platform: Platform) -> str:
    """An endpoint that echoes."""
    platform.deploy(platform.spec("echo", max_body_bytes=1024 * 1024))
    platform.wait_for("echo", EndpointState.HEALTHY)
    return "echo"


def test_a_body_of_any_bytes_comes_back_with_its_type_and_variant(platform: Platform, echo: str) -> None:
    with platform.client() as client:
        answer = client.invoke_endpoint(
            EndpointName=echo, Body=bytes(range(256)), ContentType="text/csv; charset=utf-8"
        )
        assert answer["Body"].read() == bytes(range(256))
        assert answer["ContentType"] == "text/csv; charset=utf-8"
        assert answer["InvokedProductionVariant"] == "main"
        assert answer["CustomAttributes"] == "echoed"
        assert answer["ResponseMetadata"]["RequestId"]
