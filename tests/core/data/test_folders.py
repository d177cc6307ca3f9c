from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from nettailor_cli.core.data import Dataset, read_dataset
from nettailor_cli.core.errors import DataError, UsageError
from tests.core.data.images import write_folder, write_picture


def names(dataset: Dataset, split: str) -> list[str]:
    return [example.name for example in dataset.splits[split]]


def labelled(dataset: Dataset, split: str) -> dict[str, str]:
    return {example.name: dataset.classes[example.label] for example in dataset.splits[split]}


def test_three_splits_are_read_as_they_lie(tmp_path):
    write_folder(tmp_path, "train/b/1.png", "train/a/sub/deep/2.png", "val/a/3.png", "test/b/4.png", "notes/c/5.png")
    dataset = read_dataset(tmp_path, seed=0)
    assert dataset.classes == ("a", "b")
    assert {split: names(dataset, split) for split in dataset.splits} == {
        "train": ["a/sub/deep/2.png", "b/1.png"],
        "val": ["a/3.png"],
        "test": ["b/4.png"],
    }
    assert dataset.splits["train"][0].path == tmp_path / "train/a/sub/deep/2.png"
    assert dataset.splits["train"][0].label == 0


def test_classes_go_by_name_and_not_by_position(tmp_path):
    write_folder(
        tmp_path, "train/a/1.png", "train/b/1.png", "train/c/1.png", "val/c/1.png", "test/b/1.png", "test/c/1.png"
    )
    dataset = read_dataset(tmp_path, seed=0)
    assert [example.label for example in dataset.splits["val"]] == [2]
    assert [example.label for example in dataset.splits["test"]] == [1, 2]


def test_a_flat_folder_is_parted_and_has_no_test(tmp_path):
    write_folder(tmp_path, *(f"{name}/{n}.png" for name in "ab" for n in range(20)))
    dataset = read_dataset(tmp_path, seed=0)
    assert list(dataset.splits) == ["train", "val"]
    assert sorted(names(dataset, "train") + names(dataset, "val")) == sorted(
        f"{name}/{n}.png" for name in "ab" for n in range(20)
    )


def test_a_flat_class_may_be_called_train(tmp_path):
    write_folder(tmp_path, "train/1.png", "train/2.png", "bus/1.png", "bus/2.png")
    assert read_dataset(tmp_path, seed=0).classes == ("bus", "train")


def test_the_classes_of_a_model_give_the_labels(tmp_path):
    write_folder(tmp_path, "test/a/1.png", "test/b/1.png", "val/b/1.png")
    dataset = read_dataset(tmp_path, seed=0, classes=["b", "x", "a"])
    assert dataset.classes == ("b", "x", "a")
    assert {example.name: example.label for example in dataset.splits["test"]} == {"a/1.png": 2, "b/1.png": 0}
    assert list(dataset.splits) == ["val", "test"]


def test_a_single_class_is_enough_to_evaluate_a_model(tmp_path):
    write_folder(tmp_path, "a/1.png", "a/2.png")
    assert labelled(read_dataset(tmp_path, seed=0, classes=["b", "a"]), "train") != {}


@pytest.mark.parametrize("suffix", ["jpg", "JPEG", "png", "bmp", "webp", "gif", "tif", "TIFF"])
def test_every_known_suffix_is_found_in_either_case(tmp_path, suffix):
    write_folder(tmp_path, f"train/a/1.{suffix}", "train/b/1.png", "val/a/2.png")
    assert names(read_dataset(tmp_path, seed=0), "train") == [f"a/1.{suffix}", "b/1.png"]


def test_hidden_and_foreign_files_are_passed_over(tmp_path):
    write_folder(
        tmp_path, "train/a/1.png", "train/b/1.png", "train/a/.2.png", "train/.c/1.png", "val/a/1.png", "train/3.png"
    )
    (tmp_path / "train/a/notes.txt").write_text("no picture")
    os.mkfifo(tmp_path / "train/a/pipe.png")
    assert names(read_dataset(tmp_path, seed=0), "train") == ["a/1.png", "b/1.png"]


def test_links_in_circles_end_and_no_folder_is_entered_twice(tmp_path):
    write_folder(tmp_path, "train/a/1.png", "train/a/sub/2.png", "train/b/1.png", "val/a/1.png")
    (tmp_path / "train/a/loop").symlink_to(tmp_path / "train/a")
    (tmp_path / "train/a/sub/up").symlink_to(tmp_path)
    (tmp_path / "train/a/again").symlink_to(tmp_path / "train/a/sub")
    (tmp_path / "train/a/other").symlink_to(tmp_path / "train/b")
    (tmp_path / "train/a/self").symlink_to(tmp_path / "train/a/self")
    found = read_dataset(tmp_path, seed=0).splits["train"]
    inodes = [example.path.stat().st_ino for example in found if example.name.startswith("a/")]
    assert len(inodes) == len(set(inodes))
    assert [example.name for example in found if example.name.startswith("b/")] == ["b/1.png"]
    assert (tmp_path / "train/b/1.png").stat().st_ino not in inodes
    assert (tmp_path / "val/a/1.png").stat().st_ino not in inodes


