from __future__ import annotations

import pytest
import torch
from torch import nn

from nettailor_cli.core.errors import UsageError
from nettailor_cli.core.training.norms import enough_values, try_one_picture
from nettailor_cli.core.training.precision import Machine

CPU = Machine(torch.device("cpu"), bf16=False, reason="")


def network() -> nn.Sequential:
    """Divides the side by eight: 8 pixels come out as 1 x 1, 16 as 2 x 2."""
    layers = [nn.Conv2d(3, 4, 3, stride=8, padding=1), nn.BatchNorm2d(4)]
    return nn.Sequential(*layers)


def test_one_value_per_channel_is_refused_and_nothing_is_changed() -> None:
    module = network()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(UsageError, match="teach: batch norm can't be trained on one image") as caught:
        try_one_picture("teach", module, module, 8, CPU)
    assert "--batch-size" in caught.value.hint and "--accumulate" in caught.value.hint
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_larger_maps_are_let_through_and_nothing_is_changed() -> None:
    module = network()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    try_one_picture("teach", module, module, 16, CPU)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert module[1].num_batches_tracked.item() == 0


def test_other_mistakes_are_not_taken_for_that_one() -> None:
    with pytest.raises(ValueError, match="another"), enough_values("teach"):
        raise ValueError("another")
