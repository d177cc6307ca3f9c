"""Whether a file's tensors are those of an architecture, and if not, what is wrong and what they are instead."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from math import prod

import torch
from torch import Tensor

from nettailor_cli.core.backbones import catalog
from nettailor_cli.core.backbones.decomposition import make_network
from nettailor_cli.core.backbones.fingerprint import counts
from nettailor_cli.core.errors import FileError
from nettailor_cli.core.printable import harmless, some_of

_NAMED = 3  # of the offending tensors in a message
_Shapes = dict[str, tuple[int, ...]]


def checked(given: Mapping[str, Tensor], expected: _Shapes, *, arch: str, source: str) -> dict[str, Tensor]:
    """`given` as fp32, once it has exactly the names and shapes of `expected` and finite floating values.

    `source` is how messages call the file. Raises FileError otherwise, naming the first few offenders and the
    architecture that the tensors would fit, if there is one.
    """
    problems = _problems(given, expected)
    if problems:
        fits = _arch_of(given)
        message = f"{source} does not fit {arch}: {'; '.join(problems)}"
        if fits is None:
            raise FileError(message)
        raise FileError(f"{message}. It is a {fits}", f"use --backbone {fits}")
    wrong_type = [key for key, value in given.items() if not value.is_floating_point()]
    if wrong_type:
        raise FileError(f"{source} holds values that are not floating-point numbers in {_some(wrong_type)}")
    values = {key: value.detach().to(torch.float32) for key, value in given.items()}
    broken = [key for key, value in values.items() if not bool(torch.isfinite(value).all())]
    if broken:
        raise FileError(f"{source} holds values that are not finite (NaN or infinite) in {_some(broken)}")
    return values


def _problems(given: Mapping[str, Tensor], expected: _Shapes) -> list[str]:
    missing = [key for key in expected if key not in given]
    unknown = [key for key in given if key not in expected]
    misshapen = [
        f"{key} ({_text(given[key].shape)} instead of {_text(shape)})"
        for key, shape in expected.items()
        if key in given and tuple(given[key].shape) != shape
    ]
    kinds = (("missing", missing), ("unknown", unknown), ("of another shape", misshapen))
    return [f"{len(keys)} tensors {kind}: {_some(keys)}" for kind, keys in kinds if keys]


def _arch_of(given: Mapping[str, Tensor]) -> str | None:
    for arch in catalog.ARCHS:
        known = catalog.network(arch)
        own = {key: tuple(value.shape) for key, value in given.items() if counts(key, (known.classifier,))}
        trained = sum(prod(shape) for key, shape in own.items() if not key.endswith(("running_mean", "running_var")))
        # to look at the network itself takes a while
        if trained == known.parameters - 1000 * (known.features + 1) and own == _shapes_of(arch):
            return arch
    return None


@functools.cache
def _shapes_of(arch: str) -> _Shapes:
    network, classifier = make_network(arch, "meta"), catalog.network(arch).classifier
    return {k: tuple(v.shape) for k, v in network.state_dict().items() if counts(k, (classifier,))}


def _text(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape)) or "a single number"


def _some(names: list[str]) -> str:
    return some_of([harmless(name) for name in names], _NAMED)
