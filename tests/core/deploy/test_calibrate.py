from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nettailor_cli.core.backbones import backbone
from nettailor_cli.core.deploy.calibrate import calibrate
from nettailor_cli.core.deploy.latency_table import LatencyTable
from nettailor_cli.core.progress import Silent
from nettailor_cli.core.proxies import make_proxy
from nettailor_cli.core.training.precision import Machine
from tests.core.deploy.clocks import CPU


class Recorder:
    """In a stopwatch's place: makes every call once, keeps what came out, and says that call number n took n us."""

    def __init__(self) -> None:
        self.outputs: list[list[Tensor]] = []

    def time(self, calls: Mapping[str, Callable[[], Tensor]], machine: Machine) -> dict[str, list[float]]:
        with torch.inference_mode(), machine.autocast():
            self.outputs.append([call() for call in calls.values()])
        return {shape: [number + 1.0] for number, shape in enumerate(calls)}


def test_every_block_and_proxy_has_a_row_and_equal_shapes_are_measured_once() -> None:
    recorder = Recorder()
    state = torch.get_rng_state()
    table = calibrate("resnet18", 32, CPU, Silent(), batches=(1, 2), stopwatch=recorder)
    assert torch.equal(state, torch.get_rng_state())
    proxies = [f"proxy {source}-{sink}" for sink in range(1, 9) for source in range(sink)]
    for rows in table.timings.values():
        assert set(rows) == {"stem", "head", *(f"universal {n}" for n in range(1, 9)), *proxies}
    # nodes 0-2, 3-4, 5-6 and 7-8 are alike: blocks 1 and 2 as well, and ten pairs of stages for proxies
    medians = {name: spread.median for name, spread in table.timings[1].items()}
    assert len(set(medians.values())) == 1 + 7 + 10 + 1 == len(recorder.outputs[0])
    assert medians["universal 1"] == medians["universal 2"] != medians["universal 3"]
    assert medians["proxy 0-1"] == medians["proxy 1-2"] == medians["proxy 0-2"]
    assert medians["proxy 0-3"] == medians["proxy 2-4"] != medians["proxy 3-4"]
    assert medians["proxy 4-7"] == medians["proxy 3-8"] != medians["proxy 5-8"]
    # what is timed gives what the node needs: 32 px are 8, 4, 2 and 1 after the stem
    shapes = {name: tuple(recorder.outputs[1][int(median) - 1].shape) for name, median in medians.items()}
    sides = {
        0: (64, 8),
        1: (64, 8),
        2: (64, 8),
        3: (128, 4),
        4: (128, 4),
        5: (256, 2),
        6: (256, 2),
        7: (512, 1),
        8: (512, 1),
    }
    for name, shape in shapes.items():
        if name not in ("stem", "head"):
            channels, side = sides[int(name.split()[-1].split("-")[-1])]
            assert shape == (2, channels, side, side), name
    assert shapes["stem"] == (2, 64, 8, 8) and shapes["head"] == (2, 100)
    assert LatencyTable.from_toml(table.to_toml(), "") == table
    assert (table.backbone, table.size, table.machine["precision"]) == ("resnet18", 32, "fp32")


class MinusFive(nn.Module):
    """In a proxy's place: takes what a proxy takes, gives -5 where it gives something."""

    def __init__(self, kind: str, channels_in: int, channels_out: int, width: int | None, *, depthwise: bool) -> None:
        super().__init__()
        self.channels_in, self.channels_out = channels_in, channels_out

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        assert channels == self.channels_in
        return torch.full((batch, self.channels_out, height, width), -5.0)

    def __repr__(self) -> str:
        return f"{self.channels_in} {self.channels_out}"


def test_a_proxys_time_holds_pooling_and_adding_to_the_node_and_a_blocks_its_activation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backbone, "make_proxy", MinusFive)
    recorder = Recorder()
    rows = calibrate("resnet18", 32, CPU, Silent(), batches=(1,), stopwatch=recorder).timings[1]

    def output(name: str) -> Tensor:
        return recorder.outputs[0][int(rows[name].median) - 1]

    for sink in (1, 3, 5, 8):
        node = output(f"universal {sink}")
        assert node.min() == 0 < node.max()
    # nodes 3 and 5 are the first of their shape; a proxy adds to them, at their resolution
    for name in ("proxy 0-3", "proxy 2-3", "proxy 0-5", "proxy 3-5", "proxy 4-5"):
        torch.testing.assert_close(output(name), output(f"universal {name[-1]}") - 5)


def test_fewer_skips_are_fewer_rows() -> None:
    rows = calibrate("resnet18", 32, CPU, Silent(), skips=1, batches=(1,), stopwatch=Recorder()).timings[1]
    assert {name for name in rows if name.startswith("proxy")} == {f"proxy {n - 1}-{n}" for n in range(1, 9)}


def test_the_width_of_proxies_is_kept() -> None:
    wide = calibrate("resnet50", 32, CPU, Silent(), skips=1, proxy_width=24, batches=(1,), stopwatch=Recorder())
    assert wide.proxy_width == 24 and len(wide.timings[1]) == 2 + 16 + 16
    basic = calibrate("resnet18", 32, CPU, Silent(), skips=1, proxy_width=24, batches=(1,), stopwatch=Recorder())
    assert basic.proxy_width == 24


@pytest.mark.parametrize("depthwise", [False, True])
def test_proxies_are_measured_with_the_depthwise_convolutions_that_were_asked_for(
    monkeypatch: pytest.MonkeyPatch, *, depthwise: bool
) -> None:
    made: list[bool] = []

    def make(*words: Any, depthwise: bool) -> nn.Module:
        made.append(depthwise)
        return make_proxy(*words, depthwise=depthwise)

    monkeypatch.setattr(backbone, "make_proxy", make)
    asked: dict[str, Any] = {"skips": 1, "proxy_depthwise": depthwise, "batches": (1,)}
    table = calibrate("resnet18", 32, CPU, Silent(), **asked, stopwatch=Recorder())
    assert table.proxy_depthwise == depthwise and made == [depthwise] * 8


def test_bf16_is_measured_in_bf16() -> None:
    recorder = Recorder()
    machine = Machine(torch.device("cpu"), True, "")
    table = calibrate("resnet18", 32, machine, Silent(), skips=1, batches=(1,), stopwatch=recorder)
    assert table.machine["precision"] == "bf16"
    assert {output.dtype for output in recorder.outputs[0]} == {torch.bfloat16}
