from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nettailor_cli.core.data import cache_file
from nettailor_cli.core.data.cache_file import entry, footer, read_cache_file, row_bytes
from tests.core.data.images import random_pixels

SIDE = 4
KEYS = [f"{n:02x}" * 32 for n in range(3)]
ROWS = [random_pixels(n, SIDE, SIDE) for n in range(3)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    table = b"".join(map(entry, KEYS, ROWS))
    path = tmp_path / "a file"
    path.write_bytes(b"".join(row.tobytes() for row in ROWS) + table + footer(SIDE, table))
    return path


def is_whole(path: Path, side: int = SIDE) -> bool:
    found = read_cache_file(path, side)
    return found is not None and all(map(found.is_whole, range(len(found.pixels))))


def test_what_was_written_is_found(file: Path) -> None:
    found = read_cache_file(file, SIDE)
    assert found is not None and is_whole(file)
    assert isinstance(found.pixels, np.memmap) and not found.pixels.flags.writeable
    assert (found.pixels == np.stack(ROWS)).all()
    assert found.rows([KEYS[2], "f" * 64, KEYS[0]]) == {KEYS[0]: 0, KEYS[2]: 2}
    assert row_bytes(SIDE) == SIDE * SIDE * 3 + 32 + 4


def test_every_changed_byte_is_noticed(file: Path) -> None:
    data = file.read_bytes()
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 1 << position % 8
        file.write_bytes(changed)
        assert not is_whole(file), position


def test_every_other_length_is_noticed(file: Path) -> None:
    data = file.read_bytes()
    for length in range(len(data)):
        file.write_bytes(data[:length])
        assert not is_whole(file), length
        file.write_bytes(data[length:])
        assert is_whole(file) == (length == 0), length
    file.write_bytes(data + b"\0")
    assert not is_whole(file)


def test_rows_in_each_others_place_are_noticed(file: Path) -> None:
    data, row = file.read_bytes(), SIDE * SIDE * 3
    file.write_bytes(data[row : 2 * row] + data[:row] + data[2 * row :])
    assert not is_whole(file)


def test_another_side_or_decoder_is_another_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_whole(file, 5)
    before = cache_file.stem(SIDE)
    assert before != cache_file.stem(5)
    monkeypatch.setattr(cache_file, "decoder_version", lambda: "another")
    assert not is_whole(file)
    assert cache_file.stem(SIDE) != before
