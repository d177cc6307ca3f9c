from __future__ import annotations

import pytest
import torch

from nettailor_cli.core.backbones.catalog import ARCHS
from nettailor_cli.core.backbones.decomposition import decompose, make_network
from nettailor_cli.core.backbones.families import family_of
from nettailor_cli.core.backbones.measures import measure

RESNETS = [arch for arch in ARCHS if family_of(arch) == "resnet"]


@pytest.mark.parametrize("arch", RESNETS)
def test_the_description_fits_the_network(arch: str) -> None:
    parts = decompose(arch, make_network(arch, "meta"))
    measures = measure(parts)
    x = parts.stem(torch.empty(2, 3, 72, 72, device="meta"))
    assert x.shape == (2, 64, 18, 18)
    assert len(parts.blocks) == len(measures.scalings) == len(measures.channels) - 1
    for block, scaling, channels in zip(parts.blocks, measures.scalings, measures.channels[1:], strict=True):
        size = -(-x.shape[-1] // scaling.stride)
        x = parts.activation(block(x))
        assert x.shape == (2, channels, size, size)
    assert parts.pooling(x).shape == (2, measures.features)
    assert measures.features == measures.channels[-1]


def test_what_is_known_of_the_published_networks() -> None:
    parts = {
        arch: decompose(arch, make_network(arch, "meta")) for arch in ("resnet18", "resnet34", "resnet50", "resnet152")
    }
    assert {arch: len(p.blocks) for arch, p in parts.items()} == {
        "resnet18": 8,
        "resnet34": 16,
        "resnet50": 16,
        "resnet152": 50,
    }
    small = measure(parts["resnet18"])
    assert [(scaling.stride, scaling.inset) for scaling in small.scalings] == [(s, 1) for s in (1, 1, 2, 1, 2, 1, 2, 1)]
    assert small.channels == (64, 64, 64, 128, 128, 256, 256, 512, 512)
    assert measure(parts["resnet50"]).channels[:5] == (64, 256, 256, 256, 512)
    assert (parts["resnet34"].proxies, parts["resnet50"].proxies) == ("basic", "bottleneck")
    assert (small.features, measure(parts["resnet50"]).features) == (512, 2048)
