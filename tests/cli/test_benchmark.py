"""nettailor benchmark. Times are those of a fake stopwatch: nothing here depends on how quick the machine is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from nettailor_cli.core.deploy.latency_table import LatencyTable
from nettailor_cli.core.deploy.timing import Stopwatch
from nettailor_cli.core.training.precision import Machine
from tests.cli.helpers import SIZE, Workshop, ok, refuses, untouched

TIMES = {"backbone": (8000.0, 9000.0, 10_000.0), "teacher": (8100.0, 9000.0, 9900.0), "model": (4000.0, 3000.0, 5000.0)}
"""Microseconds at batch 1 in three rounds; a call of N images takes N times as long."""


class Watch:
    """In the place of `Stopwatch.time`: every call is made once, and its times come from TIMES, else by number."""

    def __init__(self) -> None:
        self.machines: list[Machine] = []
        self.threads: list[int] = []
        self.seconds: list[float] = []
        self.shapes: list[tuple[int, ...]] = []

    def time(
        self, watch: Stopwatch, calls: Mapping[str, Callable[[], Any]], machine: Machine
    ) -> dict[str, list[float]]:
        self.machines.append(machine)
        self.threads.append(torch.get_num_threads())
        self.seconds.append(watch.seconds)
        with torch.inference_mode(), machine.autocast():
            outputs = [call() for call in calls.values()]
        if "model" not in calls:
            return {name: [number + 0.5, number + 1.0, number + 1.5] for number, name in enumerate(calls, start=1)}
        batch = len(outputs[0].logits)
        self.shapes += [tuple(output.logits.shape) for output in outputs]
        return {name: [batch * time for time in TIMES[name]] for name in calls}


@pytest.fixture(autouse=True)
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    fake = Watch()
    monkeypatch.setattr(Stopwatch, "time", lambda *args: fake.time(*args))
    return fake


def test_json_has_backbone_teacher_and_model_at_both_batches(shop: Workshop, watch: Watch) -> None:
    model = shop.run / "model.safetensors"
    document = ok("benchmark", model, "--device", "cpu", "--json").document
    assert (document["file"], document["size"]) == (str(model), SIZE)
    assert document["machine"]["device"] == "cpu" and document["machine"]["precision"] == "fp32"
    assert [row["name"] for row in document["rows"]] == ["backbone", "teacher", "model"]
    totals = ok("inspect", model, "--json").document
    backbone, teacher, own = document["rows"]
    assert [own[key] for key in ("parameters", "macs")] == [totals["totals"][key] for key in ("parameters", "macs")]
    for row in (backbone, teacher):
        assert [row[key] for key in ("parameters", "macs")] == [
            totals["backbone_totals"][key] for key in ("parameters", "macs")
        ]
    for batch in (1, 32):
        measured = own["batches"][str(batch)]
        assert measured["latency_us"] == {"median": 4000 * batch, "quartiles": [3500 * batch, 4500 * batch]}
        assert measured["images_per_second"] == pytest.approx(250)
        # 8/4, 9/3 and 10/5, round by round
        assert measured["speed"] == {"median": pytest.approx(2), "quartiles": [pytest.approx(2), pytest.approx(2.5)]}
        assert measured["rounds"] == 3
    assert backbone["batches"]["1"]["speed"]["median"] == 1
    assert watch.shapes == [(1, 3)] * 3 + [(32, 3)] * 3


def test_for_people(shop: Workshop) -> None:
    out = ok("benchmark", shop.run / "model.safetensors", "--device", "cpu").out
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[0].startswith("32 px on ") and "fp32" in lines[0]
    assert "batch 1: medians of 3 rounds, [quartiles]" in lines
    assert "batch 32: medians of 3 rounds, [quartiles]" in lines
    row = next(line for line in lines if line.startswith("model"))
    assert row.startswith("model 4.00 ms [3.50 ms, 4.50 ms] 250.0 2.00 [2.00, 2.50] ")
    assert max(map(len, out.splitlines()[1:])) <= 100
    quiet = ok("benchmark", shop.run / "model.safetensors", "--quiet")
    assert (quiet.out, quiet.err) == ("", "")


def test_batches_seconds_precision_and_threads_are_as_asked(shop: Workshop, watch: Watch) -> None:
    before = torch.get_num_threads()
    args = (
        "--batch",
        "4",
        "--batch",
        "2",
        "--batch",
        "4",
        "--seconds",
        "0.5",
        "--precision",
        "bf16",
        "--device",
        "cpu",
    )
    document = ok("benchmark", shop.run / "student.safetensors", *args, "--threads", before + 1, "--json").document
    assert list(document["rows"][0]["batches"]) == ["4", "2"]
    assert watch.threads == [before + 1] * 2 and torch.get_num_threads() == before
    assert watch.seconds == [0.5] * 2
    assert document["machine"]["precision"] == "bf16" and document["machine"]["threads"] == before + 1
    assert all(machine.bf16 for machine in watch.machines)


def test_the_teacher_is_the_one_beside_the_model_or_the_one_that_was_named(shop: Workshop, tmp_path: Path) -> None:
    alone = tmp_path / "model.safetensors"
    alone.hardlink_to(shop.run / "model.safetensors")

    def names(*args: object) -> list[str]:
        return [row["name"] for row in ok("benchmark", *args, "--json").document["rows"]]

    assert names(alone) == ["backbone", "model"]
    assert names(alone, "--teacher", shop.run / "teacher.safetensors") == ["backbone", "teacher", "model"]
    assert names(shop.run / "teacher.safetensors") == ["backbone", "model"]  # the teacher itself is the model there


def test_a_teacher_that_does_not_fit_is_left_out_unless_it_was_named(shop: Workshop, tmp_path: Path) -> None:
    alone = tmp_path / "model.safetensors"
    alone.hardlink_to(shop.run / "model.safetensors")
    (tmp_path / "teacher.safetensors").hardlink_to(shop.run / "student.safetensors")
    result = ok("benchmark", alone, "--json")
    assert [row["name"] for row in result.document["rows"]] == ["backbone", "model"]
    assert "the teacher beside the model is left out" in result.err and "not a teacher but a student" in result.err
    refuses("benchmark", alone, "--teacher", tmp_path / "teacher.safetensors", says=["not a teacher but a student"])


class TestGates:
    def test_are_met(self, shop: Workshop) -> None:
        ok("benchmark", shop.run / "model.safetensors", "--max-latency", "4ms", "--min-throughput", "250")
        ok("benchmark", shop.run / "model.safetensors", "--max-latency", "4000 us")
        ok("benchmark", shop.run / "model.safetensors", "--max-latency", ".004s", "--batch", "1")
        ok("benchmark", shop.run / "model.safetensors", "--max-latency", "45%", "--batch", "1")  # of 9 ms

    def test_are_missed_and_the_result_is_there_all_the_same(self, shop: Workshop) -> None:
        args = ("benchmark", shop.run / "model.safetensors", "--json")
        says = ["4.00 ms at batch 1 (44.4 % of the backbone's) are above --max-latency 3.9ms"]
        result = refuses(*args, "--max-latency", "3.9ms", code=3, says=says)
        assert result.document["rows"][-1]["batches"]["1"]["latency_us"]["median"] == 4000
        says = ["250.0 images/s at batch 32 are below --min-throughput 251"]
        refuses(*args, "--min-throughput", "251", code=3, says=says)
        refuses(
            *args, "--min-throughput", "251", "--max-latency", "1us", code=3, says=[*says, "above --max-latency 1us"]
        )
        refuses(*args, "--max-latency", "44%", code=3, says=["44.4 % of the backbone's", "above --max-latency 44%"])
        refuses(*args, "--min-throughput", "nan", code=3)  # a gate that nothing can miss is none

    @pytest.mark.parametrize("text", ["12", "12 GB", "-1ms", "nan", "ms", "1e999 h"])
    def test_that_make_no_sense(self, shop: Workshop, watch: Watch, text: str) -> None:
        refuses("benchmark", shop.run / "model.safetensors", "--max-latency", text, says=["--max-latency", "12ms"])
        assert watch.seconds == [], "nothing was measured for nothing"

    def test_latency_is_that_of_one_image(self, shop: Workshop) -> None:
        args = ("benchmark", shop.run / "model.safetensors", "--max-latency", "12ms", "--batch", "8")
        refuses(*args, says=["one image at a time", "--batch 1"])


def test_wrong_use(shop: Workshop, tmp_path: Path) -> None:
    model, table = shop.run / "model.safetensors", tmp_path / "table.toml"
    refuses("benchmark", says=["which model?", "nettailor benchmark MODEL", "--calibrate"])
    refuses("benchmark", model, "--backbone", "resnet18", says=["--backbone: not without --calibrate"])
    refuses("benchmark", model, "-o", table, "--force", says=["-o, --force: not without --calibrate"])
    refuses("benchmark", "--calibrate", says=["needs --backbone and -o"])
    refuses("benchmark", "--calibrate", "--backbone", "resnet18", says=["needs --backbone and -o"])
    args = ("benchmark", "--calibrate", "--backbone", "resnet18", "-o", table)
    refuses(*args, model, says=["MODEL: not with --calibrate"])
    refuses(*args, "--max-latency", "1ms", "--teacher", model, says=["--teacher, --max-latency: not with --calibrate"])
    refuses(*args[:3], "resnet81", *args[4:], says=["resnet81", "did you mean resnet18?"])
    refuses(*args, "--skips", "many", says=["--skips is a whole number, or dense"])
    refuses(*args, "--proxy-width", "0", says=["--proxy-width 0"])
    refuses(*args, "--device", "gpu", says=["--device gpu"])
    refuses("benchmark", tmp_path / "none.safetensors", says=["no file", "none.safetensors"])
    assert not table.exists()


class TestCalibrate:
    ARGS = ("benchmark", "--calibrate", "--backbone", "resnet18", "--size", SIZE, "--device", "cpu")

    def test_writes_a_table_that_needed_no_weights(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watch: Watch
    ) -> None:
        monkeypatch.setenv("NETTAILOR_HOME", str(tmp_path / "empty"))
        file = tmp_path / "here" / "table.toml"
        result = ok(*self.ARGS, "-o", file, "--seconds", "0.25")
        assert "resnet18 at 32 px on " in result.out and "batch 32: stem and blocks " in result.out
        assert f"wrote {file}" in result.out
        assert f"nettailor tailor --cost latency --latency-table {file}" in result.err
        table = LatencyTable.from_toml(file.read_text(), "")
        assert (table.backbone, table.size, list(table.timings)) == ("resnet18", SIZE, [1, 32])
        assert len([name for name in table.timings[1] if name.startswith("proxy")]) == 36  # dense
        assert watch.seconds == [0.25] * 2

    def test_equal_measurements_give_equal_bytes(self, tmp_path: Path) -> None:
        files = [tmp_path / name for name in ("a.toml", "b.toml")]
        digests = [ok(*self.ARGS, "-o", file, "--skips", "1", "--json").document["digest"] for file in files]
        assert files[0].read_bytes() == files[1].read_bytes() and digests[0] == digests[1]

    def test_json(self, tmp_path: Path) -> None:
        document = ok(*self.ARGS, "-o", tmp_path / "t.toml", "--skips", "1", "--batch", "2", "--json").document
        assert (document["backbone"], document["size"], document["unit"]) == ("resnet18", SIZE, "microseconds")
        assert list(document["batches"]) == ["2"] and len(document["batches"]["2"]) == 2 + 8 + 8
        assert document["batches"]["2"]["stem"] == {"median": 2.0, "quartiles": [1.75, 2.25]}

    def test_refuses_to_overwrite(self, tmp_path: Path, watch: Watch) -> None:
        file = tmp_path / "table.toml"
        file.write_text("mine")
        with untouched(tmp_path):
            refuses(*self.ARGS, "-o", file, says=["is there already", "--force"])
        assert watch.seconds == []
        ok(*self.ARGS, "-o", file, "--force", "--skips", "1")
        assert LatencyTable.from_toml(file.read_text(), "").size == SIZE


def test_with_a_real_clock_there_are_times_above_zero(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("NETTAILOR_HOME", str(shop.home))
    args = ("benchmark", shop.run / "pruned.safetensors", "--device", "cpu", "--batch", "1", "--seconds", "0", "--json")
    for row in ok(*args).document["rows"]:
        measured = row["batches"]["1"]
        low, high = measured["latency_us"]["quartiles"]
        assert 0 < low <= measured["latency_us"]["median"] <= high and measured["rounds"] == 7
