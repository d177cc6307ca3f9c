"""Single parts as steps of a plan, each against torch itself, with a factor that has to go somewhere."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nettailor_cli.core.backbones.tracing import trace
from nettailor_cli.core.deploy.emitting import Emitter
from nettailor_cli.core.deploy.operations import emit_terms
from nettailor_cli.core.deploy.plan import IMAGE, LOGITS, Plan, Step
from nettailor_cli.core.deploy.standalone import StandaloneNetwork
from nettailor_cli.core.deploy.values import Value, tensors_of
from nettailor_cli.core.preprocessing import Preprocessing
from tests.core.deploy.networks import distance

C = 6
FACTOR = 0.3


class Shuffled(nn.Module):
    """A branch beside what passes by, as ShuffleNet has it."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Conv2d(C // 2, C // 2, 1), nn.BatchNorm2d(C // 2), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, dim=1)
        return torch.cat((left, self.branch(right)), dim=1)


class Gated(nn.Module):
    """Squeeze and excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.squeeze = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(C, 2, 1), nn.SiLU(), nn.Conv2d(2, C, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.squeeze(x)) * x


class Scaled(nn.Module):
    """A shortcut, and a number per channel before it: ConvNeXt's."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(C, C, 3, padding=1, groups=C)
        self.layer_scale = nn.Parameter(torch.linspace(-1, 1, C)[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer_scale * self.conv(x)
        y += x
        return y


class ScaledInput(nn.Module):
    """The number per channel on what nobody here made."""

    def __init__(self) -> None:
        super().__init__()
        self.layer_scale = nn.Parameter(torch.linspace(-1, 1, C)[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x * self.layer_scale, 3, 1, 1) + F.max_pool2d(x, 3, 1, 1)


class ReadTwice(nn.Module):
    """A convolution whose result two read: neither may change it for the other."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(C, C, 1)
        self.norm = nn.BatchNorm2d(C)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.norm(y) + F.relu(y)


class ScaledThenNormed(nn.Module):
    """The norm comes after the numbers per channel, and can't go into the convolution before them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(C, C, 1)
        self.layer_scale = nn.Parameter(torch.linspace(-1, 1, C)[:, None, None])
        self.norm = nn.BatchNorm2d(C)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.layer_scale * self.conv(x))
        return y


PARTS: dict[str, nn.Module] = {
    "biased convolution with a norm": nn.Sequential(nn.Conv2d(C, C, 3, bias=True), nn.BatchNorm2d(C), nn.ReLU6()),
    "norm first": nn.Sequential(nn.BatchNorm2d(C), nn.ReLU(), nn.Conv2d(C, C, 1, bias=False), nn.AvgPool2d(2)),
    "rectangular": nn.Sequential(nn.Conv2d(C, C, (1, 7), padding=(0, 3)), nn.Conv2d(C, C, (3, 1), padding=(1, 0))),
    "hard": nn.Sequential(nn.Hardswish(), nn.Hardsigmoid()),
    "smooth": nn.Sequential(nn.SiLU(), nn.GELU(), nn.Sigmoid()),
    "rounded up": nn.Sequential(nn.MaxPool2d(3, 2, ceil_mode=True), nn.AvgPool2d(2, ceil_mode=True)),
    "shuffled": Shuffled(),
    "gated": Gated(),
    "scaled": Scaled(),
    "scaled input": ScaledInput(),
    "read twice": ReadTwice(),
    "scaled, then normed": ScaledThenNormed(),
}


def run(steps: Emitter, name: str, x: Tensor) -> Tensor:
    """The value `name` of the emitted steps, in float64."""
    tensors: dict[str, Tensor] = {}
    for record in steps.records:
        tensors |= tensors_of(record)
    head = Step("linear", ("averages",), LOGITS, weight="w", bias="b")
    plan = Plan((*(record.step for record in steps.records), Step("mean", (name,), "averages"), head))
    tensors |= {"w": torch.eye(C, dtype=torch.float64), "b": torch.zeros(C, dtype=torch.float64)}
    network = StandaloneNetwork(plan, tensors, Preprocessing(), "logits")
    return network._values({IMAGE: x}, {})[name]


@pytest.mark.parametrize("gain", [1.0, 0.7])
@pytest.mark.parametrize("factor", [1.0, FACTOR])
@pytest.mark.parametrize("name", PARTS)
def test_a_part_computes_what_torch_does_whatever_its_input_and_output_are_multiplied_by(
    name: str, factor: float, gain: float
) -> None:
    part = PARTS[name].eval().double()
    generator = torch.Generator().manual_seed(0)
    for layer in (module for module in part.modules() if isinstance(module, nn.Conv2d)):
        for tensor in (parameter.data for parameter in layer.parameters()):
            tensor.normal_(0.1, 0.3, generator=generator)
    for norm in (module for module in part.modules() if isinstance(module, nn.BatchNorm2d)):
        for tensor in (norm.running_mean, norm.bias.data, norm.weight.data):
            tensor.normal_(0.5, 0.5, generator=generator)
    stored = torch.randn(2, C, 11, 11, generator=generator, dtype=torch.float64)
    emitter, traced = Emitter(), trace(part)
    terms = emit_terms(emitter, part, traced, "part", Value(IMAGE, C, factor))
    names = [emitter.multiplied(term, gain, f"part_gain{i}") for i, term in enumerate(terms)]
    result = emitter.sum_of(names, "sum", C) if len(names) > 1 else Value(names[0], C)
    with torch.no_grad():
        expected = gain * part(factor * stored)
        assert distance(run(emitter, result.name, stored), expected) < 1e-12


def test_a_shortcut_is_told_from_a_sum_within() -> None:
    assert trace(PARTS["scaled"]).passes_input and len(trace(PARTS["scaled"]).terms) == 2
    assert not trace(PARTS["read twice"]).passes_input
    assert not trace(PARTS["gated"]).passes_input


def test_what_has_no_operation_is_refused_by_name() -> None:
    part = nn.Sequential(nn.Softplus())
    with pytest.raises(NotImplementedError, match="part_0: a Softplus can't be exported"):
        emit_terms(Emitter(), part, trace(part), "part", Value(IMAGE, C))
