"""Every reader on a miniature copy of its set in the true on-disk format; what is expected is worked out by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import cub200
import decathlon
import flowers102
import miniature
import numpy as np
import pytest
import sketch
import stanford_cars
import svhn
import voc2012
import wikiart
from PIL import Image

from nettailor_cli.core.data import read_dataset
from nettailor_cli.core.errors import DataError
from tests.examples.recipes.conftest import EXAMPLES


def laid_out(
    draw: Callable[[Path], None], reader: common.Reader, folder: Path, **options: Any
) -> dict[tuple[str, str], list[str]]:
    """Per (split, class), the files."""
    draw(folder / "source")
    common.lay_out(reader, folder / "source", folder / "data", **options)
    found: dict[tuple[str, str], list[str]] = {}
    for file in sorted((folder / "data").glob("*/*/*")):
        found.setdefault((file.parts[-3], file.parts[-2]), []).append(file.name)
    read_dataset(folder / "data", seed=0)  # as the tool wants it
    return found


def counts(found: dict[tuple[str, str], list[str]]) -> dict[tuple[str, str], int]:
    return {key: len(files) for key, files in found.items()}


def seen(path: Path, size: int) -> np.ndarray[Any, Any]:
    """What the tool shows of a framed picture."""
    pixels = np.asarray(Image.open(path))
    first = (len(pixels) - size) // 2
    return pixels[first : first + size, first : first + size]


def test_svhn_ten_is_the_digit_zero_and_pictures_are_upright(tmp_path: Path) -> None:
    found = laid_out(miniature.draw_svhn, svhn.read, tmp_path)
    assert counts(found) == {
        **{("train", digit): 8 for digit in "012"},
        **{("test", digit): 4 for digit in "012"},
    }
    assert found["test", "0"] == ["000002.png", "000005.png", "000008.png", "000011.png"]
    pixels = np.asarray(Image.open(tmp_path / "data/test/0/000005.png"))
    assert (pixels == miniature.picture(0, 1, 32, 32)).all()


def test_flowers_train_and_valid_are_train(tmp_path: Path) -> None:
    found = laid_out(miniature.draw_flowers102, flowers102.read, tmp_path)
    # 12 pictures of each label: of every four, two train, one test, one valid
    assert counts(found) == {
        **{("train", f"00{label}"): 9 for label in (1, 2, 3)},
        **{("test", f"00{label}"): 3 for label in (1, 2, 3)},
    }
    assert found["test", "002"] == ["image_00008.jpg", "image_00020.jpg", "image_00032.jpg"]
    linked = tmp_path / "data/test/002/image_00008.jpg"
    assert linked.samefile(tmp_path / "source/jpg/image_00008.jpg")


def test_flowers_with_val_as_published(tmp_path: Path) -> None:
    found = laid_out(miniature.draw_flowers102, flowers102.read, tmp_path, keep_val=True)
    assert Counter(split for split, _ in found) == {"train": 3, "val": 3, "test": 3}
    assert found["val", "001"] == ["image_00010.jpg", "image_00022.jpg", "image_00034.jpg"]


# VOC


def one_voc_picture(folder: Path, objects: list[str]) -> Path:
    """One picture of 100 x 80 in val.txt, whose pixels tell where they are; train.txt has another, of two cats."""
    source = folder / "source"
    for name, rows in (("2009_000001", objects), ("2008_000001", [miniature.voc_object("cat", (1, 1, 9, 9))] * 2)):
        y, x = np.mgrid[0:80, 0:100]
        path = source / "JPEGImages" / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.stack([2 * x, 3 * y, 0 * x], axis=-1).astype(np.uint8)).save(
            path, quality=100, subsampling=0
        )
        annotation = source / "Annotations" / f"{name}.xml"
        annotation.parent.mkdir(exist_ok=True)
        annotation.write_text(miniature.voc_annotation(name, 100, 80, rows))
    sets = source / "ImageSets" / "Main"
    sets.mkdir(parents=True)
    (sets / "train.txt").write_text("2008_000001\n")
    (sets / "val.txt").write_text("2009_000001\n")
    return source


@pytest.mark.parametrize(
    ("box", "corners"),  # corners of what is cut out: left, top, right, bottom, the last ones not in it
    [
        # 21..60 is 40 wide and 31..50 is 20 high, margins 8 and 4: 20 - 8 = 12 to 60 + 8, 30 - 4 = 26 to 50 + 4
        ((21, 31, 60, 50), (12, 26, 68, 54)),
        # at the left and top border: 1..20 and 1..10, margins 4 and 2
        ((1, 1, 20, 10), (0, 0, 24, 12)),
        # at the right and bottom border: 51..100 is 50 wide, 41..80 is 40 high, margins 10 and 8
        ((51, 41, 100, 80), (40, 32, 100, 80)),
        # VOC 2012 has fractions: 45.7 to 55.7, so 44.7 .. 55.7, 11 wide, margin 2.2: 42.5 to 57.9
        ((45.7, 31, 55.7, 50), (42, 26, 58, 54)),
    ],
)
def test_voc_boxes_with_margin_clipped_at_the_border(
    box: tuple[float, ...], corners: tuple[int, int, int, int], tmp_path: Path
) -> None:
    source = one_voc_picture(tmp_path, [miniature.voc_object("dog", box)])
    left, top, right, bottom = corners
    size = 24  # as it would be with any: the cut is stretched to it
    common.lay_out(voc2012.read, source, tmp_path / "data", size=size, balance=2)
    got = seen(tmp_path / "data/test/dog/2009_000001-00.png", size).astype(float)
    # after resizing, a pixel's centre at i lies at left + (i + 0.5) * width / size - 0.5 of the picture
    steps = (np.arange(size) + 0.5) / size
    x, y = left + steps * (right - left) - 0.5, top + steps * (bottom - top) - 0.5
    inside = slice(2, -2)  # bilinear at the rim takes what is there
    assert np.abs(got[size // 2, inside, 0] - 2 * x[inside]).max() < 4
    assert np.abs(got[inside, size // 2, 1] - 3 * y[inside]).max() < 4


def test_voc_difficult_objects_are_left_out_truncated_ones_and_parts_are_not_objects(tmp_path: Path) -> None:
    head = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>5</ymax></bndbox></part>"
    objects = [
        miniature.voc_object("person", (11, 11, 40, 40), parts=head),
        miniature.voc_object("dog", (11, 11, 40, 40), difficult=1),
        miniature.voc_object("dog", (21, 21, 50, 50), truncated=1),
    ]
    source = one_voc_picture(tmp_path, objects)
    found = voc2012.objects(source / "Annotations" / "2009_000001.xml")
    assert [(name, difficult) for name, _, difficult in found] == [("person", False), ("dog", True), ("dog", False)]
    assert found[0][1] == common.Box(10, 10, 40, 40), "the person's own box, not its head's"
    common.lay_out(voc2012.read, source, tmp_path / "data", size=16, balance=2)
    assert sorted(path.name for path in (tmp_path / "data/test").glob("*/*")) == [
        "2009_000001-00.png",
        "2009_000001-02.png",
    ]
    common.lay_out(voc2012.read, source, tmp_path / "all", size=16, balance=2, difficult=True)
    assert len(list((tmp_path / "all/test/dog").iterdir())) == 2


def test_voc_train_is_balanced_val_is_other_pictures_and_test_is_val_txt(tmp_path: Path) -> None:
    found = laid_out(miniature.draw_voc2012, voc2012.read, tmp_path, size=16, balance=12)
    train = {label: files for (split, label), files in found.items() if split == "train"}
    assert {label: len(files) for label, files in train.items()} == dict.fromkeys(miniature.VOC_CLASSES, 12)
    pictures = {split: {name[:11] for (of, _), files in found.items() for name in files if of == split} for split in
                ("train", "val", "test")}  # fmt: skip
    assert len(pictures["train"] | pictures["val"]) == 24 and not pictures["train"] & pictures["val"]
    assert pictures["val"] and all(name.startswith("2008") for name in pictures["val"])
    assert pictures["test"] == {f"2009_{index:06}" for index in range(8)}
    assert sum(len(files) for (split, _), files in found.items() if split == "test") == 16
    assert not any("again" in name for (split, _), files in found.items() if split != "train" for name in files)


def test_voc_a_small_class_is_repeated_in_turn_and_a_large_one_is_thinned(tmp_path: Path) -> None:
    source = one_voc_picture(tmp_path, [miniature.voc_object("cat", (1, 1, 9, 9))])
    common.lay_out(voc2012.read, source, tmp_path / "more", size=16, balance=5)
    files = sorted(path.name for path in (tmp_path / "more/train/cat").iterdir())
    assert len(files) == 5 and Counter(name[12:14] for name in files) in ({"00": 3, "01": 2}, {"00": 2, "01": 3})
    common.lay_out(voc2012.read, source, tmp_path / "less", size=16, balance=1)
    assert len(list((tmp_path / "less/train/cat").iterdir())) == 1


# the five sets


def test_cub_is_split_by_its_list_and_cut_by_its_boxes(tmp_path: Path) -> None:
    found = laid_out(miniature.draw_cub200, cub200.read, tmp_path, size=32)
    names = ("001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Sooty_Albatross")
    assert counts(found) == {**{("train", n): 8 for n in names}, **{("test", n): 4 for n in names}}
    assert found["test", names[1]][0] == "Laysan_Albatross_0008_1.png"
    whole = Image.open(tmp_path / "source/images" / names[1] / "Laysan_Albatross_0008_1.jpg")
    expected = np.asarray(whole.crop((10, 5, 40, 45)).resize((32, 32), Image.Resampling.BILINEAR))
    assert (seen(tmp_path / "data/test" / names[1] / "Laysan_Albatross_0008_1.png", 32) == expected).all()


def test_cub_whole(tmp_path: Path) -> None:
    found = laid_out(miniature.draw_cub200, cub200.read, tmp_path, whole=True)
    assert found["test", "002.Laysan_Albatross"][0] == "Laysan_Albatross_0008_1.jpg"


@pytest.mark.parametrize("draw", [miniature.draw_stanford_cars, miniature.draw_stanford_cars_in_one_file])
def test_cars_in_either_form(draw: Callable[[Path], None], tmp_path: Path) -> None:
    found = laid_out(draw, stanford_cars.read, tmp_path, size=32)
    names = ("AM General Hummer SUV 2000", "Ram C-V Cargo Van Minivan 2012", "smart fortwo Convertible 2012")
    assert counts(found) == {**{("train", n): 8 for n in names}, **{("test", n): 4 for n in names}}
    assert len({name for files in found.values() for name in files}) >= 24
    # the box 6..55, 11..40, counted from 1
    first = next(stanford_cars.annotations(tmp_path / "source"))
    assert first[:2] == ("train", "AM General Hummer SUV 2000")
    expected = np.asarray(Image.open(first[2]).crop((5, 10, 55, 40)).resize((32, 32), Image.Resampling.BILINEAR))
    assert (seen(tmp_path / "data/train" / names[0] / f"{first[2].stem}.png", 32) == expected).all()


def test_wikiart_by_its_lists(tmp_path: Path) -> None:
    lists = tmp_path / "source" / miniature.WIKIART_LISTS
    found = laid_out(miniature.draw_wikiart, wikiart.read, tmp_path, lists=lists)
    assert counts(found) == {
        **{("train", n): 8 for n in ("Baroque", "Cubism", "Pop_Art")},
        **{("test", n): 4 for n in ("Baroque", "Cubism", "Pop_Art")},
    }
    assert found["test", "Pop_Art"][0] == "Pop_Art-painter_work-10.jpg"
    (lists / "style_val.csv").write_text("Baroque/painter_work-8.jpg,7\n")
    with pytest.raises(DataError, match=r"line 1 of .*style_val\.csv is not a path and one of 3 classes"):
        common.lay_out(wikiart.read, tmp_path / "source", tmp_path / "again", lists=lists)


def test_sketch_by_hash_or_by_lists(tmp_path: Path) -> None:
    found = laid_out(miniature.draw_sketch, sketch.read, tmp_path)
    names = ("airplane", "alarm clock", "angel")
    assert counts(found) == {**{("train", n): 8 for n in names}, **{("test", n): 2 for n in names}}
    train, test = tmp_path / "train.txt", tmp_path / "test.txt"
    train.write_text("airplane/1.png\nalarm clock/81.png\n")
    test.write_text("alarm clock/82.png\n")
    common.lay_out(sketch.read, tmp_path / "source", tmp_path / "listed", train=train, test=test)
    assert sorted(str(path.relative_to(tmp_path / "listed")) for path in (tmp_path / "listed").glob("*/*/*")) == [
        "test/alarm clock/82.png",
        "train/airplane/1.png",
        "train/alarm clock/81.png",
    ]
    with pytest.raises(DataError, match="one list alone"):
        common.lay_out(sketch.read, tmp_path / "source", tmp_path / "half", train=train)


# the decathlon


def test_decathlon_without_test_labels_its_val_is_test(tmp_path: Path) -> None:
    miniature.draw_decathlon(tmp_path / "source", ["dtd", "svhn"])
    decathlon.lay_out(tmp_path / "source", tmp_path / "data", ["dtd", "svhn"])
    assert sorted(path.name for path in (tmp_path / "data/dtd").iterdir()) == ["test", "train"]
    assert [path.name for path in sorted((tmp_path / "data/svhn/test/svhn2").iterdir())] == [
        "0002-000002.jpg",
        "0002-000005.jpg",
        "0002-000008.jpg",
        "0002-000011.jpg",
    ]


def test_decathlon_with_test_labels_all_three_are_the_challenges(tmp_path: Path) -> None:
    miniature.draw_decathlon(tmp_path / "source", ["dtd"], labelled_test=True)
    decathlon.lay_out(tmp_path / "source", tmp_path / "data", ["dtd"])
    dataset = read_dataset(tmp_path / "data/dtd", seed=0)
    assert {split: len(examples) for split, examples in dataset.splits.items()} == {"train": 24, "val": 12, "test": 12}
    assert dataset.classes == ("dtd1", "dtd2", "dtd3")


def test_decathlon_72_px_are_the_middle_of_the_picture_and_64_px_the_file(tmp_path: Path) -> None:
    miniature.draw_decathlon(tmp_path / "source", ["aircraft", "ucf101"])
    decathlon.lay_out(tmp_path / "source", tmp_path / "data", ["aircraft", "ucf101"])
    source = tmp_path / "source/data/aircraft/train/0002/000002.jpg"  # 96 x 72
    whole = np.asarray(Image.open(source))
    assert whole.shape == (72, 96, 3)
    written = tmp_path / "data/aircraft/train/aircraft2/0002-000002.png"
    assert (seen(written, 72) == whole[:, 12:84]).all()
    linked = tmp_path / "data/ucf101/train/ucf1012/0002-000002.jpg"
    assert linked.samefile(tmp_path / "source/data/ucf101/train/0002/000002.jpg")


def test_decathlon_pictures_of_73_px_are_resized_first(tmp_path: Path) -> None:
    Image.new("RGB", (110, 73), (10, 20, 30)).save(tmp_path / "a.png")
    assert decathlon._middle(tmp_path / "a.png", 72).size == (82, 82)


def test_decathlon_statistics_are_read_or_measured(tmp_path: Path) -> None:
    miniature.draw_decathlon(tmp_path / "source", ["dtd", "svhn"])
    pickled = tmp_path / "source" / miniature.DECATHLON_STATISTICS
    decathlon.lay_out(tmp_path / "source", tmp_path / "data", ["dtd", "svhn"], pickled)
    expected = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3]}
    assert json.loads((tmp_path / "data/statistics.json").read_text()) == {"dtd": expected, "svhn": expected}
    pixels = [
        np.asarray(Image.open(path)).reshape(-1, 3) for path in (tmp_path / "source/data/dtd/train").glob("*/*.jpg")
    ]
    measured = decathlon.measured(tmp_path / "source", "dtd")
    assert measured["mean"] == pytest.approx(np.concatenate(pixels).mean(0) / 255)
    assert measured["std"] == pytest.approx(np.concatenate(pixels).std(0) / 255)
    with pytest.raises(DataError, match="no mean and std of gtsrb"):
        decathlon.published(pickled, ["gtsrb"])


def test_stripped_annotations_are_refused(tmp_path: Path) -> None:
    miniature.draw_decathlon(tmp_path / "source", ["dtd"])
    file = tmp_path / "source/annotations/dtd_val.json"
    document = json.loads(file.read_text())
    del document["annotations"]
    file.write_text(json.dumps(document))
    with pytest.raises(DataError, match="has no annotations"):
        decathlon.lay_out(tmp_path / "source", tmp_path / "data", ["dtd"])
    assert not (tmp_path / "data/dtd").exists()


# as a script


def test_a_reader_from_the_command_line(tmp_path: Path) -> None:
    miniature.draw_flowers102(tmp_path / "source")

    def script(*words: object) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, EXAMPLES / "recipes" / "flowers102.py", *words]
        return subprocess.run(list(map(str, argv)), capture_output=True, text=True, check=False, cwd=EXAMPLES.parent)

    done = script(tmp_path / "source", tmp_path / "data")
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'data'}: 3 classes, 27 train, 9 test\n"), done.stderr
    failed = script(tmp_path / "none", tmp_path / "other")
    assert failed.returncode == 2 and failed.stderr.startswith("error: ") and "hint: is SOURCE" in failed.stderr
    assert not (tmp_path / "other").exists()
