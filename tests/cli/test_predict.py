"""nettailor predict"""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from PIL import Image

from tests.cli.helpers import CLASSES, TEST_IMAGES, Result, Workshop, nettailor, ok, refuses


@pytest.fixture
def model(shop: Workshop) -> Path:
    return shop.run / "model.safetensors"


def best(result: Result) -> dict[str, str]:
    """The first class of every picture in JSON lines."""
    rows = [json.loads(line) for line in result.out.splitlines()]
    return {row["image"]: row["classes"][0]["class"] for row in rows}


@pytest.mark.parametrize("stage", ["teacher", "model"])
def test_agrees_with_evaluate(shop: Workshop, stage: str) -> None:
    file = shop.run / f"{stage}.safetensors"
    chosen = best(ok("predict", file, shop.data / "test", "--format", "jsonl"))
    assert len(chosen) == TEST_IMAGES and set(chosen.values()) <= set(CLASSES)
    right = sum(Path(image).parent.name == name for image, name in chosen.items())
    accuracy = ok("evaluate", file, "--data", shop.data, "--json").document["accuracy"]
    assert accuracy == pytest.approx(100 * right / TEST_IMAGES)


def test_all_formats_say_the_same(shop: Workshop, model: Path) -> None:
    args = ("predict", model, shop.data / "test", "--top-k", "2")
    lines = [json.loads(line) for line in ok(*args, "--format", "jsonl").out.splitlines()]
    document = ok(*args, "--json").document
    assert document == {"file": str(model), "predictions": lines}
    table = list(csv.reader(io.StringIO(ok(*args, "--format", "csv").out)))
    assert table[0] == ["image", "class_1", "probability_1", "class_2", "probability_2"]
    for row, line in zip(table[1:], lines, strict=True):
        assert row[0] == line["image"] and row[1::2] == [c["class"] for c in line["classes"]]
        assert [float(p) for p in row[2::2]] == pytest.approx([c["probability"] for c in line["classes"]], abs=1e-6)
    people = ok(*args).out
    for line in lines:
        assert f"{line['classes'][0]['class']} {100 * line['classes'][0]['probability']:.1f} %" in people.replace(
            "\n", ""
        )


def test_probabilities(shop: Workshop, model: Path) -> None:
    rows = ok("predict", model, shop.data / "test", "--json").document["predictions"]
    for row in rows:
        shares = [c["probability"] for c in row["classes"]]
        assert len(shares) == 3 and shares == sorted(shares, reverse=True) and sum(shares) == pytest.approx(1, abs=1e-5)


def test_quiet_leaves_the_rows_alone(shop: Workshop, model: Path) -> None:
    """Rows are what the command is for; what --quiet silences is everything around them."""
    result = ok("predict", model, shop.data / "test", "--format", "jsonl", "--quiet")
    assert len(result.out.splitlines()) == TEST_IMAGES and result.err == ""


def test_unreadable_pictures_are_reported_and_the_rest_is_done(shop: Workshop, model: Path, tmp_path: Path) -> None:
    good = shop.data / "test" / CLASSES[0] / "00.png"
    (tmp_path / "broken.jpg").write_bytes(b"nothing")
    (tmp_path / "empty.png").write_bytes(b"")
    args = (good, tmp_path / "broken.jpg", tmp_path / "empty.png", good)
    result = nettailor("predict", model, *args, "--format", "jsonl")
    assert result.code == 2 and len(result.out.splitlines()) == 2
    assert "broken.jpg: not a picture" in result.err and "empty.png: empty file" in result.err
    assert result.err.count("error:") == 1 and "2 of 4 pictures can't be read" in result.err
    assert len(nettailor("predict", model, *args, "--json").document["predictions"]) == 2


def test_pictures_of_any_shape_and_kind(shop: Workshop, model: Path, tmp_path: Path) -> None:
    Image.new("L", (50, 20), 128).save(tmp_path / "gray.png")
    Image.new("RGBA", (9, 90), (255, 0, 0, 100)).save(tmp_path / "alpha.webp")
    Image.new("CMYK", (64, 64)).save(tmp_path / "cmyk.jpg")
    Image.new("P", (40, 40)).save(tmp_path / "palette.gif")
    assert len(best(ok("predict", model, tmp_path, "--format", "jsonl"))) == 4


def test_names_that_would_break_a_line(shop: Workshop, model: Path, tmp_path: Path) -> None:
    picture = tmp_path / 'a "quoted", [red]name[\n.png'
    picture.write_bytes((shop.data / "test" / CLASSES[0] / "00.png").read_bytes())
    assert len(ok("predict", model, picture, "--format", "csv").out.splitlines()) == 2
    assert next(iter(best(ok("predict", model, picture, "--format", "jsonl")))) == str(picture)
    assert "[red]name[" in ok("predict", model, picture).out.replace("\n", "")


def test_wrong_use(shop: Workshop, model: Path, tmp_path: Path) -> None:
    images = shop.data / "test"
    refuses("predict", model, says=["IMAGE"])
    refuses("predict", model, tmp_path / "none.png", says=["none.png"])
    (tmp_path / "nothing").mkdir()
    refuses("predict", model, tmp_path / "nothing", says=["no images in"])
    refuses("predict", model, images, "--top-k", "4", says=["--top-k 4", "3 classes"])
    refuses("predict", model, images, "--top-k", "0", says=["--top-k 0"])
    refuses("predict", model, images, "--format", "xml", says=["xml", "table, jsonl, csv"])
