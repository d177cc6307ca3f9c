"""A standalone network as plain data: which operations run, on what, in which order. Needs no torch.

A plan starts from the value "image" (N, 3, size, size), normalised, and ends with "logits" (N, classes). Operations:

    conv          one input; cross-correlation with `weight` (out, in / groups, k, k) and `bias` (out,); zero padding
    max_pool      one input; window `kernel` x `kernel`, padding with minus infinity, the size rounded down, or up with
                  `ceil` (a last window that starts beyond the input is left out)
    add           the sum of the inputs, which have one shape
    mean          one input (N, C, H, W) -> (N, C), the mean over all pixels
    linear        one input (N, C); x @ weight.T + bias, `weight` (out, C)

and, in version 2 of the format:

    avg_pool      one input; as max_pool, the mean of a window, in which padding counts as zeros; with `ceil` there is
                  no padding, and the mean is of what lies in the input
    average       one input (N, C, H, W) -> (N, C, 1, 1), the mean over all pixels
    average_to    one input (N, C, H, W) -> (N, C, kernel, kernel); row i is the mean of rows floor(i H / kernel) up to
                  ceil((i + 1) H / kernel), columns likewise
    flatten       one input (N, C, H, W) -> (N, C * H * W)
    layer_norm    one input; over the channels of each pixel: (x - mean) / sqrt(variance + epsilon) * weight + bias
    mul           the product of two inputs, one of which may be (N, C, 1, 1)
    concat        the inputs' channels one after the other
    slice         the input's channels from `start` up to `stop`
    shuffle       channel c = g * (C / groups) + i goes to i * groups + g
    relu relu6 sigmoid hard_sigmoid hard_swish silu gelu gelu_tanh
                  one input; of each number: max(x, 0); min(max(x, 0), 6); 1 / (1 + exp(-x)); relu6(x + 3) / 6;
                  x * hard_sigmoid(x); x * sigmoid(x); x * (1 + erf(x / sqrt(2))) / 2;
                  x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3))) / 2

`relu` says that negative results become 0 (conv, add and linear). `stride` and `padding` are the same in both
directions and on every side, but for `padding_columns`, left and right, where it is not -1. What is at its default is
left out of the JSON.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

IMAGE, LOGITS = "image", "logits"
_FIRST = ("conv", "max_pool", "add", "mean", "linear")
UNARY = ("relu", "relu6", "sigmoid", "hard_sigmoid", "hard_swish", "silu", "gelu", "gelu_tanh")
_SECOND = ("avg_pool", "average", "average_to", "flatten", "layer_norm", "mul", "concat", "slice", "shuffle", *UNARY)
OPERATIONS = (*_FIRST, *_SECOND)
_WEIGHTED = ("conv", "linear", "layer_norm")


@dataclass(frozen=True)
class Step:
    """One operation: the value `output` from the values `inputs`. `weight` and `bias` are names of tensors."""

    op: str
    inputs: tuple[str, ...]
    output: str
    weight: str = ""
    bias: str = ""
    kernel: int = 1
    stride: int = 1
    padding: int = 0
    groups: int = 1
    relu: bool = False
    ceil: bool = False
    padding_columns: int = -1
    start: int = 0
    stop: int = 0
    epsilon: float = 0.0

    @property
    def paddings(self) -> tuple[int, int]:
        """Above and below, left and right."""
        return self.padding, self.padding if self.padding_columns < 0 else self.padding_columns

    def to_json(self) -> dict[str, Any]:
        defaults = {field.name: field.default for field in fields(self)}
        told = {name: value for name, value in asdict(self).items() if value != defaults[name]}
        return {**told, "inputs": list(self.inputs)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Step:
        """Raises KeyError, TypeError or ValueError when the document is not one that `to_json` wrote."""
        step = cls(**{**document, "inputs": tuple(document["inputs"])})
        for field in fields(cls):
            kind = type(getattr(step, field.name)).__name__
            if kind != ("tuple" if field.name == "inputs" else field.type):
                raise TypeError(f"{field.name} of {step.output!r} is a {kind}")
        return step


@dataclass(frozen=True)
class Plan:
    """The steps of one network, in an order in which they can run."""

    steps: tuple[Step, ...]

    def check(self, tensors: Collection[str]) -> None:
        """Raises ValueError when this can't run on tensors of these names, or would leave one of them unused."""
        known, used = {IMAGE}, set()
        for step in self.steps:
            if step.op not in OPERATIONS:
                raise ValueError(f"an unknown operation {step.op!r}")
            weighted = step.op in _WEIGHTED
            if bool(step.weight) != weighted or bool(step.bias) != weighted or not step.inputs:
                raise ValueError(f"{step.output!r} is not a complete {step.op}")
            if not {*step.inputs} <= known or step.output in known:
                raise ValueError(f"{step.output!r} stands in the wrong place")
            known.add(step.output)
            used |= {step.weight, step.bias} - {""}
        if LOGITS not in known or used != set(tensors):
            raise ValueError("the steps and the tensors don't belong together")

    @property
    def version(self) -> int:
        """Of the format: the oldest that has these operations."""
        old = (step.op in _FIRST and not step.ceil and step.padding_columns < 0 for step in self.steps)
        linear = all(not (step.relu and step.op == "linear") for step in self.steps)
        return 1 if all(old) and linear else 2

    @property
    def last_reader(self) -> dict[str, int]:
        """Which step is the last to read each value, by index: after it the value's memory is free."""
        return {name: index for index, step in enumerate(self.steps) for name in step.inputs}


def needed(steps: Collection[Step]) -> tuple[Step, ...]:
    """`steps` without those whose value nothing reads on the way to the logits."""
    wanted, kept = {LOGITS}, []
    for step in reversed(tuple(steps)):
        if step.output in wanted:
            wanted.update(step.inputs)
            kept.append(step)
    return tuple(reversed(kept))
