"""Makes nettailor_cli/core/backbones/networks.json: every network of torchvision that can be tailored, for commands
that start without torch.

    python examples/backbones/table.py            # writes it; needs the installed torchvision, downloads nothing

Counted on shapes alone, so that the largest takes no memory: MACs of convolutions and linear layers at the size of the
network's first weights, parameters with 1000 classes and without auxiliary heads. Tests compare the file with this
script's output, and the counts with fvcore's and with torchvision's own.
"""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nettailor_cli.core.backbones import catalog
from nettailor_cli.core.backbones.decomposition import decompose, make_network
from nettailor_cli.core.backbones.families import FAMILIES, OWN, family_of
from nettailor_cli.core.backbones.measures import measure
from nettailor_cli.core.backbones.torchvision_shim import import_torchvision
from nettailor_cli.core.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing

LEFT_OUT = {"vgg16.imagenet1k_features"}
"""Its linear layers are not numbers: torchvision made it for detectors."""


PICTURES = {"decathlon_wrn26": {"size": 64, "ratio": [72, 64]}}
"""What the pictures of our own networks are like: the decathlon's are resized to 72 and cropped to 64."""


def archs() -> list[str]:
    """torchvision's classification networks that a family describes, family by family, and our own."""
    models = import_torchvision().models
    known = [arch for arch in models.list_models(module=models) if family_of(arch)]
    return [*sorted(known, key=lambda arch: (list(FAMILIES).index(family_of(arch)), _by_number(arch))), *OWN]


def row(arch: str) -> dict[str, Any]:
    weights: dict[str, Any] = {}
    for member in () if arch in OWN else import_torchvision().models.get_model_weights(arch):
        if f"{arch}.{member.name.lower()}" not in LEFT_OUT:
            weights[member.name.lower()] = _weights(arch, member)
    own = {"pictures": PICTURES[arch]} if arch in OWN else {}
    size = next(iter((*weights.values(), *own.values()))).get("size", Preprocessing().size)
    network = make_network(arch, "meta").eval()
    parts = decompose(arch, network)
    return {
        "blocks": len(parts.blocks),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "macs": multiply_adds(network, size),
        "features": measure(parts).features,
        "classifier": parts.classifier,
        "weights": weights,
        **own,
    }


def _weights(arch: str, member: Any) -> dict[str, Any]:
    """File and preprocessing; what is at its default is left out."""
    transforms = member.transforms()
    (size,), (resize,) = transforms.crop_size, transforms.resize_size
    mean, std = tuple(transforms.mean), tuple(transforms.std)
    if family_of(arch) in ("googlenet", "inception"):
        # inside these networks torchvision undoes ImageNet's normalisation and takes this one; we leave that out
        mean = std = (0.5, 0.5, 0.5)
    found: dict[str, Any] = {"file": member.url.removeprefix(catalog.SERVER)}
    found |= {"size": size} if size != Preprocessing.size else {}
    found |= {"ratio": [resize, size]} if resize * Preprocessing.ratio[1] != size * Preprocessing.ratio[0] else {}
    found |= {"mean": list(mean)} if mean != IMAGENET_MEAN else {}
    found |= {"std": list(std)} if std != IMAGENET_STD else {}
    return found


def multiply_adds(network: nn.Module, size: int) -> int:
    """Of convolutions and linear layers, for one picture; `network` is on the meta device."""
    counted: list[int] = []

    def count(layer: Any, _: Any, y: torch.Tensor) -> None:
        positions = prod(y.shape[2:]) if isinstance(layer, nn.Conv2d) else prod(y.shape[:-1])
        counted.append(positions * layer.weight.numel())

    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.register_forward_hook(count)
    with torch.no_grad():
        network(torch.empty(1, 3, size, size, device="meta"))
    return sum(counted)


def table() -> dict[str, Any]:
    return {arch: row(arch) for arch in archs()}


def text_of(rows: dict[str, Any]) -> str:
    """One line for each network."""
    lines = [f"{json.dumps(arch)}: {json.dumps(found)}" for arch, found in rows.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _by_number(arch: str) -> list[tuple[int, str]]:
    """resnet18 before resnet101, regnet_x_400mf before regnet_x_1_6gf."""
    name = arch.replace("400mf", "0_4gf").replace("800mf", "0_8gf")
    words = "".join(c if c.isdigit() else f" {c} " for c in name).split()
    return [(int(word), "") if word.isdigit() else (-1, word) for word in words]


if __name__ == "__main__":
    catalog.TABLE.write_text(text_of(table()), encoding="utf-8")
    print(f"{len(json.loads(Path(catalog.TABLE).read_text(encoding='utf-8')))} networks in {catalog.TABLE}")
