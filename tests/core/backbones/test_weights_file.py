from __future__ import annotations

import json
import os
import pathlib
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

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


def entry(path: Path, end: str) -> str:
    """The name of the archive's one entry with this end."""
    with zipfile.ZipFile(path) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(end)]
        return name


def rezipped(path: Path, end: str, change: Callable[[bytes], bytes], kind: int = zipfile.ZIP_STORED) -> Path:
    """Another entry in the archive, with the right checksum."""
    name = entry(path, end)
    with zipfile.ZipFile(path) as archive:
        contents = {other: archive.read(other) for other in archive.namelist()}
    with zipfile.ZipFile(path, "w", kind) as archive:
        for other, content in contents.items():
            archive.writestr(other, change(content) if other == name else content)
    return path


def one_tensor(tmp_path: Path, count: int = 6) -> Path:
    return saved(tmp_path / "w.pth", {"a": torch.arange(float(count))})


def instead(old: bytes, new: bytes, which: int) -> Callable[[bytes], bytes]:
    """The `which`th occurrence of `old` after the storage's place, "cpu", is `new`."""

    def change(data: bytes) -> bytes:
        place = data.index(b"cpu")
        for _ in range(which):
            place = data.index(old, place) + 1
        return data[: place - 1] + new + data[place - 1 + len(old) :]

    return change


@pytest.mark.parametrize("number", [0, 5, 7, 10**6, 2**31 - 1, -1])
@pytest.mark.parametrize("which", [1, 2], ids=["values", "shape"])
def test_a_size_that_is_a_lie_is_refused_before_anything_is_allocated(
    tmp_path: Path, number: int, which: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = one_tensor(tmp_path)
    rezipped(path, "data.pkl", instead(b"K\x06", b"J" + struct.pack("<i", number), which))
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: pytest.fail("torch has read it"))
    if which == 2 and 0 <= number < 6:
        return  # a part of the values is a tensor, too
    with pytest.raises(FileError, match="damaged"):
        read_weights(path)


def test_a_shape_that_is_part_of_the_values_is_read(tmp_path: Path) -> None:
    path = rezipped(one_tensor(tmp_path), "data.pkl", instead(b"K\x06", b"K\x04", 2))
    assert read_weights(path)[0]["a"].tolist() == [0, 1, 2, 3]


def test_an_archive_that_is_compressed_is_refused(tmp_path: Path) -> None:
    path = rezipped(one_tensor(tmp_path), "data/0", lambda old: bytes(2**26), zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 2**18
    with pytest.raises(FileError, match="compressed"):
        read_weights(path)


def test_a_flipped_bit_in_an_archive_is_noticed(tmp_path: Path) -> None:
    """torch does not look at the checksums."""
    path = one_tensor(tmp_path)
    data = bytearray(path.read_bytes())
    data[data.index(struct.pack("<f", 5.0)) + 3] ^= 1
    path.write_bytes(data)
    assert torch.load(path, weights_only=True)["a"].tolist() != list(range(6))
    with pytest.raises(FileError, match="CRC"):
        read_weights(path)


def test_what_stands_behind_an_archive_is_refused(tmp_path: Path) -> None:
    path = one_tensor(tmp_path)
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(FileError, match="behind its end"):
        read_weights(path)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.ones(1).expand(2**40),
        torch.ones(1).expand(3),
        torch.ones(3, device="meta"),
        torch.ones(3).to_sparse(),
        torch.ones(3, dtype=torch.complex64),
    ],
    ids=["terabytes", "expanded", "meta", "sparse", "complex"],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_that_no_network_has_are_refused(tmp_path: Path, tensor: Tensor, zipped: bool) -> None:
    path = saved(tmp_path / "w.pth", {"a": tensor}, _use_new_zipfile_serialization=zipped)
    with pytest.raises(FileError):
        read_weights(path)


def test_many_tensors_on_the_same_values_are_refused(tmp_path: Path) -> None:
    values = torch.zeros(10_000)
    assert len(read_weights(saved(tmp_path / "w.pth", {"a": values, "b": values}))[0]) == 2
    with pytest.raises(FileError, match="share their values"):
        read_weights(saved(tmp_path / "w.pth", {str(n): values for n in range(5)}))


def test_a_key_that_takes_forever_to_hash_is_refused(tmp_path: Path) -> None:
    steps = b"".join(b"h%ch%c\x86q%c" % (n, n, n + 1) for n in range(1, 61))
    instructions = b"\x80\x02}q\x00)\x85q\x01" + steps + b"h\x00h\x3dNs."
    with pytest.raises(FileError, match="neither names nor numbers"):
        read_weights(rezipped(one_tensor(tmp_path), "data.pkl", lambda old: instructions))


@pytest.mark.parametrize(
    "name", ["os system", "builtins eval", "torch load", "torch._utils _rebuild_meta_tensor_no_storage"]
)
def test_whatever_else_would_be_called_is_refused_by_name(tmp_path: Path, name: str) -> None:
    called = b"\x80\x02}X\x01\x00\x00\x00ac" + name.replace(" ", "\n").encode() + b"\nX\x01\x00\x00\x00x\x85Rs."
    path = rezipped(one_tensor(tmp_path), "data.pkl", lambda old: called)
    with pytest.raises(FileError, match=name.replace(" ", r"\.")):
        read_weights(path)


def test_what_messages_quote_from_a_file_is_harmless(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    header = json.dumps({"a": {"dtype": "\x1b[2J\n", "shape": [1], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    with pytest.raises(FileError, match="damaged") as caught:
        read_weights(path)
    assert caught.value.message.isprintable()


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "w.pth")
    with pytest.raises(FileError, match="not an ordinary file"):
        read_weights(tmp_path / "w.pth")
