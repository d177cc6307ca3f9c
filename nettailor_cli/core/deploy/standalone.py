"""A network without its makers: runs a plan on tensors, and needs to know nothing of backbones, deltas or alphas.

N images of S x S pixels, K classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nettailor_cli.core.deploy.plan import IMAGE, LOGITS, Plan, Step
from nettailor_cli.core.preprocessing import Preprocessing

PROBABILITIES = "probabilities"
OUTPUTS = (PROBABILITIES, LOGITS)

Array = np.ndarray[Any, Any]
Runner = Callable[[Array], tuple[Array, Array]]
"""An exported file as a function, for its check: uint8 (N, S, S, 3) -> its output and its logits, float32 (N, K) each.

Logits too, because probabilities near 0 and 1 would hide a difference.
"""


class StandaloneNetwork(nn.Module):
    """uint8 pictures (N, S, S, 3), RGB, as numpy and Pillow have them -> (N, K) float32.

    `output` "probabilities" or "logits". Convolutions run in the tensors' own type; the pictures are normalised, and
    the softmax is taken, in float32 (in float64 if the tensors are).
    """

    def __init__(self, plan: Plan, tensors: Mapping[str, Tensor], preprocessing: Preprocessing, output: str) -> None:
        super().__init__()
        plan.check(tensors)
        if output not in OUTPUTS:
            raise ValueError(f"an output {output!r}")
        self.plan = plan
        self.preprocessing = preprocessing
        self.output = output
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)
        self._spent = _spent(plan)
        self.dtype = next(iter(tensors.values())).dtype
        self._outside = torch.float64 if self.dtype == torch.float64 else torch.float32
        scale, shift = normalisation(preprocessing)
        self.register_buffer("_scale", torch.tensor(scale, dtype=self._outside)[:, None, None], persistent=False)
        self.register_buffer("_shift", torch.tensor(shift, dtype=self._outside)[:, None, None], persistent=False)

    _scale: Tensor
    _shift: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """Weights and biases by the names that the plan has for them."""
        return dict(self.state_dict())

    def forward(self, images: Tensor) -> Tensor:
        logits = self.logits(images)
        return logits.softmax(dim=1) if self.output == PROBABILITIES else logits

    def logits(self, images: Tensor) -> Tensor:
        """The same pictures -> logits (N, K), whatever `output` is."""
        return self.logits_of(images.permute(0, 3, 1, 2).to(self._outside) * self._scale + self._shift)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """What every value of the plan looks like, without N: (channels, height, width) or (features,)."""
        size = self.preprocessing.size
        with torch.no_grad():
            meta = {name: tensor.to("meta") for name, tensor in self.tensors().items()}
            network = StandaloneNetwork(self.plan, meta, self.preprocessing, self.output)
            values = network._values({IMAGE: torch.empty(1, 3, size, size, dtype=self.dtype, device="meta")}, {})
        return {name: tuple(value.shape[1:]) for name, value in values.items()}

    def logits_of(self, normalised: Tensor) -> Tensor:
        """Pictures (N, 3, S, S) with mean and std applied -> logits (N, K)."""
        values = self._values({IMAGE: normalised.to(self.dtype)}, self.plan.last_reader)
        return values[LOGITS].to(self._outside)

    def _values(self, values: dict[str, Tensor], last_reader: Mapping[str, int]) -> dict[str, Tensor]:
        """Runs the plan; what `last_reader` knows is forgotten behind that step."""
        for index, step in enumerate(self.plan.steps):
            values[step.output] = self._run(step, [values[name] for name in step.inputs])
            for name in step.inputs:
                if last_reader.get(name) == index:
                    values.pop(name, None)
        return values

    def _run(self, step: Step, inputs: list[Tensor]) -> Tensor:
        if step.op in ("conv", "linear", "layer_norm"):
            y = _WEIGHTED[step.op](step, inputs[0], getattr(self, step.weight), getattr(self, step.bias))
        elif step.op == "add":
            y = _sum(inputs, self._spent.get(step.output))
        else:
            y = _PLAIN[step.op](step, *inputs)
        return y.relu_() if step.relu else y  # of a conv, add or linear: nobody else has seen it yet


def _spent(plan: Plan) -> dict[str, int]:
    """Sum -> which of its inputs may take up the others: a convolution made it, for this sum alone.

    Large maps go through memory once less for every tensor that need not be new.
    """
    made = {step.output for step in plan.steps if step.op == "conv"}
    reads = Counter(name for step in plan.steps for name in step.inputs)
    found: dict[str, int] = {}
    for step in plan.steps:
        own = [i for i, name in enumerate(step.inputs) if name in made and reads[name] == 1]
        if step.op == "add" and own:
            found[step.output] = own[0]
    return found


def _sum(inputs: Sequence[Tensor], spent: int | None) -> Tensor:
    """Of all `inputs`; the one numbered `spent` is overwritten with it."""
    if spent is None:
        total, rest = (inputs[0] + inputs[1], inputs[2:]) if len(inputs) > 1 else (inputs[0].clone(), ())
    else:
        total, rest = inputs[spent], [*inputs[:spent], *inputs[spent + 1 :]]
    for x in rest:
        total += x
    return total


def _conv(step: Step, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.conv2d(x, weight, bias, stride=step.stride, padding=step.paddings, groups=step.groups)


def _linear(step: Step, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.linear(x, weight, bias)


def _layer_norm(step: Step, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.layer_norm(x.permute(0, 2, 3, 1), weight.shape, weight, bias, step.epsilon).permute(0, 3, 1, 2)


_WEIGHTED = {"conv": _conv, "linear": _linear, "layer_norm": _layer_norm}
_PLAIN: dict[str, Callable[..., Tensor]] = {
    "max_pool": lambda step, x: F.max_pool2d(x, step.kernel, step.stride, step.padding, ceil_mode=step.ceil),
    "mean": lambda step, x: x.mean(dim=(2, 3)),
    "avg_pool": lambda step, x: F.avg_pool2d(x, step.kernel, step.stride, step.padding, ceil_mode=step.ceil),
    "average": lambda step, x: x.mean(dim=(2, 3), keepdim=True),
    "average_to": lambda step, x: F.adaptive_avg_pool2d(x, step.kernel),
    "flatten": lambda step, x: x.flatten(1),
    "mul": lambda step, x, y: x * y,
    "concat": lambda step, *inputs: torch.cat(inputs, dim=1),
    "slice": lambda step, x: x[:, step.start : step.stop],
    "shuffle": lambda step, x: x.unflatten(1, (step.groups, -1)).transpose(1, 2).flatten(1, 2),
    "relu": lambda step, x: x.relu(),
    "relu6": lambda step, x: F.relu6(x),
    "sigmoid": lambda step, x: x.sigmoid(),
    "hard_sigmoid": lambda step, x: F.hardsigmoid(x),
    "hard_swish": lambda step, x: F.hardswish(x),
    "silu": lambda step, x: F.silu(x),
    "gelu": lambda step, x: F.gelu(x),
    "gelu_tanh": lambda step, x: F.gelu(x, approximate="tanh"),
}
"""How every operation without weights runs; plan.py says what it means."""


class HalfPrecision(StandaloneNetwork):
    """Computes in float32 and rounds every value to half precision: what an accelerator does, on any machine."""

    def __init__(self, network: StandaloneNetwork) -> None:
        tensors = {name: tensor.float() for name, tensor in network.tensors().items()}
        super().__init__(network.plan, tensors, network.preprocessing, network.output)

    def _run(self, step: Step, inputs: list[Tensor]) -> Tensor:
        return super()._run(step, inputs).half().float()


def runner_of(network: StandaloneNetwork) -> Runner:
    """`network` in memory as if it were a file."""

    def run(images: Array) -> tuple[Array, Array]:
        with torch.inference_mode():
            pictures = torch.from_numpy(images)
            return network(pictures).numpy(), network.logits(pictures).numpy()

    return run


def normalisation(preprocessing: Preprocessing) -> tuple[list[float], list[float]]:
    """scale and shift per channel: value in 0..255 times scale plus shift is (value / 255 - mean) / std."""
    pairs = list(zip(preprocessing.mean, preprocessing.std, strict=True))
    return [1 / (255 * std) for _, std in pairs], [-mean / std for mean, std in pairs]
