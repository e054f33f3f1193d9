"""What happens to a job or an endpoint, as it happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from raymaker.platform.client.connection import Answer
from raymaker.platform.client.polling import Clock, pause_s


def follow(look: Callable[[], list[Answer]], ended: Callable[[], bool], clock: Clock) -> Iterator[Answer]:
    """Yield all that `look` lists, and what is added to it until `ended`. What came before the end is not missed."""
    began, told_count = clock.now(), 0
    while True:
        is_last = ended()
        found = look()
        yield from found[told_count:]
        told_count = max(told_count, len(found))
        if is_last:
            return
        clock.sleep(pause_s(clock.now() - began))
