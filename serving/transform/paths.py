"""JSONPath as SageMaker documents it for InputFilter and OutputFilter: a small subset, and nothing beyond it. Pure.

    $               everything
    .name  ['name'] a member of an object
    ['a','b']       several members of an object, as an object; must come last
    [0]  [-1]       an element of an array
    [0,2]  [1:]     several elements, as an array
    .*  [*]         all elements of an array, or all values of an object, as an array

A dot before a bracket changes nothing. What comes after several elements is looked up in each of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_NAME = r"""(?:'[^']*'|"[^"]*")"""
_STEP = re.compile(
    rf"""\.(?P<name>[^\s.\[\]'"*?@$(),:]+)
      | \.?\[\s*(?P<keys>{_NAME}(?:\s*,\s*{_NAME})*)\s*\]
      | \.?\[\s*(?P<indexes>-?\d+(?:\s*,\s*-?\d+)*)\s*\]
      | \.?\[\s*(?P<slice>(?P<start>-?\d+)?\s*:\s*(?P<end>-?\d+)?)\s*\]
      | (?P<all>\.\*|\.?\[\s*\*\s*\])""",
    re.VERBOSE,
)
_UNSUPPORTED = {"..": "recursive descent", "[?": "a filter expression", "[(": "a script expression", "@": "@"}


class PathSyntaxError(ValueError):
    """The path is none, or uses what is not supported; the message names it."""


class PathMissing(LookupError):
    """The value has not what the path leads to."""


@dataclass(frozen=True)
class Path:
    """A parsed path. `steps` are names, tuples of names or indexes, indexes, slices and `...` for all."""

    text: str
    steps: tuple[Any, ...]

    @property
    def is_all(self) -> bool:
        """Whether it is `$`, which changes nothing."""
        return not self.steps

    def find(self, value: Any) -> Any:
        """Return what the path leads to. Raises PathMissing."""
        return self._walk(value, 0)

    def _walk(self, value: Any, depth: int) -> Any:
        if depth == len(self.steps):
            return value
        step = self.steps[depth]
        if isinstance(step, tuple) and isinstance(step[0], str):
            return {name: self._one(value, name) for name in step}
        if isinstance(step, str | int):
            return self._walk(self._one(value, step), depth + 1)
        return [self._walk(found, depth + 1) for found in self._many(value, step)]

    def _one(self, value: Any, step: str | int) -> Any:
        if isinstance(step, str) and isinstance(value, dict) and step in value:
            return value[step]
        if isinstance(step, int) and isinstance(value, list) and -len(value) <= step < len(value):
            return value[step]
        raise PathMissing(f"{self.text} finds no {step!r} in {_describe(value)}")

    def _many(self, value: Any, step: Any) -> Sequence[Any]:
        if step is ... and isinstance(value, dict):
            return list(value.values())
        if not isinstance(value, list):
            raise PathMissing(f"{self.text} looks for elements in {_describe(value)}")
        if step is ...:
            return value
        return value[step] if isinstance(step, slice) else [self._one(value, index) for index in step]


def parse_path(text: str) -> Path:
    """Parse a filter. Raises PathSyntaxError that names what is not supported."""
    if not text.startswith("$"):
        raise PathSyntaxError(f"{text!r} does not begin with $, which stands for the whole record")
    steps: list[Any] = []
    position = 1
    while position < len(text):
        found = _STEP.match(text, position)
        if found is None:
            raise PathSyntaxError(_explain(text, position))
        if steps and isinstance(steps[-1], tuple) and isinstance(steps[-1][0], str):
            raise PathSyntaxError(f"{text!r}: several names in brackets must come last")
        steps.append(_step(found))
        position = found.end()
    return Path(text, tuple(steps))


def _step(found: re.Match[str]) -> Any:
    if found["name"] is not None:
        return found["name"]
    if found["keys"] is not None:
        names = tuple(quoted[1:-1] for quoted in re.findall(_NAME, found["keys"]))
        return names[0] if len(names) == 1 else names
    if found["indexes"] is not None:
        indexes = tuple(int(index) for index in found["indexes"].split(","))
        return indexes[0] if len(indexes) == 1 else indexes
    if found["slice"] is not None:
        start, end = found["start"], found["end"]
        return slice(int(start) if start else None, int(end) if end else None)
    return ...


def _explain(text: str, position: int) -> str:
    rest = text[position:]
    for beginning, what in _UNSUPPORTED.items():
        if rest.startswith(beginning):
            return f"{text!r} uses {what} ({rest}), which is not supported"
    return (
        f"{text!r} cannot be understood from {rest!r} on. Supported are $, .name, ['name'], ['a','b'], [0], [-1], "
        "[0,2], [1:3], .* and [*]"
    )


def _describe(value: Any) -> str:
    if isinstance(value, dict):
        return f"an object with {', '.join(map(str, list(value)[:10])) or 'nothing'}"
    if isinstance(value, list):
        return f"{len(value)} elements"
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    return f"the value {text[:40]!r}"
