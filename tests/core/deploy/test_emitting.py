"""Where a factor goes, and how many steps that takes."""

from __future__ import annotations

import torch
from torch import nn

from nettailor_cli.core.deploy.emitting import Emitter
from nettailor_cli.core.deploy.plan import IMAGE
from nettailor_cli.core.deploy.values import Value, tensors_of

C = 4


def convolved(emitter: Emitter, *, relu: bool = False) -> Value:
    value = emitter.conv(Value(IMAGE, C), "a", nn.Conv2d(C, C, 1))
    return emitter.relu(value, "a_relu") if relu else value


def test_a_convolution_takes_up_a_factor_and_its_relu_lets_it_through() -> None:
    emitter = Emitter()
    value = convolved(emitter, relu=True)
    before = tensors_of(emitter.records[0])
    assert emitter.multiplied(value, 0.5, "halved") == "a"
    after = tensors_of(emitter.records[0])
    assert len(emitter.records) == 1
    for name in ("a_weight", "a_bias"):
        torch.testing.assert_close(after[name], before[name] / 2)


def test_what_somebody_else_reads_gets_a_step_of_its_own() -> None:
    emitter = Emitter()
    assert emitter.multiplied(convolved(emitter).alone, 0.5, "halved") == "halved"
    assert [record.step.output for record in emitter.records] == ["a", "halved"]
    torch.testing.assert_close(
        tensors_of(emitter.records[1])["halved_weight"].flatten(), torch.full((C,), 0.5).double()
    )


def test_a_factor_of_one_takes_no_step() -> None:
    emitter = Emitter()
    assert emitter.multiplied(convolved(emitter).alone, 1.0, "same") == "a"
    assert len(emitter.records) == 1


def test_pooling_lets_a_factor_through_and_a_sigmoid_does_not() -> None:
    emitter = Emitter()
    pooled = emitter.max_pool(Value(IMAGE, C, factor=0.5), "pooled", 2, 2, 0)
    assert pooled.factor == 0.5 and len(emitter.records) == 1
    assert emitter.unary("sigmoid", pooled, "bent").factor == 1.0
    assert [record.step.output for record in emitter.records] == ["pooled", "pooled_plain", "bent"]


def test_a_concat_of_unequal_factors_stands_for_itself() -> None:
    emitter = Emitter()
    alike = emitter.concat([Value("x", C, factor=0.5), Value("y", C, factor=0.5)], "alike")
    unequal = emitter.concat([Value("x", C, factor=0.5), Value("y", C, factor=0.25)], "unequal")
    assert (alike.factor, unequal.factor) == (0.5, 1.0)
    assert alike.channels == unequal.channels == 2 * C


def test_a_batch_norm_goes_into_its_convolution_and_not_behind_a_relu() -> None:
    emitter = Emitter()
    assert emitter.norm(convolved(emitter), "normed", nn.BatchNorm2d(C)).name == "a"
    assert emitter.norm(convolved(emitter, relu=True), "normed", nn.BatchNorm2d(C)).name == "normed"
