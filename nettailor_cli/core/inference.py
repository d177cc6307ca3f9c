"""A model on pictures: its score on a split of a folder, and its predictions image by image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from nettailor_cli.core.data import (
    IMAGE_SUFFIXES,
    BadImage,
    Batches,
    Cache,
    Dataset,
    central_crop,
    cores,
    evaluation_batches,
    load_pictures,
    read_dataset,
    read_square,
    select,
)
from nettailor_cli.core.delta import ModelDocument
from nettailor_cli.core.errors import DataError, UsageError
from nettailor_cli.core.models import Model
from nettailor_cli.core.progress import Progress
from nettailor_cli.core.settings import MEMORY_LIMIT
from nettailor_cli.core.training.evaluate import Score, evaluate
from nettailor_cli.core.training.precision import Machine

_CHUNK = 64
"""Images that `predict` decodes and runs at a time."""


@dataclass(frozen=True)
class Evaluation:
    """A score, the split that it was measured on, and how many pictures were left out because they are broken."""

    split: str
    score: Score
    skipped: int


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one image: (name, probability in [0, 1]), best first; or why there are none."""

    path: Path
    classes: tuple[tuple[str, float], ...] = ()
    error: str = ""


def evaluate_on(
    model: Model,
    data: Path,
    machine: Machine,
    progress: Progress,
    *,
    split: str | None = None,
    top_k: tuple[int, ...] = (1,),
    workers: int = 0,
    skip_bad: bool = False,
    cache: Cache | None = None,
) -> Evaluation:
    """Score `model` on `split` of the folder `data`. Classes go by name.

    None means test, else val; and all of a folder without splits, unless it is the one that the model was trained on.
    val is split off train as it was for the model (same seed, fraction and groups). Decoded pictures come from and go
    into `cache`, if there is one. Raises DataError and UsageError.
    """
    document = model.document
    for k in top_k:
        if not 1 <= k <= len(document.classes):
            raise UsageError(f"--top-k {k}: the model has {len(document.classes)} classes")
    dataset = read_dataset(
        data,
        seed=int(document.data.get("split_seed", 0)),
        group=document.data.get("group"),
        classes=document.classes,
        val_fraction=float(document.data.get("val_fraction", 0.2)),
    )
    if split is None:
        split = _default_split(dataset, document)
        progress.note(f"split: {split}")
    pictures = load_pictures(
        dataset,
        select(dataset, split),
        document.preprocessing.resize,
        workers=workers or cores(),
        progress=progress,
        memory_limit=MEMORY_LIMIT,
        cache=cache,
        skip_bad=skip_bad,
    )
    model.network.to(machine.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    batches: Batches = evaluation_batches(pictures, document.preprocessing, machine.device)
    progress.start("evaluating", len(batches))
    score = evaluate(model.logits, model.network, batches, machine, top_k=top_k, after_batch=progress.advance)
    progress.finish()
    return Evaluation(split, score, skipped=len(pictures.skipped))


def _default_split(dataset: Dataset, document: ModelDocument) -> str:
    if "test" in dataset.splits:
        return "test"
    # where there is no val folder, val is what was set aside in training, and means nothing in other pictures
    own = (dataset.root / "val").is_dir() or dataset.digest == document.data.get("digest")
    return "val" if own and "val" in dataset.splits else "all"


def find_images(paths: Sequence[Path]) -> list[Path]:
    """The image files among `paths`, folders replaced by the images anywhere below them, in order of name.

    A file that is named is taken whatever its ending is. Raises DataError when a path is not there or nothing is found.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(file for file in path.rglob("*") if _is_image(file, path))
        elif path.exists():
            found.append(path)
        else:
            raise DataError(f"there is no file or folder {path}")
    if not found:
        raise DataError(f"no images in {', '.join(map(str, paths))}")
    return found


def _is_image(file: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    return file.suffix.lower() in IMAGE_SUFFIXES and not hidden and file.is_file()


def predict(
    model: Model, images: Sequence[Path], machine: Machine, *, top_k: int, workers: int = 0
) -> Iterator[Prediction]:
    """One Prediction per image, in order, as they are ready; a picture that can't be read is one with an error.

    Raises UsageError when `top_k` is not between 1 and the number of classes.
    """
    document = model.document
    if not 1 <= top_k <= len(document.classes):
        raise UsageError(f"--top-k {top_k}: the model has {len(document.classes)} classes")
    return _predictions(model, images, machine, top_k, workers)


def _predictions(
    model: Model, images: Sequence[Path], machine: Machine, top_k: int, workers: int
) -> Iterator[Prediction]:
    preprocessing = model.document.preprocessing
    mean, std = (torch.tensor(v, device=machine.device)[:, None, None] for v in (preprocessing.mean, preprocessing.std))
    model.network.to(machine.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    with ThreadPoolExecutor(workers or cores()) as pool:
        for start in range(0, len(images), _CHUNK):
            chunk = images[start : start + _CHUNK]
            squares = list(pool.map(lambda path: _square_or_reason(path, preprocessing.resize), chunk))
            good = [square for square in squares if not isinstance(square, str)]
            probabilities: Iterator[list[tuple[str, float]]] = iter(())
            if good:
                # (N, side, side, 3) uint8 -> (N, 3, size, size) in [0, 1], the same crop as in evaluation
                pixels = torch.from_numpy(np.stack(good)).permute(0, 3, 1, 2).to(machine.device)
                unit = central_crop(pixels, preprocessing.size)
                normalised = ((unit - mean) / std).contiguous(memory_format=torch.channels_last)
                with torch.inference_mode(), machine.autocast():
                    logits = model.logits(normalised)
                probabilities = iter(_best(logits.float().softmax(dim=1), model.document.classes, top_k))
            for path, square in zip(chunk, squares, strict=True):
                if isinstance(square, str):
                    yield Prediction(path, error=square)
                else:
                    yield Prediction(path, tuple(next(probabilities)))


def _best(probabilities: torch.Tensor, classes: Sequence[str], top_k: int) -> list[list[tuple[str, float]]]:
    values, indices = probabilities.topk(top_k, dim=1)
    return [
        [(classes[index], value) for value, index in zip(row, places, strict=True)]
        for row, places in zip(values.tolist(), indices.tolist(), strict=True)
    ]


def _square_or_reason(path: Path, side: int) -> np.ndarray | str:
    try:
        return read_square(path, side)
    except BadImage as error:
        return error.reason
