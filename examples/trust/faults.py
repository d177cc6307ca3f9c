"""The operations by which this process changes files below some folders, counted; the one asked for is struck.

Counted are: making a file or folder, every write to a file, flushing, renaming, removing. Of a write that is struck
half is done before. What striking means is the caller's business: a full disk, the end of the process. Linux only.
"""

from __future__ import annotations

import builtins
import contextlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock


@dataclass
class Faults:
    """`strike` is called with what was about to be done, and with which file, at the operation number `at` (from 1).

    lasting: and at all that follow.
    """

    folders: Sequence[Path]
    strike: Callable[[str, str], None]
    at: int = 0
    lasting: bool = False
    seen: list[tuple[str, str]] = field(default_factory=list)

    def __call__(self, what: str, path: str, half: Callable[[], object] = lambda: None) -> None:
        if any(Path(path).is_relative_to(folder) for folder in self.folders):
            self.seen.append((what, path))
            if len(self.seen) == self.at or (self.lasting and 0 < self.at < len(self.seen)):
                half()
                self.strike(what, path)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Count and strike while the body runs."""
        with contextlib.ExitStack() as stack:
            for name in ("open", "mkdir", "rmdir", "unlink", "remove", "rename", "replace", "chmod"):
                stack.enter_context(mock.patch.object(os, name, self._by_path(name)))
            for name in ("fsync", "ftruncate", "pwrite"):
                stack.enter_context(mock.patch.object(os, name, self._by_handle(name)))
            for module in (io, builtins):
                stack.enter_context(mock.patch.object(module, "open", self._opened))
            yield

    def _by_path(self, name: str) -> Callable[..., Any]:
        own = getattr(os, name)

        def patched(path: Any, *args: Any, dir_fd: int | None = None, **options: Any) -> Any:
            if name != "open" or args[0] & os.O_CREAT:
                text = os.fspath(args[0] if name in ("rename", "replace") else path)
                self(name, os.path.join(_path_of(dir_fd), os.fsdecode(text)))  # noqa: PTH118
            given = options if dir_fd is None else {**options, "dir_fd": dir_fd}
            return own(path, *args, **given)

        return patched

    def _by_handle(self, name: str) -> Callable[..., Any]:
        own = getattr(os, name)

        def patched(handle: int, *args: Any) -> Any:
            self(name, _path_of(handle))
            return own(handle, *args)

        return patched

    def _opened(
        self,
        file: Any,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        **options: Any,
    ) -> Any:
        """`open`, but that writes to files below the folders go by way of `self`."""
        if isinstance(file, int) or not set("wax+") & set(mode):
            return _open(file, mode, buffering, encoding, errors, newline, **options)
        path = str(Path(os.fsdecode(file)).absolute())
        if not any(Path(path).is_relative_to(folder) for folder in self.folders):
            return _open(file, mode, buffering, encoding, errors, newline, **options)
        raw = _File(path, mode.replace("b", "").replace("t", ""), self)
        stream: Any = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return stream if "b" in mode else io.TextIOWrapper(stream, encoding, errors, newline)


_open = io.open


class _File(io.FileIO):
    def __init__(self, path: str, mode: str, faults: Faults) -> None:
        self._faults = faults
        faults("open", path)
        super().__init__(path, mode)

    def write(self, data: Any) -> int:
        half = memoryview(data)[: len(data) // 2]
        self._faults("write", str(self.name), lambda: super(_File, self).write(half))
        return super().write(data) or 0


def _path_of(handle: int | None) -> str:
    """The file that is open as `handle`; empty when there is none."""
    with contextlib.suppress(OSError):
        return "" if handle is None else os.readlink(f"/proc/self/fd/{handle}")  # noqa: PTH115
    return ""
