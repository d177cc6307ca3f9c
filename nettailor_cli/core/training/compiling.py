"""torch.compile for the networks of a training step. Asked for, because it takes minutes at the start."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from nettailor_cli.core.progress import Progress
from nettailor_cli.core.student import Activations


class Compiled:
    """A network's forward, compiled when it is first called; where that can't be, the network as it is."""

    def __init__(self, network: nn.Module, progress: Progress) -> None:
        from torch._dynamo.exc import TorchDynamoException  # takes a second, which nobody else should pay

        self._failures = TorchDynamoException  # of every step of compiling, a missing C++ compiler included
        self._network = network
        self._progress = progress
        self._forward: Callable[[Tensor], Activations] = torch.compile(network)
        self._used = False

    def __call__(self, images: Tensor) -> Activations:
        try:
            activations = self._forward(images)
        except self._failures as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            reason = lines[0] if lines else type(error).__name__
            self._progress.warn(
                f"--compile: {type(self._network).__name__} runs as it is, it can't be compiled: {reason}"
            )
            self._forward = self._network
            self._used = True
            activations = self._network(images)
        if not self._used:
            self._progress.note(f"--compile: {type(self._network).__name__} is compiled")
            self._used = True
        return activations
