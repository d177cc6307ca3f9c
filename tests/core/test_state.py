"""Looking for numbers that are none, sharing tensors; `copy_state` is tested where it is used."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from nettailor_cli.core.state import first_broken, sharing_copy


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_first_tensor_with_a_value_that_is_not_finite(value: float, dtype: torch.dtype) -> None:
    broken = torch.zeros(3, 4, dtype=dtype)
    broken[2, 3] = value
    state = {"good": torch.ones(2), "counter": torch.tensor(3), "bad": broken, "worse": broken}
    assert first_broken(state) == "bad"


def test_good_tensors_whole_numbers_and_none_at_all() -> None:
    assert first_broken({}) is None
    assert first_broken({"counter": torch.tensor(2**62), "flag": torch.tensor(True)}) is None
    large = torch.full((4,), torch.finfo(torch.float32).max)
    assert first_broken({"large": large, "empty": torch.zeros(0), "parameter": torch.nn.Parameter(large)}) is None


def test_a_sharing_copy_holds_the_same_tensors_but_for_copies_of_those_named() -> None:
    module = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))
    twin = sharing_copy(module, module[1].buffers())
    assert twin is not module and twin[0] is not module[0]
    pairs = zip(twin.named_parameters(), module.parameters(), strict=True)
    assert all(ours is theirs for (_, ours), theirs in pairs)
    for ours, theirs in zip(twin.buffers(), module.buffers(), strict=True):
        assert ours is not theirs and torch.equal(ours, theirs)
    twin[0] = nn.Identity()
    assert isinstance(module[0], nn.Conv2d)
