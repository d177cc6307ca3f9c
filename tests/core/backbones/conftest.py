"""Weights for the tests of backbones: small, random, and made once."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from nettailor_cli.core.backbones import catalog
from nettailor_cli.core.backbones.torchvision_shim import import_torchvision


def random_network(arch: str, seed: int) -> nn.Module:
    """torchvision's network in evaluation mode, with batch norms that do something."""
    torch.manual_seed(seed)
    network = getattr(import_torchvision().models, arch)(weights=None).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            module.num_batches_tracked.fill_(7)
    return network


@pytest.fixture(scope="session")
def network18() -> nn.Module:
    return random_network("resnet18", 1)


@pytest.fixture(scope="session")
def state18(network18: nn.Module) -> dict[str, Tensor]:
    """As torchvision saves it: with classifier and num_batches_tracked."""
    return {key: tensor.clone() for key, tensor in network18.state_dict().items()}


@pytest.fixture(scope="session")
def half18(state18: dict[str, Tensor]) -> dict[str, Tensor]:
    """fp32 values that fp16 holds exactly, without classifier and num_batches_tracked."""
    return {
        key: tensor.half().float()
        for key, tensor in state18.items()
        if not key.startswith("fc.") and not key.endswith("num_batches_tracked")
    }


@pytest.fixture(scope="session")
def state34() -> dict[str, Tensor]:
    return dict(random_network("resnet34", 2).state_dict())


@pytest.fixture(scope="session")
def pth18(tmp_path_factory: pytest.TempPathFactory, state18: dict[str, Tensor]) -> Path:
    path = tmp_path_factory.mktemp("weights") / "other.pth"
    torch.save(state18, path)
    return path


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> str:
    """torchvision's server is at an address where nobody listens."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/resnet18-f37072fd.pth"
    monkeypatch.setattr(catalog, "download_url", lambda name: url)
    return url
