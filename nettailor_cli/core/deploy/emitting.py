"""Steps of a plan, with positive factors passed along until something can take them up.

Convolutions, linear layers and norms take the factor of their input into their weights; ReLU, pooling, shuffling let it
through; before anything else a depthwise 1x1 convolution applies it. What a path's result is to be multiplied by goes
into the convolutions that make it, if nobody else reads them, and into a depthwise 1x1 convolution otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from nettailor_cli.core.deploy.plan import Step
from nettailor_cli.core.deploy.values import Record, Value, take, takes


@dataclass
class Emitter:
    """Collects the steps of one network, in the order in which they run."""

    records: list[Record] = field(default_factory=list)

    # --- layers

    def conv(self, x: Value, name: str, conv: nn.Module, norm: nn.Module | None = None) -> Value:
        """A Conv2d, or a linear layer over the channels of a map."""
        if isinstance(conv, nn.Linear):
            return self._layer(Step("conv", (x.name,), name), x, conv, conv.out_features)
        assert isinstance(conv, nn.Conv2d)
        if conv.dilation != (1, 1) or conv.stride[0] != conv.stride[1]:
            raise NotImplementedError(f"{name}: a convolution with dilation, or uneven strides, can't be exported")
        assert not isinstance(conv.padding, str) and conv.padding_mode == "zeros"
        rows, columns = conv.padding
        step = Step("conv", (x.name,), name, stride=conv.stride[0], padding=rows, groups=conv.groups)
        if columns != rows:
            step = replace(step, padding_columns=columns)
        value = self._layer(step, x, conv, conv.out_channels)
        if norm is not None:
            value = self.norm(value, name, norm)
        return value

    def linear(self, x: Value, name: str, layer: nn.Linear) -> Value:
        if x.rows:
            return replace(self.conv(x, name, layer), rows=True)
        return self._layer(Step("linear", (x.name,), name), x, layer, layer.out_features)

    def norm(self, x: Value, name: str, norm: nn.Module) -> Value:
        """A batch norm: into the convolution before it, if that is its own, else a depthwise convolution."""
        record = x.record
        if record is not None and record.is_bare_convolution:
            record.norm = norm
            return x
        return self._layer(Step("conv", (x.name,), name, groups=x.channels), x, norm, x.channels)

    def layer_norm(self, x: Value, name: str, norm: nn.LayerNorm) -> Value:
        assert norm.normalized_shape == (x.channels,)
        x = self.plain(x)
        value = self._layer(Step("layer_norm", (x.name,), name, epsilon=norm.eps), x, norm, x.channels)
        return replace(value, rows=x.rows)

    # --- a map by itself

    def relu(self, x: Value, name: str) -> Value:
        if x.positive:
            return x
        record = x.record
        if record is not None and record.step.op in ("conv", "add", "linear"):
            record.step = replace(record.step, relu=True)
            return replace(x, positive=True)
        return replace(self._step("relu", x, name), positive=True)

    def unary(self, op: str, x: Value, name: str) -> Value:
        """A function of each number that lets no factor through."""
        return replace(self._step(op, self.plain(x), name), positive=op in ("relu6", "sigmoid", "hard_sigmoid"))

    def max_pool(self, x: Value, name: str, kernel: int, stride: int, padding: int, *, ceil: bool = False) -> Value:
        return self._step("max_pool", x, name, kernel=kernel, stride=stride, padding=padding, ceil=ceil)

    def avg_pool(self, x: Value, name: str, kernel: int, stride: int, padding: int, *, ceil: bool = False) -> Value:
        return self._step("avg_pool", x, name, kernel=kernel, stride=stride, padding=padding, ceil=ceil)

    def average_to(self, x: Value, name: str, size: int) -> Value:
        """Means over size x size equal parts of the map."""
        op = "average" if size == 1 else "average_to"
        return self._step(op, x, name, kernel=size)

    def flatten(self, x: Value, name: str) -> Value:
        if x.record is not None and x.record.step.op == "average":
            x.record.step = replace(x.record.step, op="mean")
            return x
        return self._step("flatten", x, name)

    def part(self, x: Value, name: str, start: int, stop: int) -> Value:
        """Channels `start` to `stop`."""
        return replace(self._step("slice", x, name, start=start, stop=stop), channels=stop - start)

    def shuffle(self, x: Value, name: str, groups: int) -> Value:
        """Channels of `groups` groups taken in turn."""
        return self._step("shuffle", x, name, groups=groups)

    # --- several maps

    def add(self, terms: Sequence[Value], name: str) -> Value:
        if len(terms) == 1:
            return terms[0]
        names = [self.multiplied(term, 1.0, f"{name}_term{i}") for i, term in enumerate(terms, start=1)]
        return self.sum_of(names, name, terms[0].channels)

    def sum_of(self, names: Sequence[str], name: str, channels: int) -> Value:
        """The sum of values that hold what they stand for."""
        return self._new(Record(Step("add", tuple(names), name)), channels)

    def product(self, one: Value | Tensor | float, other: Value | Tensor | float, *, name: str) -> Value:
        """Two maps, one of which may have a single position; or a map and a number, or one per channel."""
        if not isinstance(one, Value):
            one, other = other, one
        assert isinstance(one, Value)
        if isinstance(other, (int, float)):
            other = torch.full((one.channels,), float(other))
        if isinstance(other, Tensor):
            factors = other.detach().cpu().double().reshape(-1)
            assert len(factors) == one.channels
            record = one.record
            if record is not None and record.layer is not None and record.step.op == "conv" and not record.step.relu:
                record.gain = record.gain * factors
                return replace(one, positive=False)
            return self.times(one, name, factors)
        value = self._new(Record(Step("mul", (one.name, other.name), name)), max(one.channels, other.channels))
        return replace(value, factor=one.factor * other.factor, positive=one.positive and other.positive)

    def concat(self, values: Sequence[Value], name: str) -> Value:
        """Along the channels."""
        same = all(math.isclose(value.factor, values[0].factor, rel_tol=1e-12) for value in values)
        factor = values[0].factor if same else 1.0
        names = [v.name if same else self.multiplied(v, 1.0, f"{name}_part{i}") for i, v in enumerate(values, start=1)]
        record = Record(Step("concat", tuple(names), name), merged=tuple(values) if same else ())
        value = self._new(record, sum(value.channels for value in values))
        return replace(value, factor=factor, positive=all(value.positive for value in values))

    # --- factors and names

    def multiplied(self, x: Value, gain: float, name: str) -> str:
        """The name of a value that holds `gain` times what `x` stands for; where a step is needed it is called `name`.

        What makes `x` is changed if nobody else reads it.
        """
        if takes(x):
            take(x, gain)
            return x.name
        total = x.factor * gain
        if math.isclose(total, 1.0, rel_tol=1e-12):
            return x.name
        factors = torch.full((x.channels,), gain, dtype=torch.float64)
        return self.times(x, name, factors).name

    def times(self, x: Value, name: str, factors: Tensor) -> Value:
        """`x` multiplied by one number per channel, float64, in a step of its own."""
        return self._layer(Step("conv", (x.name,), name, groups=x.channels), x, factors, x.channels)

    def plain(self, x: Value) -> Value:
        """`x` with a factor of 1."""
        if math.isclose(x.factor, 1.0, rel_tol=1e-12):
            return x
        return replace(x, name=self.multiplied(x, 1.0, f"{x.name}_plain"), factor=1.0, record=None)

    def renamed(self, x: Value, name: str) -> Value:
        """`x` under another name, where nobody has read it yet."""
        if x.record is None:
            return x
        x.record.step = replace(x.record.step, output=name)
        return replace(x, name=name)

    # --- how steps are made

    def _layer(self, step: Step, x: Value, layer: nn.Module | Tensor, channels: int) -> Value:
        step = replace(step, weight=f"{step.output}_weight", bias=f"{step.output}_bias")
        return self._new(Record(step, layer, scale=x.factor), channels)

    def _step(self, op: str, x: Value, name: str, **details: Any) -> Value:
        """A step without weights that lets the factor of `x` through, and no number change its sign."""
        value = self._new(Record(Step(op, (x.name,), name, **details)), x.channels)
        return replace(value, factor=x.factor, rows=x.rows, positive=x.positive)

    def _new(self, record: Record, channels: int) -> Value:
        self.records.append(record)
        return Value(record.step.output, channels, record=record)
