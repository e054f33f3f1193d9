"""An image or source code made ready to run on this machine: resolved, pulled, staged, built. Starts nothing.

Training and scoring say the same thing to a runtime in the end; this is where both find out what.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import docker.errors

from raymaker.actors.errors import ImageError, UnsupportedError
from raymaker.actors.images import ImageStore
from raymaker.actors.packaging import build_here, build_image, stage_source
from raymaker.actors.runtime.base import ContainerRuntime
from raymaker.actors.runtime.docker_engine import connect_client
from raymaker.actors.site import Site
from raymaker.actors.spec import SourceSpec
from raymaker.actors.storage import ObjectStore

ENGINE_TIMEOUT_S = 30
"""How long the engine may take to look an image up. Pulls and builds have no limit, as the SDK has it."""


@dataclass(frozen=True)
class Algorithm:
    """What to put into a ContainerSpec: an image that never moves, or a folder of source code for the process driver.

    `digest` names the image for good: the registry's digest, or the engine's id where it came from no registry.
    """

    image: str | None = None
    source_dir: str | None = None
    digest: str | None = None


def prepare_algorithm(
    runtime: ContainerRuntime, store: ObjectStore, site: Site, *, image: str | None, source: SourceSpec | None
) -> Algorithm:
    """Make an image or source code runnable by `runtime`. Raises ImageError, PackagingError, StorageError."""
    if (image is None) == (source is None):
        raise ValueError("an algorithm is either an image or source code")
    if runtime.name != "docker":
        return _prepare_here(store, site, image, source)
    try:
        client, engine = connect_client(ENGINE_TIMEOUT_S)
    except (docker.errors.DockerException, OSError) as error:
        raise ImageError(f"the container engine does not answer: is it running? ({error})") from error
    with contextlib.closing(client):
        images = ImageStore(client, insecure_registries=site.registry_insecure, architecture=engine.architecture)
        if source is None:
            found = images.resolve(str(image))
            return Algorithm(image=found.id, digest=found.digest or found.id)
        staged = stage_source(store, source, site.sources)
        base = images.resolve(source.base_image or site.base_image)
        built = build_image(staged, base.id, client)
        return Algorithm(image=built, digest=built)


def _prepare_here(store: ObjectStore, site: Site, image: str | None, source: SourceSpec | None) -> Algorithm:
    """Stage source code for the process driver, which has no images."""
    named = image if source is None else source.base_image
    if named is not None or source is None:
        raise UnsupportedError(
            f"image {named} cannot run on this machine, where no container engine answers: start one (Docker, Podman) "
            "and set RAYMAKER_DRIVER=docker, or give source code without a base image instead"
        )
    return Algorithm(source_dir=str(build_here(stage_source(store, source, site.sources)).folder))
