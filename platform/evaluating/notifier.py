"""Sends notices of alarms to webhooks, until they say that they have them or it was tried often enough.

Each is kept in the database until then, so that a control actor that dies loses none; it may send one twice.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Awaitable, Callable

from raymaker.platform.database.engine import Database
from raymaker.platform.database.events import record_job_event
from raymaker.platform.database.notices import Notice, due_notices, forget_notice, next_due, put_off
from raymaker.serving.async_queue import delay_before
from raymaker.serving.notices import MOST_NOTICES, post_notice

logger = logging.getLogger(__name__)

RETRY_S = 5.0
"""After a step that failed, as while the database is away."""
AT_ONCE_COUNT = 20

Post = Callable[[str, bytes], Awaitable[None]]


class Notifier:
    """One platform's. `step` sends what is due; once started, a thread of its own does so for good."""

    def __init__(self, database: Database, post: Post = post_notice, now: Callable[[], float] = time.time) -> None:
        self._database = database
        self._post = post
        self._now = now
        self._awake = threading.Event()

    def start(self) -> None:
        """Go on in a thread."""
        threading.Thread(target=self._run, name="notifier", daemon=True).start()

    def wake(self) -> None:
        """Have it look at once: there may be another notice."""
        self._awake.set()

    def step(self) -> None:
        """Send what is due, several at once."""
        if due := due_notices(self._database, self._now(), AT_ONCE_COUNT):
            asyncio.run(self._send_all(due))

    def _run(self) -> None:
        while True:
            self._awake.clear()
            try:
                self.step()
                due_at = next_due(self._database)
                wait_s = None if due_at is None else max(0.0, due_at - self._now())
            except Exception:
                logger.exception("notices could not be sent; the next step tries again")
                wait_s = RETRY_S
            self._awake.wait(wait_s)

    async def _send_all(self, due: list[Notice]) -> None:
        await asyncio.gather(*map(self._send, due))

    async def _send(self, notice: Notice) -> None:
        try:
            await self._post(notice.topic, json.dumps(dict(notice.content)).encode())
        except OSError as error:
            sent_count = notice.sent_count + 1
            if sent_count < MOST_NOTICES:
                put_off(self._database, notice, self._now() + delay_before(sent_count))
                return
            message = f"nobody heard of an alarm in {MOST_NOTICES} tries: {notice.topic}: {error}"
            record_job_event(
                self._database, notice.job_name, notice.attempt, "NotificationFailed", message, now=self._now()
            )
        forget_notice(self._database, notice)
