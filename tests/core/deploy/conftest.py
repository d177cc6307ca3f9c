"""One pruned student in all three formats, written once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nettailor_cli.core.deploy import onnx_file, pt2_file, safetensors_file
from tests.core.deploy.networks import CLASSES, PREPROCESSING, SIZE, pruned_student, standalone

DOCUMENT = {
    "standalone": 1,
    "classes": [f"class {number}" for number in range(CLASSES)],
    "preprocessing": PREPROCESSING.to_json(),
    "input": {"name": "images", "shape": ["N", SIZE, SIZE, 3]},
    "output": {"name": "probabilities"},
}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds net.onnx, net.pt2, net.safetensors, all with probabilities, fp32."""
    folder = tmp_path_factory.mktemp("exported")
    network = standalone(pruned_student(), torch.float32, "probabilities")
    for module, ending in ((onnx_file, "onnx"), (pt2_file, "pt2"), (safetensors_file, "safetensors")):
        module.write(folder / f"net.{ending}", network, DOCUMENT)
    return folder
