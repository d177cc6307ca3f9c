from __future__ import annotations

import pytest
import torch

from nettailor_cli.core.proxies import (
    BypassedProxy,
    Depthwise,
    averaging,
    bottleneck_width,
    budgeted_width,
    make_proxy,
    pool,
    scaled_proxy,
    start_fresh,
)
from nettailor_cli.core.scaling import Scaling


@pytest.mark.parametrize("scaling", [Scaling(1), Scaling(2), Scaling(4), Scaling(2, 2), Scaling(4, 4), Scaling(2, 3)])
def test_pooling_gives_the_size_that_the_scaling_says(scaling: Scaling) -> None:
    for size in range(scaling.stride + scaling.inset, 30):
        assert pool(torch.zeros(1, 1, size, size), scaling).shape[2:] == (scaling.of(size), scaling.of(size))


@pytest.mark.parametrize(("size", "stride"), [(9, 2), (18, 4), (5, 8), (7, 1)])
def test_pooling_takes_the_maximum_of_windows_of_stride_plus_1_around_each_position(size: int, stride: int) -> None:
    x = torch.randn(1, 2, size, size, generator=torch.Generator().manual_seed(size))
    got = pool(x, Scaling(stride))
    reach = 0 if stride == 1 else stride // 2
    for i in range(got.shape[2]):
        for j in range(got.shape[3]):
            rows = slice(max(0, i * stride - reach), i * stride + reach + 1)
            columns = slice(max(0, j * stride - reach), j * stride + reach + 1)
            assert torch.equal(got[0, :, i, j], x[0, :, rows, columns].amax(dim=(1, 2)))


def test_a_budgeted_width_by_hand() -> None:
    """A block of 18,000 multiply-adds: 1000 for the proxy, 10 + 15 for each channel inside."""
    assert budgeted_width(10, 15, usual=18_000, least=18_000) == 40
    # with 6000 on small maps, 750 at most
    assert budgeted_width(10, 15, usual=18_000, least=6_000) == 30
    assert budgeted_width(10, 15, usual=100, least=100) == 1


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


def test_with_a_width_inside_a_basic_proxy_has_two_convolutions_too() -> None:
    ours, theirs = (make_proxy(kind, 64, 128, 10) for kind in ("basic", "bottleneck"))
    assert [p.shape for p in ours.parameters()] == [p.shape for p in theirs.parameters()]


@pytest.mark.parametrize("start", ["normal", "average"])
@pytest.mark.parametrize("kind", ["basic", "bottleneck"])
def test_a_proxy_with_a_depthwise_convolution_starts_as_the_one_without(kind: str, start: str) -> None:
    x = torch.randn(2, 6, 5, 5)
    plain, looking = (make_proxy(kind, 6, 10, depthwise=depthwise).eval() for depthwise in (False, True))
    for proxy in (plain, looking):
        start_fresh(proxy, torch.Generator().manual_seed(1), start)
    assert torch.equal(looking(x), plain(x)) and plain(x).abs().max() > 0
    more = sum(p.numel() for p in looking.parameters()) - sum(p.numel() for p in plain.parameters())
    assert more == 9 * (6 if kind == "basic" else 16)


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 4), (3, 3), (6, 5)])
def test_a_depthwise_convolution_is_torchs_and_its_gradients_are_at_every_size(size: tuple[int, int]) -> None:
    ours, theirs = Depthwise(4), torch.nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False)
    theirs.load_state_dict(ours.state_dict())
    x = [torch.randn(2, 4, *size, generator=torch.Generator().manual_seed(0)).requires_grad_() for _ in range(2)]
    y = [layer(images) for layer, images in zip((ours, theirs), x, strict=True)]
    torch.testing.assert_close(y[0], y[1])
    for result in y:
        result.square().sum().backward()
    torch.testing.assert_close(x[0].grad, x[1].grad)
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)


def test_a_depthwise_convolution_reaches_the_eight_neighbours_of_a_pixel() -> None:
    proxy = make_proxy("basic", 2, 2, depthwise=True).eval()
    x = torch.zeros(1, 2, 5, 5)
    x[0, :, 2, 2] = 1.0
    seen = (proxy(x) - proxy(torch.zeros_like(x)))[0, 0].abs() > 0
    assert seen.nonzero().tolist() == [[i, j] for i in (1, 2, 3) for j in (1, 2, 3)]


