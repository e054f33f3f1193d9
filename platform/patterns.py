"""The service models' regular expressions, which are Java's, as Python's. Nothing else is translated here."""

from __future__ import annotations

import functools
import itertools
import re
import unicodedata

_ASSIGNED = (range(0x40000), range(0xE0000, 0xE0200))
"""Code points that can have a letter, mark, number, punctuation, symbol or separator category."""


@functools.cache
def compile_pattern(pattern: str) -> re.Pattern[str]:
    r"""Compile a Java pattern for `fullmatch`, as `String.matches` applies it; `\w`, `\d` and `\s` are ASCII's."""
    python = pattern.replace(r"\uD800\uDC00-\uDBFF\uDFFF", r"\U00010000-\U0010FFFF")
    python = python.replace(r"[\w-_]", r"[\w\-_]").replace(r"\p{Alnum}", "A-Za-z0-9")
    python = re.sub(r"\$\{\d+,\d+\}", "$", python)
    python = re.sub(r"\\p\{(\w)\}", lambda found: _category_ranges()[found[1]], python)
    return re.compile(python, re.ASCII)


@functools.cache
def _category_ranges() -> dict[str, str]:
    """Give each major Unicode category (L, M, N, P, S, Z, C) as the inside of a character class."""
    ranges: dict[str, list[str]] = {}
    for points in _ASSIGNED:
        for category, group in itertools.groupby(points, lambda point: unicodedata.category(chr(point))[0]):
            first, *rest = group
            ranges.setdefault(category, []).append(f"\\U{first:08x}-\\U{(rest or [first])[-1]:08x}")
    return {category: "".join(parts) for category, parts in ranges.items()}
