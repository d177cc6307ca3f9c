"""A standalone network as plain data: which operations run, on what, in which order. Needs no torch.

A plan starts from the value "image" (N, 3, size, size), normalised, and ends with "logits" (N, classes). Operations:

    conv       one input; cross-correlation with `weight` (out, in / groups, k, k) and `bias` (out,); zero padding
    max_pool   one input; window `kernel` x `kernel`, padding with minus infinity, the size rounded down
    add        the sum of the inputs, which have one shape
    mean       one input (N, C, H, W) -> (N, C), the mean over all pixels
    linear     one input (N, C); x @ weight.T + bias, `weight` (out, C)

`relu` says that negative results become 0 (conv and add). `stride` and `padding` are the same in both directions and
on every side. What is at its default is left out of the JSON.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

IMAGE, LOGITS = "image", "logits"
OPERATIONS = ("conv", "max_pool", "add", "mean", "linear")


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
            weighted = step.op in ("conv", "linear")
            if bool(step.weight) != weighted or bool(step.bias) != weighted or not step.inputs:
                raise ValueError(f"{step.output!r} is not a complete {step.op}")
            if not {*step.inputs} <= known or step.output in known:
                raise ValueError(f"{step.output!r} stands in the wrong place")
            known.add(step.output)
            used |= {step.weight, step.bias} - {""}
        if LOGITS not in known or used != set(tensors):
            raise ValueError("the steps and the tensors don't belong together")

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
