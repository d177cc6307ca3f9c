from __future__ import annotations

import hashlib
import json
import math
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nettailor_cli.core.errors import FileError, UsageError
from nettailor_cli.core.sealed import KEY, is_sealed, read_content, read_tensors, write_sealed

CONTENT: dict[str, Any] = {
    "text": 'a "quoted"\nline \N{SNOWMAN}',
    "number": 0.1,
    "small": 5e-324,
    "list": [1, None, True, {}],
}


def tensors() -> dict[str, Tensor]:
    return {
        "b.weight": torch.arange(6, dtype=torch.float32).reshape(2, 3),
        "a.bias": torch.tensor([1, -2], dtype=torch.int64),
        "c": torch.tensor(2.5, dtype=torch.float16),
    }


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    path = tmp_path / "file.safetensors"
    write_sealed(path, CONTENT, tensors())
    return path


def reseal(path: Path, content: Any) -> None:
    """Replace the document in `path` and give it the digest that belongs to it."""
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    old = json.loads(header["__metadata__"][KEY])
    new = {**content, "tensors": old["tensors"]}
    new["digest"] = hashlib.sha256(json.dumps(new, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    header["__metadata__"][KEY] = json.dumps(new)
    write_with_header(path, header, data[8 + length :])


def write_with_header(path: Path, header: Any, data: bytes) -> None:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def parts_of(path: Path) -> tuple[dict[str, Any], bytes]:
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def everything(path: Path) -> tuple[Any, dict[str, tuple[torch.dtype, tuple[int, ...], bytes]]]:
    read = read_tensors(path)
    return read_content(path), {
        name: (tensor.dtype, tuple(tensor.shape), tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
        for name, tensor in read.items()
    }


@pytest.mark.parametrize(
    "dtype",
    [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8, torch.bool],
)
def test_tensors_come_back_exactly(tmp_path: Path, dtype: torch.dtype) -> None:
    given = {
        "matrix": torch.tensor([[0, 1, 5], [3, 0, 2]]).to(dtype),
        "scalar": torch.tensor(1).to(dtype),
        "empty": torch.zeros(0, 3, dtype=dtype),
        "transposed": torch.tensor([[0, 1, 5], [3, 0, 2]]).to(dtype).T,
        "channels last": torch.ones(2, 3, 4, 4).to(dtype).to(memory_format=torch.channels_last),
    }
    write_sealed(tmp_path / "f", CONTENT, given)
    read_content(tmp_path / "f")
    read = read_tensors(tmp_path / "f")
    assert read.keys() == given.keys()
    assert all(read[name].dtype == dtype and torch.equal(read[name], given[name]) for name in given)


def test_the_document_comes_back_and_the_engines_own_entries_do_not(sealed: Path) -> None:
    assert read_content(sealed) == CONTENT


def test_a_file_without_tensors_can_be_read(tmp_path: Path) -> None:
    write_sealed(tmp_path / "f", CONTENT, {})
    assert everything(tmp_path / "f") == (CONTENT, {})


def test_a_resealed_file_is_read(sealed: Path) -> None:
    """So that the tests that reseal a file with something wrong in it find that, and not the seal."""
    reseal(sealed, {"other": 1})
    assert read_content(sealed) == {"other": 1}
    read_tensors(sealed)


def test_the_order_of_tensors_does_not_change_the_bytes(tmp_path: Path) -> None:
    write_sealed(tmp_path / "one", CONTENT, tensors())
    write_sealed(tmp_path / "two", CONTENT, dict(reversed(tensors().items())))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


WRITE = """
import sys, torch
from pathlib import Path
from nettailor_cli.core.sealed import write_sealed
names = [f"proxies.{i}-{j}.conv.weight" for j in range(9) for i in range(j)]
write_sealed(Path(sys.argv[1]), {"classes": ["ä", "b"], "metrics": {"x": 1.5, "a": {"z": 1, "y": 2}}},
             {name: torch.full((3,), float(i)) for i, name in enumerate(names)})
"""


def test_equal_contents_give_equal_bytes_in_every_process(tmp_path: Path) -> None:
    started = [
        subprocess.Popen(
            [sys.executable, "-c", WRITE, str(tmp_path / seed)], env={**os.environ, "PYTHONHASHSEED": seed}
        )
        for seed in ("1", "2")
    ]
    assert [process.wait(60) for process in started] == [0, 0]
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def substitutes(data: bytes, position: int, inside: range) -> Iterator[int]:
    """Other bytes for the one at `position`: some, and all that could stand in JSON where tensors are described."""
    byte = data[position]
    candidates = {byte ^ (1 << bit) for bit in range(8)} | {0, 0x20, 0xFF}
    if position in inside:
        candidates |= set(b'0123456789-.,:eE+"[]{}\\ \n\tnulltrueBFIUabcdefx')
    return iter(candidates - {byte})


def test_every_changed_byte_is_detected_or_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "f"
    write_sealed(path, {"a": [0.5, "é"]}, tensors())
    good, data = everything(path), path.read_bytes()
    described = range(8, data.index(b'"__metadata__"')), range(data.rindex(b"}}") - 300, data.rindex(b"}") + 8)
    inside = range(min(r.start for r in described), max(r.stop for r in described))
    undetected: list[str] = []
    with path.open("r+b", buffering=0) as stream:
        for position in range(len(data)):
            for byte in substitutes(data, position, inside):
                os.pwrite(stream.fileno(), bytes([byte]), position)
                try:
                    content = read_content(path)
                except FileError:
                    continue
                now = (content, everything(path)[1])
                if now != good:
                    around = data[max(0, position - 20) : position + 20]
                    undetected.append(f"{chr(data[position])!r} -> {chr(byte)!r} at {position}, in {around!r}")
            os.pwrite(stream.fileno(), data[position : position + 1], position)
    assert path.read_bytes() == data
    assert not undetected


def test_a_file_cut_short_anywhere_is_refused(sealed: Path) -> None:
    data = sealed.read_bytes()
    for length in range(len(data)):
        os.truncate(sealed, 0)
        sealed.write_bytes(data[:length])
        with pytest.raises(FileError):
            read_content(sealed)


@pytest.mark.parametrize("more", [b"\0", b" ", b"more" * 100])
def test_bytes_behind_the_end_are_refused(sealed: Path, more: bytes) -> None:
    sealed.write_bytes(sealed.read_bytes() + more)
    with pytest.raises(FileError):
        read_content(sealed)


def test_swapped_tensors_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "f"
    write_sealed(path, {}, {"a": torch.zeros(2), "b": torch.ones(2)})
    header, data = parts_of(path)
    header["a"]["data_offsets"], header["b"]["data_offsets"] = header["b"]["data_offsets"], header["a"]["data_offsets"]
    write_with_header(path, header, data)
    with pytest.raises(FileError):
        read_content(path)


def test_another_type_or_shape_of_the_same_bytes_is_refused(tmp_path: Path) -> None:
    for change in ({"dtype": "I32"}, {"shape": [3, 2]}, {"shape": [6]}, {"dtype": "F64", "shape": [3]}):
        path = tmp_path / "f"
        write_sealed(path, {}, {"a": torch.arange(6, dtype=torch.float32).reshape(2, 3)})
        header, data = parts_of(path)
        header["a"].update(change)
        write_with_header(path, header, data)
        with pytest.raises(FileError):
            read_content(path)


@pytest.mark.parametrize(
    "entry",
    [
        None,
        7,
        {},
        {"dtype": "F32", "shape": [1]},
        {"dtype": "F32", "shape": [1], "data_offsets": [0]},
        {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]},
        {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]},
        {"dtype": "F32", "shape": [1], "data_offsets": ["0", "4"]},
        {"dtype": "F32", "shape": [1], "data_offsets": [0.0, 4.0]},
        {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]},
        {"dtype": "C64", "shape": [1], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": 1, "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]},
        {"dtype": "F32", "shape": [2**70], "data_offsets": [0, 2**72]},
    ],
    ids=str,
)
def test_a_tensor_that_is_described_wrongly_is_refused(tmp_path: Path, entry: Any) -> None:
    path = tmp_path / "f"
    write_sealed(path, {}, {"a": torch.zeros(1)})
    header, data = parts_of(path)
    header["a"] = entry
    write_with_header(path, header, data)
    with pytest.raises(FileError):
        read_content(path)


