"""nettailor fit"""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from nettailor_cli.core import delta
from nettailor_cli.core.delta import read_document
from nettailor_cli.core.pruning import remove_blocks
from nettailor_cli.core.run import RunDirectory
from nettailor_cli.core.search.probe import Probe
from nettailor_cli.core.settings import flag_of
from nettailor_cli.core.student import Student
from nettailor_cli.core.task_tensors import tensors_for
from nettailor_cli.core.training.memory import Memory
from tests.cli.helpers import BASE, SIZE, Workshop, ok, refuses, untouched

CONFIG = """
batch_size = 8
lr = 0.001
[teach]
epochs = 1
[tailor]
epochs = 1
[finetune]
epochs = 2
"""
MACHINE = BASE[4:]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "short.toml"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def run(shop: Workshop, tmp_path: Path) -> Path:
    """A run with a teacher and a student, whose last four blocks are gone: a search takes a third of the time."""
    run = shop.copy_run(tmp_path / "run")
    for name in ("pruned", "model"):
        (run / f"{name}.safetensors").unlink()
    document, tensors = delta.read(run / "student.safetensors")
    graph = remove_blocks(document.graph, {5, 6, 7, 8})
    (run / "student.safetensors").unlink()  # a link
    delta.write(
        run / "student.safetensors", replace(document, graph=graph), tensors_for(graph, [(document.graph, tensors)])
    )
    return run


def files(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((run / "search").glob("*.safetensors"))}


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


def test_resume_repeats_no_finished_candidate_and_ends_in_the_same_bytes(run: Path, config: Path) -> None:
    options = ("--run", run, *MACHINE, "--config", config, "--tolerance", 100)
    ok("fit", *options)
    whole, model = files(run), (run / "model.safetensors").read_bytes()
    # as a kill would leave it: the last candidate and everything after it missing
    last = max((run / "search").glob("k*.safetensors"), key=lambda path: path.stat().st_mtime_ns)
    last.unlink()
    (run / "model.safetensors").unlink()
    # and another a moment earlier, between a candidate and the end of its checkpoint
    leftover = RunDirectory(run).checkpoint("finetune", run / "search" / "shrink-00.safetensors")
    leftover.parent.mkdir(exist_ok=True)
    leftover.write_bytes(b"left over")
    kept = {path: path.stat().st_mtime_ns for path in (run / "search").glob("*.safetensors")}
    refuses("fit", *options, says=["unfinished fit", "--resume"])
    ok("fit", *options, "--resume")
    assert files(run) == whole and (run / "model.safetensors").read_bytes() == model
    assert not leftover.exists()
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in kept.items())


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


def test_candidates_that_were_retrained_with_other_settings_are_not_taken(run: Path, config: Path) -> None:
    options = ("--run", run, *MACHINE, "--config", config, "--tolerance", 100, "--folds", 1)
    ok("fit", *options)
    (run / "model.safetensors").unlink()
    refuses("fit", *options, "--resume", "--hint-weights", "equal", says=["another --hint-weights", "--force"])
    ok("fit", "--run", run, "--resume")  # what was refused is not what it goes on with
    assert tomllib.loads((run / "run.toml").read_text())["finetune"]["hint_weights"] == "logits"


@pytest.mark.parametrize(("below", "again"), [(0.0, False), (50.0, True)])
def test_what_was_given_up_is_trained_anew_only_where_less_is_asked_for(
    run: Path, config: Path, below: float, again: bool
) -> None:
    """With a tolerance of 100 nothing is too little."""
    options = ("--run", run, *MACHINE, "--config", config, "--tolerance", 100, "--folds", 1)
    ok("fit", *options)
    whole = files(run)
    file = max((run / "search").glob("k0?.safetensors"))
    document, tensors = delta.read(file)
    metrics = {**document.metrics["model"], "given_up_after_epochs": 1, "given_up_below": below}
    file.unlink()
    delta.write(file, replace(document, metrics={**document.metrics, "model": metrics}), tensors)
    (run / "model.safetensors").unlink()
    given_up = file.read_bytes()
    refuses("fit", *options, "--resume", "--hint-weights", "equal", says=["another --hint-weights"])
    assert file.read_bytes() == given_up
    ok("fit", *options, "--resume")
    assert file.read_bytes() == (whole[file.name] if again else given_up)


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


