"""Decoded pictures in files below one folder, for all stages, runs and data sets. A picture is found by its content.

What a command had to decode becomes one file. So a changed picture is decoded again, and only that one; a folder that
was moved, or split in another way, finds everything. Files are never changed: they are written beside, flushed and
renamed; two processes that do the same work at the same time only do it twice.

Every command checks the rows that it uses before it begins; a file with damage (see `cache_file`) is removed and its
pictures are decoded again. Not noticed: pixels that change on the disk after that, and what somebody forges. A disk
that fails under the mapped pages, or a file that somebody cuts short just then, ends the process (SIGBUS).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from nettailor_cli.core.data.cache_file import CacheFile, Pixels, entry, footer, read_cache_file, row_bytes, stem
from nettailor_cli.core.data.parallel import in_parallel
from nettailor_cli.core.errors import NettailorError, RunFailed, UsageError
from nettailor_cli.core.files import remove_leftovers, size_text, write_atomically
from nettailor_cli.core.progress import Progress

Keep = Callable[[int, Pixels], None]
"""Takes the position of a picture and its pixels (side, side, 3); may be called from several threads."""

_SUFFIX = ".pixels"
_SHARE_OF_DISK = 0.9  # of what is free: a full disk would stop the training itself
_PLENTY = 2**62


class NotCached(NettailorError):
    """The pictures can't come from the cache; the message is the reason, in half a sentence."""


Rows = dict[str, tuple[CacheFile, int]]
"""Where the pixels of each key are."""


@dataclass(frozen=True)
class Cache:
    """The files in HOME/cache, which need not exist; together they stay below `limit` bytes (0: no cache)."""

    home: Path
    limit: int

    @property
    def folder(self) -> Path:
        return self.home / "cache"

    def check(self, count: int, side: int) -> None:
        """Raises NotCached when `count` pictures of `side` x `side` are too much for the limit."""
        needed = count * row_bytes(side)
        if self.limit == 0:
            raise NotCached("--cache-limit 0")
        if needed > self.limit:
            raise NotCached(f"they take {size_text(needed)}, more than --cache-limit {size_text(self.limit)}")

    def rows(
        self,
        keys: Sequence[str],
        side: int,
        decode: Callable[[Sequence[int], Keep], None],
        *,
        workers: int,
        progress: Progress,
    ) -> Rows:
        """The rows of `keys`, each the SHA-256 of a picture's file; what is missing is decoded and added.

        `decode` is called at most once, with the positions in `keys` of what is missing, and hands on the pixels of
        each; those that it can't read are absent from the result, and asked for again the next time.
        Raises NotCached when there is no room, or no way to write.
        """
        self.check(len(keys), side)
        remove_leftovers(self.folder)
        rows = self._find(set(keys), side, workers, progress)
        missing = [position for position, key in enumerate(keys) if key not in rows]
        used = {file.path for file, _ in rows.values()}
        if not self._make_room(len(missing) * row_bytes(side), used) and missing:
            # what is there holds much besides our rows: rather all of them again, in a file of their own
            rows, missing, used = {}, list(range(len(keys))), set()
            if not self._make_room(len(missing) * row_bytes(side), used):
                needed = size_text(len(missing) * row_bytes(side))
                raise NotCached(f"they take {needed}, more than is free on the disk of {self.folder}")
        for path in used:
            with contextlib.suppress(OSError):  # a cache that can only be read is one all the same
                os.utime(path)
        text = f"{len(keys)} images at {side} x {side}: {len(keys) - len(missing)} from the cache {self.folder}"
        if missing:
            added = self._add([keys[position] for position in missing], missing, side, decode)
            rows |= {} if added is None else {key: (added, row) for key, row in added.rows(set(keys)).items()}
            text += f", {len(added.pixels) if added else 0} decoded into it"
        progress.note(text)
        return rows

    def _find(self, keys: set[str], side: int, workers: int, progress: Progress) -> Rows:
        """What is there of `keys`, its pixels checked. Damaged files are removed."""
        found: Rows = {}
        for path in sorted(self.folder.glob(f"{stem(side)}-*{_SUFFIX}")):
            try:
                file = read_cache_file(path, side)
            except OSError:  # another process removed it, or it is not for us to read
                continue
            rows = {} if file is None else file.rows(keys - found.keys())
            if file is not None and _whole(file, list(rows.values()), workers, progress):
                found |= {key: (file, row) for key, row in rows.items()}
            else:
                progress.warn(f"{path} is damaged: its images are decoded again")
                with contextlib.suppress(OSError):
                    path.unlink()
        return found

    def _make_room(self, needed: int, used: Collection[Path]) -> bool:
        """Remove files, the least recently used first, until `needed` more bytes fit; never those that are `used`.

        False, and nothing is removed, when that would not do.
        """
        files = []
        for path in self.folder.glob(f"*{_SUFFIX}"):
            with contextlib.suppress(OSError):
                status = path.stat()
                files.append((status.st_mtime_ns, status.st_size, path))
        total = sum(size for _, size, _ in files)
        allowed = min(self.limit, total + int(_SHARE_OF_DISK * _free(self.folder)))
        if needed + sum(size for _, size, path in files if path in used) > allowed:
            return False
        for _, size, path in sorted(files):
            if total + needed <= allowed:
                break
            if path not in used:
                with contextlib.suppress(OSError):
                    path.unlink()
                    total -= size
        return total + needed <= allowed

    def _add(
        self, keys: Sequence[str], positions: Sequence[int], side: int, decode: Callable[[Sequence[int], Keep], None]
    ) -> CacheFile | None:
        """A new file with what `decode` can read of `positions` (`keys` are theirs); None if that is nothing."""
        key_at = dict(zip(positions, keys, strict=True))
        name = hashlib.sha256("\n".join(keys).encode()).hexdigest()[:16]
        path = self.folder / f"{stem(side)}-{name}{_SUFFIX}"
        table = bytearray()
        lock = threading.Lock()

        def write(temporary: Path) -> None:
            stream = temporary.open("wb")
            try:

                def keep(position: int, pixels: Pixels) -> None:
                    described = entry(key_at[position], pixels)
                    with lock:
                        stream.write(pixels.data)
                        table.extend(described)

                decode(positions, keep)
                if not table:
                    raise _NothingRead
                stream.write(table + footer(side, table))
                stream.flush()
            finally:
                _close(stream)

        try:
            write_atomically(path, write)
            added = read_cache_file(path, side)
        except _NothingRead:
            return None
        except (UsageError, RunFailed) as error:
            raise NotCached(error.message) from error
        except OSError as error:  # gone again already
            raise NotCached(f"can't use {path}: {error.strerror or error}") from error
        if added is None:
            raise NotCached(f"{path} is damaged as soon as it is written")
        return added


def _whole(file: CacheFile, rows: Sequence[int], workers: int, progress: Progress) -> bool:
    progress.start("checking the cache", len(rows))
    try:
        for whole in in_parallel(file.is_whole, rows, workers):
            if not whole:
                return False
            progress.advance()
        return True
    finally:
        progress.finish()


class _NothingRead(Exception):
    """Not one picture of those that are missing can be read: there is nothing to write."""


def _close(stream: BinaryIO) -> None:
    """After a success all is flushed; after a failure, that the rest can't be written either is no news."""
    with contextlib.suppress(OSError):
        stream.close()


def _free(folder: Path) -> int:
    """Bytes that may still be written where `folder` is, or will be; plenty when it can't be told: writing will."""
    try:
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        return shutil.disk_usage(folder).free
    except OSError:
        return _PLENTY
