from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from nettailor_cli.core.backbones.fingerprint import fingerprint_of
from nettailor_cli.core.backbones.weights_file import read_weights


def by_hand(tensors: dict[str, Tensor]) -> str:
    """A second implementation, value by value, straight from the definition."""
    data = b""
    for key in sorted(tensors):
        tensor = tensors[key]
        data += key.encode() + b" " + b"x".join(str(n).encode() for n in tensor.shape) + b"\n"
        data += b"".join(struct.pack("<f", value) for value in tensor.flatten().tolist())
    return hashlib.sha256(data).hexdigest()


def test_it_is_what_its_definition_says() -> None:
    tensors = {"b.weight": torch.randn(3, 2, 1, 4), "a": torch.tensor([1.5, -0.0]), "B": torch.tensor(2.0)}
    others = {"fc.weight": torch.randn(2, 2), "fc.bias": torch.randn(2), "b.num_batches_tracked": torch.tensor(5)}
    assert fingerprint_of({**others, **tensors}) == by_hand(tensors)
    assert fingerprint_of({"a": torch.zeros(2)}) == hashlib.sha256(b"a 2\n" + bytes(8)).hexdigest()


def test_the_order_in_memory_does_not_count() -> None:
    tensor = torch.randn(2, 3, 4, 4)
    assert fingerprint_of({"a": tensor}) == fingerprint_of({"a": tensor.to(memory_format=torch.channels_last)})


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_the_file_does_not_count(tmp_path: Path, half18: dict[str, Tensor], suffix: str, dtype: torch.dtype) -> None:
    stored = {key: tensor.to(dtype) for key, tensor in half18.items()}
    stored |= {"fc.weight": torch.ones(7, 512), "fc.bias": torch.ones(7), "bn1.num_batches_tracked": torch.tensor(9)}
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(stored, path)
    else:
        safetensors.torch.save_file(stored, path)
    assert fingerprint_of(read_weights(path)[0]) == fingerprint_of(half18)


def test_every_value_name_and_shape_counts(half18: dict[str, Tensor]) -> None:
    one_bit = dict(half18)
    one_bit["bn1.bias"] = torch.nextafter(half18["bn1.bias"], torch.tensor(9.0))
    renamed = {("x" + key if key == "bn1.bias" else key): tensor for key, tensor in half18.items()}
    reshaped = {**half18, "bn1.bias": half18["bn1.bias"].reshape(1, -1)}
    prints = {fingerprint_of(state) for state in (half18, one_bit, renamed, reshaped)}
    assert len(prints) == 4


def test_parameters_are_taken_too(network18: nn.Module, state18: dict[str, Tensor]) -> None:
    assert fingerprint_of(network18.state_dict(keep_vars=True)) == fingerprint_of(state18)
