"""Many models behind one container that is a small class: what is fetched, loaded, evicted, shared and refused."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from raymaker.actors.errors import ObjectNotFound
from raymaker.serving import multimodel
from raymaker.serving.backend import Invocation, Scored
from raymaker.serving.forward import ContainerAnswer
from raymaker.serving.multimodel import ModelFolder, MultiModelContainer, handle_of
from raymaker.serving.runtime_wire import TARGET_MODEL, Refusal
from support.scoring import ADDRESS, FakeContainer, local_container


class ManyModels(FakeContainer):
    """A container with room for so many models."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self.loaded: set[str] = set()
        self.calls: list[str] = []

    async def request(
        self, method: str, path: str, headers: Any = (), body: bytes = b"", *, timeout_s: float | None = None
    ) -> ContainerAnswer:
        parts = path.split("/")
        if path == "/models":
            return self._answer(self._load(json.loads(body)["model_name"]))
        if method == "DELETE":
            self.calls.append(f"unload {self.name(parts[2])}")
            self.loaded.discard(parts[2])
            return self._answer(200)
        if self.hold is not None:
            await self.hold.wait()
        return self._answer(200 if parts[2] in self.loaded else 404, self.name(parts[2]).encode())

    def name(self, handle: str) -> str:
        return next(name for name in "abcdefgh" if handle_of(name) == handle)

    def _load(self, handle: str) -> int:
        self.calls.append(f"load {self.name(handle)}")
        if handle in self.loaded:
            return 409
        if len(self.loaded) >= self.room:
            return 507
        self.loaded.add(handle)
        return 200

    def _answer(self, status: int, body: bytes = b"") -> ContainerAnswer:
        return ContainerAnswer(status, [], body)


class World:
    """The container, the place where models lie, and the backend between them."""

    def __init__(self, folder: Path, room: int = 2, limit_bytes: int = 1000, *, keeps: bool = True) -> None:
        self.container = ManyModels(room)
        self.folder = folder
        self.fetched: list[str] = []
        self.local = local_container(self.container)
        self.backend = MultiModelContainer(
            self.local, ModelFolder("s3://b/models", folder, self._fetch, limit_bytes), keeps=keeps
        )

    def _fetch(self, uri: str, target: Path) -> None:
        name = uri.rpartition("/")[2]
        if name == "nowhere":
            target.parent.mkdir(parents=True)
            raise ObjectNotFound("nothing there")
        self.fetched.append(name)
        target.mkdir(parents=True)
        (target / "weights").write_bytes(b"x" * 100)

    async def ask(self, name: str) -> str:
        scored = await self.backend.invoke(Invocation([(TARGET_MODEL, name.encode())], b""))
        assert isinstance(scored, Scored)
        assert scored.status == 200
        return scored.body.decode()

    async def refused(self, name: str) -> str:
        with pytest.raises(Refusal) as caught:
            await self.ask(name)
        return str(json.loads(caught.value.answer.body)["Message"])

    def on_disk(self) -> set[str]:
        return {self.container.name(path.name) for path in self.folder.iterdir()}


def test_a_model_is_fetched_and_loaded_at_its_first_request_only(tmp_path: Path) -> None:
    async def story() -> None:
        world = World(tmp_path)
        assert [await world.ask("a"), await world.ask("a")] == ["a", "a"]
        assert (world.fetched, world.container.calls) == (["a"], ["load a"])

    asyncio.run(story())


def test_where_the_container_has_no_room_the_least_recently_used_model_goes_and_its_files_stay(tmp_path: Path) -> None:
    async def story() -> None:
        world = World(tmp_path)
        for name in ("a", "b", "a", "c", "b"):
            assert await world.ask(name) == name
        assert world.container.calls[2:] == ["load c", "unload b", "load c", "load b", "unload a", "load b"]
        assert world.fetched == ["a", "b", "c"]

    asyncio.run(story())


def test_requests_for_one_model_at_the_same_time_load_it_once(tmp_path: Path) -> None:
    async def story() -> None:
        world = World(tmp_path)
        assert await asyncio.gather(*(world.ask("a") for _ in range(20))) == ["a"] * 20
        assert (world.fetched, world.container.calls) == (["a"], ["load a"])

    asyncio.run(story())


def test_many_models_at_once_all_get_their_turn_in_a_container_with_room_for_one(tmp_path: Path) -> None:
    async def story() -> None:
        world = World(tmp_path, room=1)
        names = list("abcd") * 3
        assert await asyncio.gather(*(world.ask(name) for name in names)) == names

    asyncio.run(story())


def test_a_request_that_is_given_up_neither_stops_the_load_nor_keeps_the_model(tmp_path: Path) -> None:
    async def story() -> None:
        world = World(tmp_path, room=1)
        given_up = asyncio.create_task(world.ask("a"))
        await asyncio.sleep(0)
        given_up.cancel()
        assert await world.ask("a") == "a"
        assert world.container.calls == ["load a"]
        assert await world.ask("b") == "b"

    asyncio.run(story())


def test_a_container_that_is_full_of_models_in_use_says_so_with_its_own_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multimodel, "ROOM_WAIT_S", 0.0)

    async def story() -> None:
        world = World(tmp_path, room=1)
        await world.ask("a")
        world.container.hold = asyncio.Event()
        busy = asyncio.create_task(world.ask("a"))
        await asyncio.sleep(0)
        with pytest.raises(Refusal) as caught:
            await world.ask("b")
        assert json.loads(caught.value.answer.body)["OriginalStatusCode"] == 507
        world.container.hold.set()
        assert await busy == "a"
        assert await world.ask("b") == "b"

    asyncio.run(story())


def test_a_new_container_and_one_that_dropped_a_model_are_told_of_it_again(tmp_path: Path) -> None:
    async def story() -> None:
        world = World(tmp_path)
        await world.ask("a")
        world.container.loaded.clear()
        assert await world.ask("a") == "a"
        world.container.loaded.clear()
        world.local.set_container(ADDRESS)
        assert await world.ask("a") == "a"
        assert world.container.calls == ["load a"] * 3
        assert world.fetched == ["a"]

    asyncio.run(story())


def test_the_disk_holds_no_more_than_it_may(tmp_path: Path) -> None:
    async def story() -> None:
        world = World(tmp_path, room=8, limit_bytes=350)
        for name in "abcdefgh":
            await world.ask(name)
        assert world.on_disk() == {"f", "g", "h"}
        assert handle_of("a") not in world.container.loaded
        assert await world.ask("a") == "a"

    asyncio.run(story())


def test_without_a_cache_a_model_is_unloaded_as_soon_as_nobody_uses_it(tmp_path: Path) -> None:
    async def story() -> None:
        world = World(tmp_path, keeps=False)
        await world.ask("a")
        while "unload a" not in world.container.calls:  # noqa: ASYNC110 - it happens behind the answer
            await asyncio.sleep(0)
        assert await world.ask("a") == "a"

    asyncio.run(story())


def test_what_is_not_there_and_what_leads_out_is_refused_by_name_and_leaves_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        world = World(tmp_path)
        assert "TargetModel nowhere is not there: nothing lies at s3://b/models/nowhere" in await world.refused(
            "nowhere"
        )
        for name in ("../x", "/etc/passwd", "a/../../x"):
            assert "leads out" in await world.refused(name)
        assert "TargetModel is missing" in await world.refused("")
        assert (world.backend._loading, world.backend._leaving, world.on_disk()) == ({}, {}, set())

    asyncio.run(story())