def test_baselines_stand_beside_the_candidates_and_are_never_chosen(run: Path, config: Path) -> None:
    options = ("--run", run, *MACHINE, "--config", config, "--tolerance", 100, "--json")
    document = ok("fit", *options, "--baselines").document
    rows = {row["name"]: row for row in document["candidates"]}
    baselines = {name.split("-")[0] for name, row in rows.items() if row["kind"] == "baseline"}
    assert baselines == {"unpruned", "random", "reference", "classifier", "cut"}
    model = read_document(run / "model.safetensors")
    assert model.graph.cost.macs == min(row["macs"] for row in rows.values() if row["kind"] == "candidate")
    (cut,) = (row for name, row in rows.items() if name.startswith("cut"))
    assert cut["blocks"] == list(range(1, len(cut["blocks"]) + 1)) and cut["macs"] < rows["reference"]["macs"]
    assert rows["classifier"]["macs"] == rows["reference"]["macs"] == model.graph.backbone.macs
    chosen = next(row for row in rows.values() if row["macs"] == model.graph.cost.macs)
    assert rows["reference"]["epochs"] == round(chosen["epochs"])
    (random,) = (row for name, row in rows.items() if name.startswith("random"))
    assert len(random["blocks"]) == len(chosen["blocks"])
    assert json.loads((run / "fit.json").read_text())["rows"] == document["candidates"]
    lines = (run / "baselines" / f"reference-{rows['reference']['epochs']}" / "log.jsonl").read_text().splitlines()
    assert {json.loads(line)["part"] for line in lines} == {"reference"} and len(lines) == rows["reference"]["epochs"]
    assert not any("val_accuracy" in line for line in lines)  # its curve is nobody's, and would cost a third more
    again = ok("fit", *options, "--baselines", "--resume").document
    assert again["candidates"] == document["candidates"]


def test_the_reference_is_what_teach_makes_in_as_many_epochs(
    shop: Workshop, run: Path, config: Path, tmp_path: Path
) -> None:
    ok("fit", "--run", run, *MACHINE, "--config", config, "--tolerance", 100, "--baselines")
    (baseline,) = (run / "baselines").glob("reference-*/teacher.safetensors")
    settings = read_document(baseline).settings["teach"]
    flags = [word for name in ("epochs", "batch_size", "lr") for word in (flag_of(name), settings[name])]
    start = ("--backbone", "resnet18", "--weights", shop.weights, "--data", shop.data, "--size", SIZE)
    ok("teach", *start, "--run", tmp_path / "taught", *MACHINE, *flags, "--min-steps", 0)
    taught = load_file(tmp_path / "taught" / "teacher.safetensors")
    assert all(torch.equal(tensor, taught[name]) for name, tensor in load_file(baseline).items())


def test_folds_are_runs_of_their_own_whose_figures_are_taken_together(shop: Workshop, run: Path, config: Path) -> None:
    options = ("--run", run, *MACHINE, "--config", config, "--tolerance", 100, "--folds", 2, "--json")
    result = ok("fit", *options)
    document = result.document
    assert document["folds"] == 2
    name, together = document["candidates"][0]["name"], "val accuracy [0-9.]+ ± [0-9.]+ % over 2 folds"
    for said in (f"{name} epoch 1/2, .*", f"fold 1: {name} epoch 1/2, .*", f"{name}: {together}"):
        assert re.search(f"^{said}$", result.err, re.MULTILINE), said
    other = run / "folds" / "1"
    mine, theirs = (read_document(where / "student.safetensors").data for where in (run, other))
    assert (mine["fold"], theirs["fold"]) == (0, 1) and mine["digest"] != theirs["digest"]
    for row in document["candidates"][:-1]:
        metrics = [
            read_document(where / "search" / f"{row['name']}.safetensors").metrics["model"] for where in (run, other)
        ]
        right = sum(metric["accuracy"] * metric["images"] for metric in metrics)
        assert row["images"] == sum(metric["images"] for metric in metrics)
        assert row["accuracy"] == pytest.approx(right / row["images"])
    # val of a fold is not val of the other: evaluate finds each fold's own again
    for where in (run, other):
        file = where / "student.safetensors"
        shown = ok("evaluate", file, "--data", shop.data, "--split", "val", "--json")
        assert shown.document["images"] == read_document(file).metrics["student"]["images"]


