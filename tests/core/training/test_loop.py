"""The loop, on a trainee so small that every step can be followed by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from nettailor_cli.core.data import Augmentation, Batch, Batches, Example, Pictures, evaluation_batches
from nettailor_cli.core.errors import FileError, Interrupted, RunFailed
from nettailor_cli.core.preprocessing import Preprocessing
from nettailor_cli.core.progress import Silent
from nettailor_cli.core.settings import Settings
from nettailor_cli.core.training import checkpoint, loop
from nettailor_cli.core.training.checkpoint import Position
from nettailor_cli.core.training.evaluate import Score
from nettailor_cli.core.training.loop import Run, Training
from nettailor_cli.core.training.precision import Machine
from nettailor_cli.core.training.trainee import Group

CPU = Machine(torch.device("cpu"), bf16=False, reason="")
PREPROCESSING = Preprocessing(size=8, mean=(0, 0, 0), std=(1, 1, 1))


@dataclass
class Counter:
    """Its one weight counts the steps: the loss is -weight, so every step adds the learning rate."""

    module: nn.Module = field(default_factory=nn.Module)
    lrs: list[float] = field(default_factory=list)
    loss_factor: Callable[[int], float] = lambda step: 1.0
    steps: int = 0
    broken_gradient: int = 0  # the step whose gradient is NaN, while its loss is finite
    clip: float = 0.0

    def __post_init__(self) -> None:
        self.module.weight = nn.Parameter(torch.zeros(()))

    def groups(self) -> list[Group]:
        return [Group({"weight": self.module.weight}, 1.0, 0.0, self.clip)]

    def losses(self, batch: Batch, done: float) -> dict[str, Tensor]:
        self.steps += 1
        loss = -self.module.weight * self.loss_factor(self.steps)
        if self.steps == self.broken_gradient:
            loss = loss + 0 * torch.sqrt(self.module.weight * 0)  # 0, but the derivative is 0 * infinity
        return {"loss": loss, "accuracy": torch.tensor(50.0)}

    def predict(self, images: Tensor) -> Tensor:
        return torch.zeros(len(images), 2)

    def figures(self) -> dict[str, Any]:
        return {}

    def state(self) -> dict[str, Tensor]:
        return {"weight": self.module.weight.detach()}


def pictures(count: int) -> Pictures:
    pixels = np.zeros((count, PREPROCESSING.resize, PREPROCESSING.resize, 3), np.uint8)
    return Pictures([Example(Path(str(i)), f"a/{i}", i % 2) for i in range(count)], pixels.__getitem__)


def go(
    tmp_path: Path,
    trainee: Counter,
    settings: Settings,
    *,
    machine: Machine = CPU,
    validated: bool = True,
    part: str = "",
    floor: float = 0.0,
    **changes: Any,
) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    training = Batches(
        pictures(8), PREPROCESSING, batch_size=2, seed=0, augmentation=Augmentation("none", flip=False), shuffle=True,
        device=CPU.device,
    )  # fmt: skip
    run = Run(
        **{
            "checkpoint": tmp_path / "c.safetensors",
            "identity": {"run": 1},
            "resume": False,
            "progress": Silent(),
            "log": records.append,
            "stop": lambda: None,
            **changes,
        }
    )
    validation = evaluation_batches(pictures(4), PREPROCESSING, CPU.device) if validated else None
    Training(trainee, training, validation, settings, machine, run, "toy", floor, part).go()
    return records


def plain(**changes: Any) -> Settings:
    return Settings(**{"momentum": 0.0, "warmup": 0.0, "schedule": "step", "epochs": 6, **changes})


def with_val_accuracies(monkeypatch: pytest.MonkeyPatch, accuracies: list[float]) -> None:
    scores = iter(accuracies)
    monkeypatch.setattr(loop, "evaluate", lambda *_: Score(next(scores), {}, 0.5, 4, torch.zeros(4), torch.zeros(4)))


def test_without_patience_every_epoch_is_done_and_the_last_state_stays(tmp_path, monkeypatch) -> None:
    with_val_accuracies(monkeypatch, [90, 10, 10, 10, 10, 10])
    trainee = Counter()
    assert len(go(tmp_path, trainee, plain())) == 6
    assert trainee.module.weight.item() == pytest.approx(24)  # 6 epochs of 4 steps at learning rate 1


@pytest.mark.parametrize(("clip", "moved"), [(0.0, 300), (3.0, 69), (100.0, 300)])
def test_a_gradient_longer_than_its_groups_clip_is_shortened_to_it(tmp_path, clip: float, moved: float) -> None:
    """24 steps with gradients of 1, 2, ..., 24."""
    trainee = Counter(loss_factor=float, clip=clip)
    go(tmp_path, trainee, plain())
    assert trainee.module.weight.item() == pytest.approx(moved, rel=1e-4)


@pytest.mark.parametrize("patience, epochs_done", [(1, 3), (2, 4), (4, 6)])
def test_patience_ends_a_run_and_the_best_epoch_stays(tmp_path, monkeypatch, patience, epochs_done) -> None:
    with_val_accuracies(monkeypatch, [50, 70, 60, 70, 69, 10])  # an equal one is not a better one
    trainee = Counter()
    assert len(go(tmp_path, trainee, plain(patience=patience))) == epochs_done
    assert trainee.module.weight.item() == pytest.approx(8)  # as it was after epoch 2


def test_patience_survives_an_interruption_after_the_best_epoch(tmp_path, monkeypatch) -> None:
    with_val_accuracies(monkeypatch, [50, 70, 60, 10, 10, 10])
    settings, trainee = plain(patience=2), Counter()
    with pytest.raises(Interrupted):
        go(tmp_path, trainee, settings, stop=lambda: 2 if trainee.steps == 10 else None)  # in epoch 3
    resumed = Counter()
    records = go(tmp_path, resumed, settings, resume=True)
    assert [record["epoch"] for record in records] == [3, 4]
    assert resumed.module.weight.item() == pytest.approx(8)


@pytest.mark.parametrize(
    ("accuracies", "epochs_done"),
    [
        ([90, 90, 10, 10, 10, 10], 4),  # the best since 40 % of the epochs counts, from 60 % on
        ([10, 10, 60, 10, 10, 10], 6),  # one good epoch, and it goes on
        ([90, 90, 10, 60, 10, 10], 6),
        ([10, 10, 10, 10, 10, 10], 4),
    ],
)
def test_a_run_is_given_up_when_it_has_stayed_below_the_floor(tmp_path, monkeypatch, accuracies, epochs_done) -> None:
    with_val_accuracies(monkeypatch, accuracies)
    assert len(go(tmp_path, Counter(), plain(), floor=50.0)) == epochs_done


@pytest.mark.parametrize(
    ("floor", "accuracies", "measured"),
    [
        (0.0, [], []),
        (50.0, [60], [3]),
        (50.0, [10, 60], [3, 4]),
        (50.0, [10, 10], [3, 4]),  # given up
    ],
)
def test_a_part_is_validated_as_long_as_it_may_be_given_up(tmp_path, monkeypatch, floor, accuracies, measured) -> None:
    with_val_accuracies(monkeypatch, accuracies)
    records = go(tmp_path, Counter(), plain(), floor=floor, part="k03")
    assert [record["epoch"] for record in records if "val_accuracy" in record] == measured
    assert len(records) == (4 if accuracies == [10, 10] else 6)


def test_giving_up_is_the_same_after_an_interruption(tmp_path, monkeypatch) -> None:
    with_val_accuracies(monkeypatch, [10, 10, 60, 10, 10, 10])
    trainee = Counter()
    with pytest.raises(Interrupted):
        go(tmp_path, trainee, plain(), floor=50.0, stop=lambda: 2 if trainee.steps == 14 else None)  # in epoch 4
    assert [record["epoch"] for record in go(tmp_path, Counter(), plain(), floor=50.0, resume=True)] == [4, 5, 6]


def test_a_checkpoint_is_written_within_an_epoch_once_the_time_is_up(tmp_path, monkeypatch) -> None:
    clock = iter(range(0, 10_000, 25))  # 25 seconds between two looks at the clock
    monkeypatch.setattr(loop.time, "monotonic", lambda: next(clock))
    trainee, seen = Counter(), []

    def look() -> None:
        seen.append((trainee.steps, (tmp_path / "c.safetensors").exists()))

    go(tmp_path, trainee, plain(epochs=1), stop=look)
    assert [there for _, there in seen] == [False, False, False, True]  # more than 60 seconds: after the third step


class TestNotFinite:
    """The run ends, says where and what was kept, and no file holds what is no number."""

    @pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
    def test_a_loss_names_the_step(self, tmp_path: Path, value: str) -> None:
        trainee = Counter(loss_factor=lambda step: float(value) if step == 6 else 1.0)
        with pytest.raises(
            RunFailed, match=r"toy: the loss is -?\w+ at epoch 2, step 6 \(not finite: cross-"
        ) as caught:
            go(tmp_path, trainee, plain())
        assert "no checkpoint yet" in caught.value.message
        assert "--force --lr 0.005 " in caught.value.hint and "--resume" not in caught.value.hint
        assert trainee.module.weight.item() == 5  # no step was taken on it
        assert not (tmp_path / "c.safetensors").exists()

    @pytest.mark.parametrize("bf16", [False, True])
    def test_the_last_good_checkpoint_stays_and_is_gone_on_with(self, tmp_path: Path, monkeypatch, bf16: bool) -> None:
        """Stopped after step 3, gone on with, broken at step 6: what --resume finds is the state after step 3."""
        file = tmp_path / "c.safetensors"
        trainee = Counter()
        with pytest.raises(Interrupted):
            go(tmp_path, trainee, plain(), stop=lambda: 2 if trainee.steps == 3 else None)
        before = file.read_bytes()
        broken = Counter(loss_factor=lambda step: float("nan") if step == 3 else 1.0)
        machine = Machine(CPU.device, bf16=bf16, reason="")
        with pytest.raises(RunFailed, match=r"epoch 2, step 6.*checkpoint of epoch 1, batch 3") as caught:
            go(tmp_path, broken, plain(), resume=True, machine=machine)
        assert str(file) in caught.value.message and "--resume goes on" in caught.value.hint
        assert ("--precision fp32" in caught.value.hint) is bf16
        assert file.read_bytes() == before
        resumed = Counter()
        go(tmp_path, resumed, plain(), resume=True)
        assert resumed.module.weight.item() == pytest.approx(24) and resumed.steps == 21

    def test_a_weight_that_breaks_is_found_before_a_checkpoint(self, tmp_path: Path, monkeypatch) -> None:
        """Step 4, the epoch's last, has a finite loss and a broken gradient; a checkpoint is due after every step."""
        clock = iter(range(0, 10_000, 100))
        monkeypatch.setattr(loop.time, "monotonic", lambda: next(clock))
        records: list[dict[str, Any]] = []
        trainee = Counter(broken_gradient=4)
        with pytest.raises(RunFailed, match=r"weights are not finite after epoch 1, step 4 \(weight\).*batch 3"):
            go(tmp_path, trainee, plain(), log=records.append)
        assert torch.isfinite(load_file(tmp_path / "c.safetensors")["model/weight"]) and records == []
        resumed = Counter()
        go(tmp_path, resumed, plain(), resume=True)
        assert resumed.module.weight.item() == pytest.approx(24)

    @pytest.mark.parametrize("validated", [True, False])
    def test_a_weight_that_breaks_is_found_at_the_epochs_end(self, tmp_path: Path, validated: bool) -> None:
        records: list[dict[str, Any]] = []
        with pytest.raises(RunFailed, match=r"weights are not finite after epoch 2, step 8 .*no checkpoint"):
            go(tmp_path, Counter(broken_gradient=8), plain(), log=records.append, validated=validated)
        assert [record["epoch"] for record in records] == [1]

    def test_one_of_several_trainings_of_a_stage_is_named(self, tmp_path: Path) -> None:
        trainee = Counter(loss_factor=lambda step: float("nan"))
        with pytest.raises(RunFailed, match=r"toy \(k03\): the loss is nan") as caught:
            go(tmp_path, trainee, plain(), part="k03")
        assert "[toy]" in caught.value.hint

    def test_stopping_saves_nothing_that_is_broken(self, tmp_path: Path) -> None:
        trainee = Counter(broken_gradient=2)
        with pytest.raises(RunFailed, match="weights are not finite after epoch 1, step 2"):
            go(tmp_path, trainee, plain(), stop=lambda: 2 if trainee.steps == 2 else None)
        assert list(tmp_path.iterdir()) == []


