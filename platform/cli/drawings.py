"""Records whose inputs are pictures: in colour two rows of grey values to a line of half blocks, else in shades."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.style import Style
from rich.text import Text

DrawOne = Callable[[Sequence[int], int, int], list[Text]]
GAP = "  "
SHADES = " ░▒▓█"
LEAST_WIDTH = 14
"""Of a picture with what stands below it."""


def draw(
    records: Sequence[Mapping[str, Any]], width: int, height: int, columns: int, *, in_colour: bool = True
) -> Text:
    """Draw the inputs of records, `width` by `height` values each, as many side by side as `columns` hold.

    Below each stands the known result and what the model made of it. Raises ValueError where an input has other values.
    """
    if width < 1 or height < 1:
        raise ValueError("a picture is at least 1x1")
    if not records:
        return Text("no records")
    draw_one = _draw_one if in_colour else _shade_one
    cell = max(width if in_colour else 2 * width, LEAST_WIDTH)
    at_once = max(1, (columns + len(GAP)) // (cell + len(GAP)))
    rows = [records[start : start + at_once] for start in range(0, len(records), at_once)]
    return Text("\n\n").join(_draw_row(row, draw_one, width, height, cell) for row in rows)


def _draw_row(records: Sequence[Mapping[str, Any]], draw_one: DrawOne, width: int, height: int, cell: int) -> Text:
    pictures = [draw_one(_values(record["Input"], width * height), width, cell) for record in records]
    captions = [Text(_caption(record).ljust(cell)[:cell]) for record in records]
    lines = [*zip(*pictures, strict=True), captions]
    return Text("\n").join(Text(GAP).join(line) for line in lines)


def _draw_one(greys: Sequence[int], width: int, cell: int) -> list[Text]:
    lines = []
    for top in range(0, len(greys), 2 * width):
        upper, lower = greys[top : top + width], greys[top + width : top + 2 * width] or [0] * width
        line = Text()
        for above, below in zip(upper, lower, strict=True):
            style = Style(color=f"rgb({above},{above},{above})", bgcolor=f"rgb({below},{below},{below})")
            line.append("▀", style)
        line.append(" " * (cell - width))
        lines.append(line)
    return lines


def _shade_one(greys: Sequence[int], width: int, cell: int) -> list[Text]:
    """Draw a picture without colours: two characters to a value, since they are twice as high as wide."""
    rows = [greys[start : start + width] for start in range(0, len(greys), width)]
    return [Text("".join(2 * SHADES[grey * len(SHADES) // 256] for grey in row).ljust(cell)) for row in rows]


def _values(said: str, count: int) -> list[int]:
    """Read a row of numbers as greys, 0 for the least and 255 for the greatest."""
    try:
        values = [float(value) for value in said.strip("[]").split(",")]
    except ValueError:
        raise ValueError(f"an input is no row of numbers: {said[:40]}") from None
    if len(values) != count:
        raise ValueError(f"an input has {len(values)} values, which do not fill {count}")
    least, most = min(values), max(values)
    return [round(255 * (value - least) / (most - least or 1.0)) for value in values]


def _caption(record: Mapping[str, Any]) -> str:
    confidence = record.get("Confidence")
    sure = f" {confidence:.0%}" if confidence is not None else ""
    return f"{record['Label']}, said {record['Output']}{sure}"
