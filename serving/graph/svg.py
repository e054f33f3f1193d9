"""A graph as an SVG image that stands by itself: every node a card, with a row for each of its steps. Pure.

Text that is too long is cut short in the image; all of it shows where the mouse rests.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from html import escape

from raymaker.serving.graph.document import ROOT, Graph, Node, RouterType, Target, TargetKind
from raymaker.serving.graph.drawing import START, describe_step, target_lines
from raymaker.serving.graph.layout import Box, Layout, Link, arrange

CHARACTER_WIDTH, ROW_HEIGHT, HEAD_HEIGHT, PADDING, MARGIN, ROUNDING = 7.3, 24.0, 30.0, 12.0, 20.0, 6
SHOWN_CHARACTERS = 44
COLOURS = {
    RouterType.SEQUENCE: "#2f6fad",
    RouterType.SWITCH: "#a8611a",
    RouterType.ENSEMBLE: "#2e7d4f",
    RouterType.SPLITTER: "#7a4fa3",
}
_STYLE = (
    "text{font:12px ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,monospace;fill:#1c2733}"
    ".head{fill:#fff;font-weight:bold}.more{fill:#5a6876}"
    ".card{fill:#fff;stroke:#9aa7b4}.box{fill:#eef2f6;stroke:#9aa7b4}.row{stroke:#e3e8ed}"
    ".link{fill:none;stroke:#5a6876;stroke-width:1.4}.mirror{stroke-dasharray:5 4;stroke:#9aa7b4}"
)


def draw_svg(graph: Graph) -> str:
    """Draw a graph as an SVG image that stands by itself."""
    columns = _columns(graph)
    cards = {node.name: _Card.of(node) for node in graph.nodes.values()}
    start = Box(START, 0, len(START) * CHARACTER_WIDTH + 2 * PADDING, ROW_HEIGHT)
    boxes = [start, *(cards[name].box(columns[_key(Target(TargetKind.NODE, name))]) for name in cards)]
    boxes += [_target_box(graph, target, columns[_key(target)]) for target in graph.targets()]
    root = _key(Target(TargetKind.NODE, ROOT))
    steps = [(card, index, step) for card in cards.values() for index, step in enumerate(card.node.steps)]
    links = [Link(START, ROW_HEIGHT / 2, root)]
    links += [Link(card.key, card.port(index), _key(step.target)) for card, index, step in steps]
    layout = arrange(boxes, links)
    parts = [_svg_start(layout, start)]
    mirrors = [False, *(step.is_mirror for _, _, step in steps)]
    parts += [_svg_link(path, is_mirror=mirror) for path, mirror in zip(layout.paths, mirrors, strict=True)]
    parts += [card.svg(*layout.corners[card.key]) for card in cards.values()]
    by_key = {box.key: box for box in boxes}
    for target in graph.targets():
        parts.append(_svg_target(graph, target, by_key[_key(target)], *layout.corners[_key(target)]))
    return _svg_frame(layout, "\n".join(parts))


@dataclass(frozen=True)
class _Card:
    """A node with a row for each of its steps."""

    node: Node
    rows: tuple[tuple[str, str], ...]
    """The label of each step and what is said about it, both short enough to be shown."""
    label_width: float
    width: float

    @classmethod
    def of(cls, node: Node) -> _Card:
        """Measure a node's card."""
        rows = [(_short(step.label), _short(" · ".join(describe_step(node, step)))) for step in node.steps]
        label_width = max((_width(label) for label, _ in rows), default=0.0)
        row_width = label_width + max((_width(more) + CHARACTER_WIDTH for _, more in rows), default=0.0)
        head_width = _width(_short(node.name)) + _width(node.router) + 2 * CHARACTER_WIDTH
        return cls(node, tuple(rows), label_width, max(row_width, head_width) + 2 * PADDING)

    @property
    def key(self) -> str:
        return _key(Target(TargetKind.NODE, self.node.name))

    def box(self, column: int) -> Box:
        """The card's size, in a column."""
        return Box(self.key, column, self.width, HEAD_HEIGHT + ROW_HEIGHT * len(self.rows))

    def port(self, index: int) -> float:
        """Where the link of a step begins, below the card's top."""
        return HEAD_HEIGHT + ROW_HEIGHT * (index + 0.5)

    def svg(self, left: float, top: float) -> str:
        """Draw the card."""
        box = self.box(0)
        colour, right = COLOURS[self.node.router], left + self.width - PADDING
        parts = [
            f"<g><title>{escape(_plain(f'node {self.node.name}, a {self.node.router}'))}</title>",
            f'<rect class="card" {_area(left, top, box.width, box.height)} rx="{ROUNDING}"/>',
            f'<path d="{_head(left, top, box.width)}" fill="{colour}"/>',
            _text(left + PADDING, top + 20, _short(self.node.name), "head"),
            _text(right, top + 20, self.node.router, "head", anchor="end"),
        ]
        for index, (label, more) in enumerate(self.rows):
            row_top = top + HEAD_HEIGHT + ROW_HEIGHT * index
            step = self.node.steps[index]
            said = _plain(", ".join([f"{step.label} calls {step.target}", *describe_step(self.node, step)]))
            if index:
                parts.append(f'<path class="row" d="M{left + 1:.1f} {row_top:.1f}h{self.width - 2:.1f}"/>')
            parts.append(f"<g><title>{escape(said)}</title>{_text(left + PADDING, row_top + 16, label)}")
            more_left = left + PADDING + self.label_width + CHARACTER_WIDTH
            parts.append(f"{_text(more_left, row_top + 16, more, 'more')}</g>")
        return "\n".join([*parts, "</g>"])


