"""nettailor predict"""

from __future__ import annotations

import csv
import io
import json
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from nettailor_cli.core.sealed import read_content, read_tensors, write_sealed
from tests.cli.helpers import CLASSES, TEST_IMAGES, Result, Workshop, command, ok, refuses


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
    assert table[0] == ["image", "class_1", "probability_1", "class_2", "probability_2", "error"]
    for row, line in zip(table[1:], lines, strict=True):
        assert row[0] == line["image"] and row[1:-1:2] == [c["class"] for c in line["classes"]] and row[-1] == ""
        assert [float(p) for p in row[2:-1:2]] == pytest.approx([c["probability"] for c in line["classes"]], abs=1e-6)
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


def test_unreadable_pictures_are_rows_with_an_error_and_the_rest_is_done(
    shop: Workshop, model: Path, tmp_path: Path
) -> None:
    good = shop.data / "test" / CLASSES[0] / "00.png"
    broken, empty = tmp_path / "broken.jpg", tmp_path / "empty.png"
    broken.write_bytes(b"nothing")
    empty.write_bytes(b"")
    args = ("predict", model, good, broken, empty, good)
    reasons = ["", "not a picture of a known kind (JPEG, PNG, BMP, WebP, GIF, TIFF), or damaged", "empty file", ""]

    def told(*more: str) -> Result:
        return refuses(*args, *more, says=["2 of 4 pictures can't be read"])

    for rows in (
        [json.loads(line) for line in told("--format", "jsonl").out.splitlines()],
        told("--json").document["predictions"],
    ):
        assert [row["image"] for row in rows] == [str(path) for path in (good, broken, empty, good)]
        assert [row.get("error", "") for row in rows] == reasons
        assert [len(row["classes"]) for row in rows] == [3, 0, 0, 3]
    table = list(csv.reader(io.StringIO(told("--format", "csv", "--quiet").out)))
    assert {len(row) for row in table} == {8} and [row[-1] for row in table[1:]] == reasons
    assert table[2][1:-1] == [""] * 6
    people = " ".join(told().out.split())
    assert "error: not a picture" in people and "error: empty file" in people


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


