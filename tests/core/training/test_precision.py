"""Which arithmetic is chosen, and that the reason says why."""

from __future__ import annotations

import pytest
import torch

from nettailor_cli.core.errors import UsageError
from nettailor_cli.core.training import precision
from nettailor_cli.core.training.precision import choose_machine


@pytest.mark.parametrize("speedup, chosen", [(3.0, "bf16"), (1.2, "bf16"), (1.1, "fp32"), (0.3, "fp32")])
def test_bf16_is_chosen_on_a_cpu_where_it_is_measured_to_pay(monkeypatch, speedup: float, chosen: str) -> None:
    monkeypatch.setattr(precision, "_bf16_speedup", lambda: speedup)
    machine = choose_machine("cpu", "auto")
    assert machine.precision == chosen
    assert f"{speedup:.1f}x" in machine.reason


def test_the_measurement_gives_a_ratio_of_times() -> None:
    assert 0.01 < precision._bf16_speedup() < 100


def test_what_was_asked_for_is_not_measured(monkeypatch) -> None:
    monkeypatch.setattr(precision, "_bf16_speedup", lambda: pytest.fail("measured"))
    assert choose_machine("cpu", "fp32").precision == "fp32"
    assert choose_machine("cpu", "bf16").bf16


def test_autocast_computes_in_what_was_chosen() -> None:
    x = torch.ones(2, 2)
    with choose_machine("cpu", "bf16").autocast():
        assert (x @ x).dtype == torch.bfloat16
    with choose_machine("cpu", "fp32").autocast():
        assert (x @ x).dtype == torch.float32


@pytest.mark.parametrize("device, word", [("tpu", "fp32"), ("cpu", "fp64")])
def test_unknown_devices_and_precisions_are_refused(device: str, word: str) -> None:
    with pytest.raises(UsageError, match="unknown"):
        choose_machine(device, word)
