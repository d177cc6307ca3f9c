"""Reading somebody's weights file: tensors by name, and nothing in the file is ever run.

.safetensors can't hold code. A .pth is a pickle, which can: torch.load(weights_only=True) reads it or nothing does, and
not before `pickle_check` has looked through it.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from nettailor_cli.core.backbones.pickle_check import MoreThanWeights, check_pickled
from nettailor_cli.core.errors import FileError, UsageError
from nettailor_cli.core.files import check_is_file
from nettailor_cli.core.printable import harmless
from nettailor_cli.core.sealed import read_header

_PICKLES = (".pth", ".pt")
_WRAPPERS = ("state_dict", "model")  # names under which training scripts put the weights beside their optimiser
_MOST_OF_FILE = 2  # times the file's size is what its tensors may take; some networks use a matrix twice
_SAVE_WEIGHTS = "where it comes from, save the weights alone: torch.save(model.state_dict(), 'weights.pth')"
_PARALLEL = "module."  # what DataParallel puts before every name


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by name, on the CPU in the file's own types, and the metadata (empty for .pth).

    Takes .safetensors, and .pth or .pt holding a state dict, plain or under "state_dict" or "model"; "module." before
    the names is dropped. Raises UsageError when there is no such file and FileError when it can't be read as weights.
    """
    if not path.exists():
        raise UsageError(f"there is no weights file {path}")
    if path.is_dir():
        raise FileError(f"{path} is a folder, not a weights file")
    check_is_file(path)
    if path.stat().st_size == 0:
        raise FileError(f"{path} is empty")
    if path.suffix == ".safetensors":
        tensors, metadata = _read_safetensors(path)
    elif path.suffix in _PICKLES:
        tensors, metadata = _tensors_in(_unpickle(path), path), {}
    else:
        raise FileError(f"{path} is not a .safetensors, .pth or .pt file")
    if not tensors:
        raise FileError(f"{path} holds no tensors")
    if all(name.startswith(_PARALLEL) for name in tensors):
        tensors = {name.removeprefix(_PARALLEL): tensor for name, tensor in tensors.items()}
    return tensors, metadata


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        read_header(path)
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except FileError as error:
        raise FileError(f"{path} is damaged or not a safetensors file", error.hint) from error
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError, OverflowError) as error:  # torch's own, too
        raise FileError(f"{path} is damaged or not a safetensors file: {harmless(error)}") from None


def _unpickle(path: Path) -> Any:
    damaged = f"{path} is damaged, cut short, or not a file of weights"
    try:
        check_pickled(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols, just before it raises
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UsageError(f"can't read {path}: {error.strerror or error}") from error
    except MoreThanWeights as error:
        raise FileError(
            f"{path} holds more than weights ({harmless(error.name)}), which could be code: only tensors are read",
            _SAVE_WEIGHTS,
        ) from None
    except ValueError as error:
        raise FileError(f"{damaged}: {harmless(error)}", _SAVE_WEIGHTS) from None
    except Exception as error:  # noqa: BLE001 - torch raises whatever the bytes happen to spell
        raise FileError(f"{damaged} ({type(error).__name__})") from None


def _tensors_in(content: Any, path: Path) -> dict[str, Tensor]:
    if isinstance(content, Mapping):
        for wrapper in _WRAPPERS:
            if isinstance(content.get(wrapper), Mapping):
                content = content[wrapper]
                break
    if not isinstance(content, Mapping):
        raise FileError(f"{path} holds a {type(content).__name__}, not tensors by name")
    for name, value in content.items():
        if not isinstance(name, str):
            raise FileError(f"{path} is not a state dict: {name!r} is not the name of a tensor")
        if not isinstance(value, Tensor) or value.layout != torch.strided or value.device.type != "cpu":
            raise FileError(f"{path} is not a state dict: {name!r} is not a plain tensor")
    if sum(value.nbytes for value in content.values()) > _MOST_OF_FILE * path.stat().st_size:
        raise FileError(f"{path} has tensors that share their values, many times over", _SAVE_WEIGHTS)
    return {name: value.detach() for name, value in content.items()}
