from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from nettailor_cli.core.data import Augmentation, central_crop
from nettailor_cli.core.errors import UsageError


def pictures(count: int, side: int) -> torch.Tensor:
    values = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)
    return torch.from_numpy(values).permute(0, 3, 1, 2)


def one_box(side: int, scale: tuple[float, float], ratio: tuple[float, float], rng: random.Random) -> tuple[int, ...]:
    """The algorithm that torchvision documents for RandomResizedCrop, one picture at a time."""
    for _ in range(10):
        area = side * side * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        width, height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < width <= side and 0 < height <= side:
            return rng.randint(0, side - height), rng.randint(0, side - width), height, width
    if ratio[0] > 1:
        width, height = side, round(side / ratio[0])
    elif ratio[1] < 1:
        width, height = round(side * ratio[1]), side
    else:
        width = height = side
    return (side - height) // 2, (side - width) // 2, height, width


def ks_distance(a: np.ndarray, b: np.ndarray) -> float:
    values = np.union1d(a, b)
    return float(
        np.abs(
            np.searchsorted(np.sort(a), values, "right") / len(a)
            - np.searchsorted(np.sort(b), values, "right") / len(b)
        ).max()
    )


@pytest.mark.parametrize(
    ("scale", "ratio"), [((0.35, 1.0), (3 / 4, 4 / 3)), ((0.08, 1.0), (3 / 4, 4 / 3)), ((0.4, 0.9), (1.2, 2.0))]
)
def test_boxes_are_distributed_as_the_plain_algorithm_says(scale, ratio):
    count, side = 20_000, 64
    augmentation = Augmentation(scale=scale, ratio=ratio)
    boxes = augmentation.boxes(augmentation.draw(count, seed=1, epoch=0), side)
    rng = random.Random(0)
    plain = np.array([one_box(side, scale, ratio, rng) for _ in range(count)])
    columns = [(boxes[:, n], plain[:, n]) for n in range(4)]
    columns += [(each[:, 2] * each[:, 3], other[:, 2] * other[:, 3]) for each, other in [(boxes, plain)]]
    columns += [(each[:, 3] / each[:, 2], other[:, 3] / other[:, 2]) for each, other in [(boxes, plain)]]
    for ours, theirs in columns:
        # two samples of one distribution lie further apart than this once in about a million times
        assert ks_distance(ours, theirs) < 2.7 * math.sqrt(2 / count)
        assert abs(ours.mean() - theirs.mean()) < 6 * theirs.std() * math.sqrt(2 / count) + 1e-9
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= side).all()


@pytest.mark.parametrize(
    ("ratio", "box"), [((3.0, 4.0), (20, 0, 20, 60)), ((0.2, 0.25), (0, 22, 60, 15)), ((0.9, 1.1), None)]
)
def test_where_no_attempt_fits_the_box_is_central(ratio, box):
    augmentation = Augmentation(scale=(1.0, 1.0), ratio=ratio)
    draws = np.zeros_like(augmentation.draw(1, 0, 0))  # ratio[0] at the whole area: as wide or high a box as can't fit
    assert augmentation.boxes(draws, 60).tolist() == [list(box or (0, 0, 60, 60))]


@pytest.mark.parametrize("size", [16, 40, 9])
def test_a_resized_crop_is_a_crop_then_a_resize_then_a_flip(size):
    images = pictures(32, 24)
    augmentation = Augmentation("resized-crop", flip=True)
    draws = augmentation.draw(32, seed=0, epoch=0)
    out = augmentation.apply(images, draws, size)
    flips = draws[:, 22] < 0.5
    assert 5 < flips.sum() < 27
    for image, (top, left, height, width), flip, got in zip(
        images, augmentation.boxes(draws, 24), flips, out, strict=True
    ):
        crop = image[None, :, top : top + height, left : left + width].float() / 255
        expected = F.interpolate(crop, (size, size), mode="bilinear", align_corners=False)[0]
        torch.testing.assert_close(got, expected.flip(2) if flip else expected, atol=2e-4, rtol=0)


