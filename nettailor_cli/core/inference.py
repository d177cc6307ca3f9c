"""A model on pictures: its score on a split of a folder, and its predictions image by image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nettailor_cli.core.confusion import Confusion, confusion_of
from nettailor_cli.core.data import (
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
from nettailor_cli.core.errors import UsageError
from nettailor_cli.core.models import Model
from nettailor_cli.core.progress import SILENT, Progress
from nettailor_cli.core.settings import MEMORY_LIMIT
from nettailor_cli.core.training.evaluate import Score, evaluate
from nettailor_cli.core.training.precision import Machine

PREDICTION_BATCH = 64
"""Images that `predict` decodes and runs at a time if nobody says otherwise."""


@dataclass(frozen=True)
class Evaluation:
    """A score, the split that it was measured on, and how many pictures were left out because they are broken.

    `confusion` tells the score class by class.
    """

    split: str
    score: Score
    confusion: Confusion
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
    progress: Progress = SILENT,
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
        fold=int(document.data.get("fold", 0)),
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
    confusion = confusion_of(score.labels.numpy(), score.predicted.numpy(), document.classes)
    return Evaluation(split, score, confusion, skipped=len(pictures.skipped))


def _default_split(dataset: Dataset, document: ModelDocument) -> str:
    if "test" in dataset.splits:
        return "test"
    # where there is no val folder, val is what was set aside in training, and means nothing in other pictures
    own = (dataset.root / "val").is_dir() or dataset.digest == document.data.get("digest")
    return "val" if own and "val" in dataset.splits else "all"


def predict(
    model: Model,
    images: Iterable[Path],
    machine: Machine,
    *,
    top_k: int,
    batch_size: int = PREDICTION_BATCH,
    workers: int = 0,
) -> Iterator[Prediction]:
    """One Prediction per image, in order; see `predict_batches`."""
    return chain.from_iterable(
        predict_batches(model, images, machine, top_k=top_k, batch_size=batch_size, workers=workers)
    )


def predict_batches(
    model: Model,
    images: Iterable[Path],
    machine: Machine,
    *,
    top_k: int,
    batch_size: int = PREDICTION_BATCH,
    workers: int = 0,
) -> Iterator[list[Prediction]]:
    """Lists of at most `batch_size` predictions, in order, each as soon as it is done: `images` may be endless.

    A picture that can't be read is a prediction with an error. Raises UsageError when `top_k` is not between 1 and the
    number of classes, or `batch_size` below 1.
    """
    document = model.document
    if not 1 <= top_k <= len(document.classes):
        raise UsageError(f"--top-k {top_k}: the model has {len(document.classes)} classes")
    if batch_size < 1:
        raise UsageError(f"--batch-size {batch_size}: at least 1 is needed")
    return _batches_of_predictions(model, iter(images), machine, top_k, batch_size, workers)


def probabilities(model: Model, squares: np.ndarray[Any, np.dtype[np.uint8]], machine: Machine) -> Tensor:
    """The classes' probabilities: (N, C), float32, range [0, 1], on the machine's device.

    `squares` are N pictures as `to_square` makes them: uint8, shape (N, S, S, 3), S the preprocessing's `resize`.
    Raises UsageError for another shape or type.
    """
    preprocessing = model.document.preprocessing
    if squares.dtype != np.uint8 or squares.shape[1:] != (preprocessing.resize, preprocessing.resize, 3):
        wanted = f"uint8 (N, {preprocessing.resize}, {preprocessing.resize}, 3)"
        raise UsageError(f"pictures are {wanted}, not {squares.dtype} {squares.shape}", "see to_square")
    model.network.to(machine.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    mean, std = (torch.tensor(v, device=machine.device)[:, None, None] for v in (preprocessing.mean, preprocessing.std))
    # (N, S, S, 3) uint8 -> (N, 3, size, size) in [0, 1], the same crop as in evaluation
    pixels = torch.from_numpy(np.require(squares, requirements="W")).permute(0, 3, 1, 2).to(machine.device)
    unit = central_crop(pixels, preprocessing.size)
    normalised = ((unit - mean) / std).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode(), machine.autocast():
        logits = model.logits(normalised)
    return logits.float().softmax(dim=1)


def _batches_of_predictions(
    model: Model, images: Iterator[Path], machine: Machine, top_k: int, batch_size: int, workers: int
) -> Iterator[list[Prediction]]:
    side = model.document.preprocessing.resize
    with ThreadPoolExecutor(workers or cores()) as pool:
        while paths := list(islice(images, batch_size)):  # never a name more: the next one may be long in coming
            squares = list(pool.map(lambda path: _square_or_reason(path, side), paths))
            good = [square for square in squares if not isinstance(square, str)]
            best: Iterator[list[tuple[str, float]]] = iter(())
            if good:
                best = iter(_best(probabilities(model, np.stack(good), machine), model.document.classes, top_k))
            yield [
                Prediction(path, error=square) if isinstance(square, str) else Prediction(path, tuple(next(best)))
                for path, square in zip(paths, squares, strict=True)
            ]


def _best(shares: Tensor, classes: Sequence[str], top_k: int) -> list[list[tuple[str, float]]]:
    values, indices = shares.topk(top_k, dim=1)
    return [
        [(classes[index], value) for value, index in zip(row, places, strict=True)]
        for row, places in zip(values.tolist(), indices.tolist(), strict=True)
    ]


def _square_or_reason(path: Path, side: int) -> np.ndarray | str:
    try:
        return read_square(path, side)
    except BadImage as error:
        return error.reason
