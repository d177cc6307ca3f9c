"""nettailor evaluate"""

from __future__ import annotations

import csv
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from nettailor_cli.core.backbones.torchvision_shim import import_torchvision
from nettailor_cli.core.models import load_model
from nettailor_cli.core.progress import Silent
from tests.cli.helpers import CLASSES, SIZE, TEST_IMAGES, Workshop, make_pictures, nettailor, ok, refuses, untouched


def pixels(path: Path) -> Tensor:
    """The picture as the documents say: short side to 256/224 of the size, middle cut out, ImageNet's statistics."""
    side = round(SIZE * 256 / 224)
    image = Image.open(path).convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
    start = (side - SIZE) // 2
    values = np.asarray(image.crop((start, start, start + SIZE, start + SIZE)), dtype=np.float64) / 255
    normalised = (values - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    return torch.from_numpy(normalised).permute(2, 0, 1).float()


def labelled(folder: Path) -> tuple[list[Path], Tensor]:
    paths = sorted(folder.glob("*/*.png"))
    return paths, torch.tensor([CLASSES.index(path.parent.name) for path in paths])


def logits_of(shop: Workshop, stage: str, images: Tensor) -> Tensor:
    file = shop.run / f"{stage}.safetensors"
    if stage == "teacher":  # whole: torchvision alone can run it
        network = import_torchvision().models.resnet18(num_classes=3)
        network.load_state_dict(load_file(file), strict=False)
        with torch.no_grad():
            return network.eval()(images)
    with torch.no_grad():
        return load_model(file, home=shop.home, progress=Silent()).logits(images)


@pytest.mark.parametrize("stage", ["teacher", "student", "model"])
def test_matches_an_independent_computation(shop: Workshop, stage: str) -> None:
    paths, labels = labelled(shop.data / "test")
    logits = logits_of(shop, stage, torch.stack([pixels(path) for path in paths]))
    ranks = (logits > logits.gather(1, labels[:, None])).sum(1)
    args = ("evaluate", shop.run / f"{stage}.safetensors", "--data", shop.data, "--top-k", "2")
    document = ok(*args, "--json").document
    assert document["split"] == "test" and document["images"] == TEST_IMAGES
    assert document["accuracy"] == pytest.approx(100 * (ranks < 1).double().mean().item())
    assert document["top_k"]["2"] == pytest.approx(100 * (ranks < 2).double().mean().item())
    assert document["loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-4)


def test_class_by_class_in_json(shop: Workshop) -> None:
    """Against a plain loop over the logits of torchvision's own network."""
    paths, labels = labelled(shop.data / "test")
    guesses = logits_of(shop, "teacher", torch.stack([pixels(path) for path in paths])).argmax(1).tolist()
    counts = [[0, 0, 0] for _ in CLASSES]
    for label, guess in zip(labels.tolist(), guesses, strict=True):
        counts[label][guess] += 1
    document = ok("evaluate", shop.run / "teacher.safetensors", "--data", shop.data, "--json").document
    assert document["classes"] == list(CLASSES) and document["confusion"] == counts
    for index, row in enumerate(document["per_class"]):
        predicted = sum(counts[i][index] for i in range(3))
        assert (row["class"], row["images"], row["right"]) == (CLASSES[index], 4, counts[index][index])
        assert row["accuracy"] == 25 * counts[index][index] and row["predicted"] == predicted
        assert row["precision"] == (pytest.approx(100 * row["right"] / predicted) if predicted else None)


def test_a_class_without_images_has_no_accuracy(shop: Workshop, tmp_path: Path) -> None:
    make_pictures(tmp_path / "only" / "test", 2, seed=4, classes=CLASSES[:2])
    args = ("evaluate", shop.run / "model.safetensors", "--data", tmp_path / "only")
    row = ok(*args, "--json").document["per_class"][2]
    assert (row["class"], row["images"], row["accuracy"]) == (CLASSES[2], 0, None)
    assert re.search(rf"^{CLASSES[2]} +0 +0 +- ", ok(*args).out, re.MULTILINE)


def test_the_confusion_matrix_as_files(shop: Workshop, tmp_path: Path) -> None:
    table, picture, drawing = (tmp_path / "new" / f"confusion{suffix}" for suffix in (".csv", ".PNG", ".svg"))
    args = ("evaluate", shop.run / "teacher.safetensors", "--data", shop.data, "--json")
    files = [word for path in (table, picture, drawing) for word in ("--confusion", path)]
    result = ok(*args, *files)
    for path in (table, picture, drawing):
        assert f"wrote {path}" in result.err
    rows = list(csv.reader(table.open()))
    assert rows[0] == ["true class", *CLASSES] and [row[0] for row in rows[1:]] == list(CLASSES)
    assert [[int(cell) for cell in row[1:]] for row in rows[1:]] == result.document["confusion"]
    assert Image.open(picture).format == "PNG" and "<svg" in drawing.read_text()
    before = table.read_bytes(), picture.read_bytes(), drawing.read_bytes()
    ok(*args, *files, "--quiet")  # a report is replaced, by the same bytes
    assert (table.read_bytes(), picture.read_bytes(), drawing.read_bytes()) == before


def test_a_confusion_file_that_cannot_be_is_refused_before_the_work(
    shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = ("evaluate", tmp_path / "no-model", "--data", shop.data)
    refuses(*args, "--confusion", "matrix.pgn", says=["--confusion matrix.pgn", "did you mean .png?"])
    refuses(*args, "--confusion", "matrix", says=["--confusion matrix", ".csv, .png, .svg"])
    (tmp_path / "folder.csv").mkdir()
    refuses(*args, "--confusion", tmp_path / "folder.csv", says=["folder.csv", "is a folder"])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    says = ["--confusion matrix.svg: a picture needs matplotlib", "pip install 'nettailor[plot]'"]
    refuses(*args, "--confusion", "matrix.svg", says=says)
    assert not Path("matrix.svg").exists()


def test_a_table_needs_no_matplotlib(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "nettailor_cli.cli.confusion_picture", raising=False)
    ok("evaluate", shop.run / "model.safetensors", "--data", shop.data, "--confusion", "matrix.csv")
    assert Path("matrix.csv").exists()


def test_val_is_that_of_the_training(shop: Workshop) -> None:
    metrics = ok("inspect", shop.run / "model.safetensors", "--json").document["metrics"]["model"]
    document = ok("evaluate", shop.run / "model.safetensors", "--data", shop.data, "--split", "val", "--json").document
    assert (document["accuracy"], document["images"]) == (metrics["accuracy"], metrics["images"])
    assert document["loss"] == pytest.approx(metrics["loss"], rel=1e-5)


def test_splits(shop: Workshop, tmp_path: Path) -> None:
    model = shop.run / "model.safetensors"
    counts = {}
    for split in ("train", "val", "test", "all"):
        counts[split] = ok("evaluate", model, "--data", shop.data, "--split", split, "--json").document["images"]
    assert counts["train"] + counts["val"] == 24 and counts["test"] == TEST_IMAGES and counts["all"] == 36
    # test alone, one class missing
    make_pictures(tmp_path / "only" / "test", 2, seed=4, classes=CLASSES[:2])
    assert ok("evaluate", model, "--data", tmp_path / "only", "--json").document["images"] == 4
    # a folder without splits that the model was not trained on: all of it, for nothing there was set aside
    whole = ok("evaluate", model, "--data", shop.flat, "--json").document
    assert (whole["split"], whole["images"]) == ("all", 24)
    # val/ without test/
    make_pictures(tmp_path / "no-test" / "train", 2, seed=4)
    make_pictures(tmp_path / "no-test" / "val", 1, seed=5)
    assert ok("evaluate", model, "--data", tmp_path / "no-test", "--json").document["split"] == "val"
    refuses("evaluate", model, "--data", shop.flat, "--split", "test", says=["no test images", "--split"])


def test_for_people(shop: Workshop) -> None:
    args = ("evaluate", shop.run / "model.safetensors", "--data", shop.data)
    result = ok(*args, "--top-k", "2", "--top-k", "3")
    lines = result.out.splitlines()
    assert lines[0].startswith("accuracy ") and "on test (12 images), loss" in lines[0]
    assert lines[1].startswith("top-2 ") and lines[2] == "top-3 100.00 %"
    assert lines[3].split() == ["class", "right", "images", "accuracy", "precision"]
    assert [line.split("  ")[0] for line in lines[4:7]] == list(CLASSES)
    assert lines[7].startswith("rows: the true class") and len(lines) == 12
    quiet = ok(*args, "--quiet")
    assert (quiet.out, quiet.err) == ("", "")


def test_gate(shop: Workshop) -> None:
    args = ("evaluate", shop.run / "teacher.safetensors", "--data", shop.data, "--json")
    accuracy = ok(*args).document["accuracy"]
    ok(*args, "--min-accuracy", accuracy)
    result = refuses(*args, "--min-accuracy", accuracy + 0.5, code=3, says=["is below --min-accuracy"])
    assert result.document["accuracy"] == accuracy  # the result is there all the same
    ok(*args, "--min-accuracy", "0")
    assert nettailor(*args, "--min-accuracy", "nan").code in (2, 3)  # a gate that nothing can miss is none


def test_wrong_use(shop: Workshop, tmp_path: Path) -> None:
    model = shop.run / "model.safetensors"
    args = ("evaluate", model, "--data", shop.data)
    refuses("evaluate", model, says=["--data"])
    refuses(*args, "--top-k", "4", says=["--top-k 4", "3 classes"])
    refuses(*args, "--top-k", "0", says=["--top-k 0"])
    refuses(*args, "--split", "tets", says=["--split tets", "test"])
    refuses(*args, "--device", "gpu", says=["--device gpu"])
    refuses(*args, "--precision", "fp64", says=["fp64"])
    refuses("evaluate", model, "--data", tmp_path / "none", says=["none"])
    make_pictures(tmp_path / "other" / "test", 1, seed=1, classes=("green bars",))
    refuses("evaluate", model, "--data", tmp_path / "other", says=["green bars", "did you mean green bar?"])


def test_broken_images(shop: Workshop, tmp_path: Path) -> None:
    make_pictures(tmp_path / "data" / "test", 3, seed=2)
    (tmp_path / "data" / "test" / CLASSES[0] / "00.png").write_bytes(b"no picture")
    args = ("evaluate", shop.run / "model.safetensors", "--data", tmp_path / "data")
    refuses(*args, says=["1 of 9 images can't be read", "00.png", "--skip-bad-images"])
    result = ok(*args, "--skip-bad-images", "--json")
    assert result.document["images"] == 8 and "1 of 9" in result.err


def test_bf16_on_request(shop: Workshop) -> None:
    args = ("evaluate", shop.run / "model.safetensors", "--data", shop.data, "--json")
    full, half = ok(*args).document, ok(*args, "--precision", "bf16").document
    assert (full["precision"], half["precision"]) == ("fp32", "bf16")
    assert full["loss"] != half["loss"] and math.isclose(full["loss"], half["loss"], rel_tol=0.1)


class TestTheWrongBackbone:
    def test_none_at_all(self, shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("NETTAILOR_HOME", str(tmp_path / "empty"))
        fingerprint = ok("inspect", shop.run / "model.safetensors", "--json").document["backbone"]["fingerprint"]
        says = ["resnet18.custom", fingerprint[:12], "--weights FILE"]
        refuses("evaluate", shop.run / "model.safetensors", "--data", shop.data, says=says)
        # a teacher is whole
        ok("evaluate", shop.run / "teacher.safetensors", "--data", shop.data)
        # and the hint's command helps
        ok("backbones", "fetch", "resnet18.custom", "--weights", shop.weights)
        ok("evaluate", shop.run / "model.safetensors", "--data", shop.data)

    def test_another_one_names_both(
        self, shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other_weights: Path
    ) -> None:
        monkeypatch.setenv("NETTAILOR_HOME", str(tmp_path / "home"))
        other = ok("backbones", "fetch", "resnet18", "--weights", other_weights, "--json").document["fingerprint"]
        wanted = ok("inspect", shop.run / "model.safetensors", "--json").document["backbone"]["fingerprint"]
        assert other != wanted
        with untouched(shop.run):
            says = [wanted[:12], other[:12]]
            refuses("evaluate", shop.run / "model.safetensors", "--data", shop.data, says=says)

    def test_damaged_in_the_home_folder(self, shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("NETTAILOR_HOME", str(tmp_path / "home"))
        ok("backbones", "fetch", "resnet18", "--weights", shop.weights)
        stored = next((tmp_path / "home" / "backbones").iterdir())
        data = bytearray(stored.read_bytes())
        data[-5000] ^= 1
        stored.write_bytes(data)
        refuses("evaluate", shop.run / "model.safetensors", "--data", shop.data, says=["is damaged"])
