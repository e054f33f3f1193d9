"""The backend of a replica whose one container serves many models: fetched and loaded when they are asked for.

A model is `TargetModel` below the endpoint's ModelDataUrl. The container is told of it by `POST /models`, and where it
has no room (507) the least recently used ones are unloaded. Its disk is bounded in the same way.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import shutil
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

from raymaker.actors.artifacts import unpack
from raymaker.actors.errors import ObjectNotFound, WorkError
from raymaker.actors.extraction import safe_path
from raymaker.actors.scoring import MODELS_PATH
from raymaker.actors.spec import ScoringSpec
from raymaker.actors.storage import ObjectStore, StoreConfig, child_uri
from raymaker.serving import runtime_wire as wire
from raymaker.serving.backend import Invocation, Scored, ScoredStream
from raymaker.serving.forward import ContainerAnswer
from raymaker.serving.local_container import LocalContainer
from raymaker.serving.multimodel_cache import CachedModel, ModelCache
from raymaker.serving.runtime_wire import TARGET_MODEL, Refusal

logger = logging.getLogger(__name__)

DISK_SHARE = 0.5
"""How much of what is free on the disk when the replica starts its models may take."""
LOAD_TIMEOUT_S = 300.0
ROOM_WAIT_S = 10.0
"""How long a load waits for a model that nobody uses any more, where the container is full of models in use."""

T = TypeVar("T")
Fetch = Callable[[str, Path], None]


@dataclass(frozen=True)
class ModelFolder:
    """Where models come from and where they are put: `fetch` brings one below `folder`, which the container sees."""

    prefix_uri: str
    folder: Path
    fetch: Fetch
    limit_bytes: int


def open_models(
    spec: ScoringSpec, container: LocalContainer, folder: Path, config: StoreConfig
) -> MultiModelContainer | None:
    """Make the backend that loads models on demand; None where the container serves one. Models are put in `folder`."""
    if not spec.multi_model or spec.model_uri is None:
        return None
    store = ObjectStore(config)

    def fetch(uri: str, target: Path) -> None:
        unpack(store, uri, target)

    limit_bytes = int(shutil.disk_usage(folder).free * DISK_SHARE)
    models = ModelFolder(spec.model_uri, folder, fetch, limit_bytes)
    return MultiModelContainer(container, models, keeps=spec.keeps_models)


class MultiModelContainer:
    """A Backend. Belongs to one event loop. With `keeps` False a model is unloaded as soon as nobody uses it.

    Of each model one thing happens at a time: it is loading, or leaving, or here. Whoever comes meanwhile waits. One
    model leaves at a time.
    """

    def __init__(self, container: LocalContainer, models: ModelFolder, *, keeps: bool = True) -> None:
        self._container = container
        self._models = models
        self._keeps = keeps
        self._cache = ModelCache(models.limit_bytes)
        self._seen_container = 0
        self._under_way: set[asyncio.Task[Any]] = set()
        self._loading: dict[str, asyncio.Task[None]] = {}
        self._leaving: dict[str, asyncio.Task[None]] = {}
        self._door = asyncio.Lock()
        self._ended = asyncio.Event()
        """Set whenever a request has ended: its model may make room."""

    async def invoke(self, invocation: Invocation) -> Scored:
        """Have the target model answer. Raises Refusal."""
        name = _target(invocation)
        path = f"/models/{handle_of(name)}/invoke"
        async with self._used(name) as model:
            scored = await self._container.invoke(invocation, path)
            if scored.status == HTTPStatus.NOT_FOUND:  # the container may have dropped the model by itself
                model.is_loaded = False
                await self._be_ready(name)
                scored = await self._container.invoke(invocation, path)
            return scored

    @contextlib.asynccontextmanager
    async def stream(self, invocation: Invocation) -> AsyncIterator[ScoredStream]:
        """Have the target model begin to answer. Raises Refusal."""
        name = _target(invocation)
        path = f"/models/{handle_of(name)}/invoke"
        async with self._used(name), self._container.stream(invocation, path) as scored:
            yield scored

    @contextlib.asynccontextmanager
    async def _used(self, name: str) -> AsyncIterator[CachedModel]:
        """Have a model in the container for as long as the block lasts. Raises Refusal."""
        self._cache.begin_use(name)
        try:
            yield await self._be_ready(name)
        finally:
            self._cache.end_use(name)
            self._ended.set()
            if not self._keeps:
                self._start(self._take_out(lambda: self._cache.find_unused(name), self._unload))

    async def _be_ready(self, name: str) -> CachedModel:
        """Wait until a model that is used is in the container. A load goes on when who began it is given up."""
        while True:
            if self._seen_container != self._container.container_number:
                self._seen_container = self._container.container_number
                self._cache.forget_loaded()
            model = self._cache.find(name)
            if name in self._leaving:
                await asyncio.wait([self._leaving[name]])
            elif model is not None and model.is_loaded:
                return model
            else:
                loading = self._loading.get(name)
                if loading is None:
                    loading = self._loading[name] = self._start(self._bring(name))
                    loading.add_done_callback(lambda _: self._loading.pop(name))
                await asyncio.shield(loading)

    async def _take_out(
        self, choose: Callable[[], CachedModel | None], work: Callable[[CachedModel], Coroutine[Any, Any, None]]
    ) -> bool:
        """Have a model leave, which nobody uses. False where there is none to choose."""
        async with self._door:
            victim = choose()
            if victim is None:
                return False
            leaving = self._leaving[victim.name] = self._start(work(victim))
            await asyncio.wait([leaving])
            del self._leaving[victim.name]
        return True

    def _start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run something that goes on whoever is given up. Whoever waits for it hears of its failure."""
        task = asyncio.get_running_loop().create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._end)
        return task

    def _end(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()

    async def _bring(self, name: str) -> None:
        """Bring a model to disk and into the container. Nobody takes it away meanwhile. Raises Refusal."""
        self._cache.begin_use(name)
        try:
            model = self._cache.find(name) or await self._fetch(name)
            while await self._take_out(self._cache.next_to_remove, self._remove):
                pass
            await self._load(model)
        finally:
            self._cache.end_use(name)

    async def _fetch(self, name: str) -> CachedModel:
        folder = self._models.folder / handle_of(name)
        uri = child_uri(self._models.prefix_uri, name)
        try:
            await asyncio.to_thread(self._models.fetch, uri, folder / "model")
            return self._cache.add(name, await asyncio.to_thread(_size_of, folder))
        except WorkError as error:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
            missing = isinstance(error, ObjectNotFound)
            reason = f"is not there: nothing lies at {uri}" if missing else f"cannot be fetched: {error}"
            raise Refusal(wire.invalid(f"TargetModel {name} {reason}")) from error

    async def _load(self, model: CachedModel) -> None:
        """Tell the container of a model, and unload others for as long as it says that it has no room."""
        handle = handle_of(model.name)
        body = json.dumps({"model_name": handle, "url": f"{MODELS_PATH}/{handle}/model"}).encode()
        while True:
            answer = await self._tell("POST", "/models", body)
            if answer.status in {HTTPStatus.OK, HTTPStatus.CONFLICT}:
                model.is_loaded = True
                return
            if answer.status != HTTPStatus.INSUFFICIENT_STORAGE or not await self._make_room():
                raise Refusal(wire.model_error(answer.status, answer.body, self._container.log_stream_arn))

    async def _make_room(self) -> bool:
        """Unload the least recently used model that nobody uses, or wait a while for one. False where there is none."""
        deadline = asyncio.get_running_loop().time() + ROOM_WAIT_S
        while not await self._take_out(self._cache.next_to_unload, self._unload):
            self._ended.clear()
            try:
                async with asyncio.timeout_at(deadline):
                    await self._ended.wait()
            except TimeoutError:
                return False
        return True

    async def _remove(self, model: CachedModel) -> None:
        self._cache.remove(model)
        if model.is_loaded:
            await self._unload(model)
        await asyncio.to_thread(shutil.rmtree, self._models.folder / handle_of(model.name), ignore_errors=True)

    async def _unload(self, model: CachedModel) -> None:
        model.is_loaded = False
        answer = await self._tell("DELETE", f"/models/{handle_of(model.name)}")
        if answer.status not in {HTTPStatus.OK, HTTPStatus.NO_CONTENT, HTTPStatus.NOT_FOUND}:
            logger.warning("unloading %s was answered with status %d", model.name, answer.status)

    async def _tell(self, method: str, path: str, body: bytes = b"") -> ContainerAnswer:
        headers = [(b"content-type", b"application/json")] if body else []
        return await self._container.request(method, path, headers, body, timeout_s=LOAD_TIMEOUT_S)


def handle_of(name: str) -> str:
    """Name a model as the container knows it: a word that is safe in paths, whatever the model is called."""
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def _target(invocation: Invocation) -> str:
    """Read the target model. Raises Refusal where there is none, or it leads elsewhere."""
    name = dict(invocation.headers).get(TARGET_MODEL, b"").decode("latin-1")
    if not name:
        raise Refusal(wire.invalid("TargetModel is missing: this endpoint serves many models"))
    try:
        return str(safe_path(name, "TargetModel"))
    except WorkError:
        raise Refusal(wire.invalid(f"TargetModel {name} leads out of the models' location")) from None


def _size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
