"""examples/pretrain/pretrain.py on a handful of pictures: random weights -> two phases -> a backbone file."""

from __future__ import annotations

import runpy
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from nettailor_cli.core.backbones.listing import listed
from tests.cli.helpers import SIZE, make_workshop, ok

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "examples" / "pretrain" / "pretrain.py"


def test_a_folder_of_pictures_becomes_a_backbone_and_the_same_one_twice(
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert shutil.which("nettailor"), "the script calls the command"
    shop = make_workshop(tmp_path_factory.getbasetemp())
    data = tmp_path / "shapes"
    shutil.copytree(shop.data, data)
    (data / "test").rename(data / "val")  # the script wants one
    words = ["--data", data, "--name", "resnet18.shapes", "--size", SIZE, "--", "--epochs", "1", "--batch-size", "8"]
    words += ["--device", "cpu", "--precision", "fp32", "--workers", "1"]

    def run(name: str) -> Path:
        argv = [SCRIPT, "--run", tmp_path / name, *words]
        monkeypatch.setattr(sys, "argv", list(map(str, argv)))
        runpy.run_path(str(SCRIPT), run_name="__main__")
        (file,) = (tmp_path / name).glob("resnet18.shapes-*.safetensors")
        return file

    file = run("one")
    assert f"wrote {file}" in capsys.readouterr().out
    again = run("two")
    assert again.name == file.name, "its fingerprint"
    entry = next(entry for entry in listed(file.parent) if entry.path == file)
    assert (entry.name, entry.size, entry.error) == ("resnet18.shapes", SIZE, "")
    tensors, same = load_file(file), load_file(again)
    assert all(torch.equal(tensor, same[name]) for name, tensor in tensors.items())
    assert tensors["fc.weight"].shape == (3, 512)
    assert all(tensor.dtype in (torch.float16, torch.int64) for tensor in tensors.values())
    first = load_file(tmp_path / "one" / "first" / "teacher.safetensors")
    assert not torch.equal(first["conv1.weight"].half(), tensors["conv1.weight"]), "the second phase went on"
    # and it can be taught
    result = ok("backbones", "fetch", "resnet18.mine", "--weights", file, "--json")
    assert result.document["fingerprint"] == entry.fingerprint
