"""What a step of a plan gives while the plan is being made: a name, and a factor that is still to be taken up.

A value stands for `factor` times what is stored under its name. What a path's result is to be multiplied by goes into
the convolutions that make it, if nobody else reads them. Weights are computed at the end, once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor, nn

from nettailor_cli.core.deploy.plan import Step
from nettailor_cli.core.folding import diagonal, fold


@dataclass
class Record:
    """A step that is not final yet: `layer` with the norm behind it, its input's factor and its output's gain."""

    step: Step
    layer: nn.Module | Tensor | None = None  # a tensor: one number per channel to multiply by
    norm: nn.Module | None = None
    scale: float = 1.0
    gain: float | Tensor = 1.0
    merged: tuple[Value, ...] = ()  # the inputs of a concat that nobody else reads

    @property
    def is_bare_convolution(self) -> bool:
        """Whether a batch norm can still go into it."""
        unscaled = isinstance(self.gain, float) and self.gain == 1.0
        return isinstance(self.layer, nn.Conv2d) and self.norm is None and not self.step.relu and unscaled


@dataclass(frozen=True)
class Value:
    """What a step gives: `factor` times the tensor of the name; `rows`: channels last; `positive`: never below 0."""

    name: str
    channels: int
    factor: float = 1.0
    record: Record | None = None
    rows: bool = False
    positive: bool = False

    @property
    def alone(self) -> Value:
        """As it is for readers who may not change how it was made."""
        return replace(self, record=None)


def tensors_of(record: Record) -> dict[str, Tensor]:
    """The weight and the bias of a step that has them, float64, on the CPU."""
    layer, step = record.layer, record.step
    if layer is None:
        return {}
    if step.op == "layer_norm":
        assert isinstance(layer, nn.LayerNorm)
        weight, bias = (tensor.detach().cpu().double() for tensor in (layer.weight, layer.bias))
    elif isinstance(layer, (nn.Conv2d, nn.Linear)):
        weight, bias = fold(layer, record.norm, scale=record.scale, gain=record.gain)
        if step.op == "conv" and weight.dim() == 2:
            weight = weight[:, :, None, None]
    else:
        weight, bias = diagonal(layer, scale=record.scale, gain=record.gain)
    return {step.weight: weight, step.bias: bias}


def takes(x: Value) -> bool:
    """Whether what makes `x` can take up a factor."""
    record = x.record
    if record is None:
        return False
    if record.layer is not None:
        return record.step.op == "conv"
    return bool(record.merged) and all(map(takes, record.merged))


def take(x: Value, gain: float) -> None:
    assert x.record is not None and gain > 0
    if x.record.layer is not None:
        x.record.gain = x.record.gain * gain
    for value in x.record.merged:
        take(value, gain)
