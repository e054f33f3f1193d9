"""Container images by reference: found in the engine or pulled from a registry, and checked before anything is started.

Nothing is run here. Registries are reached by the engine itself, which must be told which of them have no TLS.
"""

from __future__ import annotations

import base64
import contextlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import docker
import docker.errors
import requests
from botocore.exceptions import BotoCoreError, ClientError
from docker.models.images import Image
from docker.utils import parse_repository_tag

from raymaker.actors.errors import ImageError

ECR_HOST = re.compile(r"(?P<account>\d{12})\.dkr\.ecr(-fips)?\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(\.cn)?")
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}

UNAUTHORIZED = re.compile(r"unauthorized|authentication required|no basic auth|denied", re.IGNORECASE)
NOT_FOUND = re.compile(r"not found|manifest unknown|does not exist|name unknown", re.IGNORECASE)
NO_TLS = re.compile(r"HTTP response to HTTPS client|x509|certificate", re.IGNORECASE)
OTHER_PLATFORM = re.compile(r"no matching manifest|no match for platform|match the specified platf", re.IGNORECASE)
AWAY = re.compile(
    r"connection refused|no such host|timeout|timed out|unreachable|dial tcp|deadline exceeded|reset by peer|EOF",
    re.IGNORECASE,
)

LOOKUPS = 3
"""How often an image is looked up in an engine that does not answer in time."""


@dataclass(frozen=True)
class ResolvedImage:
    """An image that the engine holds. `id` never moves; `digest` is the registry's, None where it came from none."""

    reference: str
    id: str
    digest: str | None
    architecture: str
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]


class ImageStore:
    """The images that one engine holds or can pull.

    `ecr` makes a client of Amazon ECR for a region. `insecure_registries` are those without TLS, for better advice.
    `architecture` is the engine's, which is asked where that is not known.
    """

    def __init__(
        self,
        client: docker.DockerClient,
        ecr: Callable[[str], Any] | None = None,
        insecure_registries: Sequence[str] = (),
        architecture: str | None = None,
    ) -> None:
        self._client = client
        self._ecr = ecr or _ecr_client
        self._insecure = frozenset(insecure_registries)
        self._architecture = architecture

    def resolve(self, reference: str, on_progress: Callable[[str], None] = lambda _: None) -> ResolvedImage:
        """Find an image by tag, digest or id in the engine, else pull it. Raises ImageError naming cause and remedy."""
        image = self._find(reference)
        if image is None:
            self._pull(reference, on_progress)
            image = self._find(reference)
        if image is None:
            raise ImageError(f"image {reference} was pulled, but the engine does not show it: try again")
        resolved = _describe(reference, image)
        self._check_architecture(resolved)
        return resolved

    def _find(self, reference: str) -> Image | None:
        try:
            return find_image(self._client, reference)
        except docker.errors.APIError as error:
            if error.status_code == 400:  # noqa: PLR2004 - no valid reference
                raise ImageError(
                    f"{reference!r} is no image reference: write registry/name:tag or name@sha256:…"
                ) from error
            raise ImageError(f"the container engine could not look for image {reference}: {error}") from error
        except (docker.errors.DockerException, OSError) as error:
            raise ImageError(f"the container engine does not answer, looking for image {reference}: {error}") from error

    def _pull(self, reference: str, on_progress: Callable[[str], None]) -> None:
        if re.fullmatch(r"(sha256:)?[0-9a-f]{12,64}", reference):
            raise ImageError(f"the engine has no image with the id {reference}, and ids cannot be pulled: name a tag")
        repository, tag = parse_repository_tag(reference)
        try:
            steps = self._client.api.pull(
                repository, tag=tag or "latest", stream=True, decode=True, auth_config=self._credentials(repository)
            )
            for step in steps:
                if "error" in step:
                    raise ImageError(self._explain(reference, str(step["error"])))
                on_progress(" ".join(str(step[key]) for key in ("id", "status", "progress") if step.get(key)))
        except (docker.errors.DockerException, OSError) as error:
            raise ImageError(self._explain(reference, str(getattr(error, "explanation", None) or error))) from error

    def _credentials(self, repository: str) -> dict[str, str] | None:
        """A login for Amazon ECR; for other registries the engine's client has its own (`docker login`)."""
        match = ECR_HOST.fullmatch(repository.partition("/")[0])
        if match is None:
            return None
        try:
            answer = self._ecr(match["region"]).get_authorization_token(registryIds=[match["account"]])
        except (BotoCoreError, ClientError) as error:
            raise ImageError(
                f"no login to Amazon ECR for {repository} ({error}): set AWS credentials that permit "
                "ecr:GetAuthorizationToken, ecr:BatchGetImage and ecr:GetDownloadUrlForLayer"
            ) from error
        token = base64.b64decode(answer["authorizationData"][0]["authorizationToken"]).decode()
        user, _, password = token.partition(":")
        return {"username": user, "password": password}

    def _explain(self, reference: str, cause: str) -> str:
        """Say where the image was looked for, why it could not be had, and what to do."""
        registry = _registry(reference)
        if OTHER_PLATFORM.search(cause):
            return f"image {reference} has no variant for this engine's platform ({cause}): build one for it"
        if NO_TLS.search(cause):
            known = " (raymaker knows it as insecure, the engine does not)" if registry in self._insecure else ""
            return (
                f"registry {registry} has no TLS that the engine trusts{known}, so image {reference} was not pulled: "
                f'add it to "insecure-registries" in the engine\'s daemon.json ({cause})'
            )
        if AWAY.search(cause):
            return f"registry {registry} cannot be reached, and the engine has no image {reference}: {cause}"
        if NOT_FOUND.search(cause) and "docker login" not in cause:
            return (
                f"image {reference} is neither in the engine nor in registry {registry}: check the name, push it "
                "there, or bring it to the engine with `docker pull`, `docker load` or `docker build`"
            )
        if UNAUTHORIZED.search(cause):
            return (
                f"registry {registry} refuses image {reference} ({cause}): it does not exist there, or needs "
                f"`docker login {registry}`"
            )
        return f"image {reference} is not in the engine, and registry {registry} did not give it: {cause}"

    def _check_architecture(self, image: ResolvedImage) -> None:
        if self._architecture is None:
            self._architecture = str(self._client.version()["Arch"])
        engine = ARCHITECTURES.get(self._architecture, self._architecture)
        if image.architecture and image.architecture != engine:
            raise ImageError(
                f"image {image.reference} is made for linux/{image.architecture}, this engine runs linux/{engine}: "
                f"build it with `docker build --platform linux/{engine}`"
            )


