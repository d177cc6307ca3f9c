"""Archives of torch.export."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import torch

from nettailor_cli.core.deploy import pt2_file
from tests.core.deploy.conftest import DOCUMENT
from tests.core.deploy.networks import PRUNED, distance, pictures, plain_logits, pruned_student

STRANGER = """
import io, json, sys
sys.modules["nettailor_cli"] = None
import torch
extra = {"nettailor.json": ""}
network = torch.export.load(sys.argv[1], extra_files=extra).module()
images = torch.load(sys.argv[2])
print(json.dumps({"document": json.loads(extra["nettailor.json"]), "sizes": [
    network(images[:count]).tolist() for count in (1, 3)]}))
"""


def test_runs_with_torch_alone_at_any_batch_size(folder: Path, tmp_path: Path) -> None:
    images = pictures(3)
    torch.save(images, tmp_path / "images.pt")
    code = [sys.executable, "-c", STRANGER, str(folder / "net.pt2"), str(tmp_path / "images.pt")]
    done = subprocess.run(code, capture_output=True, text=True, check=True, timeout=200)
    said = json.loads(done.stdout)
    assert said["document"] == DOCUMENT
    expected = plain_logits(pruned_student(), "resnet18", PRUNED, images).softmax(dim=1)
    for given, count in zip(said["sizes"], (1, 3), strict=True):
        assert (torch.tensor(given) - expected[:count]).abs().max() < 1e-4


def test_knows_nothing_of_the_code_that_it_came_from(folder: Path) -> None:
    with zipfile.ZipFile(folder / "net.pt2") as archive:
        inside = {name: archive.read(name) for name in archive.namelist()}
    told = [name for name, data in inside.items() if b"nettailor_cli" in data or b"StandaloneNetwork" in data]
    assert told == []


def test_the_check_sees_output_and_logits(folder: Path) -> None:
    images = pictures(2)
    output, logits = pt2_file.runner(folder / "net.pt2")(images.numpy())
    expected = plain_logits(pruned_student(), "resnet18", PRUNED, images)
    assert distance(torch.from_numpy(logits), expected) < 1e-4
    assert (torch.from_numpy(output) - expected.softmax(dim=1)).abs().max() < 1e-4