def test_a_linked_class_folder_is_followed(tmp_path):
    write_folder(tmp_path, "elsewhere/1.png", "data/train/b/1.png", "data/val/b/1.png")
    (tmp_path / "data/train/a").symlink_to(tmp_path / "elsewhere")
    assert names(read_dataset(tmp_path / "data", seed=0), "train") == ["a/1.png", "b/1.png"]


def test_a_link_to_nowhere_stays_in_to_be_reported(tmp_path):
    write_folder(tmp_path, "train/a/1.png", "train/b/1.png", "val/a/1.png")
    (tmp_path / "train/a/2.png").symlink_to(tmp_path / "gone.png")
    assert "a/2.png" in names(read_dataset(tmp_path, seed=0), "train")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([], "no class folder with images"),
        (["1.png"], "no class folder with images"),
        (["a/1.png"], "a single class, a"),
        (["train/a/1.png", "train/b/1.png", "train/c/x.txt"], "no images of class c"),
        (["train/a/1.png", "train/b/1.png", "val/a/x.txt"], "val has no class folder"),
        (["val/a/1.png", "val/b/1.png"], "no train/"),
        (["test/a/1.png", "cat/1.png"], "has test/ but no train/"),
        (["train/a/1.png", "train/b/1.png", "valid/a/1.png"], "looks like a split under another name"),
        (["Train/a/1.png", "Test/a/1.png"], "looks like a split under another name"),
        (
            ["train/cat/1.png", "train/dog/1.png", "val/cta/1.png"],
            "val has classes that are not among the 2 known ones: cta",
        ),
    ],
)
def test_what_is_wrong_with_a_folder_is_said(tmp_path, files, said):
    for file in files:
        if file.endswith(".txt"):
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).write_text("")
        else:
            write_picture(tmp_path / file)
    with pytest.raises(DataError, match=re.escape(said)):
        read_dataset(tmp_path, seed=0)


def test_an_unknown_class_gets_a_suggestion(tmp_path):
    write_folder(tmp_path, "train/cat/1.png", "train/dog/1.png", "test/cta/1.png")
    with pytest.raises(DataError) as caught:
        read_dataset(tmp_path, seed=0)
    assert caught.value.hint == "did you mean cat?"
    with pytest.raises(DataError, match=r"train has classes .* 1 known ones: dog"):
        read_dataset(tmp_path, seed=0, classes=["cat"])


def test_an_empty_class_folder_in_val_is_passed_over(tmp_path):
    write_folder(tmp_path, "train/a/1.png", "train/b/1.png", "val/a/1.png")
    (tmp_path / "val/unheard-of").mkdir()
    assert names(read_dataset(tmp_path, seed=0), "val") == ["a/1.png"]


def test_missing_and_unfit_places_are_data_errors(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        read_dataset(tmp_path / "gone", seed=0)
    with pytest.raises(DataError, match="Not a directory"):
        read_dataset(write_picture(tmp_path / "a.png"), seed=0)


def test_an_unreadable_folder_is_a_data_error(tmp_path, monkeypatch):
    write_folder(tmp_path, "train/a/locked/1.png", "train/b/1.png")
    scandir = os.scandir

    def refuse(path):  # the tests may run as root, whom no permission stops
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"locked: Permission denied"):
        read_dataset(tmp_path, seed=0)


def test_a_bad_group_pattern_is_refused_even_where_val_exists(tmp_path):
    write_folder(tmp_path, "train/a/1.png", "train/b/1.png", "val/a/1.png")
    with pytest.raises(UsageError, match="not a regular expression"):
        read_dataset(tmp_path, seed=0, group="(")


def test_control_characters_in_a_class_name_are_kept(tmp_path):
    write_folder(tmp_path, "train/a\nb/1.png", "train/c/1.png", "val/c/1.png")
    assert read_dataset(tmp_path, seed=0).classes == ("a\nb", "c")


def test_another_fold_puts_val_to_train_and_parts_them_anew(tmp_path):
    write_folder(
        tmp_path, *(f"train/{name}/{n}.png" for name in "ab" for n in range(20)), "val/a/v1.png", "val/b/v2.png"
    )
    first, second = (read_dataset(tmp_path, seed=0, fold=fold) for fold in (0, 1))
    assert names(first, "val") == ["a/v1.png", "b/v2.png"]
    both = sorted(names(first, "train") + names(first, "val"))
    assert sorted(names(second, "train") + names(second, "val")) == both
    assert 2 < len(names(second, "val")) < 20
    assert second.splits["train"][-1].path.exists() and {e.path.parent.parent.name for e in second.splits["train"]} == {
        "train", "val"
    }  # fmt: skip
