"""The identity of a backbone: SHA-256 over its tensors, whatever file and storage type they came in.

For every tensor in name order (torchvision's names, sorted by code point): the line "NAME D0xD1x...\\n" in UTF-8,
then the values as little-endian fp32 in row-major order. The classifier and num_batches_tracked don't count.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor


def counts(key: str, left_out: Sequence[str]) -> bool:
    """Whether the tensor belongs to the backbone's identity; `left_out` are modules that don't: the classifier's name,
    and those of auxiliary heads.
    """
    return not key.startswith(tuple(f"{name}." for name in left_out)) and not key.endswith("num_batches_tracked")


def fingerprint_of(tensors: Mapping[str, Tensor], *, left_out: Sequence[str] = ("fc",)) -> str:
    """64 hexadecimal digits. `tensors` are torchvision-keyed, of any shape, device and floating type."""
    digest = hashlib.sha256()
    for key in sorted(key for key in tensors if counts(key, left_out)):
        values = tensors[key].detach().to("cpu", torch.float32).contiguous()
        digest.update(f"{key} {'x'.join(map(str, values.shape))}\n".encode())
        digest.update(np.ascontiguousarray(values.numpy(), dtype="<f4").data)
    return digest.hexdigest()
