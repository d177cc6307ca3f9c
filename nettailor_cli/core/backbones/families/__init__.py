"""Which families of networks can be tailored, one short file for each, and which can't, with the reason.

Nothing is imported here: names are known without torch. A family's file has one function, `decompose`, which says where
the stem, the blocks and the head are in torchvision's network; everything else works on what it returns, see
`decomposition.Parts`. To add a family: its file, its line here, and examples/backbones/table.py run again.
"""

from __future__ import annotations

import re

FAMILIES = {
    "resnet": r"(wide_)?resnet.*|resnext.*",
    "regnet": r"regnet_.*",
    "mobilenet": r"mobilenet_v[23].*",
    "efficientnet": r"efficientnet_.*",
    "convnext": r"convnext_.*",
    "mnasnet": r"mnasnet.*",
    "shufflenet": r"shufflenet_v2_.*",
    "vgg": r"vgg\d+(_bn)?|alexnet",
    "googlenet": r"googlenet",
    "inception": r"inception_v3",
    "densenet": r"densenet\d+",
    "decathlon": r"decathlon_wrn26",
}
"""A family's module in this folder, and what the names of its networks look like. timm's have one in common, besides.

Where these are not torchvision's, the module has a function `make_network`, too.
"""

TIMM = "timm/"
"""What stands before the names of timm's networks."""

OWN = ("decathlon_wrn26",)
"""Networks that are neither torchvision's nor timm's. Nobody offers weights to download."""

_SEQUENCE = "its blocks attend over a sequence of patches; proxies are convolutions beside convolutional blocks"
_WINDOWS = "its blocks attend within windows of the picture; proxies are convolutions beside convolutional blocks"
REFUSED = {
    r"vit_.*": _SEQUENCE,
    r"swin_.*": _WINDOWS,
    r"maxvit_.*": _WINDOWS,
    r"squeezenet.*": "its classifier is a convolution with a ReLU before the average, not a linear layer on features",
}
"""torchvision's other classification networks, and why they can't be tailored."""


def family_of(arch: str) -> str | None:
    """The family's module that describes `arch`; None where there is none."""
    if arch.startswith(TIMM):
        return "timm_networks"
    return next((family for family, pattern in FAMILIES.items() if re.fullmatch(pattern, arch)), None)


def why_refused(arch: str) -> str | None:
    """Why `arch` can't be tailored; None for what can, and for what nobody has heard of."""
    return next((reason for pattern, reason in REFUSED.items() if re.fullmatch(pattern, arch)), None)