@pytest.mark.parametrize("kind", ["crop", "none"])
@pytest.mark.parametrize("flip", [True, False])
def test_crops_are_exact_windows(kind, flip):
    images, size = pictures(40, 12), 9
    augmentation = Augmentation(kind, flip=flip)
    out = (augmentation.apply(images, augmentation.draw(40, 0, 0), size) * 255).round().byte()
    seen = set()
    for image, got in zip(images, out, strict=True):
        places = [
            (top, left, flipped)
            for top in range(4)
            for left in range(4)
            for flipped in (False, True)
            if torch.equal(
                got, (lambda w, f: w.flip(2) if f else w)(image[:, top : top + size, left : left + size], flipped)
            )
        ]
        assert len(places) == 1
        seen.update(places)
    assert {flipped for _, _, flipped in seen} == ({True, False} if flip else {False})
    corners = {(top, left) for top, left, _ in seen}
    assert corners == {(1, 1)} if kind == "none" else len(corners) > 10


def test_every_window_of_a_crop_is_as_likely():
    images = torch.arange(36, dtype=torch.uint8).reshape(1, 1, 6, 6).expand(20_000, 3, 6, 6)
    augmentation = Augmentation("crop", flip=False)
    out = augmentation.apply(images, augmentation.draw(20_000, 0, 0), 4)
    corners = (out[:, 0, 0, 0] * 255).round().long()
    counts = torch.bincount(corners, minlength=36)[[6 * top + left for top in range(3) for left in range(3)]]
    assert counts.sum() == 20_000
    assert (counts - 20_000 / 9).abs().max() < 5 * math.sqrt(20_000 / 9)


def test_none_is_what_evaluation_sees():
    images = pictures(5, 13)
    augmentation = Augmentation("none", flip=False)
    assert torch.equal(augmentation.apply(images, augmentation.draw(5, 0, 0), 8), central_crop(images, 8))
    assert torch.equal(central_crop(images, 8), images[:, :, 2:10, 2:10].float() / 255)


def test_an_image_depends_on_seed_epoch_and_its_index_alone():
    images = pictures(50, 16)
    augmentation = Augmentation(jitter=0.3)
    draws = augmentation.draw(50, seed=5, epoch=2)
    out = augmentation.apply(images, draws, 12)
    some = [40, 3, 17]
    torch.testing.assert_close(augmentation.apply(images[some], draws[some], 12), out[some])
    assert np.array_equal(augmentation.draw(50, 5, 2), draws)
    assert np.array_equal(augmentation.draw(200, 5, 2)[:50], draws)  # more pictures change nothing for these
    assert np.array_equal(Augmentation("crop").draw(50, 5, 2), draws)
    for seed, epoch in ((5, 3), (6, 2)):
        assert (augmentation.draw(50, seed, epoch) != draws).mean() > 0.99


def test_jitter_is_brightness_then_contrast_then_saturation():
    images, strength = pictures(30, 8), 0.6
    augmentation = Augmentation("none", flip=False, jitter=strength)
    draws = augmentation.draw(30, 0, 0)
    out = augmentation.apply(images, draws, 8)
    assert out.min() >= 0
    assert out.max() <= 1
    for image, factors, got in zip(images, 1 + strength * (2 * draws[:, 23:26].astype(float) - 1), out, strict=True):
        pixels = image.permute(1, 2, 0).double().numpy() / 255
        luma = np.array([0.299, 0.587, 0.114])
        pixels = np.clip(pixels * factors[0], 0, 1)
        pixels = np.clip(factors[1] * pixels + (1 - factors[1]) * (pixels @ luma).mean(), 0, 1)
        pixels = np.clip(factors[2] * pixels + (1 - factors[2]) * (pixels @ luma)[..., None], 0, 1)
        np.testing.assert_allclose(got.permute(1, 2, 0).numpy(), pixels, atol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"kind": "cutmix"},
        {"scale": (0.0, 1.0)},
        {"scale": (0.9, 0.5)},
        {"scale": (0.5, 1.1)},
        {"ratio": (0.0, 1.0)},
        {"ratio": (2.0, 1.0)},
        {"jitter": 1.5},
        {"jitter": float("nan")},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(UsageError):
        Augmentation(**settings)


@pytest.mark.parametrize("kind", ["crop", "none"])
def test_no_window_is_larger_than_the_picture(kind):
    augmentation = Augmentation(kind)
    with pytest.raises(ValueError, match="9 x 9 pixels out of 8 x 8"):
        augmentation.apply(pictures(2, 8), augmentation.draw(2, 0, 0), 9)
    with pytest.raises(ValueError, match="9 x 9"):
        central_crop(pictures(2, 8), 9)
