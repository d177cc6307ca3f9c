from __future__ import annotations

import pytest

from nettailor_cli.core.data.balance import warnings


def test_even_classes_with_a_val_are_nothing_to_speak_of() -> None:
    assert warnings(("a", "b"), (40, 40), 10) == []
    assert warnings(("a", "b"), (2, 19), 2) == []  # below ten to one


def test_one_and_ten_thousand() -> None:
    """The ratio, the largest and the smallest classes are named, and that nothing is weighted."""
    [told] = warnings(("cat", "dog", "eel"), (10_000, 400, 1), 2000)
    for part in ("10000 to 1", "cat has 10000 training images", "eel has a single one", "nothing is weighted"):
        assert part in told


def test_ten_to_one_is_the_first_that_is_told() -> None:
    assert warnings(("a", "b"), (199, 20), 2) == []
    [told] = warnings(("a", "b"), (200, 20), 2)
    assert "10 to 1: a has 200 training images, b has 20;" in told


def test_many_small_classes_are_counted_and_not_all_named() -> None:
    classes = tuple(f"c{number}" for number in range(9))
    [told] = warnings(classes, (30, *[3] * 8), 5)
    assert "c1, c2, c3, c4, c5 and 3 more have 3;" in told


def test_classes_of_one_image_that_are_not_the_minority() -> None:
    assert warnings(("a", "b"), (1, 2), 2) == ["few training images: a has a single one"]


def test_a_class_of_the_model_that_is_not_there_any_more() -> None:
    [told] = warnings(("a", "b", "c"), (5, 0, 6), 2)
    assert told.startswith("no training images of b")


@pytest.mark.parametrize(("validation", "said"), [(0, "no accuracy is measured"), (1, "single image")])
def test_too_little_to_validate_on(validation: int, said: str) -> None:
    [told] = warnings(("a", "b"), (5, 6), validation)
    assert said in told
