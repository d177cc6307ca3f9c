from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nettailor_cli.core.data import BadImage, Example, load_pictures, read_square
from nettailor_cli.core.errors import DataError
from nettailor_cli.core.progress import Silent
from tests.core.data.images import write_picture

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


def load(examples, progress=None, memory_limit=PLENTY, **options):
    return load_pictures(examples, SIDE, workers=3, progress=progress or Silent(), memory_limit=memory_limit, **options)


@pytest.mark.parametrize("memory_limit", [PLENTY, 0])
def test_pictures_are_the_squares_of_their_files(tmp_path, memory_limit):
    examples = make(tmp_path, 40)
    pictures = load(examples, memory_limit=memory_limit)
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
def test_both_ways_give_the_same_values(tmp_path, skip):
    examples = make(tmp_path, 30, broken=skip)
    kept, decoded = (load(examples, memory_limit=limit, skip_bad=True) for limit in (PLENTY, 0))
    assert len(kept) == len(decoded) == 30 - len(skip)
    everything = np.arange(len(kept))
    assert torch.equal(kept.take(everything), decoded.take(everything))
    assert kept.examples == decoded.examples
    assert torch.equal(kept.labels, decoded.labels)


def test_the_choice_is_noted_with_its_numbers(tmp_path):
    examples = make(tmp_path, 10)
    for limit, said in ((10 * SIDE * SIDE * 3, "kept in memory"), (10 * SIDE * SIDE * 3 - 1, "more than the limit of")):
        progress = Recorder()
        load(examples, progress, memory_limit=limit)
        assert len(progress.notes) == 1
        assert said in progress.notes[0]
        assert "10 images at 8 x 8" in progress.notes[0]
        assert progress.work == [10, *[1] * 10, "10 images read"]


@pytest.mark.parametrize("memory_limit", [PLENTY, 0])
def test_all_broken_files_are_listed_before_anything_else_happens(tmp_path, memory_limit):
    examples = make(tmp_path, 60, broken=tuple(range(5, 30)))
    with pytest.raises(DataError) as caught:
        load(examples, memory_limit=memory_limit)
    message = caught.value.message
    assert "25 of 60 images can't be read" in message
    assert all(str(example.path) in message for example in examples[5:30])
    assert not any(str(example.path) in message for example in (*examples[:5], *examples[30:]))
    assert "--skip-bad-images" in caught.value.hint


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
def test_a_class_without_any_readable_image_is_an_error_all_the_same(tmp_path, broken, lost):
    with pytest.raises(DataError, match=f"not one image can be read of {lost}"):
        load(make(tmp_path, 6, broken=broken), skip_bad=True)


def test_no_images_at_all_is_an_error():
    with pytest.raises(DataError, match="no images"):
        load([])


def test_a_file_that_goes_bad_later_is_named(tmp_path):
    examples = make(tmp_path, 4)
    pictures = load(examples, memory_limit=0)
    examples[2].path.unlink()
    with pytest.raises(BadImage, match=r"002\.png"):
        pictures.take(np.arange(4))


def test_one_thread_is_used_where_none_is_asked_for(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    for limit in (PLENTY, 0):
        pictures = load_pictures(
            [Example(tmp_path / "a.png", "a/a.png", 0)], SIDE, workers=0, progress=Silent(), memory_limit=limit
        )
        assert pictures.take(np.array([0])).sum() == 0
