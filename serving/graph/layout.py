"""Where things stand in a drawing: boxes in columns, each as near as it can be to what it is linked with. Pure.

The usual layers (Sugiyama): an edge over several columns gets a place in each, columns are sorted by the mean of their
neighbours, then every column is pulled straight without overlap. The same input always gives the same drawing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

COLUMN_GAP, BOX_GAP, PASSAGE_HEIGHT = 64.0, 16.0, 10.0
SWEEP_COUNT = 9
"""Odd, so that the last one goes with the reader, who comes from the left."""


@dataclass(frozen=True)
class Box:
    """Something to place, of a size in pixels, in a column counted from the left."""

    key: str
    column: int
    width: float
    height: float


@dataclass(frozen=True)
class Link:
    """A line from the right side of one box, `port` below its top, to the middle of the left side of another."""

    source: str
    port: float
    target: str


@dataclass(frozen=True)
class Layout:
    """The corner of every box, the points of every link in the order given, and the size of it all."""

    corners: dict[str, tuple[float, float]]
    paths: list[list[tuple[float, float]]]
    width: float
    height: float


def arrange(boxes: Sequence[Box], links: Sequence[Link]) -> Layout:
    """Place boxes. Links must lead to columns further right."""
    board = _Board(boxes, links)
    board.sort_columns()
    board.straighten()
    return board.layout()


class _Board:
    """Columns of boxes and passages, with their tops. `hops` are links cut at every column."""

    def __init__(self, boxes: Sequence[Box], links: Sequence[Link]) -> None:
        self.boxes = {box.key: box for box in boxes}
        self.hops: list[Link] = []
        self.chains = [self._cut(index, link) for index, link in enumerate(links)]
        self.columns: list[list[Box]] = [[] for _ in range(1 + max(box.column for box in boxes))]
        for box in self.boxes.values():
            self.columns[box.column].append(box)
        self.tops: dict[str, float] = {}
        for column in self.columns:
            self._stack(column)

    def sort_columns(self) -> None:
        """Order every column by where its links come from, and lead to, there and back."""
        for sweep in range(SWEEP_COUNT):
            is_forward = sweep % 2 == 0
            for column in self.columns if is_forward else reversed(self.columns):
                pull = self._pull_of_sources if is_forward else self._pull_of_targets
                column.sort(key=pull)
                self._stack(column)

    def straighten(self) -> None:
        """Move boxes to where their links are straight, as far as those of their column let them."""
        for pull, columns in (
            (self._pull_of_sources, self.columns),
            (self._pull_of_targets, self.columns[::-1]),
            (self._pull_of_sources, self.columns[2:]),
        ):
            for column in columns:
                self._settle(column, pull)

    def layout(self) -> Layout:
        """The result, moved so that nothing lies left of or above 0."""
        widths = [max((box.width for box in column), default=0.0) for column in self.columns]
        lefts = [sum(widths[:index]) + COLUMN_GAP * index for index in range(len(widths))]
        highest = min(self.tops.values())
        corners = {key: (lefts[box.column], self.tops[key] - highest) for key, box in self.boxes.items()}
        height = max(corners[key][1] + box.height for key, box in self.boxes.items())
        paths = [self._path(chain, corners, widths) for chain in self.chains]
        return Layout(corners, paths, lefts[-1] + widths[-1], height)

    def _cut(self, index: int, link: Link) -> list[Link]:
        """Give a link a passage through every column that it crosses."""
        first, last = self.boxes[link.source].column, self.boxes[link.target].column
        passages = [Box(f"\0{index}\0{column}", column, 0.0, PASSAGE_HEIGHT) for column in range(first + 1, last)]
        self.boxes |= {box.key: box for box in passages}
        keys = [link.source, *(box.key for box in passages), link.target]
        ports = [link.port, *(PASSAGE_HEIGHT / 2 for _ in passages)]
        hops = [Link(*ends) for ends in zip(keys, ports, keys[1:], strict=False)]
        self.hops += hops
        return hops

    def _stack(self, column: Sequence[Box]) -> None:
        top = 0.0
        for box in column:
            self.tops[box.key] = top
            top += box.height + BOX_GAP

    def _middle(self, box: Box) -> float:
        return self.tops[box.key] + box.height / 2

    def _pull_of_sources(self, box: Box) -> float:
        """The height that a box's middle is drawn to from the left."""
        heights = [self.tops[hop.source] + hop.port for hop in self.hops if hop.target == box.key]
        return fmean(heights) if heights else self._middle(box)

    def _pull_of_targets(self, box: Box) -> float:
        """The height that a box's middle is drawn to from the right: where its ports face their targets."""
        hops = [hop for hop in self.hops if hop.source == box.key]
        heights = [self._middle(self.boxes[hop.target]) - hop.port + box.height / 2 for hop in hops]
        return fmean(heights) if heights else self._middle(box)

    def _settle(self, column: Sequence[Box], pull: Callable[[Box], float]) -> None:
        """Place a column in its order, each box as near to its pull as the others let it (pool adjacent violators)."""
        offsets = [0.0]
        for box in column:
            offsets.append(offsets[-1] + box.height + BOX_GAP)
        pools: list[list[float]] = []
        for box, offset in zip(column, offsets, strict=False):
            pools.append([pull(box) - box.height / 2 - offset])
            while len(pools) > 1 and fmean(pools[-2]) > fmean(pools[-1]):
                merged = pools.pop()
                pools[-1] += merged
        settled = [fmean(pool) for pool in pools for _ in pool]
        for box, offset, top in zip(column, offsets, settled, strict=False):
            self.tops[box.key] = top + offset

    def _path(
        self, chain: Sequence[Link], corners: dict[str, tuple[float, float]], widths: Sequence[float]
    ) -> list[tuple[float, float]]:
        """The points of a link: out of its box, straight through every passage, and into its target."""
        left, top = corners[chain[0].source]
        points = [(left + self.boxes[chain[0].source].width, top + chain[0].port)]
        for hop in chain:
            box = self.boxes[hop.target]
            left, top = corners[hop.target]
            points.append((left, top + box.height / 2))
            if hop is not chain[-1]:
                points.append((left + widths[box.column], top + box.height / 2))
        return points
