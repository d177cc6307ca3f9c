"""nettailor: tailor pretrained image networks. The Python API in one screen; names are loaded when they are first used.

read_document(path)               what a model file says of itself: graph, classes, metrics (no torch)
prune_file(student, output, ...)  step 4 on files
load_model(path, home=, progress=) the network in a file, ready to run
find_images(paths), predict(model, images, machine, top_k=)   the most probable classes, image by image
evaluate_on(model, data, machine, progress)                   accuracy and loss on a folder
export_model(model, output, form=, progress=)                 a standalone file, checked: "onnx", "pt2", "safetensors"
load_standalone(path)             the network in a safetensors export, and its document
choose_machine(device, precision) where and in which arithmetic
Silent                            a progress that says nothing
"""

from importlib import import_module
from typing import Any

from nettailor_cli._version import __version__

_HOMES = {
    "read_document": "delta",
    "prune_file": "stages.prune",
    "load_model": "models",
    "find_images": "inference",
    "predict": "inference",
    "evaluate_on": "inference",
    "export_model": "deploy.export",
    "load_standalone": "deploy.safetensors_file",
    "choose_machine": "training.precision",
    "Silent": "progress",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"nettailor_cli.core.{_HOMES[name]}"), name)
