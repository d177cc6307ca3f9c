"""Batches of an epoch, from any batch on: order and augmentation follow from (seed, epoch), no state is kept.

A thread fetches the next pictures while the caller works on these. It touches only host memory: what runs on the device
is launched by the caller's thread, on the caller's stream.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from nettailor_cli.core.data.augment import Augmentation, central_crop
from nettailor_cli.core.data.pictures import Pictures
from nettailor_cli.core.data.streams import SHUFFLE, stream
from nettailor_cli.core.errors import UsageError
from nettailor_cli.core.preprocessing import Preprocessing

EVALUATION_BATCH = 64


@dataclass(frozen=True)
class Batch:
    """images: normalised float32 (N, 3, size, size), channels last; labels: int64 (N,); both on the same device.

    whole: how many pictures a step is to have in all, where this is one part of them; None: this is all. place: which
    batch of its `Batches` this is, as (epoch, number), and the number of the part where it is one.
    """

    images: torch.Tensor
    labels: torch.Tensor
    whole: int | None = None
    place: tuple[int, ...] = ()

    @property
    def of(self) -> int:
        """The pictures of the whole step."""
        return len(self.labels) if self.whole is None else self.whole

    @property
    def share(self) -> float:
        """Which part of the step's pictures these are, in (0, 1]."""
        return len(self.labels) / self.of

    def parts(self, count: int) -> list[Batch]:
        """The same pictures in `count` batches, alike in size; there are at least as many of them."""
        pairs = zip(self.images.tensor_split(count), self.labels.tensor_split(count), strict=True)
        places = ((*self.place, part) if self.place else () for part in range(count))
        return [Batch(*pair, self.of, place) for pair, place in zip(pairs, places, strict=True)]


class Batches:
    """All of `pictures` (decoded at side `preprocessing.resize`), in batches of at most `batch_size`, alike in size.

    Without an augmentation every picture is cropped to its centre. With a `share` below 1, an epoch has only so many of
    the pictures, two at least, the first of its order: another lot every time. `among` (number, count): of every batch
    only the part of one of several that share it, as they would have it together. Raises UsageError for a batch size
    below one.
    """

    def __init__(
        self,
        pictures: Pictures,
        preprocessing: Preprocessing,
        *,
        batch_size: int,
        seed: int,
        augmentation: Augmentation | None,
        shuffle: bool,
        device: torch.device,
        share: float = 1.0,
        among: tuple[int, int] = (0, 1),
    ) -> None:
        if batch_size < 1:
            raise UsageError(f"the batch size must be at least 1, not {batch_size}")
        self.pictures = pictures
        self._preprocessing = preprocessing
        self._batch_size = batch_size
        self._seed = seed
        self._augmentation = augmentation
        self._shuffle = shuffle
        self._device = device
        self._among = among
        # per epoch; two at least, if there are as many, because batch norm may need them
        self._seen = max(min(2, len(pictures)), round(share * len(pictures)))
        self._mean, self._std = (
            torch.tensor(values, dtype=torch.float32, device=device)[:, None, None]  # (3, 1, 1)
            for values in (preprocessing.mean, preprocessing.std)
        )

    def __len__(self) -> int:
        """How many batches an epoch has."""
        return -(-self._seen // self._batch_size)

    @property
    def smallest(self) -> int:
        """How many pictures the smallest batch has, all parts together; 0 when there is none."""
        return self._seen // len(self) if self._seen else 0

    @property
    def size(self) -> int:
        """The side of the pictures in a batch, in pixels."""
        return self._preprocessing.size

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of one epoch, from number `start` on: the same as the tail of the whole epoch.

        Closing the iterator, or dropping it, ends its thread. Raises BadImage as `Pictures.take` does.
        """
        count = len(self.pictures)
        order = stream(self._seed, epoch, SHUFFLE).permutation(count) if self._shuffle else np.arange(count)
        # not slices of batch_size: a last batch of one picture would be all noise
        parts = np.array_split(order[: self._seen], len(self))[start:] if count else []
        draws = None if self._augmentation is None else self._augmentation.draw(count, self._seed, epoch)
        with ThreadPoolExecutor(1, thread_name_prefix="nettailor-batches") as ahead:
            fetched = [ahead.submit(self._fetch, part) for part in parts[:1]]
            for number, part in enumerate(parts):
                images, labels = fetched.pop().result()
                fetched += [ahead.submit(self._fetch, following) for following in parts[number + 1 : number + 2]]
                own = None if draws is None else draws[self._own(part)]
                yield Batch(self._finish(images, own), self._to_device(labels), len(part), (epoch, start + number))

    def _own(self, indices: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        number, count = self._among
        return np.array_split(indices, count)[number]

    def _fetch(self, indices: np.ndarray[Any, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """uint8 (N, 3, S, S) and labels (N,) in host memory, pinned if they are to travel to a CUDA device."""
        indices = self._own(indices)
        images, labels = self.pictures.take(indices), self.pictures.labels[torch.from_numpy(indices)]
        if self._device.type == "cuda":
            return images.pin_memory(), labels.pin_memory()
        return images, labels

    def _to_device(self, tensor: torch.Tensor) -> torch.Tensor:
        wait = self._device.type != "cuda"  # only pinned memory may be left to be copied in the background
        return tensor.to(self._device, non_blocking=not wait)

    def _finish(self, images: torch.Tensor, draws: np.ndarray[Any, Any] | None) -> torch.Tensor:
        """To the device as bytes, a quarter of what floats would be; the rest is done there."""
        images, size = self._to_device(images), self._preprocessing.size
        if self._augmentation is None or draws is None:
            unit = central_crop(images, size)
        else:
            unit = self._augmentation.apply(images, draws, size)
        normalised = (unit - self._mean) / self._std
        return normalised.contiguous(memory_format=torch.channels_last)


def evaluation_batches(pictures: Pictures, preprocessing: Preprocessing, device: torch.device) -> Batches:
    """Batches of central crops, in order."""
    return Batches(
        pictures, preprocessing, batch_size=EVALUATION_BATCH, seed=0, augmentation=None, shuffle=False, device=device
    )
