"""A part of a network, as `tracing` found it, in steps of a plan: what each module and each function of torch becomes.

What is not known here, or has a form that is not, is refused by name.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from nettailor_cli.core.backbones.tracing import Traced, is_sum, module_of
from nettailor_cli.core.deploy.emitting import Emitter
from nettailor_cli.core.deploy.values import Value

_ALIASES = {"downsample_0": "shortcut"}


@dataclass(frozen=True)
class _Pieces:
    """The result of chunk: the value, cut into equal parts along the channels."""

    whole: Value
    count: int


def emit_terms(emitter: Emitter, part: nn.Module, traced: Traced, name: str, x: Value) -> list[Value]:
    """Emit `part`, as `traced`, on `x`: its terms, whose sum is the output. Steps are called `name`_...

    Raises NotImplementedError or AssertionError for what a plan has no words for.
    """
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
            values[node] = _module(emitter, module, label, *map(given, node.args))
        else:
            values[node] = _function(emitter, node, f"{name}_{called}", [given(a) for a in node.args])
    return [given(term) for term in traced.terms]


def emit_whole(emitter: Emitter, part: nn.Module, traced: Traced, name: str, x: Value) -> Value:
    """`emit_terms`, with the terms added up."""
    return emitter.add(emit_terms(emitter, part, traced, name, x), f"{name}_sum")


# --- functions


def _function(emitter: Emitter, node: fx.Node, name: str, args: list[Any]) -> Any:
    target: Any = node.target
    if is_sum(node):
        return emitter.add(args, name)
    if not any(isinstance(one, (Value, _Pieces)) for one in _flat(args)):  # a layer scale in another shape
        return getattr(args[0], target)(*args[1:]) if node.op == "call_method" else target(*args, **node.kwargs)
    if target in (operator.mul, torch.mul, "mul"):
        return emitter.product(*args, name=name)
    if target is F.relu:
        return emitter.relu(args[0], name)
    if target is torch.zeros_like:
        return emitter.times(args[0], name, torch.zeros(args[0].channels, dtype=torch.float64))
    if target in _UNARY_FUNCTIONS:
        bent = "_tanh" if node.kwargs.get("approximate", "none") == "tanh" else ""
        return emitter.unary(_UNARY_FUNCTIONS[target] + bent, args[0], name)
    if target == "contiguous":
        return args[0]
    if target == "permute":
        return _permute(args[0], args[1:] if len(args) > 2 else args[1])
    if target in ("mean", torch.mean):
        return _mean(emitter, args[0], name, *args[1:], **node.kwargs)
    if target in ("flatten", torch.flatten):
        assert args[1:] == [1] and not node.kwargs
        return emitter.flatten(args[0], name)
    if target is torch.cat:
        axis = args[1] if len(args) > 1 else node.kwargs["dim"]
        assert axis == 1
        return emitter.concat(args[0], name)
    if target is F.avg_pool2d:
        given: dict[str, Any] = dict(node.kwargs)
        return _avg_pool(emitter, args[0], name, *args[1:], **given)
    if target is F.max_pool2d:
        given = dict(node.kwargs)
        ceil = bool(given.pop("ceil_mode", False))
        assert not given.pop("return_indices", False)
        return emitter.max_pool(args[0], name, *_window(*args[1:], **given), ceil=ceil)
    if target == "chunk":
        assert node.kwargs == {"dim": 1} and isinstance(args[0], Value)
        return _Pieces(args[0], args[1])
    if target is operator.getitem and isinstance(args[0], _Pieces):
        whole, count = args[0].whole, args[0].count
        size = whole.channels // count
        return emitter.part(whole, name, args[1] * size, (args[1] + 1) * size)
    if target is operator.getitem and isinstance(args[0], Value):
        return _channels(emitter, args[0], name, args[1])
    if getattr(target, "__name__", "") == "channel_shuffle":
        return emitter.shuffle(args[0], name, args[1])
    raise NotImplementedError(f"{name}: {getattr(target, '__name__', target)} can't be exported")


def _permute(x: Value, dims: Sequence[int]) -> Value:
    assert list(dims) == ([0, 3, 1, 2] if x.rows else [0, 2, 3, 1])
    return replace(x, rows=not x.rows)


def _mean(emitter: Emitter, x: Value, name: str, dim: Any, keepdim: Any = False) -> Value:
    if x.rows or not isinstance(dim, (tuple, list)) or sorted(one % 4 for one in dim) != [2, 3]:
        raise NotImplementedError(f"{name}: a mean over {dim} can't be exported")
    average = emitter.average_to(x, name, 1)
    return average if keepdim else emitter.flatten(average, name)


def _channels(emitter: Emitter, x: Value, name: str, index: Any) -> Value:
    """x[:, start:stop, ...]"""
    whole = slice(None)
    if not isinstance(index, list) or len(index) < 2 or any(one != whole for one in (index[0], *index[2:])):
        raise NotImplementedError(f"{name}: taking {index} of a map can't be exported")
    start, stop, step = index[1].indices(x.channels)
    assert step == 1
    return emitter.part(x, name, start, stop)


_UNARY_FUNCTIONS: dict[Any, str] = {
    F.gelu: "gelu",
    F.silu: "silu",
    F.relu6: "relu6",
    F.hardswish: "hard_swish",
    F.hardsigmoid: "hard_sigmoid",
    torch.sigmoid: "sigmoid",
    "sigmoid": "sigmoid",
}

# --- modules


def _module(emitter: Emitter, module: Any, name: str, x: Value) -> Value:
    own = isinstance(module, nn.Conv2d) and type(module) is not nn.Conv2d  # timm's make weights, or look at sizes
    for kind, handler in _MODULES.items():
        if isinstance(module, kind) and not own:
            return handler(emitter, module, name, x)
    if type(module).__name__ == "Permute":
        return _permute(x, module.dims)
    raise NotImplementedError(f"{name}: a {type(module).__name__} can't be exported")


def _max_pool(emitter: Emitter, module: nn.MaxPool2d, name: str, x: Value) -> Value:
    assert not module.return_indices
    window = _window(module.kernel_size, module.stride, module.padding, module.dilation)
    return emitter.max_pool(x, name, *window, ceil=bool(module.ceil_mode))


def _avg_pool_module(emitter: Emitter, module: nn.AvgPool2d, name: str, x: Value) -> Value:
    assert module.divisor_override is None
    counted = (module.ceil_mode, module.count_include_pad)
    return _avg_pool(emitter, x, name, module.kernel_size, module.stride, module.padding, *counted)


def _unary(op: str) -> Callable[[Emitter, Any, str, Value], Value]:
    def handler(emitter: Emitter, module: Any, name: str, x: Value) -> Value:
        bent = "_tanh" if getattr(module, "approximate", "none") == "tanh" else ""
        return emitter.unary(op + bent, x, name)

    return handler


def _flatten(emitter: Emitter, module: nn.Flatten, name: str, x: Value) -> Value:
    assert (module.start_dim, module.end_dim) == (1, -1)
    return emitter.flatten(x, name)


_MODULES: dict[type[nn.Module], Callable[[Emitter, Any, str, Value], Value]] = {
    nn.Conv2d: lambda emitter, module, name, x: emitter.conv(x, name, module),
    nn.Linear: lambda emitter, module, name, x: emitter.linear(x, name, module),
    nn.BatchNorm2d: lambda emitter, module, name, x: emitter.norm(x, name, module),
    nn.LayerNorm: lambda emitter, module, name, x: emitter.layer_norm(x, name, module),
    nn.ReLU6: _unary("relu6"),
    nn.ReLU: lambda emitter, module, name, x: emitter.relu(x, name),
    nn.Hardswish: _unary("hard_swish"),
    nn.Hardsigmoid: _unary("hard_sigmoid"),
    nn.Sigmoid: _unary("sigmoid"),
    nn.SiLU: _unary("silu"),
    nn.GELU: _unary("gelu"),
    nn.MaxPool2d: _max_pool,
    nn.AvgPool2d: _avg_pool_module,
    nn.AdaptiveAvgPool2d: lambda emitter, module, name, x: emitter.average_to(x, name, _square(module.output_size)),
    nn.Flatten: _flatten,
    nn.Identity: lambda emitter, module, name, x: x,
}
"""In this order: a ReLU6 is a Hardtanh, not a ReLU, in torch."""


# --- what both have in common


def _avg_pool(
    emitter: Emitter,
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
    return emitter.avg_pool(x, name, kernel, step, margin, ceil=bool(ceil_mode))


def _window(kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1) -> tuple[int, int, int]:
    """Kernel, stride and padding of a pooling."""
    assert dilation in (1, (1, 1))
    return _square(kernel_size), _square(kernel_size if stride is None else stride), _square(padding)


def _square(value: Any) -> int:
    """A size that is the same in both directions."""
    if isinstance(value, (tuple, list)):
        assert len(set(value)) == 1
        value = value[0]
    assert isinstance(value, int)
    return value


def _flat(args: Any) -> list[Any]:
    """What is in `args`, and in lists and tuples there."""
    return [one for arg in args for one in (_flat(arg) if isinstance(arg, (list, tuple)) else [arg])]


def _attribute(part: nn.Module, name: str) -> Tensor:
    module, _, last = name.rpartition(".")
    value = getattr(part.get_submodule(module), last)
    assert isinstance(value, Tensor)
    return value
