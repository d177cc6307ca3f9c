from __future__ import annotations

import pytest
import torch

from nettailor_cli.core.proxies import bottleneck_width, make_proxy, pool


@pytest.mark.parametrize("stride", [1, 2, 4, 8])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 9, 16, 18, 19, 25])
def test_pooling_lands_where_a_chain_of_strided_convolutions_does(size: int, stride: int) -> None:
    chained = size
    for _ in range(stride.bit_length() - 1):
        chained = (chained + 2 * 1 - 3) // 2 + 1  # a 3x3 convolution of stride 2 with padding 1
    assert pool(torch.zeros(1, 1, size, size), stride).shape == (1, 1, chained, chained)


@pytest.mark.parametrize(("size", "stride"), [(9, 2), (18, 4), (5, 8), (7, 1)])
def test_pooling_takes_the_maximum_of_windows_of_stride_plus_1_around_each_position(size: int, stride: int) -> None:
    x = torch.randn(1, 2, size, size, generator=torch.Generator().manual_seed(size))
    got = pool(x, stride)
    reach = 0 if stride == 1 else stride // 2
    for i in range(got.shape[2]):
        for j in range(got.shape[3]):
            rows = slice(max(0, i * stride - reach), i * stride + reach + 1)
            columns = slice(max(0, j * stride - reach), j * stride + reach + 1)
            assert torch.equal(got[0, :, i, j], x[0, :, rows, columns].amax(dim=(1, 2)))


def test_a_basic_proxy_costs_about_an_eighteenth_of_a_basic_block() -> None:
    proxy = sum(p.numel() for p in make_proxy("basic", 256, 256).parameters())
    block = 2 * (256 * 256 * 9 + 2 * 256)
    assert proxy == 256 * 256 + 2 * 256
    assert block / proxy == pytest.approx(18, rel=0.01)


def test_a_bottleneck_proxy_has_two_convolutions_and_two_batch_norms() -> None:
    proxy = sum(p.numel() for p in make_proxy("bottleneck", 256, 512, width=10).parameters())
    assert proxy == 256 * 10 + 2 * 10 + 10 * 512 + 2 * 512


def test_the_default_width_is_the_released_codes() -> None:
    assert [bottleneck_width(c) for c in (256, 512, 1024, 2048)] == [16, 16, 32, 64]
