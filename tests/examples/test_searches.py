"""examples/studies/searches.py: what fit's searches cost and choose."""

from __future__ import annotations

import json
from pathlib import Path

from tests.examples.test_screen import STUDIES  # puts examples/studies on the path

import searches  # isort: skip


def test_the_work_of_retraining_is_in_full_ones_short_and_given_up_ones_count_as_far_as_they_went(
    tmp_path: Path,
) -> None:
    def epoch(file: str, stage: str, pictures: int) -> str:
        return json.dumps({"file": file, "stage": stage, "seconds": 2.0, "images_per_second": pictures / 2})

    log = tmp_path / "log.jsonl"
    epochs = [epoch("teacher", "teach", 900), epoch("student", "tailor", 900), epoch("shrink-01", "finetune", 50)]
    epochs += [epoch("k01", "finetune", 100)] * 4 + [epoch("k02", "finetune", 100)] * 3
    log.write_text("\n".join(epochs))
    assert searches.retraining(log) == (50 + 400 + 300) / 400


def test_the_table_has_a_line_per_search_with_means_over_sets_and_seeds() -> None:
    def row(search: str, accuracy: float) -> dict[str, object]:
        return {"search": search, "accuracy": accuracy, "macs": 50, "parameters": 20, "retrainings": accuracy / 20}

    shown = searches.table([row("a", 80), row("b", 70), row("a", 90)]).splitlines()
    assert shown[2:] == ["| a | 85.0 % | 50 % | 20 % | 4.2 |", "| b | 70.0 % | 50 % | 20 % | 3.5 |"]


def test_every_search_is_one_that_fit_has() -> None:
    from nettailor_cli.core.search.asked import Asked

    for words in searches.SEARCHES.values():
        pairs = zip(words[::2], words[1::2], strict=True)
        Asked(**{flag.removeprefix("--"): value for flag, value in pairs})
    assert STUDIES.is_dir()