def test_the_figures_of_an_epoch_are_means_over_its_images(tmp_path) -> None:
    record = go(tmp_path, Counter(), plain(epochs=1))[0]
    assert record["loss"] == pytest.approx(-(0 + 1 + 2 + 3) / 4)
    assert record["accuracy"] == 50
    assert record["val_accuracy"] == 50  # equal logits: class 0 wins, half of the pictures are of class 0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"position": Position(7, 0)}, "epoch 8, batch 1"),
        ({"position": Position(1, 5, {"images": 2.0})}, "epoch 2, batch 6"),
        ({"momentum": {"weight": torch.zeros(3)}}, "'weight' has shape"),
        ({"momentum": {"another": torch.zeros(())}}, "'another' that does not belong"),
        ({"best": {"another": torch.zeros(())}}, "lacks the tensor 'weight'"),
        ({"model": {"weight": torch.zeros(2)}}, "'weight' has shape"),
    ],
)
def test_a_checkpoint_that_can_not_be_this_runs_is_refused(tmp_path, change, reason) -> None:
    given = {"position": Position(1, 2, {"images": 4.0, "loss": 1.0}), "model": {"weight": torch.ones(())}}
    checkpoint.save(tmp_path / "c.safetensors", identity={"run": 1}, **{"best": {}, "momentum": {}, **given, **change})
    with pytest.raises(FileError, match=reason):
        go(tmp_path, Counter(), plain(), resume=True)
