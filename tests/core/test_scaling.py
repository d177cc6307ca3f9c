"""What rows of windows do to sizes, held against torch's own convolutions and poolings."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F

from nettailor_cli.core.scaling import Scaling, between

# kernel, stride, padding
WINDOWS = [(3, 1, 1), (3, 2, 1), (7, 2, 3), (2, 2, 0), (3, 2, 0), (4, 4, 0), (3, 1, 0)]


def scaling_of(kernel: int, stride: int, padding: int) -> Scaling:
    return Scaling(stride, kernel - 2 * padding)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_row_of_windows_is_one_at_every_size(count: int) -> None:
    for row in itertools.product(WINDOWS, repeat=count):
        whole = between([scaling_of(*window) for window in row], 0, count)
        for size in (40, 41, 42, 43, 47, 64, 71):
            expected = size
            for kernel, stride, padding in row:
                expected = (expected + 2 * padding - kernel) // stride + 1
            assert whole.of(size) == expected
            if expected > 0:
                kernel, stride, padding = whole.window
                assert kernel >= stride, "every position is seen"
                assert F.max_pool2d(torch.empty(1, 1, size, size), kernel, stride, padding).shape[2] == expected


def test_strided_convolutions_with_padding_are_pooled_as_published() -> None:
    for stride in (2, 4, 8, 16):
        assert Scaling(stride).window == (stride + 1, stride, stride // 2)


def test_nothing_is_no_scaling() -> None:
    assert not Scaling().changes and Scaling(1, 3).changes and Scaling(2).changes
    assert between([Scaling(2), Scaling(2, 3)], 1, 1) == Scaling()
    assert between([Scaling(2), Scaling(), Scaling(2, 3)], 1, 3) == Scaling(2, 3)
