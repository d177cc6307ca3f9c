"""What the processes of one training do alone, and what they agree on; with two real ones."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch

from nettailor_cli.core.errors import RunFailed, UsageError
from nettailor_cli.core.training.processes import ALONE, Processes, join
from tests.pair import in_two


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Everything that is asked of the two, in one start."""
    folder = tmp_path_factory.mktemp("two")

    def work(processes: Processes) -> dict[str, Any]:
        rank, done = processes.rank, []
        tensors = [torch.full((2,), 1.0 + rank), torch.full((1, 1), 10.0 * rank)]
        processes.average(tensors, 0.75 if processes.is_main else 0.25)
        with processes.main_first():
            if processes.is_main:
                time.sleep(0.2)
            there = (folder / "first").exists()
            (folder / "first").touch()

        def write() -> None:
            time.sleep(0.2)
            (folder / "alone").touch()
            done.append(rank)

        processes.alone(write)
        return {
            "sums": processes.sums({"loss": 1.5 + rank, "accuracy": 10.0}),
            "nobody": processes.agreed(None),
            "second": processes.agreed(15 if rank else None),
            "both": processes.agreed(15 if rank else 2),
            "from main": processes.from_main(lambda: {"rank": rank}),
            "averaged": torch.cat([tensor.flatten() for tensor in tensors]).tolist(),
            "first": there,
            "alone": ((folder / "alone").exists(), done),
        }

    return in_two(work, folder)


def test_figures_add_up(answers: list[dict[str, Any]]) -> None:
    assert [answer["sums"] for answer in answers] == [{"loss": 4.0, "accuracy": 20.0}] * 2


def test_a_signal_to_one_is_a_signal_to_all(answers: list[dict[str, Any]]) -> None:
    for answer in answers:
        assert (answer["nobody"], answer["second"], answer["both"]) == (None, 15, 15)


def test_what_the_main_process_found_holds_for_all(answers: list[dict[str, Any]]) -> None:
    assert [answer["from main"] for answer in answers] == [{"rank": 0}] * 2


def test_an_average_is_weighted_and_keeps_shapes_apart(answers: list[dict[str, Any]]) -> None:
    for answer in answers:
        assert answer["averaged"] == pytest.approx([1.25, 1.25, 2.5])  # 0.75 * 1 + 0.25 * 2; 0.25 * 10


def test_the_others_come_second_and_find_what_the_main_process_left(answers: list[dict[str, Any]]) -> None:
    assert [answer["first"] for answer in answers] == [False, True]


def test_alone_means_the_main_process_only_and_the_others_see_it_done(answers: list[dict[str, Any]]) -> None:
    assert [answer["alone"] for answer in answers] == [(True, [0]), (True, [])]


def test_one_process_asks_nobody() -> None:
    assert ALONE.is_main and ALONE.sums({"a": 1.0}) == {"a": 1.0}
    assert ALONE.agreed(None) is None and ALONE.agreed(2) == 2
    assert ALONE.from_main(lambda: "x") == "x"
    told: list[int] = []
    assert ALONE.fail(3, lambda: told.append(1)) == 3 and told == [1]


def test_the_first_error_is_told_once_and_its_exit_code_is_everyones(tmp_path: Path) -> None:
    def work(processes: Processes) -> tuple[int, int]:
        told: list[int] = []
        if processes.is_main:
            time.sleep(0.3)  # the consequence comes later
        code = processes.fail(1 if processes.is_main else 3, lambda: told.append(1))
        return code, len(told)

    assert in_two(work, tmp_path) == [(3, 0), (3, 1)]


@pytest.mark.parametrize("device", ["mps", "cuda:0"])
def test_a_device_that_can_not_be_divided_is_refused(device: str) -> None:
    with pytest.raises(UsageError, match="can't be divided among 2"):
        Processes(1, 2, 1).check_device(torch.device(device))
    ALONE.check_device(torch.device(device))
    Processes(1, 2, 1).check_device(torch.device("cpu"))


def test_more_processes_than_accelerators_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    Processes(1, 4, 1).check_device(torch.device("cuda"))
    with pytest.raises(UsageError, match="process 3 of this machine"):
        Processes(2, 4, 2).check_device(torch.device("cuda"))


def test_a_meeting_that_makes_no_sense_is_one_message() -> None:
    with pytest.raises(RunFailed, match="can't meet"):
        join(0, 2, 0, "nowhere://x")
