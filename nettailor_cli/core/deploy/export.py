"""A model file as one file that runs without nettailor, checked against the model before it is kept."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from nettailor_cli._version import __version__
from nettailor_cli.core.complexity import macs
from nettailor_cli.core.deploy.checking import LIMITS, Difference, compare, pictures_for
from nettailor_cli.core.deploy.lowering import lower
from nettailor_cli.core.deploy.plan import LOGITS
from nettailor_cli.core.deploy.standalone import PROBABILITIES, HalfPrecision, Runner, StandaloneNetwork, runner_of
from nettailor_cli.core.errors import FileError, NettailorError, RunFailed, UsageError, did_you_mean
from nettailor_cli.core.files import check_place, write_atomically
from nettailor_cli.core.graph import Cost
from nettailor_cli.core.models import Model
from nettailor_cli.core.progress import Progress

_MODULES = {"onnx": "onnx_file", "pt2": "pt2_file", "safetensors": "safetensors_file"}
FORMATS = tuple(_MODULES)
_EXTRA = ("onnx", "onnxruntime")


@dataclass(frozen=True)
class Export:
    """What was written: how many numbers and MACs it has, and how far it is from the model.

    document: what stands inside the file, too. pictures: what it was compared on; runtime: what ran it; limit: how much
    was allowed.
    """

    path: Path
    form: str
    precision: str
    cost: Cost
    bytes: int
    document: dict[str, Any]
    difference: Difference
    pictures: str
    runtime: str
    limit: float


def export_model(
    model: Model,
    output: Path,
    *,
    form: str,
    progress: Progress,
    logits: bool = False,
    fp16: bool = False,
    data: Path | None = None,
    force: bool = False,
) -> Export:
    """Write `model` to `output` as a standalone network in the format `form`: "onnx", "pt2" or "safetensors".

    It takes uint8 pictures (N, S, S, 3) and gives probabilities, or with `logits` those. With `fp16` the weights are
    stored in half precision, and in "onnx" and "pt2" the arithmetic is in it, too. Before the file is kept it is run on
    pictures from the folder `data`, or on drawn ones, and compared with `model`, which has to be on the CPU in float32.

    Raises UsageError for an unknown format, a missing extra or a place that can't be written to, DataError when there
    are no pictures in `data`, and RunFailed when the difference is above LIMITS (nothing is kept).
    """
    module = _module(form)
    check_place(output)
    if output.exists() and not force:
        raise UsageError(f"{output} is there already", "--force replaces it")
    precision = "fp16" if fp16 else "fp32"
    limit = LIMITS[precision]
    squares, pictures = pictures_for(model.document.preprocessing, data, progress)
    plan, tensors = lower(model.network, torch.float16 if fp16 else torch.float32)
    network = StandaloneNetwork(plan, tensors, model.document.preprocessing, LOGITS if logits else PROBABILITIES).eval()
    cost = _cost(network)
    document = _describe(model, network, precision, cost)
    found: list[Difference] = []

    def write(temporary: Path) -> None:
        module.write(temporary, network, document)
        progress.note(f"checking it against the {model.document.stage} on {pictures}, run by {module.RUNTIME}")
        runs = [module.runner(temporary)]
        if fp16 and form == "onnx":
            # on most CPUs onnxruntime goes by way of float32, and would not see what overflows on an accelerator
            runs.append(runner_of(HalfPrecision(network)))
        found.extend(compare(model, squares, run, network.output) for run in runs)
        _refuse(_worst(found), limit, fp16)

    write_atomically(output, write)
    size = output.stat().st_size
    return Export(output, form, precision, cost, size, document, _worst(found), pictures, module.RUNTIME, limit)


def runner_for(path: Path) -> Runner:
    """An exported file as a function of uint8 pictures (N, S, S, 3), on the CPU, by the ending of its name.

    Raises UsageError for another ending, a missing file or a missing extra, FileError when it is damaged.
    """
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    form = path.suffix.removeprefix(".")
    if form not in FORMATS:
        raise UsageError(f"{path}: an exported file's name ends in .{', .'.join(FORMATS)}")
    try:
        run: Runner = _module(form).runner(path)
    except NettailorError:
        raise
    except Exception as error:  # whatever onnx, onnxruntime and torch.export throw at a foreign file
        raise FileError(f"{path} can't be run: {str(error).splitlines()[0] if str(error) else error!r}") from error
    return run


def _module(form: str) -> ModuleType:
    if form not in FORMATS:
        raise UsageError(f"--format {form} is unknown", did_you_mean(form, FORMATS) or f"choose {', '.join(FORMATS)}")
    try:
        return import_module(f"nettailor_cli.core.deploy.{_MODULES[form]}")
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        raise UsageError(f"--format {form} needs {error.name}", "pip install 'nettailor[export]'") from error


def _cost(network: StandaloneNetwork) -> Cost:
    """Parameters, biases included, and MACs of one picture."""
    size = network.preprocessing.size
    wide = StandaloneNetwork(
        network.plan, {k: t.float() for k, t in network.tensors().items()}, network.preprocessing, LOGITS
    )
    count = macs(wide, torch.zeros(1, size, size, 3, dtype=torch.uint8))
    return Cost(sum(tensor.numel() for tensor in network.tensors().values()), count)


_PICTURES = (
    "upright, on white where transparent, the short side resized to preprocessing.resize (bilinear, antialiased), "
    "the middle size x size pixels cut out; mean and std are applied inside"
)


def _describe(model: Model, network: StandaloneNetwork, precision: str, cost: Cost) -> dict[str, Any]:
    """The document inside every exported file."""
    document, size = model.document, network.preprocessing.size
    return {
        "standalone": network.plan.version,
        "package": __version__,
        "input": {
            "name": "images",
            "type": "uint8",
            "shape": ["N", size, size, 3],
            "colours": "RGB",
            "pictures": _PICTURES,
        },
        "output": {"name": network.output, "type": "float32", "shape": ["N", len(document.classes)]},
        "classes": list(document.classes),
        "preprocessing": document.preprocessing.to_json(),
        "precision": precision,
        "parameters": cost.parameters,
        "macs": cost.macs,
        "made_from": {"stage": document.stage, "backbone": document.backbone, "fingerprint": document.fingerprint},
    }


def _worst(found: list[Difference]) -> Difference:
    return max(found, key=lambda difference: difference.largest)


def _refuse(difference: Difference, limit: float, fp16: bool) -> None:
    if difference.largest <= limit:
        return
    hint = "half precision is too coarse for it: leave --fp16 out" if fp16 else "nothing was kept; please report it"
    raise RunFailed(
        f"the exported network differs from the model by {difference.probabilities:.2g} in probabilities and "
        f"{difference.logits:.2g} of the largest logit; {limit:g} is allowed",
        hint,
    )