@pytest.mark.parametrize(
    "document",
    ["", "null", "[]", "7", '"text"', "{}", '{"digest": null}', "[" * 100_000, '{"a": NaN}', '{"a": 1e999}', "{"],
    ids=lambda text: text[:20],
)
def test_a_document_that_is_none_is_refused(sealed: Path, document: str) -> None:
    header, data = parts_of(sealed)
    header["__metadata__"][KEY] = document
    write_with_header(sealed, header, data)
    with pytest.raises(FileError):
        read_content(sealed)


@pytest.mark.parametrize("header", [[], None, 7, {"__metadata__": 7}, {"__metadata__": {KEY: 7}}, {}], ids=str)
def test_a_header_that_is_none_of_ours_is_refused(tmp_path: Path, header: Any) -> None:
    path = tmp_path / "f"
    write_with_header(path, header, b"")
    with pytest.raises(FileError):
        read_content(path)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x",
        b"PK\x03\x04" * 100,
        b"\xff" * 64,
        b"\0" * 64,
        struct.pack("<Q", 2**63) + b"{}",
        b"\x02" + b"\0" * 7 + b"\xff\xfe",
    ],
    ids=repr,
)
def test_other_files_are_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "f").write_bytes(data)
    with pytest.raises(FileError):
        read_content(tmp_path / "f")
    assert not is_sealed(tmp_path / "f")


def test_plain_weights_are_refused_as_not_ours(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "f", metadata={"mean": "[0,0,0]"})
    with pytest.raises(FileError, match="not a nettailor file"):
        read_content(tmp_path / "f")
    assert not is_sealed(tmp_path / "f")


def test_our_own_files_are_known_even_when_damaged(sealed: Path) -> None:
    assert is_sealed(sealed)
    data = bytearray(sealed.read_bytes())
    data[-1] ^= 1
    sealed.write_bytes(data)
    assert is_sealed(sealed)


def test_a_missing_file_and_a_folder_are_usage_errors(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UsageError, match=path.name):
            read_content(path)
        assert not is_sealed(path)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_not_written(tmp_path: Path, value: float) -> None:
    with pytest.raises(ValueError):
        write_sealed(tmp_path / "f", {"a": value}, {})
    assert list(tmp_path.iterdir()) == []
