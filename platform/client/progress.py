"""What a person sees while something is waited for: a line that moves on a terminal, plain lines anywhere else.

All of it goes to standard error, so that standard output stays a program's.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TextIO

Show = Callable[[str, str], None]
"""Takes the phase, and what is being done in it (or what it waits for)."""


@contextlib.contextmanager
def progress_display(title: str, *, shown: bool = True, stream: TextIO | None = None) -> Iterator[Show]:
    """Yield the function that takes each observation; repeating one changes nothing."""
    stream = stream or sys.stderr
    if not shown:
        yield lambda _phase, _message: None
    elif stream.isatty():
        with _moving_line(title, stream) as show:
            yield show
    else:
        yield _plain_lines(title, stream)


def _plain_lines(title: str, stream: TextIO) -> Show:
    started, last = time.monotonic(), ("", "")

    def show(phase: str, message: str) -> None:
        nonlocal last
        if (phase, message) != last:
            last = (phase, message)
            told = f"{phase}: {message}" if message else phase
            print(f"{title}  {time.monotonic() - started:6.1f} s  {told}", file=stream, flush=True)

    return show


@contextlib.contextmanager
def _moving_line(title: str, stream: TextIO) -> Iterator[Show]:
    """Show one line with a spinner and the time; phases that are over stay above it."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.text import Text

    columns = (
        SpinnerColumn(),
        TextColumn("[bold]{task.fields[title]}"),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=Console(file=stream), transient=True) as progress:
        task = progress.add_task("", title=escape(title), total=None)
        last = last_told = ""

        def show(phase: str, message: str) -> None:
            nonlocal last, last_told
            if last and phase != last:
                progress.console.print(Text(f"{title}  {last_told}", style="dim"))
            last, last_told = phase, f"{phase}: {message}" if message else phase
            progress.update(task, description=escape(last_told))

        yield show
        if last:
            progress.console.print(Text(f"{title}  {last_told}"))
