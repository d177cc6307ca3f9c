"""nettailor fit"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from torch import Tensor

from nettailor_cli.core import delta
from nettailor_cli.core.delta import read_document
from nettailor_cli.core.search.probe import Probe
from nettailor_cli.core.student import Student
from nettailor_cli.core.training.memory import Memory
from tests.cli.fit.common import MACHINE, files
from tests.cli.helpers import BASE, SIZE, Workshop, ok, refuses


def test_from_pictures_to_the_leanest_within_the_tolerance(shop: Workshop, config: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    start = ("--backbone", "resnet18", "--data", shop.data, "--size", SIZE, "--run", run)
    result = ok("fit", *start, *MACHINE, "--config", config, "--tolerance", 100, "--json")
    document = result.document
    assert document["chosen"] in {row["name"] for row in document["candidates"]}
    assert {"teacher.safetensors", "student.safetensors", "model.safetensors", "fit.json", "search"} <= {
        path.name for path in run.iterdir()
    }
    model = read_document(run / "model.safetensors")
    *rows, unpruned = document["candidates"]
    assert (unpruned["name"], unpruned["kind"]) == ("unpruned", "baseline")
    student = delta.read_document(run / "student.safetensors").graph.universal_cost.parameters
    assert unpruned["bytes"] == (run / "student.safetensors").stat().st_size + 4 * student
    assert unpruned["accuracy"] == read_document(run / "student.safetensors").metrics["student"]["accuracy"]
    chosen = min(rows, key=lambda row: row["macs"])
    assert document["met"] and model.graph.cost.macs == chosen["macs"]
    assert [path.sink for path in model.graph.universal] == chosen["blocks"]
    assert model.settings["fit"]["tolerance"] == 100
    # 1 of teaching, 1 of tailoring, and as many in all for every candidate: to within rounding, 2 of fine-tuning
    assert all(3.5 <= row["epochs"] <= 4.5 for row in rows)
    people = ok("evaluate", run / "model.safetensors", "--data", shop.data)
    assert "accuracy" in people.out


def test_a_runs_own_teacher_and_student_are_used(shop: Workshop, run: Path, config: Path) -> None:
    before = (run / "student.safetensors").read_bytes()
    result = ok("fit", "--run", run, *MACHINE, "--config", config, "--tolerance", 100)
    assert (run / "student.safetensors").read_bytes() == before
    assert "as it was tailored" in result.err and "teach epoch" not in result.err
    assert "leanest within the tolerance" in result.out and "teacher" in result.out


def test_batch_norms_are_measured_anew_before_a_short_training_and_after_it(
    run: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[Student] = []
    re_estimate = Probe.re_estimate

    def counted(probe: Probe, student: Student) -> None:
        measured.append(student)
        re_estimate(probe, student)

    monkeypatch.setattr(Probe, "re_estimate", counted)
    ok("fit", "--run", run, *MACHINE, "--config", config, "--tolerance", 100, "--folds", 1)
    short = [file for file in files(run) if file.startswith("shrink")]
    twice = [student for student in {*measured} if measured.count(student) == 2]
    assert len(short) - 1 <= len(twice) <= len(short), "all but the first, which has all its paths"


def test_the_teacher_is_asked_for_its_logits_once_for_all_candidates(
    run: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, ...]] = []
    recall = Memory.recall

    def counted(memory: Memory, place: tuple[int, ...], compute: Callable[[], Tensor]) -> Tensor:
        def told() -> Tensor:
            asked.append(place)
            return compute()

        return recall(memory, place, told)

    monkeypatch.setattr(Memory, "recall", counted)
    ok("fit", "--run", run, *MACHINE, "--config", config, "--tolerance", 100, "--search", "sweep", "--folds", 1)
    assert len(asked) == len({*asked}) > 0 and len([*files(run)]) > 2


def test_the_sweep_tries_every_number_of_blocks_as_prune_would(run: Path, config: Path) -> None:
    options = ("--tolerance", 100, "--search", "sweep", "--ranking", "alpha", "--json")
    *rows, _ = ok("fit", "--run", run, *MACHINE, "--config", config, *options).document["candidates"]
    assert [row["name"] for row in rows] == [f"sweep-{k:02d}" for k in range(len(rows))]
    for k, row in enumerate(rows):
        ok("prune", run / "student.safetensors", "--remove", k, "-o", run / f"p{k}.safetensors")
        graph = read_document(run / f"p{k}.safetensors").graph
        assert row["macs"] == graph.cost.macs and row["blocks"] == [path.sink for path in graph.universal]
    refuses("prune", run / "student.safetensors", "--remove", len(rows), "-o", run / "more.safetensors")
    # the teacher's logits were remembered from the first candidate on: computed again, they are the same
    last = run / "search" / f"{rows[-1]['name']}.safetensors"
    before = last.read_bytes()
    last.unlink()
    ok("fit", "--run", run, "--resume")
    assert last.read_bytes() == before


def test_a_budget_that_can_be_met(run: Path, config: Path) -> None:
    document = ok("fit", "--run", run, *MACHINE, "--config", config, "--max-macs", "70%", "--json").document
    model = read_document(run / "model.safetensors")
    assert document["met"] and model.graph.cost.macs <= 0.7 * model.graph.backbone.macs


def test_a_budget_out_of_reach_exits_3_and_keeps_the_closest(run: Path, config: Path) -> None:
    options = ("fit", "--run", run, *MACHINE, "--config", config, "--max-macs", "1%")
    refuses(*options, code=3, says=["inside the budget", "comes closest"])
    closest = read_document(run / "model.safetensors").graph.cost.macs
    table = json.loads((run / "fit.json").read_text())
    assert closest == min(row["macs"] for row in table["rows"])


def test_what_makes_no_sense(shop: Workshop, run: Path, config: Path) -> None:
    refuses("fit", "--run", run, "--ranking", "alfa", says=["alfa", "did you mean alpha"])
    refuses("fit", "--run", run, "--search", "sweeep", says=["sweeep", "did you mean sweep"])
    refuses("fit", "--run", run, "--max-macs", "much", says=["--max-macs much"])
    refuses("fit", "--run", run, "--tolerance", "-1", says=["--tolerance"])
    refuses("fit", says=["--data DIR is missing"])
    other = run.parent / "other"
    shutil.copytree(shop.data, other)
    (other / "train" / "blue disc" / "00.png").unlink()
    refuses("fit", "--run", run, "--data", other, says=["other pictures"])
    ok("fit", "--run", run, *MACHINE, "--config", config, "--tolerance", 100)
    refuses("fit", "--run", run, says=["is there already", "--force"])


def test_a_val_folder_without_a_picture_that_can_be_read(shop: Workshop, tmp_path: Path, config: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(shop.data, data)
    for file in (data / "train").rglob("*.png"):
        broken = data / "val" / file.relative_to(data / "train")
        broken.parent.mkdir(parents=True, exist_ok=True)
        broken.write_bytes(b"no picture")
    start = ("--backbone", "resnet18", "--data", data, "--size", SIZE, "--run", tmp_path / "run", "--skip-bad-images")
    refuses("fit", *start, *MACHINE, "--config", config, says=["no val picture", "can be read"])


def test_help_tells_the_hint_of_retraining_beside_that_of_tailoring() -> None:
    words = " ".join(ok("fit", "--help").out.replace("│", " ").split())
    assert "(default: equal; in finetune logits)" in words
    assert "in finetune" not in ok("tailor", "--help").out


def test_a_latency_budget_needs_a_student_tailored_for_latency(shop: Workshop, run: Path, config: Path) -> None:
    refuses("fit", "--run", run, *MACHINE, "--max-latency", "50%", says=["not tailored for latency", "--cost latency"])
    options = ("--config", config, "--cost", "latency", "--max-latency", "99%", "--force", "--folds", 1, "--json")
    document = ok("fit", "--run", run, *MACHINE, *options).document
    model = read_document(run / "model.safetensors").graph
    assert document["met"] and model.cost.latency is not None and model.backbone.latency is not None
    assert model.cost.latency <= 0.99 * model.backbone.latency


@pytest.mark.parametrize("search", [(), ("--search", "sweep", "--ranking", "alpha")], ids=["gradual", "sweep"])
def test_no_candidate_lacks_the_shared_prefix(run: Path, config: Path, search: tuple[str, ...]) -> None:
    ok("tailor", "--run", run, *MACHINE, "--config", config, "--force", "--shared-prefix", "2")
    args = ("--run", run, *MACHINE, "--config", config, "--tolerance", 100, "--folds", 1, "--baselines", *search)
    rows = ok("fit", *args, "--json").document["candidates"]
    searched = [row for row in rows if row["name"].split("-")[0] not in ("reference", "classifier", "cut")]
    assert all(row["blocks"][:2] == [1, 2] for row in searched)
    assert min(len(row["blocks"]) for row in searched) == 2, "all the others were tried"
    for file in (run / "search").glob("*.safetensors"):
        assert [len(read_document(file).graph.into(node)) for node in (1, 2)] == [1, 1]


def test_options_that_the_runs_student_does_not_have_are_refused(shop: Workshop, run: Path) -> None:
    for options, says in (
        (("--skips", "dense"), "another --skips"),
        (("--size", "48"), "another --size"),
        (("--backbone", "resnet34"), "another backbone"),
        (("--bn-stats", "adapt"), "another --bn-stats"),
    ):
        refuses("fit", "--run", run, *options, says=[says, "--force"])
    assert not (run / "search").exists()


def test_another_teacher_or_none(shop: Workshop, run: Path, tmp_path: Path) -> None:
    ok("teach", *shop.start(run), *BASE, "--epochs", "2", "--force")
    refuses("fit", "--run", run, says=["another teacher"])
    alone = tmp_path / "alone"
    ok("tailor", *shop.start(alone), *BASE, "--epochs", "1", "--no-teacher")
    refuses("fit", "--run", alone, says=["without a teacher"])


def told_to_be(run: Path, **accuracies: float) -> None:
    """The files of `run` say that its teacher and its student have these accuracies."""
    document = read_document(run / "student.safetensors")
    for name in ("student", "teacher"):
        file = run / f"{name}.safetensors"
        own, tensors = delta.read(file)
        told = {whose: {**document.metrics[whose], "accuracy": accuracy} for whose, accuracy in accuracies.items()}
        metrics = {**own.metrics, **{whose: metric for whose, metric in told.items() if whose in own.metrics}}
        file.unlink()
        delta.write(file, replace(own, metrics=metrics), tensors)


def test_what_will_do_for_a_poor_teacher_will_not_for_a_student_that_is_aimed_at(run: Path, config: Path) -> None:
    told_to_be(run, teacher=0.0, student=100.0)
    options = ("--run", run, *MACHINE, "--config", config, "--tolerance", 0, "--folds", 1)
    ok("fit", *options)
    leanest = read_document(run / "model.safetensors").graph.cost.macs
    assert leanest == min(row["macs"] for row in json.loads((run / "fit.json").read_text())["rows"])
    refuses("fit", *options, "--resume", "--aim", "student", code=3, says=["tolerance of the unpruned student"])
    assert read_document(run / "model.safetensors").graph.cost.macs >= leanest


def test_within_no_tolerance_it_goes_on_from_the_most_accurate_and_exits_3(run: Path, config: Path) -> None:
    """The teacher of one epoch is beaten by nobody who has to be better by nothing and is told that it is perfect."""
    told_to_be(run, teacher=100.0)
    options = ("--run", run, *MACHINE, "--config", config, "--tolerance", 0, "--folds", 1)
    refuses(
        "fit",
        *options,
        code=3,
        says=["nothing is within 0 points of the teacher;", "is the most accurate"],
    )
    asked = read_document(run / "model.safetensors").settings["fit"]
    assert (asked["met"], asked["aim"]) == (False, "teacher")
    before = files(run)
    again = ("fit", *options, "--resume", "--aim", "student")
    refuses(*again, code=3, says=["0 points of the better of teacher and student", "is the most accurate"])
    assert read_document(run / "model.safetensors").settings["fit"] == {**asked, "aim": "student"}
    assert files(run) == before
