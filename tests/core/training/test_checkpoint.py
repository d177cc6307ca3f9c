from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nettailor_cli.core.errors import FileError, UsageError
from nettailor_cli.core.sealed import read_content, write_sealed
from nettailor_cli.core.training import checkpoint
from nettailor_cli.core.training.checkpoint import Position
from tests.core.test_sealed import reseal

IDENTITY: dict[str, Any] = {"stage": "tailor", "lr": 0.1 + 0.2, "skips": "dense", "group": None, "mean": [0.1, 0.2]}
POSITION = Position(
    epoch=3,
    batch=17,
    sums={"loss": 0.1 + 0.7, "images": 544.0},
    best_epoch=2,
    best_accuracy=91.25,
)


def model() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "head/odd/name": torch.randn(2, 3, generator=generator),
        "attention.logits": torch.randn(4, generator=generator),
    }


def save(path: Path, **changes: Any) -> None:
    given: dict[str, Any] = {
        "identity": IDENTITY,
        "position": POSITION,
        "model": model(),
        "best": {"b": torch.ones(2, dtype=torch.bfloat16)},
        "momentum": {},
    }
    checkpoint.save(path, **{**given, **changes})


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    own = model()
    save(tmp_path / "c", model=own)
    position, groups = checkpoint.load(tmp_path / "c", identity=IDENTITY)
    assert position == POSITION
    assert groups.keys() == {"model", "best", "momentum"}
    assert groups["momentum"] == {}
    assert groups["model"].keys() == own.keys()
    assert all(torch.equal(groups["model"][name], own[name]) for name in own)
    assert groups["best"]["b"].dtype == torch.bfloat16


def test_the_start_of_a_run_can_be_kept_too(tmp_path: Path) -> None:
    save(tmp_path / "c", position=Position(), best={})
    position, groups = checkpoint.load(tmp_path / "c", identity=IDENTITY)
    assert position == Position()
    assert groups["best"] == {}


def test_random_numbers_go_on_where_they_were(tmp_path: Path) -> None:
    torch.manual_seed(5)
    torch.randn(7)
    save(tmp_path / "c", model={"x": torch.zeros(1)})
    following = torch.randn(9)
    torch.manual_seed(6)
    checkpoint.load(tmp_path / "c", identity=IDENTITY)
    assert torch.equal(torch.randn(9), following)


def test_saving_draws_no_random_numbers(tmp_path: Path) -> None:
    torch.manual_seed(5)
    wanted = torch.randn(3)
    torch.manual_seed(5)
    save(tmp_path / "c", model={"x": torch.zeros(1)})
    assert torch.equal(torch.randn(3), wanted)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"lr": 0.3}, "lr"),
        ({"stage": "finetune"}, "stage"),
        ({"group": "x"}, "group"),
        ({"new": 1}, "new"),
        ({"mean": [0.1, 0.3]}, "mean"),
    ],
)
def test_another_runs_checkpoint_is_refused_and_what_differs_is_named(
    tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    save(tmp_path / "c")
    torch.manual_seed(1)
    before = torch.get_rng_state()
    with pytest.raises(FileError, match=named) as caught:
        checkpoint.load(tmp_path / "c", identity={**IDENTITY, **changes})
    assert caught.value.message.endswith(f": {named}")
    assert torch.equal(torch.get_rng_state(), before)


def test_an_identity_that_lacks_something_is_another_one(tmp_path: Path) -> None:
    save(tmp_path / "c")
    with pytest.raises(FileError, match="skips"):
        checkpoint.load(tmp_path / "c", identity={key: value for key, value in IDENTITY.items() if key != "skips"})


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "c")
    data = bytearray((tmp_path / "c").read_bytes())
    for position in (0, 20, len(data) // 2, len(data) - 1):
        damaged = bytearray(data)
        damaged[position] ^= 0x01
        (tmp_path / "c").write_bytes(damaged)
        with pytest.raises(FileError):
            checkpoint.load(tmp_path / "c", identity=IDENTITY)


@pytest.mark.parametrize("lacks", ["checkpoint", "identity", "position"])
def test_a_checkpoint_that_lacks_something_is_refused(tmp_path: Path, lacks: str) -> None:
    save(tmp_path / "c")
    content = read_content(tmp_path / "c")
    del content[lacks]
    reseal(tmp_path / "c", content)
    with pytest.raises(FileError):
        checkpoint.load(tmp_path / "c", identity=IDENTITY)


@pytest.mark.parametrize(
    "position",
    [
        None,
        [],
        {"epoch": 1, "unknown": 2},
        "x",
        *(
            {**vars(POSITION), **change}
            for change in (
                {"epoch": "3"},
                {"epoch": -1},
                {"batch": 2.5},
                {"batch": None},
                {"sums": {"loss": 1.0}},
                {"sums": {"images": "many"}},
                {"best_accuracy": None},
            )
        ),
    ],
)
def test_a_position_that_is_none_is_refused(tmp_path: Path, position: Any) -> None:
    save(tmp_path / "c")
    reseal(tmp_path / "c", {**read_content(tmp_path / "c"), "position": position})
    with pytest.raises(FileError):
        checkpoint.load(tmp_path / "c", identity=IDENTITY)


def test_another_version_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "c")
    reseal(tmp_path / "c", {**read_content(tmp_path / "c"), "checkpoint": 2})
    with pytest.raises(FileError, match="version"):
        checkpoint.load(tmp_path / "c", identity=IDENTITY)


def test_a_checkpoint_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        checkpoint.load(tmp_path / "absent", identity=IDENTITY)


@pytest.mark.parametrize("group", ["model", "best", "momentum"])
def test_values_that_are_not_finite_are_refused_by_name(tmp_path: Path, group: str) -> None:
    save(tmp_path / "c", **{group: {"w": torch.tensor([1.0, torch.nan])}})
    with pytest.raises(FileError, match=f"'{group}/w' holds values that are not finite"):
        checkpoint.load(tmp_path / "c", identity=IDENTITY)


def test_another_sealed_file_is_no_checkpoint(tmp_path: Path) -> None:
    write_sealed(tmp_path / "c", {"format": 1}, {})
    with pytest.raises(FileError, match="not a checkpoint"):
        checkpoint.read(tmp_path / "c")
