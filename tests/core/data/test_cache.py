"""The cache on its own. The pictures are numbers here: `decode` gives for each key what `pixels_of` says."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import shutil
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from nettailor_cli.core.data import Cache, cache
from nettailor_cli.core.data.cache import Keep, NotCached
from nettailor_cli.core.data.cache_file import row_bytes
from nettailor_cli.core.progress import Silent
from tests.core.data.images import random_pixels

SIDE = 8
ROW = row_bytes(SIDE)
FOOTER = 88
PLENTY = 10**9
BROKEN = "b" * 64


class Listener(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def key(number: int) -> str:
    return f"{number:064x}"


def keys(*numbers: int) -> list[str]:
    return [key(number) for number in numbers]


def pixels_of(key: str, side: int = SIDE) -> np.ndarray:
    return random_pixels(int(key, 16) % 2**32, side, side)


class Use:
    """One use of a cache: what was decoded, and what was said. Checks that the rows are the right ones."""

    def __init__(self, store: Cache, wanted: Sequence[str], side: int = SIDE, meanwhile=lambda: None) -> None:
        self.decoded: list[str] = []
        self.said = Listener()

        def decode(positions: Sequence[int], keep: Keep) -> None:
            for position in positions:
                self.decoded.append(wanted[position])
                if wanted[position] != BROKEN:
                    keep(position, pixels_of(wanted[position], side))
                meanwhile()

        rows = store.rows(wanted, side, decode, workers=2, progress=self.said)
        assert rows.keys() == set(wanted) - {BROKEN}
        for wanted_key, (file, row) in rows.items():
            assert (file.pixels[row] == pixels_of(wanted_key, side)).all()


@pytest.fixture
def store(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "a home", PLENTY)


def names(store: Cache) -> list[str]:
    return sorted(path.name for path in store.folder.iterdir())


def age(store: Cache, *uses: Sequence[str]) -> list[Path]:
    """One file for each of `uses`, last used in this order, long ago."""
    paths = []
    for number, wanted in enumerate(uses):
        before = set(store.folder.glob("*")) if store.folder.exists() else set()
        Use(store, wanted)
        (path,) = set(store.folder.glob("*")) - before
        os.utime(path, (1000 + number, 1000 + number))
        paths.append(path)
    return paths


def test_what_was_decoded_once_is_found_again(store: Cache) -> None:
    first = Use(store, keys(1, 2, 3))
    assert first.decoded == keys(1, 2, 3)
    assert first.said.notes == [f"3 images at 8 x 8: 0 from the cache {store.folder}, 3 decoded into it"]
    again = Use(store, keys(3, 1, 3))
    assert again.decoded == []
    assert again.said.notes == [f"3 images at 8 x 8: 3 from the cache {store.folder}"]
    assert len(names(store)) == 1


def test_only_what_is_new_is_decoded(store: Cache) -> None:
    Use(store, keys(1, 2))
    assert Use(store, keys(1, 4, 2, 3)).decoded == keys(4, 3)
    assert Use(store, keys(1, 2, 3, 4)).decoded == []
    assert len(names(store)) == 2


def test_each_side_has_its_own_rows(store: Cache) -> None:
    Use(store, keys(1))
    assert Use(store, keys(1), side=9).decoded == keys(1)
    assert Use(store, keys(1)).decoded == []


def test_another_decoder_finds_nothing(store: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    Use(store, keys(1))
    monkeypatch.setattr("nettailor_cli.core.data.cache_file.decoder_version", lambda: "newer")
    use = Use(store, keys(1))
    assert (use.decoded, use.said.warnings) == (keys(1), [])


def test_what_can_not_be_decoded_is_asked_for_each_time(store: Cache) -> None:
    assert Use(store, [key(1), BROKEN, key(2)]).decoded == [key(1), BROKEN, key(2)]
    assert Use(store, [key(1), BROKEN, key(2)]).decoded == [BROKEN]
    assert len(names(store)) == 1  # nothing is written for nothing


@pytest.mark.parametrize("damage", ["flipped pixel", "flipped key", "cut", "emptied"])
def test_a_damaged_file_is_made_again_with_a_warning(store: Cache, damage: str) -> None:
    Use(store, keys(1, 2))
    (file,) = store.folder.iterdir()
    whole = file.read_bytes()
    data = bytearray(whole)
    if damage == "cut":
        del data[-1:]
    elif damage == "emptied":
        data.clear()
    else:
        data[{"flipped pixel": 5, "flipped key": -100}[damage]] ^= 1
    file.write_bytes(data)
    use = Use(store, keys(1, 2))
    assert use.decoded == keys(1, 2)
    (warning,) = use.said.warnings
    assert f"{file} is damaged" in warning
    assert file.read_bytes() == whole
    assert names(store) == [file.name]


# the limit


def test_too_much_for_the_limit_is_refused_before_anything_is_done(store: Cache) -> None:
    (old,) = age(store, keys(1))
    small = Cache(store.home, 2 * ROW)
    with pytest.raises(NotCached, match=r"more than --cache-limit 0\.0 MB"):
        Use(small, keys(1, 2, 3))
    with pytest.raises(NotCached, match=r"--cache-limit 0$"):
        Use(Cache(store.home, 0), keys(1))
    assert names(store) == [old.name]


def test_the_least_recently_used_files_go_first(store: Cache) -> None:
    first, second, third = age(store, keys(1), keys(2), keys(3))
    Use(store, keys(1))  # which makes it the youngest
    limited = Cache(store.home, 3 * (ROW + FOOTER))
    Use(limited, keys(4))
    assert first.exists() and not second.exists() and third.exists()
    Use(limited, keys(5, 4))
    assert first.exists() and not third.exists()
    assert sum(path.stat().st_size for path in store.folder.iterdir()) <= limited.limit


def test_files_in_use_are_not_removed_for_each_other(store: Cache) -> None:
    old, other = age(store, keys(1), keys(2))
    use = Use(Cache(store.home, 2 * (ROW + FOOTER)), keys(1, 3))
    assert use.decoded == keys(3)
    assert old.exists() and not other.exists()


def test_a_large_file_of_which_little_is_needed_gives_way(store: Cache) -> None:
    (large,) = age(store, keys(*range(10)))
    use = Use(Cache(store.home, 11 * ROW), keys(1, 20, 21))
    assert use.decoded == keys(1, 20, 21)
    assert not large.exists()


# the disk


def free(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    usage = shutil.disk_usage("/")._replace(free=count)
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda place: usage)


def test_too_much_for_the_disk_is_refused_before_it_is_tried(store: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 2 * ROW)
    with pytest.raises(NotCached, match="more than is free on the disk"):
        Use(store, keys(1, 2))
    assert not store.folder.exists()
    Use(store, keys(1))


def test_old_files_make_room_on_the_disk(store: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    old, _ = age(store, keys(1, 2), keys(3))
    free(monkeypatch, 0)
    Use(store, keys(4))
    assert not old.exists()


@contextlib.contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """Writing fails half-way, as on a full disk. Not around a whole test: pytest itself may write to a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_is_full_half_way_through_leaves_nothing_behind(store: Cache) -> None:
    kept = age(store, keys(1))
    with no_file_larger_than(30 * ROW), pytest.raises(NotCached, match=r"can't write .*\.pixels: File too large"):
        Use(store, keys(*range(40)))
    assert names(store) == [kept[0].name]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_a_folder_that_takes_no_file_is_a_reason(store: Cache, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    with pytest.raises(NotCached, match=os.strerror(number)):
        Use(store, keys(1))


def test_something_in_the_way_is_a_reason(store: Cache) -> None:
    store.home.write_text("a file")
    with pytest.raises(NotCached, match="can't write"):
        Use(store, keys(1))


def test_a_cache_that_can_only_be_read_is_one_all_the_same(store: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    Use(store, keys(1))
    monkeypatch.setattr("tempfile.mkstemp", refuse)
    monkeypatch.setattr(os, "utime", refuse)
    assert Use(store, keys(1)).decoded == []


# others


def test_two_that_write_the_same_at_once_both_have_it(store: Cache) -> None:
    inner: list[Use] = []

    def meanwhile() -> None:
        if not inner:
            inner.append(Use(store, keys(1, 2, 3)))

    # the second begins and ends while the first is at work; the first goes on, for its file is not taken for a leftover
    outer = Use(store, keys(1, 2, 3), meanwhile=meanwhile)
    assert outer.decoded == inner[0].decoded == keys(1, 2, 3)
    assert len(names(store)) == 1
    assert Use(store, keys(1, 2, 3)).decoded == []


def test_a_file_that_another_removes_stays_readable(store: Cache) -> None:
    Use(store, keys(1))
    rows = store.rows(keys(1), SIDE, lambda positions, keep: None, workers=1, progress=Silent())
    shutil.rmtree(store.folder)
    ((file, row),) = rows.values()
    assert (file.pixels[row] == pixels_of(key(1))).all()
    assert Use(store, keys(1)).decoded == keys(1)


@pytest.mark.parametrize("moment", ["decoding", "flushing", "renaming", "renamed"])
def test_a_kill_at_any_moment_leaves_a_whole_file_or_none(store: Cache, moment: str) -> None:
    def die(*args: object, **options: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        try:
            if moment == "flushing":
                os.fsync = die  # type: ignore[assignment]
            elif moment == "renaming":
                Path.replace = die  # type: ignore[method-assign]
            elif moment == "renamed":
                cache.read_cache_file = die  # type: ignore[assignment]
            Use(store, keys(1, 2), meanwhile=die if moment == "decoding" else lambda: None)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    (left,) = names(store)
    assert left.endswith(".pixels") == (moment == "renamed")
    use = Use(store, keys(1, 2))
    assert (use.decoded, use.said.warnings) == ([] if moment == "renamed" else keys(1, 2), [])
    assert len(names(store)) == 1 and names(store)[0].endswith(".pixels")
