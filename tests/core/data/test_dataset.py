from __future__ import annotations

import json
import os
import shutil

import pytest

from nettailor_cli.core.data import read_dataset
from tests.core.data.images import write_folder, write_picture

FILES = ("train/a/1.png", "train/b/2.png", "train/b/3.png", "val/b/4.png")


def digest(root) -> str:
    return read_dataset(root, seed=0).digest


def test_the_digest_is_of_contents_and_names_and_not_of_the_place(tmp_path):
    first = write_folder(tmp_path / "first", *FILES)
    shutil.copytree(first, tmp_path / "second")
    assert digest(first) == digest(tmp_path / "second")
    assert len(digest(first)) == 64


@pytest.mark.parametrize("change", ["content", "name", "class", "split", "less"])
def test_the_digest_sees(tmp_path, change):
    root = write_folder(tmp_path, *FILES)
    before = digest(root)
    file = root / "train/b/3.png"
    if change == "content":
        write_picture(file, seed=99)
    elif change == "less":
        file.unlink()
    else:
        file.rename(root / {"name": "train/b/5.png", "class": "train/a/3.png", "split": "val/b/3.png"}[change])
    assert digest(root) != before


def test_the_digest_takes_unreadable_files_and_odd_names(tmp_path):
    root = write_folder(tmp_path, *FILES)
    (root / "train/a/gone.png").symlink_to(tmp_path / "nowhere")
    shutil.copy(root / "train/a/1.png", os.fsencode(root / "train/a") + b"/\xff.png")
    assert len(digest(root)) == 64


def test_the_summary_is_json_and_names_no_path(tmp_path):
    root = write_folder(tmp_path / "flowers", *FILES)
    summary = json.loads(json.dumps(read_dataset(root, seed=0).summary()))
    assert summary == {"name": "flowers", "classes": 2, "images": {"train": 3, "val": 1}}
