"""export_model: what is kept, and what isn't."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from nettailor_cli.core.deploy import onnx_file, safetensors_file
from nettailor_cli.core.deploy.export import Export, export_model
from nettailor_cli.core.deploy.standalone import StandaloneNetwork
from nettailor_cli.core.errors import RunFailed, UsageError
from nettailor_cli.core.progress import Silent
from tests.core.deploy.networks import SIZE, model_of, pruned_student


def export(path: Path, form: str = "onnx", **options: Any) -> Export:
    return export_model(model_of(pruned_student()), path, form=form, progress=Silent(), **options)


def test_what_is_said_of_it(tmp_path: Path) -> None:
    done = export(tmp_path / "net.onnx")
    assert done.bytes == (tmp_path / "net.onnx").stat().st_size
    assert 0 < done.difference.largest < 1e-5 and done.difference.same_class == done.difference.images == 32
    document = done.document
    assert document["classes"] == [f"class {number}" for number in range(7)]
    assert "preprocessing.resize" in document["input"].pop("pictures")
    assert document["input"] == {"name": "images", "type": "uint8", "shape": ["N", SIZE, SIZE, 3], "colours": "RGB"}
    assert document["output"] == {"name": "probabilities", "type": "float32", "shape": ["N", 7]}
    assert (document["parameters"], document["macs"]) == (done.cost.parameters, done.cost.macs)
    # 32 px: nodes 0 to 2 have 8 x 8 pixels, 3 and 4 have 4 x 4, 5 has 2 x 2, 7 and 8 have 1
    stem, block1 = 3 * 64 * 49 * 16**2, 2 * 64 * 64 * 9 * 8**2
    block3 = (64 * 128 * 9 + 128 * 128 * 9 + 64 * 128) * 4**2
    block4 = 2 * 128 * 128 * 9 * 4**2
    proxies = 3 * 64 * 64 * 8**2 + 2 * 64 * 128 * 4**2 + 128 * 256 * 2**2 + 256 * 512 + 128 * 512 + 512 * 512
    assert done.cost.macs == stem + block1 + block3 + block4 + proxies + 512 * 7


def off_by_a_little(
    write: Callable[[Path, StandaloneNetwork, Mapping[str, Any]], None],
) -> Callable[[Path, StandaloneNetwork, Mapping[str, Any]], None]:
    def wrong(path: Path, network: StandaloneNetwork, document: Mapping[str, Any]) -> None:
        tensors = network.tensors()
        tensors["head_bias"] = tensors["head_bias"] + torch.tensor([0.05] + [0.0] * 6)
        write(path, StandaloneNetwork(network.plan, tensors, network.preprocessing, network.output), document)

    return wrong


@pytest.mark.parametrize(("form", "module"), [("onnx", onnx_file), ("safetensors", safetensors_file)])
def test_a_file_that_differs_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, module: Any
) -> None:
    monkeypatch.setattr(module, "write", off_by_a_little(module.write))
    with pytest.raises(RunFailed, match=r"differs from the model by .* 0.0001 is allowed"):
        export(tmp_path / "new", form)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "old").write_text("what was there before")
    with pytest.raises(RunFailed):
        export(tmp_path / "old", form, force=True)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("old", "what was there before")]


def test_half_precision_may_differ_more_and_not_without_bounds(tmp_path: Path) -> None:
    done = export(tmp_path / "half.onnx", fp16=True, logits=True)
    assert (done.precision, done.limit, done.document["output"]["name"]) == ("fp16", 1e-2, "logits")
    assert 1e-5 < done.difference.largest < 1e-2
    student = pruned_student()
    with torch.no_grad():  # far beyond 65504, and the same after the softmax's shift
        student.head.weight.mul_(1e5)
    with pytest.raises(RunFailed, match="differs") as caught:
        export_model(model_of(student), tmp_path / "not.onnx", form="onnx", progress=Silent(), fp16=True)
    assert "leave --fp16 out" in caught.value.hint
    assert [path.name for path in tmp_path.iterdir()] == ["half.onnx"]


def test_an_extra_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("onnx", "onnxruntime"):
        with monkeypatch.context() as patch:
            patch.delitem(sys.modules, "nettailor_cli.core.deploy.onnx_file")
            patch.setitem(sys.modules, name, None)
            with pytest.raises(UsageError, match=f"--format onnx needs {name}") as caught:
                export(tmp_path / "net.onnx")
            assert caught.value.hint == "pip install 'nettailor[export]'"
    assert list(tmp_path.iterdir()) == []


def test_settings_that_make_no_sense(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--format onx is unknown") as caught:
        export(tmp_path / "net", "onx")
    assert caught.value.hint == "did you mean onnx?"
    (tmp_path / "net").write_text("there")
    with pytest.raises(UsageError, match="is there already"):
        export(tmp_path / "net")
    with pytest.raises(UsageError, match="is a folder"):
        export(tmp_path)
