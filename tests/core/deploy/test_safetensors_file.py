"""Standalone networks as safetensors: our reader, and a stranger's who knows the document only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from safetensors import safe_open

from nettailor_cli.core.deploy import safetensors_file
from nettailor_cli.core.deploy.safetensors_file import load_standalone
from nettailor_cli.core.errors import FileError, UsageError
from nettailor_cli.core.sealed import write_sealed
from tests.core.deploy.conftest import DOCUMENT
from tests.core.deploy.networks import (
    PREPROCESSING,
    PRUNED,
    distance,
    pictures,
    plain_logits,
    pruned_student,
    standalone,
)

Array = np.ndarray[Any, Any]


def strangers_runner(path: Path, images: Array) -> Array:
    """Logits from the file and what plan.py says of the steps, in numpy; no groups."""
    with safe_open(path, framework="np") as file:
        document = json.loads(file.metadata()["nettailor"])
        tensors = {name: file.get_tensor(name).astype(np.float64) for name in file.keys()}  # noqa: SIM118
    mean, std = (np.array(document["preprocessing"][key])[:, None, None] for key in ("mean", "std"))
    values = {"image": (images.transpose(0, 3, 1, 2) / 255 - mean) / std}

    def windows(x: Array, kernel: int, stride: int, padding: int, fill: float) -> Array:
        sides = (padding, padding)
        padded = np.pad(x, ((0, 0), (0, 0), sides, sides), constant_values=fill)
        return sliding_window_view(padded, (kernel, kernel), axis=(2, 3))[:, :, ::stride, ::stride]

    for step in document["steps"]:
        first = values[step["inputs"][0]]
        stride, padding = step.get("stride", 1), step.get("padding", 0)
        match step["op"]:
            case "conv":
                weight = tensors[step["weight"]]
                y = np.einsum("nchwij,ocij->nohw", windows(first, weight.shape[2], stride, padding, 0), weight)
                y += tensors[step["bias"]][:, None, None]
            case "max_pool":
                y = windows(first, step["kernel"], stride, padding, -np.inf).max(axis=(4, 5))
            case "add":
                y = np.sum([values[name] for name in step["inputs"]], axis=0)
            case "mean":
                y = first.mean(axis=(2, 3))
            case "linear":
                y = first @ tensors[step["weight"]].T + tensors[step["bias"]]
        values[step["output"]] = np.maximum(y, 0) if step.get("relu") else y
    return values["logits"]


def test_a_stranger_can_run_it(folder: Path) -> None:
    images = pictures(2)
    given = strangers_runner(folder / "net.safetensors", images.numpy())
    assert distance(torch.from_numpy(given), plain_logits(pruned_student(), "resnet18", PRUNED, images)) < 1e-4


def test_our_reader_runs_it(folder: Path) -> None:
    images = pictures(2)
    network, document = load_standalone(folder / "net.safetensors")
    assert {key: document[key] for key in DOCUMENT} == DOCUMENT
    expected = plain_logits(pruned_student(), "resnet18", PRUNED, images)
    with torch.inference_mode():
        assert (network(images) - expected.softmax(dim=1)).abs().max() < 1e-4
        assert distance(network.logits(images), expected) < 1e-4


def test_half_precision_is_storage_here(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "half.safetensors"
    safetensors_file.write(path, standalone(pruned_student(), torch.float16, "probabilities"), DOCUMENT)
    assert path.stat().st_size < 0.52 * (folder / "net.safetensors").stat().st_size
    network, _ = load_standalone(path)
    assert network.dtype == torch.float32
    images = pictures(2)
    with torch.inference_mode():
        error = distance(network.logits(images), plain_logits(pruned_student(), "resnet18", PRUNED, images))
    assert 1e-6 < error < 1e-2


def test_refuses_what_is_no_standalone_network(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no file"):
        load_standalone(tmp_path / "none.safetensors")
    write_sealed(tmp_path / "other", {"format": 1}, {"a": torch.zeros(1)})
    with pytest.raises(FileError, match="is not a standalone network"):
        load_standalone(tmp_path / "other")
    write_sealed(tmp_path / "newer", {**DOCUMENT, "standalone": 3, "steps": []}, {"a": torch.zeros(1)})
    with pytest.raises(FileError, match="has format 3"):
        load_standalone(tmp_path / "newer")
    damaged = bytearray((folder / "net.safetensors").read_bytes())
    damaged[-1] ^= 1
    (tmp_path / "damaged").write_bytes(damaged)
    with pytest.raises(FileError, match="is damaged"):
        load_standalone(tmp_path / "damaged")


@pytest.mark.parametrize(
    "change",
    [
        {"steps": []},
        {"steps": None},
        {"steps": [{"op": "mean"}]},
        {"output": {"name": "wisdom"}},
        {"output": {}},
        {"preprocessing": {**PREPROCESSING.to_json(), "size": 0}},
    ],
    ids=str,
)
def test_refuses_a_document_that_makes_no_sense(folder: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    network, document = load_standalone(folder / "net.safetensors")
    write_sealed(tmp_path / "strange", {**document, **change}, network.tensors())
    with pytest.raises(FileError, match="makes no sense"):
        load_standalone(tmp_path / "strange")
