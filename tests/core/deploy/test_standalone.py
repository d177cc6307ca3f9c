"""Plans on tensors: what a sum may overwrite."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nettailor_cli.core.deploy.plan import IMAGE, LOGITS, Plan, Step
from nettailor_cli.core.deploy.standalone import StandaloneNetwork
from nettailor_cli.core.preprocessing import Preprocessing

SIZE, CHANNELS = 8, 4


def network(*steps: Step) -> StandaloneNetwork:
    """`steps` between a first convolution "x" and a classifier on the mean of "y"."""
    generator = torch.Generator().manual_seed(0)
    first = Step("conv", (IMAGE,), "x", weight="x_w", bias="x_b")
    last = (Step("mean", ("y",), "mean"), Step("linear", ("mean",), LOGITS, weight="head_w", bias="head_b"))
    tensors: dict[str, Tensor] = {}
    for step in (first, *steps, *last):
        if step.weight:
            into = {"x": 3}.get(step.output, CHANNELS)
            shape = (CHANNELS, into) if step.op == "linear" else (CHANNELS, into, 1, 1)
            tensors[step.weight] = torch.randn(shape, generator=generator)
            tensors[step.bias] = torch.randn(CHANNELS, generator=generator)
    return StandaloneNetwork(Plan((first, *steps, *last)), tensors, Preprocessing(SIZE), LOGITS)


def conv(source: str, output: str, *, relu: bool = False) -> Step:
    return Step("conv", (source,), output, weight=f"{output}_w", bias=f"{output}_b", relu=relu)


CASES = {
    "made for the sum": (conv("x", "a"), conv("x", "b"), Step("add", ("x", "a", "b"), "y", relu=True)),
    "read again": (conv("x", "a"), Step("add", ("x", "a"), "s"), Step("add", ("s", "a"), "y")),
    "twice in the sum": (conv("x", "a"), Step("add", ("a", "a", "x"), "y")),
    "a part of it lives on": (
        conv("x", "a"),
        Step("slice", ("a",), "half", start=0, stop=2),
        Step("slice", ("x",), "other", start=2, stop=4),
        Step("add", ("x", "a"), "s"),
        Step("concat", ("half", "other"), "t"),
        Step("add", ("s", "t"), "y"),
    ),
    "of one alone": (Step("add", ("x",), "s", relu=True), Step("add", ("s", "x"), "y")),
    "nothing to spare": (Step("add", ("x", "x"), "s", relu=True), Step("add", ("s", "x"), "y")),
}


@pytest.mark.parametrize("name", CASES)
def test_sums_are_those_of_values_that_nothing_overwrites(name: str) -> None:
    steps, net = CASES[name], network(*CASES[name])
    image = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))

    def value(output: str) -> Tensor:
        """By recursion, every value computed anew from the picture."""
        if output == IMAGE:
            return image.clone()
        step = next(step for step in net.plan.steps if step.output == output)
        inputs = [value(source) for source in step.inputs]
        if step.op == "conv":
            weight, bias = net.tensors()[step.weight], net.tensors()[step.bias]
            made = torch.einsum("oi,nihw->nohw", weight[:, :, 0, 0], inputs[0]) + bias[:, None, None]
        elif step.op == "add":
            made = torch.stack(inputs).sum(dim=0)
        elif step.op == "slice":
            made = inputs[0][:, step.start : step.stop]
        else:
            made = torch.cat(inputs, dim=1)
        return made.clamp(min=0) if step.relu else made

    kept = image.clone()
    head_w, head_b = net.tensors()["head_w"], net.tensors()["head_b"]
    torch.testing.assert_close(net.logits_of(image), value("y").mean(dim=(2, 3)) @ head_w.T + head_b)
    assert torch.equal(image, kept) and steps


def test_a_sum_takes_the_memory_of_the_convolution_that_was_made_for_it() -> None:
    net = network(*CASES["made for the sum"])
    x, a, b = (torch.ones(1, CHANNELS, 2, 2) for _ in range(3))
    total = net._run(net.plan.steps[3], [x, a, b])
    assert total is a and (a == 3).all() and (x == 1).all() and (b == 1).all()
