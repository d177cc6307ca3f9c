"""The comparison that an exported file has to pass."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nettailor_cli.core.data import read_square
from nettailor_cli.core.deploy.checking import PICTURES, compare, difference, pictures_for
from nettailor_cli.core.errors import DataError, RunFailed
from nettailor_cli.core.progress import Silent
from tests.core.deploy.networks import CLASSES, PREPROCESSING, SIZE, model_of, pruned_student, standalone

LOG3 = math.log(3)


def test_a_difference_worked_by_hand() -> None:
    """Logits (0, log 3) mean 1/4 and 3/4. The other network says (0.1, log 3) and 0.3 and 0.7."""
    expected = np.array([[0.0, LOG3], [0.0, LOG3]])
    logits = np.array([[0.0, LOG3], [0.1, LOG3]])
    found = difference(expected, np.array([[0.25, 0.75], [0.3, 0.7]]), logits, "probabilities")
    assert found.probabilities == pytest.approx(0.05) and found.logits == pytest.approx(0.1 / LOG3)
    assert (found.same_class, found.images, found.largest) == (2, 2, found.logits)


def test_saturated_probabilities_hide_nothing() -> None:
    expected, logits = np.array([[0.0, 500.0]]), np.array([[0.0, 400.0]])
    found = difference(expected, np.array([[0.0, 1.0]]), logits, "probabilities")
    assert found.probabilities < 1e-10 and found.logits == pytest.approx(0.2)


def test_logits_are_compared_as_probabilities_too() -> None:
    expected, given = np.array([[0.0, LOG3]]), np.array([[LOG3, 0.0]])
    found = difference(expected, given, given, "logits")
    assert found.probabilities == pytest.approx(0.5) and found.same_class == 0


@pytest.mark.parametrize("given", [[[math.nan, 0.5]], [[math.inf, 0.0]], [[1.0]], [[0.5, 0.5], [0.5, 0.5]]], ids=str)
def test_what_is_no_answer_is_infinitely_wrong(given: list[list[float]]) -> None:
    expected = np.array([[0.0, 1.0]])
    assert difference(expected, np.array(given), expected, "probabilities").largest == math.inf
    assert difference(expected, expected, np.array(given), "probabilities").largest == math.inf


def test_drawn_pictures_are_the_same_each_time_and_use_the_whole_range() -> None:
    first, what = pictures_for(PREPROCESSING, None, Silent())
    assert np.array_equal(first, pictures_for(PREPROCESSING, None, Silent())[0])
    assert first.shape == (PICTURES, PREPROCESSING.resize, PREPROCESSING.resize, 3) and first.dtype == np.uint8
    assert (first.min(), first.max()) == (0, 255) and len(np.unique(first.reshape(PICTURES, -1), axis=0)) == PICTURES
    assert what == "32 drawn pictures"


def test_pictures_of_a_folder(tmp_path: Path) -> None:
    """Of 63 every second one, the first and the last among them, and each as the tool reads it."""
    (tmp_path / "data" / "a").mkdir(parents=True)
    for value in range(63):
        Image.new("RGB", (9, 7), (4 * value, 0, 0)).save(tmp_path / "data" / "a" / f"{value:02}.png")
    squares, what = pictures_for(PREPROCESSING, tmp_path / "data", Silent())
    assert what == f"32 pictures of {tmp_path / 'data'}"
    assert squares[:, 0, 0, 0].tolist() == [8 * place for place in range(32)]
    expected = read_square(tmp_path / "data" / "a" / "62.png", PREPROCESSING.resize)
    assert np.array_equal(squares[-1], expected)


def test_broken_pictures_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match="none of the pictures"):
        pictures_for(PREPROCESSING, tmp_path, Silent())
    Image.new("RGB", (9, 7)).save(tmp_path / "good.png")
    assert pictures_for(PREPROCESSING, tmp_path, Silent())[1] == f"1 pictures of {tmp_path}"
    with pytest.raises(DataError, match="no file or folder"):
        pictures_for(PREPROCESSING, tmp_path / "none", Silent())


def test_pictures_go_through_in_batches_of_different_sizes() -> None:
    network = standalone(pruned_student(), torch.float32)
    seen = []

    def run(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        seen.append(images.shape)
        with torch.inference_mode():
            logits = network(torch.from_numpy(images)).numpy()
        return logits, logits

    squares, _ = pictures_for(PREPROCESSING, None, Silent())
    found = compare(model_of(pruned_student()), squares[:10], run, "logits")
    assert seen == [(count, SIZE, SIZE, 3) for count in (1, 7, 1, 1)]
    assert found.images == found.same_class == 10 and 0 < found.largest < 1e-5


def test_a_model_that_is_broken_itself() -> None:
    student = pruned_student()
    with torch.no_grad():
        student.head.bias[0] = math.nan
    squares, _ = pictures_for(PREPROCESSING, None, Silent())
    with pytest.raises(RunFailed, match="the model's own outputs are not finite"):
        compare(model_of(student), squares[:1], lambda images: (np.zeros((1, CLASSES)),) * 2, "logits")
