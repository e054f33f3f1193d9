"""Image references, what registries' errors mean, and logins to Amazon ECR."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import boto3
import docker
import pytest
from botocore.stub import Stubber

from raymaker.actors.errors import ImageError
from raymaker.actors.images import ImageStore, _registry

ECR_REPOSITORY = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/model"


@pytest.fixture
def engine_client() -> Iterator[docker.DockerClient]:
    client = docker.DockerClient("unix:///nowhere/docker.sock", version="1.41")
    yield client
    client.close()


@pytest.fixture
def ecr() -> Iterator[Any]:
    client = boto3.client("ecr", region_name="eu-west-1", aws_access_key_id="key", aws_secret_access_key="secret")
    yield client
    client.close()


@pytest.mark.parametrize(
    ("reference", "registry"),
    [
        ("python:3.11", "docker.io"),
        ("team/model", "docker.io"),
        ("127.0.0.1:5000/model:1", "127.0.0.1:5000"),
        ("localhost/model", "localhost"),
        ("registry.example.com/a/b@sha256:00", "registry.example.com"),
    ],
)
def test_the_registry_of_a_reference_is_what_docker_reads(reference: str, registry: str) -> None:
    assert _registry(reference) == registry


def test_a_login_to_ecr_is_asked_for_in_the_references_region_and_account(
    engine_client: docker.DockerClient, ecr: Any
) -> None:
    regions: list[str] = []
    token = base64.b64encode(b"AWS:pass:word").decode()
    with Stubber(ecr) as stub:
        stub.add_response(
            "get_authorization_token",
            {"authorizationData": [{"authorizationToken": token}]},
            {"registryIds": ["123456789012"]},
        )
        images = ImageStore(engine_client, lambda region: regions.append(region) or ecr)
        assert images._credentials(ECR_REPOSITORY) == {"username": "AWS", "password": "pass:word"}
    assert regions == ["eu-west-1"]


def test_a_refused_login_to_ecr_names_the_permissions(engine_client: docker.DockerClient, ecr: Any) -> None:
    with Stubber(ecr) as stub:
        stub.add_client_error("get_authorization_token", "AccessDeniedException", "not you")
        images = ImageStore(engine_client, lambda _: ecr)
        with pytest.raises(ImageError, match="not you.*ecr:GetAuthorizationToken"):
            images._credentials(ECR_REPOSITORY)


def test_other_registries_get_no_login_from_ecr(engine_client: docker.DockerClient) -> None:
    images = ImageStore(engine_client, lambda _: pytest.fail("ECR was asked"))
    assert images._credentials("registry.example.com/123456789012.dkr.ecr.eu-west-1.amazonaws.com") is None


@pytest.mark.parametrize(
    ("cause", "told"),
    [
        (
            "manifest for h:5/a:1 not found: manifest unknown: manifest unknown",
            "neither in the engine nor in registry h:5",
        ),
        (
            "pull access denied for a, repository does not exist or may require 'docker login': denied",
            "docker login h:5",
        ),
        ("Head http://h:5/v2/a/manifests/1: unauthorized: authentication required", "docker login h:5"),
        ("Get https://h:5/v2/: dial tcp 127.0.0.1:5: connect: connection refused", "registry h:5 cannot be reached"),
        ("Get https://h:5/v2/: dial tcp: lookup h: no such host", "registry h:5 cannot be reached"),
        ("Get https://h:5/v2/: http: server gave HTTP response to HTTPS client", "insecure-registries"),
        ("Get https://h:5/v2/: x509: certificate signed by unknown authority", "insecure-registries"),
        ("no matching manifest for linux/amd64 in the manifest list entries", "no variant for this engine's platform"),
        ("something odd", "something odd"),
    ],
)
def test_what_a_registry_says_becomes_a_cause_and_a_remedy(
    engine_client: docker.DockerClient, cause: str, told: str
) -> None:
    message = ImageStore(engine_client)._explain("h:5/a:1", cause)
    assert told in message
    assert "h:5/a:1" in message
