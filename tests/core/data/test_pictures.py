from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nettailor_cli.core.data import BadImage, Cache, Dataset, Example, load_pictures, read_dataset, read_square
from nettailor_cli.core.data import dataset as dataset_module
from nettailor_cli.core.data import pictures as pictures_module
from nettailor_cli.core.data.dataset import content_of
from nettailor_cli.core.errors import DataError
from nettailor_cli.core.progress import Silent
from tests.core.data.images import write_folder, write_picture

SIDE = 8
PLENTY = 10**9


class Recorder(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.work: list[object] = []

    def note(self, text):
        self.notes.append(text)

    def warn(self, text):
        self.warnings.append(text)

    def start(self, what, total):
        self.work.append(total)

    def advance(self, units=1, figures=None):
        self.work.append(units)

    def finish(self, line=""):
        self.work.append(line)


def make(folder: Path, count: int, broken: tuple[int, ...] = ()) -> list[Example]:
    """Alternately of class a and b; those in `broken` are no pictures."""
    examples = []
    for n in range(count):
        name = f"{'ab'[n % 2]}/{n:03d}.png"
        path = write_picture(folder / name, seed=n, height=10 + n % 3)
        if n in broken:
            path.write_bytes(b"no picture")
        examples.append(Example(path, name, n % 2))
    return examples


def load(examples, progress=None, memory_limit=PLENTY, workers=3, **options):
    dataset = Dataset(Path(), ("a", "b"), {})
    options |= {"workers": workers, "progress": progress or Silent(), "memory_limit": memory_limit}
    return load_pictures(dataset, examples, SIDE, **options)


def ways(folder: Path) -> dict[str, dict]:
    """Where pixels may come from: options of `load`. The cache is used twice: filled, and full."""
    cache = Cache(folder / "home", PLENTY)
    return {"memory": {}, "files": {"memory_limit": 0}, "new cache": {"cache": cache}, "cache": {"cache": cache}}


@pytest.fixture(params=["memory", "files", "cache"])
def way(request, tmp_path) -> dict:
    return ways(tmp_path)[request.param]


def test_pictures_are_the_squares_of_their_files(tmp_path, way):
    examples = make(tmp_path, 40)
    pictures = load(examples, **way)
    indices = np.array([39, 0, 7, 7])
    taken = pictures.take(indices)
    assert (taken.dtype, tuple(taken.shape)) == (torch.uint8, (4, 3, SIDE, SIDE))
    assert taken.is_contiguous(memory_format=torch.channels_last)
    for row, index in zip(taken, indices, strict=True):
        assert (row.permute(1, 2, 0).numpy() == read_square(examples[index].path, SIDE)).all()
    assert (len(pictures), pictures.examples, pictures.skipped) == (40, tuple(examples), [])
    assert pictures.labels.tolist() == [0, 1] * 20
    assert pictures.labels.dtype == torch.int64


@pytest.mark.parametrize("skip", [(), (0, 5, 6)])
def test_all_ways_give_the_same_values_and_say_the_same_of_broken_files(tmp_path, skip):
    examples = make(tmp_path, 30, broken=skip)
    if skip:
        examples[6].path.unlink()
    first = None
    for name, way in ways(tmp_path).items():
        progress = Recorder()
        pictures = load(examples[:24], progress, skip_bad=True, only_check=examples[24:], **way)
        assert len(pictures) == 24 - len(skip), name
        values = (pictures.take(np.arange(len(pictures))), pictures.labels)
        seen = (pictures.examples, pictures.skipped, progress.warnings)
        first = first or (values, seen)
        assert all(map(torch.equal, values, first[0])), name
        assert seen == first[1], name


def test_the_choice_is_noted_with_its_numbers(tmp_path):
    examples = make(tmp_path, 10)
    for limit, said in (
        (10 * SIDE * SIDE * 3, "kept in memory"),
        (10 * SIDE * SIDE * 3 - 1, "more than the memory limit"),
    ):
        progress = Recorder()
        load(examples, progress, memory_limit=limit)
        assert len(progress.notes) == 1
        assert said in progress.notes[0]
        assert "10 images at 8 x 8" in progress.notes[0]
        assert progress.work == [10, *[1] * 10, "10 images read"]


def test_all_broken_files_are_listed_before_anything_else_happens(tmp_path, way):
    examples = make(tmp_path, 60, broken=tuple(range(5, 30)))
    with pytest.raises(DataError) as caught:
        load(examples[:20], only_check=examples[20:], **way)
    message = caught.value.message
    assert "25 of 60 images can't be read" in message
    assert all(str(example.path) in message for example in examples[5:30])
    assert not any(str(example.path) in message for example in (*examples[:5], *examples[30:]))
    assert "--skip-bad-images" in caught.value.hint


def test_names_with_line_ends_stay_one_line_each_and_the_list_has_an_end(tmp_path, monkeypatch):
    examples = make(tmp_path, 8, broken=(1, 2, 3))
    forged = tmp_path / "a" / "x.png\nhint: rm -rf.png"
    examples[2].path.rename(forged)
    examples[2] = Example(forged, f"a/{forged.name}", 0)
    monkeypatch.setattr(pictures_module, "_LISTED", 2)
    with pytest.raises(DataError) as caught:
        load(examples)
    first, second, third, last = caught.value.lines
    assert (first, last) == ("3 of 8 images can't be read:", "  ... and 1 more")
    assert second.startswith(f"  {examples[1].path}: not a picture")
    assert third.startswith(f"  {forged}: not a picture")


def test_broken_files_can_be_left_out_with_a_warning(tmp_path):
    examples = make(tmp_path, 12, broken=(0, 3, 4, 11))
    progress = Recorder()
    pictures = load(examples, progress, skip_bad=True)
    kept = [example for n, example in enumerate(examples) if n not in (0, 3, 4, 11)]
    assert pictures.examples == tuple(kept)
    assert pictures.labels.tolist() == [example.label for example in kept]
    for row, example in zip(pictures.take(np.arange(8)), kept, strict=True):
        assert (row.permute(1, 2, 0).numpy() == read_square(example.path, SIDE)).all()
    assert [path for path, _ in pictures.skipped] == [examples[n].path for n in (0, 3, 4, 11)]
    (warning,) = progress.warnings
    assert "4 of 12 images" in warning
    assert str(examples[4].path) in warning
    assert warning.endswith("... and 1 more")


@pytest.mark.parametrize(("broken", "lost"), [((1, 3, 5), "class b"), (tuple(range(6)), "class a, b")])
def test_a_class_without_any_readable_image_is_an_error_all_the_same(tmp_path, way, broken, lost):
    with pytest.raises(DataError, match=f"not one image can be read of {lost}"):
        load(make(tmp_path, 6, broken=broken), skip_bad=True, **way)


def test_no_images_at_all_is_an_error():
    with pytest.raises(DataError, match="no images"):
        load([])


def test_a_file_that_goes_bad_later_is_named(tmp_path):
    examples = make(tmp_path, 4)
    pictures = load(examples, memory_limit=0)
    examples[2].path.unlink()
    with pytest.raises(BadImage, match=r"002\.png"):
        pictures.take(np.arange(4))


def test_one_thread_is_used_where_none_is_asked_for(tmp_path, way):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    pictures = load([Example(tmp_path / "a.png", "a/a.png", 0)], workers=0, **way)
    assert pictures.take(np.array([0])).sum() == 0


# the cache; what it does for itself is in test_cache.py


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """The names of the files that are decoded from here on."""
    names = []

    def read(path, side):
        names.append(path.name)
        return read_square(path, side)

    monkeypatch.setattr(pictures_module, "read_square", read)
    return names


def test_a_moved_folder_is_found_and_a_replaced_picture_is_decoded_again(tmp_path, decoded):
    cache = Cache(tmp_path / "home", PLENTY)
    load(make(tmp_path / "one", 6), cache=cache)
    (tmp_path / "one").rename(tmp_path / "two")
    examples = [Example(tmp_path / "two" / e.name, e.name, e.label) for e in make(tmp_path / "three", 6)]
    decoded.clear()
    load(examples[::-1], cache=cache)
    assert decoded == []
    # of the same length and date: only its content tells
    path = examples[3].path
    status, data = path.stat(), write_picture(tmp_path / "new.png", seed=99, height=10).read_bytes()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    pictures = load(examples, cache=cache)
    assert decoded == ["003.png"]
    assert (pictures.take(np.array([3]))[0].permute(1, 2, 0).numpy() == read_square(path, SIDE)).all()


def test_what_was_only_checked_needs_no_decoding_any_more(tmp_path, decoded):
    examples, cache = make(tmp_path / "data", 8), Cache(tmp_path / "home", PLENTY)
    load(examples[:5], cache=cache, only_check=examples[5:])
    assert sorted(decoded) == [example.path.name for example in examples]
    assert len(load(examples[5:], cache=cache)) == 3
    assert len(decoded) == 8


def test_a_stop_for_broken_files_loses_no_work(tmp_path, decoded):
    examples, cache = make(tmp_path / "data", 8, broken=(2,)), Cache(tmp_path / "home", PLENTY)
    for _ in range(2):
        decoded.clear()
        with pytest.raises(DataError, match=r"1 of 8 images can't be read:\n  .*002\.png: not a picture"):
            load(examples, cache=cache)
    assert decoded == ["002.png"]
    write_picture(examples[2].path, seed=2)
    assert len(load(examples, cache=cache)) == 8


def test_a_picture_that_is_replaced_between_hashing_and_decoding_is_not_kept_under_the_wrong_key(tmp_path, monkeypatch):
    examples, cache = make(tmp_path / "data", 4), Cache(tmp_path / "home", PLENTY)
    before = examples[1].path.read_bytes()

    def replace(path, side):
        if path == examples[1].path:
            write_picture(path, seed=77)
        return read_square(path, side)

    with monkeypatch.context() as patch:
        patch.setattr(pictures_module, "read_square", replace)
        with pytest.raises(DataError, match=r"001\.png: changed while it was read"):
            load(examples, cache=cache)
    for data in (before, examples[1].path.read_bytes()):
        examples[1].path.write_bytes(data)
        square = load(examples, cache=cache).take(np.array([1]))[0].permute(1, 2, 0).numpy()
        assert (square == read_square(examples[1].path, SIDE)).all()


@pytest.mark.parametrize("limit", [0, 3 * SIDE * SIDE * 3])
@pytest.mark.parametrize(("memory_limit", "instead"), [(PLENTY, "kept in memory"), (0, "decoded as they are used")])
def test_without_room_in_the_cache_the_same_comes_another_way_and_one_line_says_why(
    tmp_path, limit, memory_limit, instead
):
    examples, progress = make(tmp_path / "data", 4), Recorder()
    cache = Cache(tmp_path / "home", limit)
    pictures = load(examples, progress, cache=cache, memory_limit=memory_limit)
    (note,) = progress.notes
    assert "not in the cache (" in note and "--cache-limit" in note and instead in note
    for row, example in zip(pictures.take(np.arange(4)), examples, strict=True):
        assert (row.permute(1, 2, 0).numpy() == read_square(example.path, SIDE)).all()
    assert not (tmp_path / "home").exists()


def test_a_cache_that_fails_while_it_is_written_is_done_without(tmp_path, monkeypatch):
    examples, progress = make(tmp_path / "data", 20), Recorder()

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    pictures = load(examples, progress, cache=Cache(tmp_path / "home", PLENTY))
    (note,) = progress.notes
    assert "No space left on device): images are kept in memory" in note
    assert len(pictures) == 20
    assert list((tmp_path / "home/cache").iterdir()) == []


def test_the_files_of_pictures_are_read_once_for_their_keys(tmp_path, monkeypatch):
    root = write_folder(tmp_path / "data", "train/a/1.png", "train/b/2.png", "test/a/3.png", "test/b/4.png")
    cache, hashed = Cache(tmp_path / "home", PLENTY), []

    def count(path):
        hashed.append(path.name)
        return content_of(path)

    monkeypatch.setattr(dataset_module, "content_of", count)
    dataset = read_dataset(root, seed=0)
    train, test = dataset.splits["train"], dataset.splits["test"]
    options = {"workers": 1, "progress": Silent(), "memory_limit": 0}
    load_pictures(dataset, test, SIDE, cache=Cache(tmp_path, 0), **options)
    assert hashed == []
    load_pictures(dataset, test, SIDE, cache=cache, **options)
    assert sorted(hashed) == ["3.png", "4.png"]
    load_pictures(dataset, train, SIDE, cache=cache, only_check=test, **options)
    assert len(dataset.digest) == 64
    assert sorted(hashed) == sorted(example.path.name for split in dataset.splits.values() for example in split)
