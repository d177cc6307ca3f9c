"""Convolutions tap by tap against torch's own, and their gradients against finite differences."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nettailor_cli.core.training import taps
from nettailor_cli.core.training.precision import Machine
from nettailor_cli.core.training.taps import FEWEST_CHANNELS, FEWEST_IMAGES, TapwiseConv2d, go_tapwise

FP32 = Machine(torch.device("cpu"), bf16=False, reason="a test")
BF16 = Machine(torch.device("cpu"), bf16=True, reason="a test")
WIDE = FEWEST_CHANNELS

# window, stride, padding, height and width of the map
SHAPES = [
    (window, stride, padding, size)
    for window, stride, padding, size in itertools.product(
        [(3, 3), (1, 3), (5, 5), (2, 2)], [(1, 1), (2, 2), (3, 1)], [(0, 0), (1, 1), (2, 1)], [(1, 1), (2, 3), (5, 4)]
    )
    if all(size[d] + 2 * padding[d] >= window[d] for d in (0, 1))
]


def tapwise(x: Tensor, *more: object) -> Tensor:
    y: Tensor = taps._Tapwise.apply(x.permute(2, 3, 0, 1), *more)
    return y.permute(2, 3, 0, 1)


def inputs(window: tuple[int, int], size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    shapes = ((2, 3, *size), (4, 3, *window), (4,))
    x, weight, bias = (torch.randn(shape, generator=draw, dtype=torch.float64) for shape in shapes)
    return x.requires_grad_(), weight.requires_grad_(), bias.requires_grad_()


@pytest.mark.parametrize(("window", "stride", "padding", "size"), SHAPES)
def test_the_sum_over_taps_is_the_convolution_and_so_are_its_gradients(
    window: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int], size: tuple[int, int]
) -> None:
    operands = inputs(window, size)
    expected = F.conv2d(*operands, stride, padding)
    found = tapwise(*operands, stride, padding)
    torch.testing.assert_close(found, expected)
    upstream = torch.randn(expected.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        torch.autograd.grad(found, operands, upstream), torch.autograd.grad(expected, operands, upstream)
    )


def test_gradients_are_those_of_finite_differences() -> None:
    assert torch.autograd.gradcheck(lambda *t: tapwise(*t, (2, 2), (1, 1)), inputs((3, 3), (4, 3)))


def test_what_needs_no_gradient_gets_none() -> None:
    x, weight, bias = inputs((3, 3), (2, 2))
    y = taps._Tapwise.apply(x.permute(2, 3, 0, 1), weight.detach(), bias.detach(), (1, 1), (1, 1))
    dx, *others = y.grad_fn.apply(torch.ones_like(y))
    assert dx is not None and others == [None] * 4


def test_the_bias_stays_as_it_is() -> None:
    x, weight, bias = (tensor.detach() for tensor in inputs((3, 3), (1, 1)))
    before = bias.clone()
    taps._Tapwise.apply(x[:1].permute(2, 3, 0, 1), weight, bias, (1, 1), (1, 1))
    assert torch.equal(bias, before)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """Shapes of what went tap by tap."""
    seen: list[torch.Size] = []
    apply = taps._Tapwise.apply

    def noting(x: Tensor, *more: object) -> Tensor:
        seen.append(x.shape)
        return apply(x, *more)

    monkeypatch.setattr(taps._Tapwise, "apply", noting)
    return seen


def convolution(**more: object) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(WIDE, WIDE, 3, **{"padding": 1, **more})


def test_maps_of_at_most_as_many_pixels_as_the_window_go_tap_by_tap_and_others_as_ever(
    calls: list[torch.Size],
) -> None:
    plain, tapwise = convolution(), convolution()
    go_tapwise(tapwise, FP32)
    assert isinstance(tapwise, TapwiseConv2d)
    for size in (1, 2, 3, 4):
        x = torch.randn(FEWEST_IMAGES, WIDE, size, size)
        torch.testing.assert_close(tapwise(x), plain(x), atol=1e-4, rtol=1e-4)
    assert [shape[0] for shape in calls] == [1, 2, 3]


def test_the_result_lies_as_convolutions_on_large_maps_have_it_and_can_be_changed_in_place(
    calls: list[torch.Size],
) -> None:
    layer = convolution()
    go_tapwise(layer, FP32)
    x = torch.randn(FEWEST_IMAGES, WIDE, 2, 2).contiguous(memory_format=torch.channels_last).requires_grad_()
    y = layer(x)
    assert y.is_contiguous(memory_format=torch.channels_last)
    expected = torch.autograd.grad(F.conv2d(x, layer.weight, layer.bias, padding=1).relu().sum(), x)[0]
    torch.testing.assert_close(torch.autograd.grad(y.relu_().sum(), x)[0], expected, atol=1e-4, rtol=1e-4)
    assert len(calls) == 1


def test_a_few_images_and_other_types_of_numbers_go_as_ever(calls: list[torch.Size]) -> None:
    layer = convolution()
    go_tapwise(layer, FP32)
    layer(torch.randn(FEWEST_IMAGES - 1, WIDE, 2, 2))
    layer.double()(torch.randn(FEWEST_IMAGES, WIDE, 2, 2, dtype=torch.float64))
    assert calls == []


@pytest.mark.parametrize(
    "more",
    [
        {"groups": 2},
        {"dilation": 2},
        {"padding": "same"},
        {"padding_mode": "reflect"},
        {"kernel_size": 1, "padding": 0},
        {"in_channels": WIDE - 1},
        {"out_channels": WIDE - 1},
    ],
)
def test_other_convolutions_stay_torchs(more: dict[str, object]) -> None:
    words = {"in_channels": WIDE, "out_channels": WIDE, "kernel_size": 3, "padding": 1, **more}
    layer = nn.Sequential(nn.Conv2d(**words))
    go_tapwise(layer, FP32)
    assert type(layer[0]) is nn.Conv2d


def test_in_bf16_everything_stays_torchs() -> None:
    layer = convolution()
    go_tapwise(layer, BF16)
    assert type(layer) is nn.Conv2d
