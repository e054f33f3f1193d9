"""Charts of a job's numbers, for a terminal: drawn by plotext, kept as an image by rich."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.text import Text

if TYPE_CHECKING:
    from raymaker.platform.client.job import MetricPeriod

HEIGHT = 14
"""Lines of each metric's chart."""
WIDEST = 120
PAUSE_S = 1.0


def draw(points: Iterable[MetricPeriod], width: int) -> Text:
    """Draw a chart for each metric, one below the other; seconds since the first number count along the bottom."""
    columns: dict[str, list[MetricPeriod]] = {}
    for point in points:
        columns.setdefault(point.name, []).append(point)
    if not columns:
        return Text("no metrics")
    start = min(found[0].time for found in columns.values())
    return Text("\n").join(_chart(found, start, width) for found in columns.values())


def console_width() -> int:
    """How wide a chart may be."""
    return min(Console().width, WIDEST)


def follow(look: Callable[[], tuple[Text, bool]], sleep: Callable[[float], object]) -> Text:
    """Show what `look` returns, again and again until it says that this was the last, and return that.

    Elsewhere than on a terminal only the last is shown.
    """
    console = Console()
    with Live(auto_refresh=False, console=console) if console.is_terminal else nullcontext() as live:
        while True:
            chart, is_last = look()
            if live is not None:
                live.update(chart, refresh=True)
            if is_last:
                break
            sleep(PAUSE_S)
    if live is None:
        console.print(chart)
    return chart


def has_colour() -> bool:
    """Whether colours can be seen where this prints."""
    return Console().color_system is not None


def show(drawing: Text) -> None:
    """Print a drawing."""
    Console().print(drawing)


def save_svg(chart: Text, title: str, path: Path, width: int) -> None:
    """Write a chart as an SVG image."""
    console = Console(record=True, width=width, file=io.StringIO())
    console.print(chart)
    path.write_text(console.export_svg(title=title), encoding="utf-8")


def _chart(found: Sequence[MetricPeriod], start: datetime, width: int) -> Text:
    """The means of one metric; numbers that are no numbers are left out, and told of."""
    import plotext

    shown = [((it.time - start).total_seconds(), it.mean) for it in found if math.isfinite(it.mean)]
    title = f"{found[0].name}, last {found[-1].mean:g}"
    if len(shown) < len(found):
        title += f" ({len(found) - len(shown)} of {len(found)} points are not finite)"
    if not shown:
        return Text(title)
    plotext.clear_figure()
    plotext.theme("clear")
    plotext.plotsize(width, HEIGHT)
    plotext.title(title)
    plotext.xlabel("seconds")
    plotext.plot(*zip(*shown, strict=True), marker="braille")
    return Text.from_ansi(plotext.build())