def find_image(client: docker.DockerClient, reference: str) -> Image | None:
    """Look an image up, None where the engine has none; asks again where no answer comes within the client's timeout.

    A request to an engine that stumbles may hang for good. Raises DockerException, OSError.
    """
    for _ in range(LOOKUPS - 1):
        with contextlib.suppress(requests.exceptions.ReadTimeout):
            return _look_up(client, reference)
    return _look_up(client, reference)


def _look_up(client: docker.DockerClient, reference: str) -> Image | None:
    try:
        return client.images.get(reference)
    except docker.errors.ImageNotFound:
        return None


def _describe(reference: str, image: Image) -> ResolvedImage:
    configuration = image.attrs.get("Config") or {}
    repository, _ = parse_repository_tag(reference)
    digests = [entry.partition("@") for entry in image.attrs.get("RepoDigests") or ()]
    own = [digest for name, _, digest in digests if name == repository]
    architecture = image.attrs.get("Architecture") or ""
    return ResolvedImage(
        reference=reference,
        id=str(image.id),
        digest=(own or [digest for _, _, digest in digests] or [None])[0],
        architecture=ARCHITECTURES.get(architecture, architecture),
        entrypoint=tuple(configuration.get("Entrypoint") or ()),
        command=tuple(configuration.get("Cmd") or ()),
    )


def _registry(reference: str) -> str:
    """The registry of a reference, as docker reads it: a first part with a dot, a colon or called localhost."""
    first, slash, _ = reference.partition("/")
    return first if slash and (set(".:") & set(first) or first == "localhost") else "docker.io"


def _ecr_client(region: str) -> Any:
    import boto3

    return boto3.client("ecr", region_name=region)
