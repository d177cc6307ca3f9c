"""The published training step, written plainly: what the benchmark compares the tool's with.

fp32, NCHW, every block of the student run twice per step (once for the output, once from detached inputs for the
hints), the attention path by path in Python, the teacher with its batch norms as they are.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nettailor_cli.core.backbones.torchvision_shim import import_torchvision

SKIPS = 3


class Network(nn.Module):
    """torchvision's ResNet, node by node."""

    def __init__(self, arch: str, classes: int) -> None:
        super().__init__()
        self.net = getattr(import_torchvision().models, arch)(weights=None, num_classes=classes)
        self.blocks = [*self.net.layer1, *self.net.layer2, *self.net.layer3, *self.net.layer4]

    def stem(self, images: Tensor) -> Tensor:
        return self.net.maxpool(self.net.relu(self.net.bn1(self.net.conv1(images))))

    def head(self, last: Tensor) -> Tensor:
        return self.net.fc(torch.flatten(self.net.avgpool(last), 1))

    def forward(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        nodes = [self.stem(images)]
        for block in self.blocks:
            nodes.append(block(nodes[-1]))
        return nodes, self.head(nodes[-1])


def proxy(channels_in: int, channels_out: int, bottleneck: bool) -> nn.Module:
    if not bottleneck:
        return nn.Sequential(nn.Conv2d(channels_in, channels_out, 1, bias=False), nn.BatchNorm2d(channels_out))
    width = max(channels_out // 32, 16)
    return nn.Sequential(
        nn.Conv2d(channels_in, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, channels_out, 1, bias=False), nn.BatchNorm2d(channels_out),
    )  # fmt: skip


class Student(nn.Module):
    """Eqs. 2-4. Statistics of the universal batch norms are adapted, as published."""

    def __init__(self, arch: str, classes: int) -> None:
        super().__init__()
        self.backbone = Network(arch, classes)
        for parameter in self.backbone.parameters():
            parameter.requires_grad_(False)
        self.backbone.net.fc.requires_grad_(True)
        blocks = self.backbone.blocks
        bottleneck = hasattr(blocks[0], "conv3")
        width = [self.backbone.net.conv1.out_channels]
        width += [(block.conv3 if bottleneck else block.conv2).out_channels for block in blocks]
        self.strides = [block.stride for block in blocks]
        self.proxies = nn.ModuleDict()
        self.logits = nn.ParameterDict()
        self.sources: list[list[int]] = []
        for sink in range(1, len(blocks) + 1):
            sources = list(range(sink - 1, max(-1, sink - 1 - SKIPS), -1))
            self.sources.append(sources)
            for source in sources:
                self.proxies[f"{source}-{sink}"] = proxy(width[source], width[sink], bottleneck)
            self.logits[str(sink)] = nn.Parameter(torch.tensor([2.0] + [-2.0] * len(sources)))

    def node(self, sink: int, nodes: list[Tensor]) -> Tensor:
        alpha = self.logits[str(sink)].softmax(dim=0)
        block = self.backbone.blocks[sink - 1]
        x = alpha[0] * block(nodes[sink - 1])
        for number, source in enumerate(self.sources[sink - 1], start=1):
            stride = math.prod(self.strides[source:sink])
            y = nodes[source]
            if stride > 1:
                y = F.max_pool2d(y, stride + 1, stride, stride // 2)
            x = x + alpha[number] * self.proxies[f"{source}-{sink}"](y)
        return F.relu(x)

    def forward(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        nodes = [self.backbone.stem(images)]
        for sink in range(1, len(self.sources) + 1):
            nodes.append(self.node(sink, nodes))
        return nodes, self.backbone.head(nodes[-1])

    def expected_complexity(self) -> Tensor:
        """Eq. 9 in shape: a sum over the paths, each with the products over its neighbours, in Python."""
        alphas = {sink: self.logits[str(sink)].softmax(dim=0) for sink in range(1, len(self.sources) + 1)}
        total = torch.zeros(())
        for sink, alpha in alphas.items():
            for number, source in enumerate([sink - 1, *self.sources[sink - 1]]):
                gone_in = torch.zeros(()) if source == 0 else (1 - alphas[source]).prod()
                last = sink == len(self.sources)
                out = [alphas[s][self.sources[s - 1].index(sink) + 1] for s in alphas if sink in self.sources[s - 1]]
                gone_out = torch.zeros(()) if last else torch.stack([1 - a for a in out]).prod()
                total = total + (alpha[number] - gone_in - gone_out) / len(alphas)
        return total


class Step:
    """One published step of tailoring: cross-entropy, gamma1 E[C], gamma2 times the block-local hints; SGD."""

    def __init__(self, arch: str, classes: int) -> None:
        self.teacher, self.student = Network(arch, classes).eval(), Student(arch, classes)
        self.student.train()
        weights = [p for name, p in self.student.named_parameters() if p.requires_grad and "logits" not in name]
        groups = [{"params": weights, "weight_decay": 5e-4}, {"params": list(self.student.logits.parameters())}]
        self.optimiser = torch.optim.SGD(groups, lr=0.01, momentum=0.9)

    def __call__(self, images: Tensor, labels: Tensor) -> None:
        with torch.no_grad():
            wanted, wanted_logits = self.teacher(images)
        nodes, logits = self.student(images)
        loss = F.cross_entropy(logits, labels) + 0.3 * self.student.expected_complexity()
        detached = [node.detach() for node in nodes]
        hint = F.mse_loss(logits, wanted_logits)
        for sink in range(1, len(nodes)):
            hint = hint + F.mse_loss(self.student.node(sink, detached), wanted[sink])
        loss = loss + 10.0 * hint / (len(nodes) - 1)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
