"""One file of decoded pictures: pixels, row after row; a table with the key (SHA-256 of the picture's own file) and the
CRC-32 of each row; a footer with sizes and a digest.

Noticed: another length, any change in table or footer, and, row by row when it is asked for, any change of pixels (but
one in 2**32; SHA-256 would take three times as long or, on processors without instructions for it, ten or more).
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nettailor_cli.core.data.decode import decoder_version

Pixels = np.ndarray[Any, np.dtype[np.uint8]]

_FORMAT = b"nettailor pixels"
_ENTRY = struct.Struct("<32sI")  # key, CRC-32
_FOOTER = struct.Struct("<16s32sQ32s")  # format, settings, rows, digest of the table and of these three


@dataclass(frozen=True)
class CacheFile:
    """A file whose table is whole. `pixels`: uint8 (N, side, side, 3), mapped into memory; `table`: N entries."""

    path: Path
    pixels: Pixels
    table: bytes

    def rows(self, wanted: Collection[str]) -> dict[str, int]:
        """Key in hex -> row, of those keys that are `wanted`."""
        keys = (self.table[at : at + 32].hex() for at in range(0, len(self.table), _ENTRY.size))
        return {key: row for row, key in enumerate(keys) if key in wanted}

    def is_whole(self, row: int) -> bool:
        """Whether the pixels of `row` are those that were written."""
        return bool(zlib.crc32(self.pixels[row].data) == _ENTRY.unpack_from(self.table, row * _ENTRY.size)[1])


def read_cache_file(path: Path, side: int) -> CacheFile | None:
    """None when the file is damaged or was made with other settings. Raises OSError when it can't be opened."""
    with path.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        if size < _FOOTER.size:
            return None
        stream.seek(size - _FOOTER.size)
        end = stream.read(_FOOTER.size)
        rows = _FOOTER.unpack(end)[2]
        if rows == 0 or size != rows * row_bytes(side) + _FOOTER.size:
            return None
        stream.seek(rows * side * side * 3)
        table = stream.read(rows * _ENTRY.size)
        if end != footer(side, table):
            return None
        return CacheFile(path, np.memmap(stream, np.uint8, "r", shape=(rows, side, side, 3)), table)


def entry(key: str, pixels: Pixels) -> bytes:
    """What stands in the table for a row: its `key` (64 hex digits) and the checksum of its `pixels` (contiguous)."""
    return _ENTRY.pack(bytes.fromhex(key), zlib.crc32(pixels.data))


def footer(side: int, table: bytes | bytearray) -> bytes:
    """The end of a file with this table."""
    rows = len(table) // _ENTRY.size
    digest = hashlib.sha256(table + _FOOTER.pack(_FORMAT, _settings(side), rows, b"")).digest()
    return _FOOTER.pack(_FORMAT, _settings(side), rows, digest)


def row_bytes(side: int) -> int:
    """What a picture takes, its entry in the table included."""
    return side * side * 3 + _ENTRY.size


def stem(side: int) -> str:
    """How the names of files begin whose pixels are made like this: side and decoder."""
    return f"{side}px-{_settings(side).hex()[:8]}"


def _settings(side: int) -> bytes:
    """What the pixels depend on besides the picture's file, hashed."""
    return hashlib.sha256(f"{side} x {side}, {decoder_version()}".encode()).digest()