def names_on_stdin(patch: pytest.MonkeyPatch, data: bytes) -> None:
    patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_names_on_stdin(shop: Workshop, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ok("predict", model, shop.data / "test", "--format", "jsonl").out
    strange = tmp_path / "two\nlines.png"
    first = next((shop.data / "test" / CLASSES[0]).iterdir())
    strange.write_bytes(first.read_bytes())
    args = ("predict", model, "-", "--format", "jsonl", "--quiet")
    paths = sorted((shop.data / "test").rglob("*.png"))
    names_on_stdin(monkeypatch, b"\n".join(bytes(path) for path in paths))  # the last line may lack its end
    assert ok(*args, "--batch-size", "5").out == whole
    names_on_stdin(monkeypatch, b"\r\n".join(bytes(path) for path in paths) + b"\r\n\r\n")
    assert ok(*args).out == whole
    names_on_stdin(monkeypatch, bytes(shop.data / "test") + b"\n")  # a folder
    assert ok(*args).out == whole
    for option in ("-0", "--null"):
        names_on_stdin(monkeypatch, bytes(strange) + b"\0" + bytes(paths[0]) + b"\0")
        assert list(best(ok(*args, option))) == [str(strange), str(paths[0])]


def test_a_name_on_stdin_that_is_not_there_fails_alone(
    shop: Workshop, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = shop.data / "test" / CLASSES[0] / "00.png"
    names = (b"no.png", bytes(good), b"x" * 300, b"*.png", b"caf\xe9.png")
    names_on_stdin(monkeypatch, b"\n".join(names))
    result = refuses("predict", model, "-", "--format", "jsonl", says=["4 of 5 pictures can't be read"])
    rows = [json.loads(line) for line in result.out.splitlines()]
    assert [row.get("error", "") for row in rows] == [
        "No such file or directory", "", "File name too long", "No such file or directory", "No such file or directory",
    ]  # fmt: skip
    assert rows[4]["image"].encode("utf-8", "surrogateescape") == names[4]


def test_wrong_use_of_stdin(shop: Workshop, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names_on_stdin(monkeypatch, b"")
    assert refuses("predict", model, "-", "--format", "csv", says=["no names came on standard input"]).out == ""
    names_on_stdin(monkeypatch, b"a.png\0b.png\0")
    refuses("predict", model, "-", says=["NUL", "--null"])
    refuses("predict", model, "-", shop.data, says=["give it alone"])
    refuses("predict", model, shop.data, "--null", says=["--null is for names on standard input"])
    monkeypatch.setattr("sys.stdin", None)
    refuses("predict", model, "-", says=["standard input is closed"])


def test_patterns(shop: Workshop, model: Path) -> None:
    """Quoted, so that they come to us as they are."""
    tests = shop.data / "test"
    whole = ok("predict", model, tests, "--format", "jsonl").out
    for pattern in ("*/*.png", "**/*.png", "*", "**", "*/0?.png"):
        assert ok("predict", model, tests / pattern, "--format", "jsonl").out == whole, pattern
    some = best(ok("predict", model, tests / "*e[dn] *" / "00.png", "--format", "jsonl"))
    assert [Path(name).parent.name for name in some] == ["green bar", "red square"]
    refuses("predict", model, tests / "*.jpg", says=["no images match", "*.jpg"])
    refuses("predict", model, "a**", says=["a**"])
    refuses("predict", model, "", says=["is empty"])


def test_rows_do_not_depend_on_the_batches(shop: Workshop, model: Path) -> None:
    args = ("predict", model, shop.data / "test", "--json")
    rows = {size: ok(*args, "--batch-size", size).document["predictions"] for size in (1, 5, 64)}
    for size in (1, 5):
        for row, other in zip(rows[size], rows[64], strict=True):
            assert row["image"] == other["image"]
            assert [c["class"] for c in row["classes"]] == [c["class"] for c in other["classes"]]
            assert [c["probability"] for c in row["classes"]] == pytest.approx(
                [c["probability"] for c in other["classes"]], abs=1e-5
            )


def test_a_table_in_several_batches_has_one_head_and_straight_columns(
    shop: Workshop, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    paths = sorted((shop.data / "test").rglob("*.png"))
    lines = ok("predict", model, *paths, "--batch-size", "5").out.splitlines()
    assert len(lines) == 1 + TEST_IMAGES and lines[0].split() == ["image", "classes"]
    for line, path in zip(lines[1:], paths, strict=True):
        assert line.startswith(str(path)) and line.count(" %") == 3


class TestStreaming:
    """In a process of its own, fed name by name."""

    @pytest.mark.parametrize("form", ["jsonl", "table"])
    def test_a_row_is_out_as_soon_as_its_batch_is_done(
        self, shop: Workshop, model: Path, form: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("COLUMNS", "300")  # a row is a line
        good = str(shop.data / "test" / CLASSES[0] / "00.png")
        with subprocess.Popen(
            command("predict", model, "-", "--format", form, "--batch-size", "1", "--quiet"),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ) as child:  # fmt: skip
            assert child.stdin is not None and child.stdout is not None and child.stderr is not None
            for _ in range(3):  # the next name is written when the row before it has been read
                child.stdin.write(good + "\n")
                child.stdin.flush()
                while "00.png" not in (line := child.stdout.readline()):
                    assert line, child.stderr.read()
            child.stdin.close()
            assert (child.stdout.read(), child.stderr.read(), child.wait(60)) == ("", "", 0)

    def test_a_reader_that_has_seen_enough_is_no_error(self, shop: Workshop, model: Path) -> None:
        """`yes IMAGE | nettailor predict MODEL - | head -n 2` ends."""
        good = shop.data / "test" / CLASSES[0] / "00.png"
        with subprocess.Popen(["yes", str(good)], stdout=subprocess.PIPE) as endless:
            child = subprocess.Popen(
                command("predict", model, "-", "--format", "jsonl", "--batch-size", "2", "--quiet"),
                stdin=endless.stdout, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )  # fmt: skip
            assert endless.stdout is not None and child.stdout is not None and child.stderr is not None
            endless.stdout.close()
            rows = [json.loads(child.stdout.readline()) for _ in range(2)]
            child.stdout.close()
            assert {row["image"] for row in rows} == {str(good)}
            assert (child.stderr.read(), child.wait(60)) == ("", 0)
            child.stderr.close()


def test_strange_class_names_stay_harmless(shop: Workshop, model: Path, tmp_path: Path) -> None:
    strange = tmp_path / "strange.safetensors"
    names = ["[red]x[/red]", "\x1b[31mevil", "two\nlines"]
    write_sealed(strange, {**read_content(model), "classes": names}, read_tensors(model))
    picture = shop.data / "test" / CLASSES[0] / "00.png"
    for form in ("table", "csv"):
        out = ok("predict", strange, picture, "--format", form).out
        assert "[red]x[/red]" in out and "\x1b" not in out and "\\x1b[31mevil" in out and "two\\nlines" in out
    (row,) = ok("predict", strange, picture, "--json").document["predictions"]
    assert sorted(c["class"] for c in row["classes"]) == sorted(names)  # JSON escapes them, and programs get the truth


def test_wrong_use(shop: Workshop, model: Path, tmp_path: Path) -> None:
    images = shop.data / "test"
    refuses("predict", model, says=["IMAGE"])
    refuses("predict", model, tmp_path / "none.png", says=["none.png"])
    (tmp_path / "nothing").mkdir()
    refuses("predict", model, tmp_path / "nothing", says=["no images in"])
    refuses("predict", model, images, "--top-k", "4", says=["--top-k 4", "3 classes"])
    refuses("predict", model, images, "--top-k", "0", says=["--top-k 0"])
    refuses("predict", model, images, "--batch-size", "0", says=["--batch-size"])
    refuses("predict", model, images, "--format", "jsnol", says=["did you mean jsonl?"])
    refuses("predict", model, images, "--format", "xml", says=["xml", "table, jsonl, csv"])
