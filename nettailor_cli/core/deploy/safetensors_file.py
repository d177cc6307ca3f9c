"""A standalone network as safetensors: folded tensors, and a JSON document with the plan that says how to run them.

`plan.py` says what the steps mean, so that anybody can write a runner; `load_standalone` is ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nettailor_cli._version import __version__
from nettailor_cli.core.deploy.plan import Plan, Step
from nettailor_cli.core.deploy.standalone import Runner, StandaloneNetwork, runner_of
from nettailor_cli.core.errors import FileError
from nettailor_cli.core.preprocessing import Preprocessing
from nettailor_cli.core.sealed import read_content, read_tensors, write_sealed

RUNTIME = "the library's reader"
FORMAT = 2
"""The latest version of the document: its key "standalone". A plan of the first version's operations stays in it."""


def write(path: Path, network: StandaloneNetwork, document: Mapping[str, Any]) -> None:
    """Write `network`'s tensors, and `document` with the plan's steps, to `path`. Raises as `write_sealed` does."""
    steps = [step.to_json() for step in network.plan.steps]
    write_sealed(path, {**document, "steps": steps}, network.tensors())


def load_standalone(path: Path) -> tuple[StandaloneNetwork, dict[str, Any]]:
    """The network in a safetensors export, in float32 whatever it is stored in, and the document beside it.

    Raises UsageError when there is no such file, FileError when it is damaged, foreign or of a newer format.
    """
    document = read_content(path)
    version = document.get("standalone")
    if not isinstance(version, int) or version < 1:
        raise FileError(f"{path} is not a standalone network", "nettailor export --format safetensors makes one")
    if version > FORMAT:
        raise FileError(f"{path} has format {version}; this nettailor ({__version__}) reads up to {FORMAT}")
    tensors = {name: tensor.float() for name, tensor in read_tensors(path).items()}
    try:
        plan = Plan(tuple(Step.from_json(step) for step in document["steps"]))
        preprocessing = Preprocessing.from_json(document["preprocessing"])
        return StandaloneNetwork(plan, tensors, preprocessing, document["output"]["name"]).eval(), document
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise FileError(f"{path}: the metadata makes no sense: {error}") from error


def runner(path: Path) -> Runner:
    """The file `path` as a function of uint8 pictures (N, S, S, 3), on the CPU."""
    return runner_of(load_standalone(path)[0])
