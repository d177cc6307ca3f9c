"""The loop, on a trainee so small that every step can be followed by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nettailor_cli.core.data import Augmentation, Batch, Batches, Example, Pictures, evaluation_batches
from nettailor_cli.core.errors import FileError, Interrupted, RunFailed
from nettailor_cli.core.preprocessing import Preprocessing
from nettailor_cli.core.progress import Silent
from nettailor_cli.core.settings import Settings
from nettailor_cli.core.training import checkpoint, loop
from nettailor_cli.core.training.checkpoint import Position
from nettailor_cli.core.training.evaluate import Score
from nettailor_cli.core.training.loop import Group, Run, Training
from nettailor_cli.core.training.precision import Machine

CPU = Machine(torch.device("cpu"), bf16=False, reason="")
PREPROCESSING = Preprocessing(size=8, mean=(0, 0, 0), std=(1, 1, 1))


@dataclass
class Counter:
    """Its one weight counts the steps: the loss is -weight, so every step adds the learning rate."""

    module: nn.Module = field(default_factory=nn.Module)
    lrs: list[float] = field(default_factory=list)
    loss_factor: Callable[[int], float] = lambda step: 1.0
    steps: int = 0

    def __post_init__(self) -> None:
        self.module.weight = nn.Parameter(torch.zeros(()))

    def groups(self) -> list[Group]:
        return [Group({"weight": self.module.weight}, 1.0, 0.0)]

    def losses(self, batch: Batch, done: float) -> dict[str, Tensor]:
        self.steps += 1
        loss = -self.module.weight * self.loss_factor(self.steps)
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


def go(tmp_path: Path, trainee: Counter, settings: Settings, **changes: Any) -> list[dict[str, Any]]:
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
    validation = evaluation_batches(pictures(4), PREPROCESSING, CPU.device)
    Training(trainee, training, validation, settings, CPU, run, "toy").go()
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


def test_a_checkpoint_is_written_within_an_epoch_once_the_time_is_up(tmp_path, monkeypatch) -> None:
    clock = iter(range(0, 10_000, 25))  # 25 seconds between two looks at the clock
    monkeypatch.setattr(loop.time, "monotonic", lambda: next(clock))
    trainee, seen = Counter(), []

    def look() -> None:
        seen.append((trainee.steps, (tmp_path / "c.safetensors").exists()))

    go(tmp_path, trainee, plain(epochs=1), stop=look)
    assert [there for _, there in seen] == [False, False, False, True]  # more than 60 seconds: after the third step


def test_a_loss_that_is_not_finite_ends_the_run_and_names_the_step(tmp_path) -> None:
    trainee = Counter(loss_factor=lambda step: float("nan") if step == 6 else 1.0)
    with pytest.raises(RunFailed, match="epoch 2, step 6"):
        go(tmp_path, trainee, plain())


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