def _columns(graph: Graph) -> dict[str, int]:
    """Give every node and target the column behind all that call it, the root's being 1."""
    columns = {_key(Target(TargetKind.NODE, ROOT)): 1}
    waiting = [ROOT]
    while waiting:
        name = waiting.pop(0)
        column = columns[_key(Target(TargetKind.NODE, name))] + 1
        for step in graph.nodes[name].steps:
            if columns.get(_key(step.target), 0) < column:
                columns[_key(step.target)] = column
                if step.target.kind is TargetKind.NODE:
                    waiting.append(step.target.name)
    return columns


def _key(target: Target) -> str:
    return f"{target.kind} {target.name}"


def _target_box(graph: Graph, target: Target, column: int) -> Box:
    width = max(_width(_short(line)) for line in target_lines(graph, target)) + 2 * PADDING
    return Box(_key(target), column, width, 42.0)


def _svg_target(graph: Graph, target: Target, box: Box, left: float, top: float) -> str:
    name, kind = target_lines(graph, target)
    area = _area(left, top, box.width, box.height)
    return (
        f'<g><title>{escape(_plain(str(target)))}</title><rect class="box" {area} rx="4"/>'
        f"{_text(left + PADDING, top + 18, _short(name))}{_text(left + PADDING, top + 34, kind, 'more')}</g>"
    )


def _svg_start(layout: Layout, start: Box) -> str:
    left, top = layout.corners[START]
    area = _area(left, top, start.width, start.height)
    return f'<rect class="box" {area} rx="12"/>{_text(left + PADDING, top + 16, START)}'


def _svg_link(path: list[tuple[float, float]], *, is_mirror: bool) -> str:
    """Draw a link: curves between columns, straight through them, an arrow at the end."""
    (x, y), *others = path
    drawn = [f"M{x:.1f} {y:.1f}"]
    for index, (next_x, next_y) in enumerate(others):
        half = (next_x - x) / 2
        curve = f"C{x + half:.1f} {y:.1f} {next_x - half:.1f} {next_y:.1f} {next_x:.1f} {next_y:.1f}"
        drawn.append(curve if index % 2 == 0 else f"H{next_x:.1f}")
        x, y = next_x, next_y
    return f'<path class="link{" mirror" if is_mirror else ""}" marker-end="url(#tip)" d="{"".join(drawn)}"/>'


def _svg_frame(layout: Layout, content: str) -> str:
    width, height = layout.width + 2 * MARGIN, layout.height + 2 * MARGIN
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="{-MARGIN:g} {-MARGIN:g} {width:.0f} {height:.0f}" role="img">\n'
        f"<title>Inference graph</title><style>{_STYLE}</style>\n"
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#5a6876"/></marker></defs>\n'
        f'<rect {_area(-MARGIN, -MARGIN, width, height)} fill="#fff"/>\n{content}\n</svg>\n'
    )


def _head(left: float, top: float, width: float) -> str:
    """The outline of a card's head, round at the top."""
    side = HEAD_HEIGHT - ROUNDING
    corner = f"{ROUNDING} {ROUNDING}"
    start = f"M{left:.1f} {top + HEAD_HEIGHT:.1f}v{-side:.1f}q0 -{ROUNDING} {ROUNDING} -{ROUNDING}"
    return f"{start}h{width - 2 * ROUNDING:.1f}q{ROUNDING} 0 {corner}v{side:.1f}z"


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    classes = f' class="{kind}"' if kind else ""
    anchored = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text x="{x:.1f}" y="{y:.1f}"{classes}{anchored}>{escape(text)}</text>'


def _area(left: float, top: float, width: float, height: float) -> str:
    return f'x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}"'


def _short(text: str) -> str:
    """Cut text to what is shown, on one line."""
    plain = _plain(text)
    return plain if len(plain) <= SHOWN_CHARACTERS else plain[: SHOWN_CHARACTERS - 1] + "…"


def _plain(text: str) -> str:
    """Leave out what XML cannot hold."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _width(text: str) -> float:
    """How wide text is in a font of one width, in which East Asian letters take two."""
    return CHARACTER_WIDTH * sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)
