"""The way past Serve: which connections take it, and that there is none where nobody has opened it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from raymaker.serving import shortcut


class Told:
    """An ASGI application that notes whom it was asked by."""

    def __init__(self) -> None:
        self.scopes: list[dict[str, Any]] = []

    async def __call__(self, scope: Any, _receive: Any, _send: Any) -> None:
        self.scopes.append(scope)


@pytest.fixture(autouse=True)
def _nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shortcut, "_fronts", [])


def connect(serve: Told, scope: dict[str, Any]) -> None:
    """One connection, through the middlewares in the order in which Serve puts them around its application."""
    app: Any = serve
    for middleware in shortcut.middlewares():
        app = middleware.cls(app, *middleware.args, **middleware.kwargs)
    asyncio.run(app(scope, None, None))


def test_without_a_front_there_is_nothing_before_serve() -> None:
    assert shortcut.middlewares() == []


@pytest.mark.parametrize("path", ["/endpoints/e/invocations", "/endpoints/-/healthz", "/endpoints/e/nonsense"])
def test_requests_go_to_the_front_that_was_opened_last(path: str) -> None:
    serve, first, last = Told(), Told(), Told()
    shortcut.open_shortcut(first)
    shortcut.open_shortcut(last)
    connect(serve, {"type": "http", "path": path})
    assert [len(each.scopes) for each in (serve, first, last)] == [0, 0, 1]


@pytest.mark.parametrize(
    "scope",
    [
        {"type": "http", "path": "/-/healthz"},
        {"type": "http", "path": "/-/routes"},
        {"type": "websocket", "path": "/endpoints/e/invocations"},
        {"type": "lifespan"},
    ],
    ids=["health", "routes", "websocket", "lifespan"],
)
def test_what_serve_asks_or_knows_is_left_to_serve(scope: dict[str, Any]) -> None:
    serve, front = Told(), Told()
    shortcut.open_shortcut(front)
    connect(serve, scope)
    assert serve.scopes == [scope]
    assert not front.scopes
