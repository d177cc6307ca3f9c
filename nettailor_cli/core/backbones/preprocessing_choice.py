"""Which mean, std and size a backbone's inputs get, and who said so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nettailor_cli.core.errors import FileError, UsageError
from nettailor_cli.core.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from nettailor_cli.core.strict import parse_json

_DEFAULT = "ImageNet's default"
_ARCHITECTURES = "what the architecture was made for"


def choose(
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    tables: Sequence[tuple[str, Mapping[str, str]]],
    *,
    source: str,
    default: Preprocessing | None = None,
) -> tuple[Preprocessing, str]:
    """The preprocessing and a printable line with the reason for each of mean and std.

    `mean` and `std` are the user's own: three numbers each on the [0, 1] scale. Where they are None the first of
    `tables`, pairs of (who says so, a file's metadata), that has the key decides; else it is the `default` of the
    architecture, or ImageNet's. `source` is how messages call the file. Raises UsageError for the user's own values and
    FileError for a file's.
    """
    default = default or Preprocessing()
    document = default.to_json()
    usual = (default.mean, default.std) == (IMAGENET_MEAN, IMAGENET_STD)
    said_by = dict.fromkeys(("mean", "std"), _DEFAULT if usual else _ARCHITECTURES)
    for who, metadata in reversed(tables):
        for key in ("mean", "std", "size", "ratio"):
            if key in metadata:
                document[key], said_by[key] = _parsed(metadata[key], key, source), who
    _preprocessing(document, FileError(f"the metadata of {source} have no usable mean, std and size"))
    for key, values in (("mean", mean), ("std", std)):
        if values is not None:
            document[key], said_by[key] = list(values), f"--{key}"
    wrong = UsageError(f"--mean and --std take three numbers each, std above zero; got {mean} and {std}")
    chosen = _preprocessing(document, wrong)
    return chosen, f"mean {_text(chosen.mean)} ({said_by['mean']}), std {_text(chosen.std)} ({said_by['std']})"


def _parsed(text: str, key: str, source: str) -> Any:
    try:
        return parse_json(text)
    except ValueError:
        raise FileError(f"the metadata of {source} have a {key} that is not JSON: {text[:60]!r}") from None


def _preprocessing(document: dict[str, Any], error: FileError | UsageError) -> Preprocessing:
    try:
        return Preprocessing.from_json(document)
    except (TypeError, ValueError):
        raise error from None


def _text(values: Sequence[float]) -> str:
    return " ".join(f"{value:g}" for value in values)