def test_averaging_passes_on_gives_means_of_neighbours_or_copies() -> None:
    x = torch.tensor([1.0, 3.0, 5.0, 11.0])
    assert torch.equal(averaging(4, 4) @ x, x)
    assert (averaging(2, 4) @ x).tolist() == [2, 8]
    assert (averaging(8, 4) @ x).tolist() == [1, 1, 3, 3, 5, 5, 11, 11]
    assert (averaging(1, 4) @ x).tolist() == [5]
    for shape in ((3, 5), (5, 3), (7, 2), (16, 24)):
        torch.testing.assert_close(averaging(*shape).sum(dim=1), torch.ones(shape[0]))


def test_proxies_start_nearly_silent_or_pass_channels_on_and_what_is_bypassed_is_silent() -> None:
    x = torch.randn(2, 6, 5, 5)
    for kind, width in (("basic", None), ("bottleneck", 6)):
        proxy = make_proxy(kind, 6, 6, width).eval()
        start_fresh(proxy, torch.Generator().manual_seed(0), "average")
        expected = x if kind == "basic" else x.relu()
        torch.testing.assert_close(proxy(x), expected, rtol=1e-4, atol=1e-4)  # eps of the fresh batch norms
        start_fresh(proxy, torch.Generator().manual_seed(0))
        assert proxy(x).abs().max() < 0.2
    bypassed = BypassedProxy(make_proxy("bottleneck", 6, 6, 6)).eval()
    start_fresh(bypassed, torch.Generator().manual_seed(0), "average")
    assert (bypassed(x) - x).abs().max() < 0.2


def test_a_bypassed_proxy_adds_its_input_gain_and_all() -> None:
    torch.manual_seed(0)
    body = make_proxy("bottleneck", 6, 6, width=2).eval()
    x, gain = torch.randn(2, 6, 5, 5), torch.tensor(0.25)
    assert torch.allclose(BypassedProxy(body)(x), x + body(x))
    assert torch.allclose(scaled_proxy(BypassedProxy(body), x, gain), 0.25 * x + 0.25 * body(x))


@pytest.mark.parametrize("kind", ["basic", "bottleneck"])
@pytest.mark.parametrize("training", [True, False])
def test_a_gain_in_the_batch_norm_is_a_gain_of_the_result(kind: str, *, training: bool) -> None:
    """Values, gradients (gain's own too) and running statistics, in float64."""
    torch.manual_seed(0)
    proxies = [make_proxy(kind, 3, 4).double().train(training) for _ in range(2)]
    proxies[1].load_state_dict(proxies[0].state_dict())
    x, weights = torch.randn(5, 3, 4, 4).double(), torch.randn(5, 4, 4, 4).double()
    gains = [torch.tensor(0.3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    within, outside = scaled_proxy(proxies[0], x, gains[0]), gains[1] * proxies[1](x)
    torch.testing.assert_close(within, outside)
    for result in (within, outside):
        (result * weights).sum().backward()
    torch.testing.assert_close(gains[0].grad, gains[1].grad)
    for ours, theirs in zip(proxies[0].parameters(), proxies[1].parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)
    for name, tensor in proxies[0].named_buffers():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(tensor, proxies[1].get_buffer(name))


def test_a_batch_norm_that_takes_the_plain_mean_over_batches_goes_on_to() -> None:
    proxy = make_proxy("basic", 2, 2)
    assert isinstance(proxy.bn, torch.nn.BatchNorm2d)
    proxy.bn.momentum = None
    proxy.bn.reset_running_stats()
    batches = [torch.randn(3, 2, 4, 4) for _ in range(3)]
    for x in batches:
        scaled_proxy(proxy, x, torch.tensor(0.5))
    means = torch.stack([proxy.conv(x).mean(dim=(0, 2, 3)) for x in batches]).mean(dim=0)
    torch.testing.assert_close(proxy.bn.running_mean, means)


def test_a_folded_proxy_takes_a_gain_too() -> None:
    folded = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 1))
    x = torch.randn(1, 2, 3, 3)
    torch.testing.assert_close(scaled_proxy(folded, x, torch.tensor(0.5)), 0.5 * folded(x))
