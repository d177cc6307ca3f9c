"""Operations of torch as steps of a plan, with positive factors passed along until something can take them up.

A value stands for `factor` times what is stored under its name. Convolutions, linear layers and norms take the factor
of their input into their weights; ReLU, pooling, shuffling let it through; before anything else a depthwise 1x1
convolution applies it. What a path's result is to be multiplied by goes into the convolutions that make it, if nobody
else reads them, and into a depthwise 1x1 convolution otherwise. Weights are computed at the end, once.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from nettailor_cli.core.backbones.tracing import Traced, is_sum, module_of
from nettailor_cli.core.deploy.plan import Step
from nettailor_cli.core.folding import diagonal, fold

_ALIASES = {"downsample_0": "shortcut"}


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


@dataclass(frozen=True)
class _Pieces:
    """The result of chunk: the value, cut into equal parts along the channels."""

    whole: Value
    count: int


@dataclass
class Emitter:
    """Collects the steps of one network, in the order in which they run."""

    records: list[Record] = field(default_factory=list)

    # --- whole parts

    def run(self, part: nn.Module, traced: Traced, name: str, x: Value) -> list[Value]:
        """Emit `part`, as `traced`, on `x`: its terms, whose sum is the output. Steps are called `name`_..."""
        values: dict[fx.Node, Any] = {}
        only = sum(isinstance(m, nn.Conv2d) for m in part.modules()) == 1

        def given(node: Any) -> Any:
            if isinstance(node, (list, tuple)):
                return [given(one) for one in node]
            if not isinstance(node, fx.Node):
                return node
            value = values[node]
            return value.alone if isinstance(value, Value) and len(node.users) > 1 else value

        for node in traced.graph.nodes:
            called = node.name.lstrip("_")
            if node.op == "call_module" and isinstance(module_of(node, part), nn.Conv2d):
                called = _ALIASES.get(called, called)
            if node.op == "placeholder":
                values[node] = x.alone
            elif node.op == "get_attr":
                values[node] = _attribute(part, str(node.target))
            elif node.op == "output" or node in traced.last_sums:
                continue
            elif node.op == "call_module":
                module = module_of(node, part)
                label = name if only and isinstance(module, nn.Conv2d) else f"{name}_{called}"
                values[node] = self._module(module, label, *map(given, node.args))
            else:
                values[node] = self._function(node, f"{name}_{called}", [given(a) for a in node.args])
        return [given(term) for term in traced.terms]

    def whole(self, part: nn.Module, traced: Traced, name: str, x: Value) -> Value:
        """`run`, with the terms added up."""
        return self.add(self.run(part, traced, name, x), f"{name}_sum")

    # --- single steps

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

    def norm(self, x: Value, name: str, norm: nn.Module) -> Value:
        """A batch norm: into the convolution before it, if that is its own, else a depthwise convolution."""
        record = x.record
        if record is not None and record.is_bare_convolution:
            record.norm = norm
            return x
        return self._layer(Step("conv", (x.name,), name, groups=x.channels), x, norm, x.channels)

    def relu(self, x: Value, name: str) -> Value:
        if x.positive:
            return x
        record = x.record
        if record is not None and record.step.op in ("conv", "add", "linear"):
            record.step = replace(record.step, relu=True)
            return replace(x, positive=True)
        return replace(self._step("relu", [x], name), positive=True)

    def unary(self, op: str, x: Value, name: str) -> Value:
        """A function of each number that lets no factor through."""
        return replace(self._step(op, [self.plain(x)], name), positive=op in ("relu6", "sigmoid", "hard_sigmoid"))

    def max_pool(self, x: Value, name: str, kernel: int, stride: int, padding: int, *, ceil: bool = False) -> Value:
        value = self._step("max_pool", [x], name, kernel=kernel, stride=stride, padding=padding, ceil=ceil)
        return replace(value, positive=x.positive)

    def add(self, terms: Sequence[Value], name: str) -> Value:
        if len(terms) == 1:
            return terms[0]
        names = [self.multiplied(term, 1.0, f"{name}_term{i}") for i, term in enumerate(terms, start=1)]
        return self.sum_of(names, name, terms[0].channels)

    def sum_of(self, names: Sequence[str], name: str, channels: int) -> Value:
        """The sum of values that hold what they stand for."""
        return self._new(Record(Step("add", tuple(names), name)), channels)

    def multiplied(self, x: Value, gain: float, name: str) -> str:
        """The name of a value that holds `gain` times what `x` stands for; where a step is needed it is called `name`.

        What makes `x` is changed if nobody else reads it.
        """
        if _takes(x):
            _take(x, gain)
            return x.name
        total = x.factor * gain
        if math.isclose(total, 1.0, rel_tol=1e-12):
            return x.name
        factors = torch.full((x.channels,), gain, dtype=torch.float64)
        return self._layer(Step("conv", (x.name,), name, groups=x.channels), x, factors, x.channels).name

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

    # --- modules and functions

    def _module(self, module: Any, name: str, x: Value) -> Value:
        own = isinstance(module, nn.Conv2d) and type(module) is not nn.Conv2d  # timm's make weights, or look at sizes
        for kind, handler in _MODULES.items():
            if isinstance(module, kind) and not own:
                return handler(self, module, name, x)
        if type(module).__name__ == "Permute":
            return self._permute(x, module.dims)
        raise NotImplementedError(f"{name}: a {type(module).__name__} can't be exported")

    def _function(self, node: fx.Node, name: str, args: list[Any]) -> Any:
        target: Any = node.target
        if is_sum(node):
            return self.add(args, name)
        if not any(isinstance(one, (Value, _Pieces)) for one in _flat(args)):  # a layer scale in another shape
            return getattr(args[0], target)(*args[1:]) if node.op == "call_method" else target(*args, **node.kwargs)
        if target in (operator.mul, torch.mul, "mul"):
            return self._product(*args, name=name)
        if target is F.relu:
            return self.relu(args[0], name)
        if target is torch.zeros_like:
            zeros = torch.zeros(args[0].channels, dtype=torch.float64)
            return self._layer(Step("conv", (args[0].name,), name, groups=len(zeros)), args[0], zeros, len(zeros))
        if target in _UNARY_FUNCTIONS:
            bent = "_tanh" if node.kwargs.get("approximate", "none") == "tanh" else ""
            return self.unary(_UNARY_FUNCTIONS[target] + bent, args[0], name)
        if target == "contiguous":
            return args[0]
        if target == "permute":
            return self._permute(args[0], args[1:] if len(args) > 2 else args[1])
        if target in ("mean", torch.mean):
            return self._mean(args[0], name, *args[1:], **node.kwargs)
        if target in ("flatten", torch.flatten):
            assert args[1:] == [1] and not node.kwargs
            return self._flatten(args[0], name)
        if target is torch.cat:
            axis = args[1] if len(args) > 1 else node.kwargs["dim"]
            assert axis == 1
            return self._concat(args[0], name)
        if target is F.avg_pool2d:
            given: dict[str, Any] = dict(node.kwargs)
            return self._avg_pool(args[0], name, *args[1:], **given)
        if target is F.max_pool2d:
            given = dict(node.kwargs)
            ceil = bool(given.pop("ceil_mode", False))
            assert not given.pop("return_indices", False)
            return self.max_pool(args[0], name, *_window(*args[1:], **given), ceil=ceil)
        if target == "chunk":
            assert node.kwargs == {"dim": 1} and isinstance(args[0], Value)
            return _Pieces(args[0], args[1])
        if target is operator.getitem and isinstance(args[0], _Pieces):
            whole, count = args[0].whole, args[0].count
            size = whole.channels // count
            return self._part(whole, name, args[1] * size, (args[1] + 1) * size)
        if target is operator.getitem and isinstance(args[0], Value):
            return self._channels(args[0], name, args[1])
        if getattr(target, "__name__", "") == "channel_shuffle":
            return replace(self._step("shuffle", [args[0]], name, groups=args[1]), positive=args[0].positive)
        raise NotImplementedError(f"{name}: {getattr(target, '__name__', target)} can't be exported")

    def _permute(self, x: Value, dims: Sequence[int]) -> Value:
        assert list(dims) == ([0, 3, 1, 2] if x.rows else [0, 2, 3, 1])
        return replace(x, rows=not x.rows)

    def _mean(self, x: Value, name: str, dim: Any, keepdim: Any = False) -> Value:
        if x.rows or not isinstance(dim, (tuple, list)) or sorted(one % 4 for one in dim) != [2, 3]:
            raise NotImplementedError(f"{name}: a mean over {dim} can't be exported")
        average = self._average_to(x, name, 1)
        return average if keepdim else self._flatten(average, name)

    def _channels(self, x: Value, name: str, index: Any) -> Value:
        """x[:, start:stop, ...]"""
        whole = slice(None)
        if not isinstance(index, list) or len(index) < 2 or any(one != whole for one in (index[0], *index[2:])):
            raise NotImplementedError(f"{name}: taking {index} of a map can't be exported")
        start, stop, step = index[1].indices(x.channels)
        assert step == 1
        return self._part(x, name, start, stop)

    def _part(self, x: Value, name: str, start: int, stop: int) -> Value:
        value = self._step("slice", [x], name, start=start, stop=stop)
        return replace(value, channels=stop - start, positive=x.positive)

    def _product(self, one: Value | Tensor | float, other: Value | Tensor | float, *, name: str) -> Value:
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
            return self._layer(Step("conv", (one.name,), name, groups=one.channels), one, factors, one.channels)
        value = self._new(Record(Step("mul", (one.name, other.name), name)), max(one.channels, other.channels))
        return replace(value, factor=one.factor * other.factor, positive=one.positive and other.positive)

    def _concat(self, values: Sequence[Value], name: str) -> Value:
        same = all(math.isclose(value.factor, values[0].factor, rel_tol=1e-12) for value in values)
        factor = values[0].factor if same else 1.0
        names = [v.name if same else self.multiplied(v, 1.0, f"{name}_part{i}") for i, v in enumerate(values, start=1)]
        record = Record(Step("concat", tuple(names), name), merged=tuple(values) if same else ())
        value = self._new(record, sum(value.channels for value in values))
        return replace(value, factor=factor, positive=all(value.positive for value in values))

    def _avg_pool(
        self,
        x: Value,
        name: str,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> Value:
        kernel, step, margin = _window(kernel_size, stride, padding)
        assert margin == 0 or (count_include_pad and not ceil_mode)
        value = self._step("avg_pool", [x], name, kernel=kernel, stride=step, padding=margin, ceil=bool(ceil_mode))
        return replace(value, positive=x.positive)

    def _average_to(self, x: Value, name: str, size: Any) -> Value:
        rows, columns = size if isinstance(size, (tuple, list)) else (size, size)
        assert rows == columns
        op = "average" if rows == 1 else "average_to"
        return replace(self._step(op, [x], name, kernel=rows), positive=x.positive)

    def _flatten(self, x: Value, name: str) -> Value:
        if x.record is not None and x.record.step.op == "average":
            x.record.step = replace(x.record.step, op="mean")
            return x
        return replace(self._step("flatten", [x], name), positive=x.positive)

    def _linear(self, x: Value, name: str, layer: nn.Linear) -> Value:
        if x.rows:
            return replace(self.conv(x, name, layer), rows=True)
        return self._layer(Step("linear", (x.name,), name), x, layer, layer.out_features)

    def _layer_norm(self, x: Value, name: str, norm: nn.LayerNorm) -> Value:
        assert norm.normalized_shape == (x.channels,)
        x = self.plain(x)
        value = self._layer(Step("layer_norm", (x.name,), name, epsilon=norm.eps), x, norm, x.channels)
        return replace(value, rows=x.rows)

    def _layer(self, step: Step, x: Value, layer: nn.Module | Tensor, channels: int) -> Value:
        step = replace(step, weight=f"{step.output}_weight", bias=f"{step.output}_bias")
        return self._new(Record(step, layer, scale=x.factor), channels)

    def _step(self, op: str, inputs: Sequence[Value], name: str, **details: Any) -> Value:
        x = inputs[0]
        value = self._new(Record(Step(op, tuple(one.name for one in inputs), name, **details)), x.channels)
        return replace(value, factor=x.factor, rows=x.rows)

    def _new(self, record: Record, channels: int) -> Value:
        self.records.append(record)
        return Value(record.step.output, channels, record=record)


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


def _takes(x: Value) -> bool:
    """Whether what makes `x` can take up a factor."""
    record = x.record
    if record is None:
        return False
    if record.layer is not None:
        return record.step.op == "conv"
    return bool(record.merged) and all(map(_takes, record.merged))


def _take(x: Value, gain: float) -> None:
    assert x.record is not None and gain > 0
    if x.record.layer is not None:
        x.record.gain = x.record.gain * gain
    for value in x.record.merged:
        _take(value, gain)


def _flat(args: Any) -> list[Any]:
    """What is in `args`, and in lists and tuples there."""
    return [one for arg in args for one in (_flat(arg) if isinstance(arg, (list, tuple)) else [arg])]


def _attribute(part: nn.Module, name: str) -> Tensor:
    module, _, last = name.rpartition(".")
    value = getattr(part.get_submodule(module), last)
    assert isinstance(value, Tensor)
    return value


def _window(kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1) -> tuple[int, int, int]:
    assert dilation in (1, (1, 1))

    def one(value: Any) -> int:
        if isinstance(value, (tuple, list)):
            assert len(set(value)) == 1
            return int(value[0])
        return int(value)

    return one(kernel_size), one(kernel_size if stride is None else stride), one(padding)


def _max_pool(emitter: Emitter, module: nn.MaxPool2d, name: str, x: Value) -> Value:
    assert not module.return_indices
    window = _window(module.kernel_size, module.stride, module.padding, module.dilation)
    return emitter.max_pool(x, name, *window, ceil=bool(module.ceil_mode))


def _avg_pool(emitter: Emitter, module: nn.AvgPool2d, name: str, x: Value) -> Value:
    assert module.divisor_override is None
    counted = (module.ceil_mode, module.count_include_pad)
    return emitter._avg_pool(x, name, module.kernel_size, module.stride, module.padding, *counted)


def _unary(op: str) -> Callable[[Emitter, Any, str, Value], Value]:
    def handler(emitter: Emitter, module: Any, name: str, x: Value) -> Value:
        bent = "_tanh" if getattr(module, "approximate", "none") == "tanh" else ""
        return emitter.unary(op + bent, x, name)

    return handler


def _same(emitter: Emitter, module: Any, name: str, x: Value) -> Value:
    return x


def _flatten(emitter: Emitter, module: nn.Flatten, name: str, x: Value) -> Value:
    assert (module.start_dim, module.end_dim) == (1, -1)
    return emitter._flatten(x, name)


_UNARY_FUNCTIONS: dict[Any, str] = {
    F.gelu: "gelu",
    F.silu: "silu",
    F.relu6: "relu6",
    F.hardswish: "hard_swish",
    F.hardsigmoid: "hard_sigmoid",
    torch.sigmoid: "sigmoid",
    "sigmoid": "sigmoid",
}

_MODULES: dict[type[nn.Module], Callable[[Emitter, Any, str, Value], Value]] = {
    nn.Conv2d: lambda emitter, module, name, x: emitter.conv(x, name, module),
    nn.Linear: lambda emitter, module, name, x: emitter._linear(x, name, module),
    nn.BatchNorm2d: lambda emitter, module, name, x: emitter.norm(x, name, module),
    nn.LayerNorm: lambda emitter, module, name, x: emitter._layer_norm(x, name, module),
    nn.ReLU6: _unary("relu6"),
    nn.ReLU: lambda emitter, module, name, x: emitter.relu(x, name),
    nn.Hardswish: _unary("hard_swish"),
    nn.Hardsigmoid: _unary("hard_sigmoid"),
    nn.Sigmoid: _unary("sigmoid"),
    nn.SiLU: _unary("silu"),
    nn.GELU: _unary("gelu"),
    nn.MaxPool2d: _max_pool,
    nn.AvgPool2d: _avg_pool,
    nn.AdaptiveAvgPool2d: lambda emitter, module, name, x: emitter._average_to(x, name, module.output_size),
    nn.Flatten: _flatten,
    nn.Identity: _same,
}
"""In this order: a ReLU6 is a Hardtanh, not a ReLU, in torch."""
