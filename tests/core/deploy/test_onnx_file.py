"""ONNX files, run by onnxruntime."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto

from nettailor_cli.core.deploy import onnx_file
from tests.core.deploy.conftest import DOCUMENT
from tests.core.deploy.networks import (
    CLASSES,
    PRUNED,
    SIZE,
    distance,
    pictures,
    plain_logits,
    pruned_student,
    standalone,
)


def session_of(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("count", [1, 5])
def test_gives_the_originals_probabilities_at_any_batch_size(folder: Path, count: int) -> None:
    images = pictures(count)
    expected = plain_logits(pruned_student(), "resnet18", PRUNED, images).softmax(dim=1)
    (given,) = session_of(folder / "net.onnx").run(None, {"images": images.numpy()})
    assert given.dtype == "float32" and given.shape == (count, CLASSES)
    assert (torch.from_numpy(given) - expected).abs().max() < 1e-4


def test_what_a_user_of_onnxruntime_sees(folder: Path) -> None:
    session = session_of(folder / "net.onnx")
    (images,), (probabilities,) = session.get_inputs(), session.get_outputs()
    assert (images.name, images.type, images.shape) == ("images", "tensor(uint8)", ["N", SIZE, SIZE, 3])
    assert (probabilities.name, probabilities.type) == ("probabilities", "tensor(float)")
    assert probabilities.shape == ["N", CLASSES]
    assert json.loads(session.get_modelmeta().custom_metadata_map["nettailor"]) == DOCUMENT


def test_is_made_of_plain_operations_that_old_runtimes_know(folder: Path) -> None:
    onnx.checker.check_model(str(folder / "net.onnx"), full_check=True)
    model = onnx.load(folder / "net.onnx")
    assert model.ir_version == 8 and [(o.domain, o.version) for o in model.opset_import] == [("", 17)]
    assert {node.op_type for node in model.graph.node} == {
        *("Transpose", "Cast", "Mul", "Add", "Conv", "Relu", "MaxPool"),
        *("GlobalAveragePool", "Flatten", "Gemm", "Softmax"),
    }


def test_same_bytes_again(folder: Path, tmp_path: Path) -> None:
    onnx_file.write(tmp_path / "again.onnx", standalone(pruned_student(), torch.float32, "probabilities"), DOCUMENT)
    assert (tmp_path / "again.onnx").read_bytes() == (folder / "net.onnx").read_bytes()


def test_logits_in_half_precision(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "half.onnx"
    onnx_file.write(path, standalone(pruned_student(), torch.float16), DOCUMENT)
    weights = {tensor.name: tensor.data_type for tensor in onnx.load(path).graph.initializer}
    assert {name for name, kind in weights.items() if kind != TensorProto.FLOAT16} == {"scale", "shift"}
    assert path.stat().st_size < 0.51 * (folder / "net.onnx").stat().st_size
    images = pictures(2)
    (given,) = session_of(path).run(["logits"], {"images": images.numpy()})
    assert given.dtype == "float32"
    error = distance(torch.from_numpy(given), plain_logits(pruned_student(), "resnet18", PRUNED, images))
    assert 1e-5 < error < 1e-2, "half precision is coarser than single, and not by much"


def test_the_check_sees_output_and_logits(folder: Path) -> None:
    images = pictures(2)
    output, logits = onnx_file.runner(folder / "net.onnx")(images.numpy())
    expected = plain_logits(pruned_student(), "resnet18", PRUNED, images)
    assert distance(torch.from_numpy(logits), expected) < 1e-4
    assert (torch.from_numpy(output) - expected.softmax(dim=1)).abs().max() < 1e-4