def test_too_few_val_pictures_for_the_tolerance_mean_cross_validation(run: Path, config: Path) -> None:
    """9 pictures of val: 20 points are less than two of them, 90 are more."""
    options = ("--run", run, *MACHINE, "--config", config)
    assert ok("fit", *options, "--tolerance", 90, "--json").document["folds"] == 1
    (run / "model.safetensors").unlink()
    result = ok("fit", *options, "--tolerance", 20, "--max-macs", "200%", "--resume", "--json")
    assert result.document["folds"] == 3 and "cross-validation with up to 3 folds" in result.err
    assert "has no effect" not in result.err
    (run / "model.safetensors").unlink()
    result = ok("fit", *options, "--tolerance", 20, "--preset", "quick", "--resume", "--json")
    assert result.document["folds"] == 1 and "no cross-validation with --preset quick" in result.err


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


def test_more_folds_than_there_are(run: Path) -> None:
    refuses("fit", "--run", run, "--folds", 6, says=["--folds 6", "5 parts"])
    assert not (run / "search").exists()


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


def test_resume_remembers_what_was_typed_and_refuses_another_search(run: Path, config: Path) -> None:
    ok("fit", "--run", run, *MACHINE, "--config", config, "--tolerance", 100, "--ranking", "alpha", "--folds", 1)
    model = (run / "model.safetensors").read_bytes()
    (run / "model.safetensors").unlink()
    refuses("fit", "--run", run, "--resume", "--ranking", "loss", says=["started with --ranking alpha"])
    refuses("fit", "--run", run, "--resume", "--search", "sweep", says=["started with --search gradual"])
    ok("fit", "--run", run, "--resume")
    assert (run / "model.safetensors").read_bytes() == model
    assert tomllib.loads((run / "run.toml").read_text())["finetune"]["epochs"] == 2  # not a candidate's


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


def test_candidates_of_another_student_are_not_taken(run: Path, config: Path) -> None:
    options = ("--run", run, *MACHINE, "--config", config, "--tolerance", 100, "--folds", 1)
    ok("fit", *options)
    ok("tailor", "--run", run, *BASE, "--epochs", "2", "--force")
    refuses("fit", *options, "--resume", says=["another student's", "--force"])


def test_force_starts_from_nothing_but_refuses_first(run: Path, config: Path, tmp_path: Path) -> None:
    options = ("--run", run, *MACHINE, "--config", config, "--tolerance", 100, "--folds", 1)
    ok("fit", *options)
    with untouched(run):
        refuses("fit", *options, "--force", "--data", tmp_path / "nowhere", says=["nowhere"])
    before = (run / "model.safetensors").read_bytes()
    ok("fit", *options, "--force")
    assert (run / "model.safetensors").exists() and before


def test_resume_leaves_a_model_alone_that_fit_did_not_write(shop: Workshop, tmp_path: Path) -> None:
    run = shop.copy_run(tmp_path / "run")
    refuses("fit", "--run", run, "--resume", says=["model.safetensors is there already"])


def test_within_no_tolerance_it_goes_on_from_the_most_accurate_and_exits_3(run: Path, config: Path) -> None:
    """The teacher of one epoch is beaten by nobody who has to be better by nothing and is told that it is perfect."""
    document = read_document(run / "student.safetensors")
    for name in ("student", "teacher"):
        file = run / f"{name}.safetensors"
        own, tensors = delta.read(file)
        metrics = {**own.metrics, "teacher": {**document.metrics["teacher"], "accuracy": 100.0}}
        file.unlink()
        delta.write(file, replace(own, metrics=metrics), tensors)
    options = ("--run", run, *MACHINE, "--config", config, "--tolerance", 0, "--folds", 1)
    refuses(
        "fit",
        *options,
        code=3,
        says=["nothing is within 0 points of the better of teacher and student", "is the most accurate"],
    )
    chosen = (run / "model.safetensors").read_bytes()
    assert read_document(run / "model.safetensors").settings["fit"]["met"] is False
    before = files(run)
    refuses("fit", *options, "--resume", code=3, says=["is the most accurate"])
    assert (run / "model.safetensors").read_bytes() == chosen and files(run) == before
