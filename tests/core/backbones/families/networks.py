"""Small networks of every family: torchvision's own classes with few and narrow blocks, and all of their operations."""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import partial
from importlib import import_module, util
from typing import Any

import torch
from torch import nn

from nettailor_cli.core.backbones.backbone import Backbone
from nettailor_cli.core.backbones.families.decathlon import WideResNet
from nettailor_cli.core.backbones.timm_shim import import_timm
from nettailor_cli.core.backbones.torchvision_shim import import_torchvision
from nettailor_cli.core.preprocessing import Preprocessing

models = import_torchvision().models
CLASSES = 10


def _regnet_y() -> nn.Module:
    parameters = models.regnet.BlockParams([1, 2], [16, 32], [8, 8], [1.0, 1.0], [2, 2], 0.25)
    return models.RegNet(parameters, num_classes=CLASSES, stem_width=8)


def _mobilenet_v3() -> nn.Module:
    settings, last = models.mobilenetv3._mobilenet_v3_conf("mobilenet_v3_small", width_mult=0.25)
    return models.MobileNetV3(settings[:6], last, num_classes=CLASSES)


def _efficientnet() -> nn.Module:
    block = models.efficientnet.MBConvConfig
    settings = [block(1, 3, 1, 8, 8, 1, 1, 1), block(6, 3, 2, 8, 16, 2, 1, 1), block(6, 5, 2, 16, 24, 1, 1, 1)]
    return models.EfficientNet(settings, dropout=0.2, stochastic_depth_prob=0.2, num_classes=CLASSES, last_channel=32)


def _efficientnet_v2() -> nn.Module:
    fused, block = models.efficientnet.FusedMBConvConfig, models.efficientnet.MBConvConfig
    settings = [fused(1, 3, 1, 8, 8, 2), fused(4, 3, 2, 8, 16, 2), block(4, 3, 2, 16, 24, 2, 1, 1)]
    return models.EfficientNet(settings, dropout=0.2, stochastic_depth_prob=0.2, num_classes=CLASSES, last_channel=32)


def _convnext() -> nn.Module:
    stage = models.convnext.CNBlockConfig
    stages = [stage(16, 24, 2), stage(24, 32, 1), stage(32, None, 2)]
    return models.ConvNeXt(stages, stochastic_depth_prob=0.2, layer_scale=0.1, num_classes=CLASSES)


def _before_and_classifier(channels: int, cells: int) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Linear(channels * cells, 20), nn.ReLU(inplace=True), nn.Dropout()),
        *(nn.Linear(20, 24), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(24, CLASSES)),
    )


def _vgg_bn() -> nn.Module:
    with torch.device("meta"):
        network = models.VGG(
            models.vgg.make_layers([8, "M", 16, 16, "M", 24, "M"], batch_norm=True), init_weights=False
        )
    network.features = models.vgg.make_layers([8, "M", 16, 16, "M", 24, "M"], batch_norm=True)
    network.classifier = _before_and_classifier(24, 49)
    return network


def _alexnet() -> nn.Module:
    with torch.device("meta"):
        network = models.AlexNet()
    layers: list[nn.Module] = []
    for layer in network.features:
        if isinstance(layer, nn.Conv2d):
            channels = 3 if layer.in_channels == 3 else layer.in_channels // 16
            layer = nn.Conv2d(channels, layer.out_channels // 16, layer.kernel_size, layer.stride, layer.padding)
        layers.append(layer)
    network.features = nn.Sequential(*layers)
    network.classifier = _before_and_classifier(16, 36)
    return network


def _narrow(convolution: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """`convolution` with an eighth of the channels."""

    def build(channels_in: int, channels_out: int, **more: Any) -> nn.Module:
        return convolution(channels_in if channels_in == 3 else channels_in // 8, channels_out // 8, **more)

    return build


def _googlenet() -> nn.Module:
    module = import_module("torchvision.models.googlenet")  # torchvision's own name for it is a function
    conv = _narrow(module.BasicConv2d)
    blocks = [conv, partial(module.Inception, conv_block=conv), module.InceptionAux]
    network = models.GoogLeNet(aux_logits=False, init_weights=False, blocks=blocks)
    network.fc = nn.Linear(128, CLASSES)
    return network


def _inception() -> nn.Module:
    module = models.inception
    conv = _narrow(module.BasicConv2d)
    kinds = (module.InceptionA, module.InceptionB, module.InceptionC, module.InceptionD, module.InceptionE)
    blocks = [conv, *(partial(kind, conv_block=conv) for kind in kinds), module.InceptionAux]
    network = models.Inception3(aux_logits=False, init_weights=False, inception_blocks=blocks)
    network.fc = nn.Linear(256, CLASSES)
    return network


_MOBILE = [[1, 8, 1, 1], [6, 16, 2, 2], [6, 24, 2, 2]]
SMALL: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "resnet18": (lambda: models.ResNet(models.resnet.BasicBlock, [1, 1, 1, 1], CLASSES), 33),
    "resnext50_32x4d": (
        lambda: models.ResNet(models.resnet.Bottleneck, [1, 2, 1, 1], CLASSES, groups=32, width_per_group=1),
        33,
    ),
    "regnet_y_400mf": (_regnet_y, 35),
    "mobilenet_v2": (lambda: models.MobileNetV2(CLASSES, 0.5, _MOBILE), 35),
    "mobilenet_v3_small": (_mobilenet_v3, 37),
    "efficientnet_b0": (_efficientnet, 35),
    "efficientnet_v2_s": (_efficientnet_v2, 35),
    "convnext_tiny": (_convnext, 50),
    "mnasnet0_5": (lambda: models.MNASNet(0.1, CLASSES), 50),
    "shufflenet_v2_x0_5": (lambda: models.ShuffleNetV2([2, 2, 1], [8, 16, 32, 64, 48], CLASSES), 35),
    "vgg11_bn": (_vgg_bn, 37),
    "alexnet": (_alexnet, 65),
    "googlenet": (_googlenet, 35),
    "inception_v3": (_inception, 91),
    "decathlon_wrn26": (lambda: WideResNet((8, 16, 32), 2, CLASSES), 37),
    "densenet121": (lambda: models.DenseNet(8, (2, 2, 1, 1), 16, num_classes=CLASSES), 50),
}
"""The ARCH whose family it is of -> how a small one is made, and an odd or uneven input size in pixels."""

if util.find_spec("timm"):  # its own small ones
    SMALL |= {
        f"timm/{name}": (partial(lambda name: import_timm().create_model(name, num_classes=CLASSES), name), 37)
        for name in ("test_resnet", "test_efficientnet", "test_convnext", "test_byobnet")
    }


@functools.cache
def small_network(arch: str) -> nn.Module:
    """In evaluation mode, with norms and layer scales that do something. For those who change nothing in it."""
    generator = torch.Generator().manual_seed(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = SMALL[arch][0]()
    for name, tensor in network.state_dict().items():
        with torch.no_grad():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2.0, generator=generator)
            elif tensor.dim() == 1 and tensor.is_floating_point():
                tensor.normal_(1.0 if name.endswith("weight") else 0.0, 0.2, generator=generator)
            elif name.endswith("layer_scale"):
                tensor.uniform_(-0.5, 0.5, generator=generator)
    return network.eval()


def small_backbone(arch: str) -> Backbone:
    """Of `small_network`, whose parameters it shares."""
    return Backbone(f"{arch}.small", small_network(arch), Preprocessing(SMALL[arch][1]))
