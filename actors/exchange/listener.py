"""Unix sockets that say by themselves who calls: accepting, a thread per connection, and ending them all.

What is said on a connection is wire.py's and its user's.
"""

from __future__ import annotations

import logging
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

from raymaker.actors.exchange.wire import Connection, Limits, Refusal

logger = logging.getLogger(__name__)

_CLOSE_S = 5.0
_PAUSE_S = 0.1

Serve = Callable[[int, Connection], None]


class Listener:
    """Unix sockets, each with a key that says who calls there. A thread per connection.

    `serve(key, connection)` is called in the connection's own thread and returns when nothing more is to be said.
    """

    def __init__(self, sockets: Mapping[int, Path], serve: Serve, limits: Limits | None = None) -> None:
        self._serve = serve
        self._limits = limits or Limits()
        self._lock = threading.Lock()
        self._open: dict[Connection, int] = {}
        self._threads: set[threading.Thread] = set()
        self._selector = selectors.DefaultSelector()
        self._bell, self._ear = socket.socketpair()
        self._selector.register(self._ear, selectors.EVENT_READ)
        try:
            for key, path in sockets.items():
                self._selector.register(listen(path), selectors.EVENT_READ, key)
        except OSError:
            self._close_sockets()
            raise
        self._thread = threading.Thread(target=self._accept_all, name="exchange-accept", daemon=True)

    def start(self) -> None:
        """Begin to take callers."""
        self._thread.start()

    def close(self) -> None:
        """Hang up on everyone, and take no more callers. The sockets' files stay."""
        self._bell.sendall(b".")
        if self._thread.ident:
            self._thread.join()
        with self._lock:
            threads, connections = list(self._threads), list(self._open)
        for connection in connections:
            connection.interrupt()
        deadline = time.monotonic() + _CLOSE_S
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        for connection in connections:  # whoever does not even take its last answer
            connection.interrupt(also_answers=True)
        self._close_sockets()

    def _accept_all(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._ear:
                    return
                self._accept(cast("socket.socket", key.fileobj), key.data)

    def _accept(self, listening: socket.socket, key: int) -> None:
        try:
            opened, _ = listening.accept()
        except OSError:  # the caller has gone again, or this process has no descriptor left
            logger.warning("exchange: a connection to the socket of %s could not be taken", key, exc_info=True)
            time.sleep(_PAUSE_S)
            return
        connection = Connection(opened, self._limits)
        most = self._limits.connection_count
        with self._lock:
            count = list(self._open.values()).count(key)
            if count >= 2 * most:  # even those who are turned away are too many
                opened.close()
                return
            serve = self._serve if count < most else self._turn_away
            thread = threading.Thread(target=self._run, args=(serve, key, opened, connection), daemon=True)
            self._open[connection] = key
            self._threads.add(thread)
        thread.start()

    def _turn_away(self, key: int, connection: Connection) -> None:
        message = f"rank {key} has {self._limits.connection_count} connections open: use them again, or close them"
        connection.turn_away(Refusal(503, message))

    def _run(self, serve: Serve, key: int, opened: socket.socket, connection: Connection) -> None:
        try:
            serve(key, connection)
        except Exception:  # this caller's trouble must not end the others' conversations
            logger.exception("exchange: a connection to the socket of %s broke down", key)
        finally:
            with self._lock:
                del self._open[connection]
                self._threads.discard(threading.current_thread())
            opened.close()

    def _close_sockets(self) -> None:
        for key in list(self._selector.get_map().values()):
            cast("socket.socket", key.fileobj).close()
        self._selector.close()
        self._bell.close()


def listen(path: Path) -> socket.socket:
    """Listen at a path of any length (a socket's address holds 107 bytes only); anyone may connect. Raises OSError."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.bind(f"/proc/self/fd/{folder}/{path.name}")
        path.chmod(0o666)
        listening.listen(128)
    except OSError:
        listening.close()
        raise
    finally:
        os.close(folder)
    return listening
