"""In processes of their own: the import happens once per process."""

from __future__ import annotations

import subprocess
import sys

import pytest

IMPORT = """
from nettailor_cli.core.backbones.torchvision_shim import import_torchvision
torchvision = import_torchvision()
import torchvision.transforms.v2, torchvision.datasets
assert import_torchvision() is torchvision
assert len(torchvision.models.resnet18(weights=None).layer4) == 2
"""
# A torchvision built for another torch: its binary is not found.
MISMATCH = """
import torch
def refuse(path):
    raise OSError("undefined symbol")
torch.ops.load_library = refuse
"""
BROKEN = """
import sys, types
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            raise RuntimeError("the disk is on fire")
sys.meta_path.insert(0, Finder())
from nettailor_cli.core.backbones.torchvision_shim import import_torchvision
import_torchvision()
"""


@pytest.mark.parametrize("before", ["", MISMATCH], ids=["as installed", "binary that does not match"])
def test_torchvision_is_imported_without_a_word(before: str) -> None:
    command = [sys.executable, "-W", "always::UserWarning", "-c", before + IMPORT]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_other_failures_are_not_hidden() -> None:
    done = subprocess.run([sys.executable, "-c", BROKEN], capture_output=True, text=True)
    assert done.returncode == 1
    assert "the disk is on fire" in done.stderr
