from __future__ import annotations

import pytest
import torch

from nettailor_cli.core.backbones.catalog import ARCHS
from nettailor_cli.core.backbones.resnet import decompose, make_network


@pytest.mark.parametrize("arch", ARCHS)
def test_the_description_fits_the_network(arch: str) -> None:
    network = make_network(arch, "meta")
    parts = decompose(network)
    x = parts.stem(torch.empty(2, 3, 72, 72, device="meta"))
    assert x.shape == (2, 64, 18, 18)
    assert len(parts.blocks) == len(parts.strides) == len(parts.channels) - 1
    for block, stride, channels in zip(parts.blocks, parts.strides, parts.channels[1:], strict=True):
        size = -(-x.shape[-1] // stride)
        x = parts.activation(block(x))
        assert x.shape == (2, channels, size, size)
    assert parts.pooling(x).shape == (2, parts.features)
    assert parts.features == parts.channels[-1]


def test_what_is_known_of_the_published_networks() -> None:
    parts = {arch: decompose(make_network(arch, "meta")) for arch in ("resnet18", "resnet34", "resnet50", "resnet152")}
    assert {arch: len(p.blocks) for arch, p in parts.items()} == {
        "resnet18": 8,
        "resnet34": 16,
        "resnet50": 16,
        "resnet152": 50,
    }
    assert parts["resnet18"].strides == (1, 1, 2, 1, 2, 1, 2, 1)
    assert parts["resnet18"].channels == (64, 64, 64, 128, 128, 256, 256, 512, 512)
    assert parts["resnet50"].channels[:5] == (64, 256, 256, 256, 512)
    assert (parts["resnet34"].proxy_kind, parts["resnet50"].proxy_kind) == ("basic", "bottleneck")
    assert (parts["resnet34"].features, parts["resnet50"].features) == (512, 2048)
