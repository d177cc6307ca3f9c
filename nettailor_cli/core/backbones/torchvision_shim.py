"""Importing torchvision's Python parts even where its compiled operators don't match the installed torch.

We use models, transforms and datasets, which are plain Python. A torchvision whose binary was built for another torch
fails to import all the same, with "operator torchvision::nms does not exist": it describes that operator to torch
before anybody asks for it. Declaring the schemas (no implementation) is all that the import needs.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from types import ModuleType

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
# torch forgets what a Library declared when it is collected, hence a name that lives as long as the module.
_declared: list[torch.library.Library] = []


def import_torchvision() -> ModuleType:
    """The torchvision package. Raises ImportError when it is not installed, RuntimeError when it fails otherwise."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns about its missing image codecs, which we don't use
        try:
            return importlib.import_module("torchvision")
        except RuntimeError as error:
            if "torchvision::" not in str(error):
                raise
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")
        for schema in _SCHEMAS:
            library.define(schema)
        _declared.append(library)
        return importlib.import_module("torchvision")
