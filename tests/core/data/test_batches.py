from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nettailor_cli.core.data import Augmentation, Batches, Example, Pictures
from nettailor_cli.core.data.streams import AUGMENT, SHUFFLE, stream
from nettailor_cli.core.errors import UsageError
from nettailor_cli.core.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(size=14, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2.0))  # resize 16
CPU = torch.device("cpu")


def pictures(count: int) -> Pictures:
    """Labelled 0, 1, 2, ..., so that a label tells which picture it belongs to."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), np.uint8)
    return Pictures([Example(Path(f"{n}.png"), f"a/{n}.png", n) for n in range(count)], pixels.__getitem__)


def batches(count: int = 23, batch_size: int = 5, augmentation: Augmentation | None = None, **options) -> Batches:
    settings = {"seed": 1, "shuffle": augmentation is not None, "device": CPU} | options
    return Batches(pictures(count), PREPROCESSING, batch_size=batch_size, augmentation=augmentation, **settings)


def labels(some) -> list[int]:
    return [label for batch in some for label in batch.labels.tolist()]


@pytest.mark.parametrize(
    ("count", "batch_size", "sizes"),
    [(23, 5, [5, 5, 5, 4, 4]), (65, 64, [33, 32]), (64, 64, [64]), (3, 64, [3]), (5, 1, [1] * 5), (0, 4, [])],
)
def test_batches_are_as_equal_in_size_as_can_be(count, batch_size, sizes):
    made = batches(count, batch_size)
    assert len(made) == len(sizes)
    assert [len(batch.labels) for batch in made.epoch(0)] == sizes


@pytest.mark.parametrize(("share", "seen"), [(0.01, 2), (0.5, 12), (1.0, 23)])
def test_a_share_has_two_pictures_at_least(share: float, seen: int) -> None:
    """Batch norm may not be able to train on a single one."""
    assert sum(len(batch.labels) for batch in batches(share=share).epoch(0)) == seen


def test_evaluation_sees_the_normalised_centre_of_every_picture_in_order():
    made = batches()
    images = torch.cat([batch.images for batch in made.epoch(0)])
    pixels = made.pictures.take(np.arange(23)).double()[:, :, 1:15, 1:15] / 255
    mean, std = (torch.tensor(values).double()[:, None, None] for values in (PREPROCESSING.mean, PREPROCESSING.std))
    torch.testing.assert_close(images.double(), (pixels - mean) / std, atol=1e-5, rtol=1e-5)
    assert labels(made.epoch(0)) == list(range(23))


@pytest.mark.parametrize("augmentation", [None, Augmentation(), Augmentation("crop", jitter=0.1), Augmentation("none")])
def test_a_batch_is_float_channels_last_with_integer_labels(augmentation):
    for batch in batches(augmentation=augmentation).epoch(0):
        assert batch.images.dtype == torch.float32
        assert tuple(batch.images.shape) == (len(batch.labels), 3, 14, 14)
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        assert batch.labels.dtype == torch.int64


def test_every_epoch_has_every_picture_once_in_its_own_order():
    made = batches(augmentation=Augmentation())
    first, second = labels(made.epoch(0)), labels(made.epoch(1))
    assert sorted(first) == sorted(second) == list(range(23))
    assert first != second
    assert labels(made.epoch(0)) == first
    assert labels(batches(augmentation=Augmentation(), seed=2).epoch(0)) != first


@pytest.mark.parametrize("augmentation", [None, Augmentation(jitter=0.2), Augmentation("crop")])
@pytest.mark.parametrize("start", [0, 1, 3, 4, 5])
def test_going_on_from_a_batch_equals_the_tail_of_the_epoch(augmentation, start):
    whole = list(batches(augmentation=augmentation).epoch(3))
    tail = list(batches(augmentation=augmentation).epoch(3, start=start))
    assert len(tail) == 5 - start
    for expected, got in zip(whole[start:], tail, strict=True):
        assert torch.equal(expected.images, got.images)
        assert torch.equal(expected.labels, got.labels)
        assert expected.place == got.place
    assert [batch.place for batch in whole] == [(3, number) for number in range(5)]


def test_how_a_picture_is_augmented_does_not_depend_on_its_batch():
    def by_label(batch_size: int, shuffle: bool) -> torch.Tensor:
        made = list(batches(batch_size=batch_size, augmentation=Augmentation(), shuffle=shuffle).epoch(2))
        order = torch.cat([batch.labels for batch in made]).argsort()
        return torch.cat([batch.images for batch in made])[order]

    torch.testing.assert_close(by_label(5, True), by_label(23, False))


def test_order_and_augmentation_draw_from_different_streams():
    assert not np.array_equal(stream(1, 2, SHUFFLE).random(8), stream(1, 2, AUGMENT).random(8))
    assert np.array_equal(stream(1, 2, SHUFFLE).random(8), stream(1, 2, SHUFFLE).random(8))


def running() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("nettailor-batches")]


def test_leaving_an_epoch_early_ends_its_thread():
    epoch = batches().epoch(0)
    next(epoch)
    assert len(running()) == 1
    epoch.close()
    assert running() == []
    for _ in batches().epoch(0):
        break
    assert running() == []


def test_the_next_batch_is_fetched_while_this_one_is_used():
    made = batches()
    fetched = threading.Semaphore(0)
    take = made.pictures.take

    def counted(indices):
        taken = take(indices)
        fetched.release()
        return taken

    made.pictures.take = counted
    epoch = made.epoch(0)
    next(epoch)
    assert all(fetched.acquire(timeout=5) for _ in range(2))  # this one and the next
    assert not fetched.acquire(timeout=0.05)  # and no more
    epoch.close()


def test_an_error_in_the_thread_reaches_the_caller():
    def fetch(indices):
        if 12 in indices:
            raise RuntimeError("the disk is gone")
        return np.zeros((len(indices), 16, 16, 3), np.uint8)

    examples = [Example(Path("a.png"), "a/a.png", 0)] * 23
    made = Batches(
        Pictures(examples, fetch), PREPROCESSING, batch_size=5, seed=0, augmentation=None, shuffle=False, device=CPU
    )
    seen = []
    with pytest.raises(RuntimeError, match="the disk is gone"):
        for batch in made.epoch(0):
            seen.append(batch)
    assert len(seen) == 2
    assert running() == []


def test_a_batch_size_below_one_is_refused():
    with pytest.raises(UsageError):
        batches(batch_size=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("augmentation", [None, Augmentation(jitter=0.2), Augmentation("crop")])
def test_cuda_makes_the_same_batches(augmentation):
    for cpu, cuda in zip(
        batches(augmentation=augmentation).epoch(0),
        batches(augmentation=augmentation, device=torch.device("cuda")).epoch(0),
        strict=True,
    ):
        torch.testing.assert_close(cuda.images.cpu(), cpu.images, atol=1e-3, rtol=0)
        assert torch.equal(cuda.labels.cpu(), cpu.labels)


@pytest.mark.parametrize("augmentation", [None, Augmentation(jitter=0.2)])
def test_several_have_together_what_one_has_alone(augmentation):
    """Same order, same pixels after augmentation, whoever has them; from any batch on."""
    alone = list(batches(augmentation=augmentation).epoch(3, 1))
    shared = [list(batches(augmentation=augmentation, among=(number, 3)).epoch(3, 1)) for number in range(3)]
    for whole, *parts in zip(alone, *shared, strict=True):
        torch.testing.assert_close(torch.cat([part.images for part in parts]), whole.images)
        assert labels(parts) == whole.labels.tolist()
        assert {part.of for part in parts} == {whole.of} == {len(whole.labels)}
        assert sum(part.share for part in parts) == pytest.approx(1.0) and whole.share == 1.0


def test_the_parts_of_a_batch_are_alike_in_size_and_know_the_whole():
    [batch] = batches(7, 7, among=(0, 2)).epoch(0)
    parts = batch.parts(3)
    assert [part.labels.tolist() for part in parts] == [[0, 1], [2], [3]]
    assert [part.share for part in parts] == [2 / 7, 1 / 7, 1 / 7]
    assert [part.place for part in parts] == [(0, 0, 0), (0, 0, 1), (0, 0, 2)]
    assert replace(batch, place=()).parts(1)[0].place == ()
    assert torch.equal(torch.cat([part.images for part in parts]), batch.images)


@pytest.mark.parametrize(("count", "batch_size", "smallest"), [(23, 5, 4), (64, 64, 64), (5, 1, 1), (0, 4, 0)])
def test_the_smallest_batch_is_known_beforehand(count, batch_size, smallest):
    assert batches(count, batch_size).smallest == smallest
