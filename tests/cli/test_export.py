"""nettailor export"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import onnxruntime
import pytest

from nettailor_cli.core.deploy import checking
from tests.cli.helpers import CLASSES, SIZE, TEST_IMAGES, Workshop, ok, process, refuses, untouched


@pytest.mark.parametrize("stage", ["teacher", "student", "model"])
def test_onnx(shop: Workshop, tmp_path: Path, stage: str) -> None:
    model, path = shop.run / f"{stage}.safetensors", tmp_path / "net.onnx"
    result = ok("export", model, "--format", "onnx", "-o", path, "--data", shop.data / "test")
    assert f"wrote {path}" in result.out and "same class on 12 of 12" in result.out
    assert f"checking it against the {stage} on 12 pictures of {shop.data / 'test'}, run by onnxruntime" in result.err
    document = json.loads(onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map["nettailor"])
    known = ok("inspect", model, "--json").document
    assert document["classes"] == list(CLASSES) and document["preprocessing"] == known["preprocessing"]
    assert document["made_from"] == {
        "stage": stage,
        "backbone": known["backbone"]["name"],
        "fingerprint": known["backbone"]["fingerprint"],
    }
    # folding changes no MACs, but where an alpha is below 1/16 (here they are) its shortcut costs a few
    assert known["totals"]["macs"] <= document["macs"] < 1.001 * known["totals"]["macs"]
    assert stage != "teacher" or document["macs"] == known["totals"]["macs"]
    # of each batch norm one vector is left
    assert 0.99 < document["parameters"] / known["totals"]["parameters"] < 1


def test_json_for_scripts(shop: Workshop, tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "net.safetensors"
    args = ("export", shop.run / "model.safetensors", "--format", "safetensors", "-o", path)
    result = ok(*args, "--logits", "--fp16", "--json", "--quiet")
    assert result.err == ""
    document = result.document
    assert document["file"] == str(path) and document["bytes"] == path.stat().st_size
    assert (document["format"], document["precision"]) == ("safetensors", "fp16")
    assert document["input"]["shape"] == ["N", SIZE, SIZE, 3]
    assert document["output"] == {"name": "logits", "type": "float32", "shape": ["N", 3]}
    check = document["check"]
    assert check["images"] == 32 and check["pictures"] == "32 drawn pictures"
    assert 0 <= check["probabilities"] <= check["limit"] and 0 < check["logits"] <= check["limit"] == 1e-2
    assert ok(*args, "--force", "--quiet").out == ""


def test_the_makers_of_a_file_keep_quiet(shop: Workshop, tmp_path: Path) -> None:
    """In a process of its own, where what native code prints is seen, too."""
    args = ("export", shop.run / "model.safetensors", "-o", tmp_path / "net", "--json", "--format")
    done = process(*args, "pt2", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["check"]["runtime"] == "torch.export"
    done = process(*args, "onnx", "--force", "--fp16", "--data", shop.data)
    assert done.returncode == 0 and json.loads(done.stdout)["check"]["images"] == 32
    assert [line.split(" ")[0] for line in done.stderr.splitlines()] == ["backbone", "checking"]


def test_a_difference_fails_with_1_and_keeps_nothing(
    shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(checking.LIMITS, "fp32", 1e-12)
    args = ("export", shop.run / "student.safetensors", "--format", "onnx", "-o", tmp_path / "net.onnx")
    with untouched(tmp_path):
        refuses(*args, "--json", code=1, says=["differs from the model by", "1e-12 is allowed", "nothing was kept"])


def test_overwrites_only_when_forced(shop: Workshop, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_text("there")
    args = ("export", shop.run / "model.safetensors", "--format", "onnx", "-o", path)
    with untouched(tmp_path):
        refuses(*args, says=["is there already", "--force"])
    ok(*args, "--force")
    assert path.stat().st_size > 1000


def test_wrong_use(shop: Workshop, tmp_path: Path) -> None:
    model = shop.run / "model.safetensors"
    args = ("export", model, "--format", "onnx", "-o", tmp_path / "net.onnx")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "blocker").write_text("a file")
    with untouched(tmp_path):
        refuses("export", model, "--format", "onnx", says=["--output"])
        refuses("export", model, "-o", tmp_path / "net.onnx", says=["--format"])
        refuses(*args, "--format", "onx", says=["--format onx is unknown", "did you mean onnx?"])
        refuses(*args, "--data", tmp_path / "none", says=["there is no file or folder"])
        refuses(*args, "--data", tmp_path / "pictures", says=["no images in"])
        refuses(*args, "--force", "-o", model, says=["is the model itself"])
        refuses(*args, "-o", tmp_path, says=["it is a folder"])
        refuses(*args, "-o", tmp_path / "blocker" / "net.onnx", says=["can't write"])
        refuses("export", tmp_path / "none", "--format", "onnx", "-o", tmp_path / "net.onnx", says=["there is no file"])


def test_without_the_extra(shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "nettailor_cli.core.deploy.onnx_file", raising=False)
    monkeypatch.setitem(sys.modules, "onnx", None)
    args = ("export", shop.run / "model.safetensors", "-o", tmp_path / "net", "--format")
    refuses(*args, "onnx", says=["--format onnx needs onnx", "pip install 'nettailor[export]'"])
    ok(*args, "safetensors")


def test_broken_pictures_are_named_and_the_rest_is_used(shop: Workshop, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index, picture in enumerate((shop.data / "test").glob("*/*.png")):
        (folder / f"{index}.png").write_bytes(picture.read_bytes())
    (folder / "bad.png").write_bytes(b"nothing")
    args = ("export", shop.run / "student.safetensors", "--format", "safetensors", "-o", tmp_path / "net")
    result = ok(*args, "--data", folder, "--json")
    assert result.document["check"]["images"] == TEST_IMAGES
    assert "warning:" in result.err and "bad.png: not a picture" in result.err
