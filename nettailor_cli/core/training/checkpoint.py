"""Everything that a bit-identical continuation needs, in one sealed file without code.

What is random in training (order, augmentation) is a function of (seed, epoch, image), so the position in the epoch is
its whole state; the generators are kept all the same, for whatever else may draw from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nettailor_cli.core.errors import FileError
from nettailor_cli.core.printable import harmless
from nettailor_cli.core.sealed import read_content, read_tensors, write_sealed
from nettailor_cli.core.task_tensors import check_values
from nettailor_cli.core.validation import table, whole

FORMAT = 1
_TRAINED = ("model", "best", "momentum")
_GROUPS = (*_TRAINED, "random")
_AGAIN = "start again with --force"


@dataclass
class Position:
    """Where a run stands: `epoch` and `batch` are the next ones to do (0-based).

    sums: of the running epoch's figures so far, each weighted with the images it was measured on. best_epoch,
    best_accuracy: for early stopping and giving up; -1 before there is one.
    """

    epoch: int = 0
    batch: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    best_epoch: int = -1
    best_accuracy: float = -1.0


def save(
    path: Path,
    *,
    identity: Mapping[str, Any],
    position: Position,
    model: Mapping[str, Tensor],
    best: Mapping[str, Tensor],
    momentum: Mapping[str, Tensor],
) -> None:
    """Write a checkpoint. `identity` is what must be the same for it to be gone on with. Raises as `write_sealed`."""
    groups = {"model": model, "best": best, "momentum": momentum, "random": _random_states()}
    tensors = {f"{group}/{name}": tensor for group, state in groups.items() for name, tensor in state.items()}
    write_sealed(path, {"checkpoint": FORMAT, "identity": identity, "position": vars(position)}, tensors)


def read(path: Path) -> dict[str, Any]:
    """What the checkpoint says: "identity", "position". Raises FileError when it is damaged or can't be true."""
    content = read_content(path)
    if content.get("checkpoint") != FORMAT or not isinstance(content.get("identity"), dict):
        raise FileError(f"{path} is not a checkpoint of this version", _AGAIN)
    try:
        _check_position(content["position"])
    except KeyError as error:
        raise FileError(f"{path} is not a checkpoint that can be gone on with: there is no {error}", _AGAIN) from error
    except (TypeError, ValueError) as error:
        raise FileError(f"{path} is not a checkpoint that can be gone on with: {error}", _AGAIN) from error
    return content


def _check_position(position: Any) -> None:
    """Raises KeyError, TypeError or ValueError unless `position` is what `vars(Position)` gives."""
    table(position, "position")
    expected = vars(Position()).keys()
    for key in sorted(position.keys() ^ expected):
        raise ValueError(f"position.{harmless(key)} is missing, or unknown")
    for key, least in (("epoch", 0), ("batch", 0), ("best_epoch", -1)):
        if position[key] is None:
            raise TypeError(f"position.{key} is null")
        whole(position, key, "position", least)
    if type(position["best_accuracy"]) not in (int, float):
        raise TypeError("position.best_accuracy must be a number")
    sums = table(position["sums"], "position.sums")
    if not all(type(value) in (int, float) for value in sums.values()):
        raise TypeError("position.sums must be numbers")
    if position["batch"] > 0 and not sums.get("images", 0) > 0:
        raise ValueError("position.sums has no images")


def check(path: Path, *, identity: Mapping[str, Any]) -> dict[str, Any]:
    """What the checkpoint says. Raises FileError when it is damaged or belongs to a run with another `identity`."""
    content = read(path)
    if content["identity"] != identity:
        changed = sorted(k for k in {*content["identity"], *identity} if content["identity"].get(k) != identity.get(k))
        raise FileError(
            f"the run was started with other settings: {', '.join(map(harmless, changed))}",
            "give the same ones to --resume, or start again with --force",
        )
    return content


def load(path: Path, *, identity: Mapping[str, Any]) -> tuple[Position, dict[str, dict[str, Tensor]]]:
    """The position and the groups "model", "best" and "momentum" of the checkpoint; restores the random states.

    Raises as `check` does.
    """
    content = check(path, identity=identity)
    groups: dict[str, dict[str, Tensor]] = {group: {} for group in _GROUPS}
    for name, tensor in read_tensors(path).items():
        group, _, rest = name.partition("/")
        groups.setdefault(group, {})[rest] = tensor
    try:
        if len(groups) > len(_GROUPS):
            raise ValueError(f"it has tensors of a group {list(groups)[-1]!r}")
        for group in _TRAINED:
            check_values({f"{group}/{name}": tensor for name, tensor in groups[group].items()})
        _restore_random_states(groups.pop("random"))
    except FileError as error:
        raise FileError(f"{path}: {error.message}", _AGAIN) from error
    except (TypeError, KeyError, ValueError, RuntimeError) as error:
        raise FileError(f"{path} is not a checkpoint that can be gone on with: {error}", _AGAIN) from error
    return Position(**content["position"]), groups


def _random_states() -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states.update({f"cuda{i}": state for i, state in enumerate(torch.cuda.get_rng_state_all())})
    return states


def _restore_random_states(states: Mapping[str, Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            if f"cuda{i}" in states:
                torch.cuda.set_rng_state(states[f"cuda{i}"], i)
