"""nettailor fit --resume and --force: what of an earlier fit is taken, and what is refused"""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from nettailor_cli.core import delta
from nettailor_cli.core.delta import read_document
from nettailor_cli.core.run import RunDirectory
from tests.cli.fit.common import MACHINE, files
from tests.cli.helpers import BASE, Workshop, ok, refuses, untouched


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


def test_resume_remembers_what_was_typed_and_refuses_another_search(run: Path, config: Path) -> None:
    ok("fit", "--run", run, *MACHINE, "--config", config, "--tolerance", 100, "--ranking", "alpha", "--folds", 1)
    model = (run / "model.safetensors").read_bytes()
    (run / "model.safetensors").unlink()
    refuses("fit", "--run", run, "--resume", "--ranking", "loss", says=["started with --ranking alpha"])
    refuses("fit", "--run", run, "--resume", "--search", "sweep", says=["started with --search gradual"])
    ok("fit", "--run", run, "--resume")
    assert (run / "model.safetensors").read_bytes() == model
    assert tomllib.loads((run / "run.toml").read_text())["finetune"]["epochs"] == 2  # not a candidate's


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
    assert read_document(run / "student.safetensors").graph.blocks_kept == (1, 2, 3, 4)
    ok("fit", *options, "--force")
    assert read_document(run / "student.safetensors").graph.blocks_kept == (1, 2, 3, 4, 5, 6, 7, 8), "tailored anew"


def test_resume_leaves_a_model_alone_that_fit_did_not_write(shop: Workshop, tmp_path: Path) -> None:
    run = shop.copy_run(tmp_path / "run")
    refuses("fit", "--run", run, "--resume", says=["model.safetensors is there already"])
