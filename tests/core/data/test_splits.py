from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from nettailor_cli.core.data import Dataset, Example, divide, select
from nettailor_cli.core.data.splits import folds
from nettailor_cli.core.errors import DataError, UsageError


def examples(*names: str) -> list[Example]:
    classes = sorted({name.split("/")[0] for name in names})
    return [Example(Path("/data") / name, name, classes.index(name.split("/")[0])) for name in names]


def many(count: int, classes: int = 4) -> list[Example]:
    return examples(*(f"class{n % classes}/{n:05d}.jpg" for n in range(count)))


def names(side) -> set[str]:
    return {example.name for example in side}


def test_about_a_fifth_of_every_class_goes_to_val():
    train, val = divide(many(8000), seed=3)
    assert len(train) + len(val) == 8000
    for label in range(4):
        share = sum(example.label == label for example in val) / 2000
        assert abs(share - 0.2) < 4 * (0.2 * 0.8 / 2000) ** 0.5


def test_another_seed_and_another_fraction_part_otherwise():
    data = many(400)
    assert names(divide(data, seed=0)[1]) != names(divide(data, seed=1)[1])
    assert names(divide(data, seed=0, val_fraction=0.1)[1]) < names(divide(data, seed=0, val_fraction=0.5)[1])


def test_adding_files_moves_no_other():
    before = divide(many(400), seed=0)
    after = divide(many(500), seed=0)
    assert names(before[0]) <= names(after[0])
    assert names(before[1]) <= names(after[1])


def test_the_order_of_the_files_does_not_matter_and_is_kept():
    data = many(100)
    train, val = divide(data, seed=0)
    assert list(train) == [example for example in data if example in set(train)]
    assert names(divide(data[::-1], seed=0)[1]) == names(val)


@pytest.mark.parametrize("seed", range(20))
def test_groups_never_straddle_and_every_class_stays_in_train(seed):
    data = examples(*(f"class{n % 3}/track{n % 7}_{n}.jpg" for n in range(60)))  # tracks across classes, too
    train, val = divide(data, seed=seed, group=r"track(\d+)_")
    tracks = [{name.split("track")[1].split("_")[0] for name in names(side)} for side in (train, val)]
    assert not tracks[0] & tracks[1]
    assert val
    assert {example.label for example in train} == {0, 1, 2}


def test_without_a_capture_group_the_whole_match_is_the_group():
    data = examples(*(f"{name}/p{n // 4}-{n}.jpg" for name in "ab" for n in range(40)))
    whole, captured = divide(data, seed=0, group=r"p\d+"), divide(data, seed=0, group=r"(p\d+)-\d+")
    assert whole == captured
    assert not {name.split("/")[1].split("-")[0] for name in names(whole[0])} & {
        name.split("/")[1].split("-")[0] for name in names(whole[1])
    }


@pytest.mark.parametrize("seed", range(30))
def test_every_class_keeps_a_training_image_even_if_nearly_all_is_val(seed):
    data = examples(*(f"{name}/{n}.jpg" for name in "abc" for n in range(2)), "d/only.jpg")
    train, val = divide(data, seed=seed, val_fraction=0.99)
    assert {example.label for example in train} == {0, 1, 2, 3}
    assert val
    assert "d/only.jpg" in names(train)


@pytest.mark.parametrize("seed", range(30))
def test_val_gets_something_where_the_hash_gives_nothing(seed):
    train, val = divide(many(10, classes=2), seed=seed, val_fraction=1e-9)
    assert (len(train), len(val)) == (9, 1)


def test_a_larger_fraction_only_adds_to_val():
    data = many(24)
    sides = [names(divide(data, seed=0, val_fraction=fraction)[1]) for fraction in (0.01, 0.1, 0.3, 0.6, 0.9, 0.999)]
    assert all(smaller <= larger for smaller, larger in pairwise(sides))
    assert len(sides[-1]) == 20  # all but the one of each class that comes last


def test_one_image_per_class_leaves_no_val():
    train, val = divide(examples("a/1.jpg", "b/1.jpg"), seed=0, val_fraction=0.9)
    assert (len(train), len(val)) == (2, 0)


@pytest.mark.parametrize(
    ("group", "error", "said"),
    [
        ("(", UsageError, "not a regular expression"),
        ("track", DataError, 'no group in "a/2.jpg"'),
        ("(x)?track|a", DataError, "no group in"),  # its capture group takes no part
        ("jpg", DataError, "into one group"),
    ],
)
def test_a_pattern_that_parts_nothing_is_refused(group, error, said):
    with pytest.raises(error, match=said):
        divide(examples("a/track1.jpg", "a/2.jpg", "b/3.jpg"), seed=0, group=group)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, float("nan")])
def test_a_fraction_that_is_none_is_refused(fraction):
    with pytest.raises(UsageError):
        divide(many(4), seed=0, val_fraction=fraction)


def test_select_takes_a_split_or_all_and_names_what_there_is():
    train, test = tuple(examples("a/1.jpg", "b/1.jpg")), tuple(examples("a/2.jpg"))
    dataset = Dataset(Path("/data"), ("a", "b"), {"test": test, "train": train})
    assert select(dataset, "test") == test
    assert select(dataset, "all") == train + test
    with pytest.raises(DataError, match="no val images") as caught:
        select(dataset, "val")
    assert "train | test | all" in caught.value.hint


def test_folds_share_nothing_and_together_are_everything() -> None:
    examples = [Example(Path(f"{i}.png"), f"a/{i}.png", 0) for i in range(300)]
    parts = [divide(examples, seed=3, val_fraction=0.25, fold=fold)[1] for fold in range(folds(0.25))]
    assert len(parts) == 4 and all(50 < len(part) < 100 for part in parts)
    assert sorted(example.name for part in parts for example in part) == sorted(example.name for example in examples)
    assert parts[0] == divide(examples, seed=3, val_fraction=0.25)[1]


@pytest.mark.parametrize(("val_fraction", "count"), [(0.2, 5), (0.3, 3), (0.1, 10), (0.9, 1), (1 / 3, 3)])
def test_a_fold_that_there_is_not(val_fraction: float, count: int) -> None:
    examples = [Example(Path(f"{i}.png"), f"a/{i}.png", 0) for i in range(30)]
    assert folds(val_fraction) == count
    divide(examples, seed=0, val_fraction=val_fraction, fold=count - 1)
    with pytest.raises(UsageError, match=f"folds 0 to {count - 1}"):
        divide(examples, seed=0, val_fraction=val_fraction, fold=count)
