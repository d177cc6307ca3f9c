from __future__ import annotations

import numpy as np
import pytest

from nettailor_cli.core.confusion import ClassScore, Confused, Confusion, confusion_of


def confusion(labels: list[int], predicted: list[int], classes: str) -> Confusion:
    return confusion_of(np.array(labels, np.int64), np.array(predicted, np.int64), tuple(classes))


def test_a_case_worked_by_hand() -> None:
    # a: 3 images, 2 right, 1 taken for c; b: 1 image, taken for a; c: 2 images, both right; d: none
    result = confusion([0, 0, 0, 1, 2, 2], [0, 2, 0, 0, 2, 2], "abcd")
    assert result.counts.tolist() == [[2, 0, 1, 0], [1, 0, 0, 0], [0, 0, 2, 0], [0, 0, 0, 0]]
    assert result.per_class() == [
        ClassScore("a", images=3, right=2, predicted=3),
        ClassScore("b", images=1, right=0, predicted=0),
        ClassScore("c", images=2, right=2, predicted=3),
        ClassScore("d", images=0, right=0, predicted=0),
    ]
    assert [score.accuracy for score in result.per_class()] == [pytest.approx(200 / 3), 0.0, 100.0, None]
    assert [score.precision for score in result.per_class()] == [
        pytest.approx(200 / 3),
        None,
        pytest.approx(200 / 3),
        None,
    ]
    assert result.most_confused(5) == [Confused("a", "c", 1), Confused("b", "a", 1)]
    assert result.most_confused(1) == [Confused("a", "c", 1)]


@pytest.mark.parametrize("seed", range(5))
def test_equals_a_plain_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    classes = "abcdefghij"[: rng.integers(1, 11)]
    count = int(rng.integers(0, 200))
    labels, predicted = (rng.integers(0, len(classes), count).tolist() for _ in range(2))
    result = confusion(labels, predicted, classes)
    counts = [[0] * len(classes) for _ in classes]
    for label, guess in zip(labels, predicted, strict=True):
        counts[label][guess] += 1
    assert result.counts.tolist() == counts
    for index, score in enumerate(result.per_class()):
        assert score.name == classes[index]
        assert score.images == sum(label == index for label in labels)
        assert score.predicted == sum(guess == index for guess in predicted)
        assert score.right == sum(label == guess == index for label, guess in zip(labels, predicted, strict=True))
    pairs = sorted(
        (-counts[i][j], i, j) for i in range(len(classes)) for j in range(len(classes)) if i != j and counts[i][j]
    )
    expected = [Confused(classes[i], classes[j], -n) for n, i, j in pairs]
    assert result.most_confused(7) == expected[:7]
    assert result.most_confused(1000) == expected
