"""nettailor: tailor pretrained image networks. The Python API in one screen; names are loaded when they are first used.

read_document(path)               what a model file says of itself: graph, classes, metrics (no torch)
prune_file(student, output, ...)  step 4 on files
load_model(path, home=)           the network in a file, ready to run: a Model
choose_machine(device, precision) where and in which arithmetic
keep_freed_memory()               for a program's start: large batches run faster on Linux's CPUs
find_images(paths)                the image files that files, folders and patterns stand for
predict(model, images, machine, top_k=)           the most probable classes: one Prediction per image, as they are ready
predict_batches(...)                              the same in lists
to_square(picture, side), probabilities(model, squares, machine)   for pictures that are in memory already
load_bundle(folder)               several tasks on one backbone in memory: a Bundle with model(task) and switch(task)
write_bundle(models, folder, home=)               makes such a folder
predict_tasks(models, ...), probabilities_of(models, ...)   for several tasks; what they share is computed once
export_model(model, output, form=) a standalone file, checked: "onnx", "pt2", "safetensors"
load_standalone(path)             the network in a safetensors export, and its document
evaluate_on(model, data, machine) accuracy, loss and Confusion on a folder: an Evaluation
Silent                            a progress that says nothing; functions that take long have a parameter `progress`
NettailorError                    what every error is, with `message` and `hint`

examples/python_api.md shows them at work.
"""

from importlib import import_module
from typing import Any

from nettailor_cli._version import __version__

_HOMES = {
    "read_document": "delta",
    "prune_file": "stages.prune",
    "Model": "models",
    "load_model": "models",
    "Bundle": "deploy.bundle",
    "load_bundle": "deploy.bundle",
    "write_bundle": "deploy.bundling",
    "export_model": "deploy.export",
    "load_standalone": "deploy.safetensors_file",
    "choose_machine": "training.precision",
    "keep_freed_memory": "allocation",
    "find_images": "data",
    "to_square": "data",
    "Prediction": "inference",
    "predict": "inference",
    "predict_batches": "inference",
    "predict_tasks": "inference",
    "probabilities": "inference",
    "probabilities_of": "inference",
    "Evaluation": "inference",
    "evaluate_on": "inference",
    "Confusion": "confusion",
    "Silent": "progress",
    "NettailorError": "errors",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"nettailor_cli.core.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
