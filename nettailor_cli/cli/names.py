"""Names of files on standard input, one per line or ended by NUL bytes, each handed on as soon as it is there."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from nettailor_cli.core.errors import UsageError

_AT_ONCE = 1 << 16


def names_on_stdin(*, null: bool) -> Iterator[Path]:
    """Raises UsageError when standard input is closed, or has NUL bytes where lines were expected."""
    if sys.stdin is None:
        raise UsageError("standard input is closed, no names can be read from it")
    stream = cast(io.BufferedReader, sys.stdin.buffer)
    end = b"\0" if null else b"\n"
    rest = b""
    while chunk := stream.read1(_AT_ONCE):
        if not null and b"\0" in chunk:
            raise UsageError("the names on standard input are ended by NUL bytes", "add --null (-0)")
        *names, rest = (rest + chunk).split(end)
        yield from _paths(names, null)
    yield from _paths([rest], null)


def _paths(names: list[bytes], null: bool) -> Iterator[Path]:
    for name in names:
        trimmed = name if null else name.removesuffix(b"\r")  # lines that another system wrote
        if trimmed:
            yield Path(os.fsdecode(trimmed))
