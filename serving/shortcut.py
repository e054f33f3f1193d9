"""A way for requests past Serve's own work with each of them, in replicas whose load Serve need not know.

Serve lets HTTP servers have middlewares and asks `middlewares` for them, once the replica of this process has started
(RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH, in proxy.py). What Serve would do with a request (count it for the
autoscaler, make metrics of it, give it a context) takes longer than all that a front does: decision 22.
"""

from __future__ import annotations

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

SERVES_OWN = "/-/"
"""What the paths begin with under which Serve asks a replica for its health and its routes."""

_fronts: list[ASGIApp] = []


def open_shortcut(front: ASGIApp) -> None:
    """Have requests go to `front` at once. To be called before Serve starts the replica's HTTP server."""
    _fronts[:] = [front]


def middlewares() -> list[Middleware]:
    """Say what is to stand before Serve's application in this process."""
    return [Middleware(Shortcut, front) for front in _fronts]


class Shortcut:
    """The ASGI middleware. What is Serve's own business it leaves to Serve."""

    def __init__(self, serve: ASGIApp, front: ASGIApp) -> None:
        self._serve = serve
        self._front = front

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] == "http" and not scope["path"].startswith(SERVES_OWN):
            await self._front(scope, receive, send)
        else:
            await self._serve(scope, receive, send)
