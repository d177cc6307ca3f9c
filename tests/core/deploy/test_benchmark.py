from __future__ import annotations

import pytest
import torch

from nettailor_cli.core.deploy.benchmark import Contender, benchmark
from nettailor_cli.core.deploy.spread import Spread
from nettailor_cli.core.deploy.timing import Stopwatch
from nettailor_cli.core.graph import Cost
from nettailor_cli.core.progress import Silent
from tests.core.deploy.clocks import CPU, Clock


def test_contenders_take_turns_and_ratios_are_taken_round_by_round() -> None:
    clock = Clock()
    # the machine is twice as slow in the second round, four times in the third: the ratio is 4 all the same
    contenders = [
        Contender("backbone", Cost(20, 200), clock.takes("backbone", 8, 16, 32)),
        Contender("model", Cost(10, 50), clock.takes("model", 2, 4, 8)),
    ]
    stopwatch = Stopwatch(seconds=0, least=3, warm_up=0, clock=clock)
    backbone, model = benchmark(contenders, 8, CPU, Silent(), batches=(4, 1), stopwatch=stopwatch)
    assert clock.order == ["backbone", "model"] * 6
    assert list(model.measurements) == [4, 1]
    measured = model.measurements[4]
    assert measured.latency == Spread(pytest.approx(4000), pytest.approx(3000), pytest.approx(6000))
    assert measured.speed == Spread(pytest.approx(4), pytest.approx(4), pytest.approx(4))
    assert measured.throughput == pytest.approx(1000)  # 4 images in 4 ms
    assert measured.rounds == 3
    assert backbone.measurements[1].speed == Spread(1.0, 1.0, 1.0)
    assert backbone.measurements[1].throughput == pytest.approx(62.5)


def test_every_contender_sees_the_same_images_of_the_size_and_batch_asked_for() -> None:
    clock = Clock()
    seen: dict[str, list[torch.Tensor]] = {"a": [], "b": []}
    tick = clock.takes("", 1)

    def watch(name: str) -> Contender:
        def run(images: torch.Tensor) -> None:
            seen[name].append(images)
            tick()

        return Contender(name, Cost(1, 1), run)

    stopwatch = Stopwatch(seconds=0, least=1, warm_up=1, clock=clock)
    benchmark([watch("a"), watch("b")], 16, CPU, Silent(), batches=(3, 1), stopwatch=stopwatch)
    assert [tuple(images.shape) for images in seen["a"]] == [(3, 3, 16, 16)] * 2 + [(1, 3, 16, 16)] * 2
    assert all(a is b for a, b in zip(seen["a"], seen["b"], strict=True))


def test_a_row_as_json() -> None:
    clock = Clock()
    contenders = [Contender("model", Cost(10, 50), clock.takes("model", 2))]
    stopwatch = Stopwatch(seconds=0, least=2, warm_up=0, clock=clock)
    (row,) = benchmark(contenders, 8, CPU, Silent(), batches=(1,), stopwatch=stopwatch)
    assert row.to_json() == {
        "name": "model",
        "parameters": 10,
        "macs": 50,
        "batches": {
            "1": {
                "latency_us": {"median": pytest.approx(2000), "quartiles": [pytest.approx(2000)] * 2},
                "images_per_second": pytest.approx(500),
                "speed": {"median": 1.0, "quartiles": [1.0, 1.0]},
                "rounds": 2,
            }
        },
    }
