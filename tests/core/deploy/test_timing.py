from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nettailor_cli.core.deploy import timing
from nettailor_cli.core.deploy.timing import Stopwatch, describe, on_machine, some_images, threads
from nettailor_cli.core.training.precision import Machine
from tests.core.deploy.clocks import CPU, Clock


def test_calls_take_turns_and_the_warm_up_does_not_count() -> None:
    clock = Clock()
    calls = {"a": clock.takes("a", 100, 1, 2), "b": clock.takes("b", 100, 7, 8)}
    taken = Stopwatch(seconds=0, least=2, warm_up=1, clock=clock).time(calls, CPU)
    assert clock.order == ["a", "b"] * 3
    assert taken == {"a": pytest.approx([1000, 2000]), "b": pytest.approx([7000, 8000])}


def test_rounds_go_on_until_the_time_is_over_and_then_end_whole() -> None:
    clock = Clock()
    calls = {"a": clock.takes("a", 300), "b": clock.takes("b", 200)}
    taken = Stopwatch(seconds=1.4, least=1, warm_up=0, clock=clock).time(calls, CPU)
    assert [len(times) for times in taken.values()] == [3, 3]  # 0.5 s a round: 1.0 s are too short, 1.5 s are not


@pytest.mark.parametrize(("seconds", "rounds"), [(0.0, 4), (1e9, 6)])
def test_there_are_never_fewer_rounds_than_least_nor_more_than_most(seconds: float, rounds: int) -> None:
    clock = Clock()
    stopwatch = Stopwatch(seconds=seconds, least=4, most=6, warm_up=2, clock=clock)
    assert len(stopwatch.time({"a": clock.takes("a", 1)}, CPU)["a"]) == rounds
    assert len(clock.order) == rounds + 2


def test_calls_run_in_inference_mode_and_in_the_machines_arithmetic() -> None:
    seen = []

    def call() -> None:
        seen.append((torch.is_inference_mode_enabled(), (torch.ones(2, 2) @ torch.ones(2, 2)).dtype))

    for machine in (CPU, Machine(torch.device("cpu"), True, "")):
        Stopwatch(seconds=0, least=1, warm_up=0).time({"a": call}, machine)
    assert seen == [(True, torch.float32), (True, torch.bfloat16)]


def test_a_device_that_works_behind_our_back_is_waited_for_within_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(timing, "_waiting", lambda device: clock.takes("wait", 5))
    taken = Stopwatch(seconds=0, least=1, warm_up=1, clock=clock).time({"a": clock.takes("a", 1)}, CPU)
    assert clock.order == ["a", "wait"] * 2
    assert taken == {"a": pytest.approx([6000])}


def test_threads_are_set_inside_and_put_back_even_after_an_error() -> None:
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), threads(before + 1):
        assert torch.get_num_threads() == before + 1
        raise ZeroDivisionError
    assert torch.get_num_threads() == before
    with threads(None):
        assert torch.get_num_threads() == before


def test_a_machine_is_described_by_what_does_not_change_from_run_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: Tiny 3000 @ 1 GHz\n\nprocessor\t: 1\nmodel name\t: other\n")
    monkeypatch.setattr(timing, "_CPUINFO", cpuinfo)
    described = describe(CPU)
    assert described == {
        "device": "cpu",
        "name": "Tiny 3000 @ 1 GHz",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "precision": "fp32",
    }
    assert type(described["torch"]) is str
    cpuinfo.unlink()
    assert describe(CPU)["name"] not in ("", "Tiny 3000 @ 1 GHz")


def test_images_and_modules_lie_as_convolutions_like_them_and_images_are_always_the_same() -> None:
    images = some_images(2, 8, CPU)
    assert images.shape == (2, 3, 8, 8) and images.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images, some_images(2, 8, CPU)) and 0 <= images.min() < images.max() <= 1
    module = on_machine(torch.nn.Conv2d(4, 4, 3).train(), CPU)
    assert not module.training and module.weight.is_contiguous(memory_format=torch.channels_last)
