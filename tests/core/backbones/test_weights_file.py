from __future__ import annotations

import pathlib
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from nettailor_cli.core.backbones.weights_file import read_weights
from nettailor_cli.core.errors import FileError, UsageError

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.count": torch.tensor(3)}


class Trap:
    """Unpickled, it makes a file: the sign that code was run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return pathlib.Path.touch, (self.path,)


def saved(path: Path, content: Any, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


@pytest.mark.parametrize(
    "content",
    [
        TENSORS,
        OrderedDict(TENSORS),
        {"state_dict": TENSORS, "epoch": 3},
        {"model": TENSORS, "optimizer": {"state": {}}},
        {"state_dict": {f"module.{key}": value for key, value in TENSORS.items()}},
        {key: nn.Parameter(value.float()) for key, value in TENSORS.items()},
    ],
    ids=["plain", "ordered", "state_dict", "model", "parallel", "parameters"],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_state_dicts_are_read(tmp_path: Path, content: Any, zipped: bool) -> None:
    path = saved(tmp_path / "w.pth", content, _use_new_zipfile_serialization=zipped)
    tensors, metadata = read_weights(path)
    assert metadata == {}
    assert set(tensors) == set(TENSORS)
    assert all(torch.equal(tensors[key], value) for key, value in TENSORS.items())
    assert not any(tensor.requires_grad for tensor in tensors.values())


def test_safetensors_are_read_with_their_metadata(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    halves = {f"module.{key}": value.half() for key, value in TENSORS.items()}
    safetensors.torch.save_file(halves, path, metadata={"mean": "[0,0,0]"})
    tensors, metadata = read_weights(path)
    assert metadata == {"mean": "[0,0,0]"}
    assert set(tensors) == set(TENSORS)
    assert tensors["a.weight"].dtype == torch.float16


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_file_is_not_run(tmp_path: Path, zipped: bool) -> None:
    sign = tmp_path / "the code was run"
    path = saved(tmp_path / "w.pth", {**TENSORS, "x": Trap(sign)}, _use_new_zipfile_serialization=zipped)
    with pytest.raises(FileError, match="holds more than weights") as caught:
        read_weights(path)
    assert "state_dict" in caught.value.hint
    assert not sign.exists()
    with pytest.raises(FileError, match="holds more than weights"):
        read_weights(saved(tmp_path / "model.pt", nn.Linear(2, 2)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.ones(1)], "holds a list, not tensors by name"),
        (torch.ones(1), "holds a Tensor, not tensors by name"),
        ({"a": 1.0}, "'a' is not a plain tensor"),
        ({"a": torch.ones(2).to_sparse()}, "holds more than weights"),
        ({3: torch.ones(2)}, "3 is not the name of a tensor"),
        ({}, "holds no tensors"),
        ({"state_dict": {}}, "holds no tensors"),
    ],
)
def test_what_is_no_state_dict_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(FileError, match=message):
        read_weights(saved(tmp_path / "w.pth", content))


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
@pytest.mark.parametrize("kept", [0, 5, 100, 0.5, 0.98])
def test_truncated_files_are_refused(tmp_path: Path, suffix: str, kept: float) -> None:
    path = tmp_path / f"w{suffix}"
    if suffix == ".safetensors":
        safetensors.torch.save_file(TENSORS, path)
    else:
        torch.save(TENSORS, path, _use_new_zipfile_serialization=suffix == ".pth")
    data = path.read_bytes()
    path.write_bytes(data[: kept if isinstance(kept, int) else int(len(data) * kept)])
    with pytest.raises(FileError, match=r"damaged|empty"):
        read_weights(path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_nonsense_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"w{suffix}"
    for data in (b"\x80\x05garbage", b"hello, I am a text file\n" * 20, b"\xff" * 64, b"PK\x03\x04" + bytes(100)):
        path.write_bytes(data)
        with pytest.raises(FileError, match="damaged"):
            read_weights(path)


def test_where_there_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no weights file"):
        read_weights(tmp_path / "w.pth")
    with pytest.raises(FileError, match="is a folder"):
        read_weights(tmp_path)
    (tmp_path / "w.onnx").write_bytes(b"x")
    with pytest.raises(FileError, match=r"not a \.safetensors, \.pth or \.pt file"):
        read_weights(tmp_path / "w.onnx")
