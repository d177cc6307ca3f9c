"""JSON and TOML out of files that anybody may have written: whatever they hold, they are parsed soon, or refused.

Refused are keys that stand twice, NaN and infinity, whole numbers that no machine word takes, deep nesting, and texts
that are made to take much more memory than they have bytes. No torch here.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Sequence
from typing import Any

LARGEST_JSON = 64 * 2**20
"""Bytes. The largest that we write, a checkpoint's of a dense student of resnet152, is a tenth of this."""

LARGEST_TOML = 4 * 2**20
_DEEPEST = 32
_SPARE, _BYTES_PER_VALUE = 100_000, 16
_DIGITS = 20  # 2**64 has so many


def parse_json(text: str | bytes) -> Any:
    """What `text` (bytes: UTF-8) says. Raises ValueError for all that we don't write, see above."""
    # an empty table, three bytes of text, takes 64 bytes: a value in 16 bytes of text is more than our files have
    if len(text) > LARGEST_JSON or _values(text) > _SPARE + len(text) // _BYTES_PER_VALUE:
        raise ValueError("it is too large")
    try:
        content = json.loads(
            text if isinstance(text, str) else text.decode("utf-8"),
            object_pairs_hook=_table,
            parse_int=_whole,
            parse_float=_finite,
            parse_constant=_finite,
        )
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error
    _check_depth(content)
    return content


def parse_toml(text: str | bytes) -> dict[str, Any]:
    """What `text` (bytes: UTF-8) says. Raises ValueError."""
    if len(text) > LARGEST_TOML:
        raise ValueError("it is too large")
    try:
        content = tomllib.loads(text if isinstance(text, str) else text.decode("utf-8"))
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error
    _check_depth(content)
    return content


_TOO_DEEP = "it is nested too deeply"


def _values(text: str | bytes) -> int:
    """At least as many as there are values, a few aside."""
    if isinstance(text, str):
        return sum(map(text.count, "[{,"))
    return sum(map(text.count, (b"[", b"{", b",")))


def _check_depth(content: Any) -> None:
    level = [content]
    for _ in range(_DEEPEST):
        level = [part for whole in level for part in _parts(whole) if isinstance(part, dict | list)]
        if not level:
            return
    raise ValueError(_TOO_DEEP)


def _parts(whole: Any) -> Any:
    return whole.values() if isinstance(whole, dict) else whole if isinstance(whole, list) else ()


def _table(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice[:60]!r} stands twice")
    return table


def _whole(digits: str) -> int:
    if len(digits) > _DIGITS:
        raise ValueError(f"the number {digits[:_DIGITS]}... is too large")
    return int(digits)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:_DIGITS]} is not a finite number")
    return number
