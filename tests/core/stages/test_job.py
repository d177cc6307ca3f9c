"""Whether there is anything to do: finished, unfinished, forced and resumed work told apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from nettailor_cli.core.errors import UsageError
from nettailor_cli.core.progress import Silent
from nettailor_cli.core.run import RunDirectory
from nettailor_cli.core.stages.job import Job, ready_to_write


def job(tmp_path: Path, **how: bool) -> Job:
    return Job(run=RunDirectory(tmp_path), home=tmp_path, progress=Silent(), stop=lambda: None, **how)


def put(file: Path) -> None:
    file.parent.mkdir(exist_ok=True)
    file.touch()


@pytest.mark.parametrize(
    ("output", "checkpoint", "how", "answer"),
    [
        (False, False, "", True),
        (False, False, "resume", True),
        (False, False, "force", True),
        (True, False, "", "is there already"),
        (True, False, "resume", False),  # finished
        (True, False, "force", True),
        (False, True, "", "has an unfinished teach"),
        (False, True, "resume", True),
        (False, True, "force", True),
        (True, True, "", "is there already"),
        (True, True, "resume", True),  # an interrupted --force: it is not the old file that the user wants
        (True, True, "force", True),
    ],
)
def test_what_to_do_follows_from_what_is_there(tmp_path, output, checkpoint, how, answer) -> None:
    asked = job(tmp_path, **({how: True} if how else {}))
    if output:
        put(asked.run.teacher)
    if checkpoint:
        put(asked.run.checkpoint("teach", asked.run.teacher))
    if isinstance(answer, str):
        with pytest.raises(UsageError, match=answer):
            ready_to_write(asked, "teach", asked.run.teacher)
    else:
        assert ready_to_write(asked, "teach", asked.run.teacher) is answer


def test_a_folder_in_the_way_is_noticed_before_any_training(tmp_path: Path) -> None:
    asked = job(tmp_path, force=True)
    asked.run.teacher.mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        ready_to_write(asked, "teach", asked.run.teacher)
