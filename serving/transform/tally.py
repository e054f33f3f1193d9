"""How far a machine is with its objects, counted for reports. Pure; belongs to one event loop."""

from __future__ import annotations

from collections.abc import Iterable

from raymaker.serving.transform.reports import Finished, Progress


class Tally:
    """What is through, what is under way, and what was not reported yet. `finished` is known from earlier attempts."""

    def __init__(self, object_count: int, finished: Iterable[Finished] = ()) -> None:
        self._progress = Progress(object_count)
        self._under_way: dict[str, Finished] = {}
        self._unreported: list[Finished] = []
        for known in finished:
            self._progress = _add(self._progress, known)

    def advance(self, so_far: Finished) -> None:
        """Take how far an object is."""
        self._under_way[so_far.name] = so_far

    def finish(self, finished: Finished) -> None:
        """Take an object that is through."""
        self._under_way.pop(finished.name, None)
        self._progress = _add(self._progress, finished)
        self._unreported.append(finished)

    def take_unreported(self) -> tuple[Finished, ...]:
        """Return what came through since the last call."""
        taken, self._unreported = tuple(self._unreported), []
        return taken

    @property
    def progress(self) -> Progress:
        """How far all is, with what is under way."""
        whole = self._progress
        for so_far in self._under_way.values():
            whole = _add(whole, so_far, is_through=False)
        return whole


def _add(progress: Progress, part: Finished, *, is_through: bool = True) -> Progress:
    return Progress(
        progress.object_count,
        progress.done_count + (is_through and part.failure is None),
        progress.failed_count + (is_through and part.failure is not None),
        progress.record_count + part.record_count,
        progress.input_bytes + part.input_bytes,
        progress.output_bytes + part.output_bytes,
    )
