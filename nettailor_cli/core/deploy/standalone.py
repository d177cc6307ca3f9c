"""A network without its makers: runs a plan on tensors, and needs to know nothing of backbones, deltas or alphas.

N images of S x S pixels, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
        x = images.permute(0, 3, 1, 2).to(self._outside) * self._scale + self._shift  # (N, 3, S, S)
        values = {IMAGE: x.to(self.dtype)}
        last_reader = self.plan.last_reader
        for index, step in enumerate(self.plan.steps):
            values[step.output] = self._run(step, [values[name] for name in step.inputs])
            for name in step.inputs:
                if last_reader[name] == index:
                    values.pop(name, None)
        return values[LOGITS].to(self._outside)

    def _run(self, step: Step, inputs: list[Tensor]) -> Tensor:
        x = inputs[0]
        if step.op == "conv":
            weight, bias = getattr(self, step.weight), getattr(self, step.bias)
            y = F.conv2d(x, weight, bias, stride=step.stride, padding=step.padding, groups=step.groups)
        elif step.op == "max_pool":
            y = F.max_pool2d(x, step.kernel, step.stride, step.padding)
        elif step.op == "add":
            y = sum(inputs[1:], start=x)
        elif step.op == "mean":
            y = x.mean(dim=(2, 3))
        else:
            y = F.linear(x, getattr(self, step.weight), getattr(self, step.bias))
        return y.relu() if step.relu else y


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
