"""Whether proxies that read the same node are faster as one convolution: measured, they are not kept merged.

    python examples/benchmarks/merged_proxies.py

1x1 convolutions with the shapes of ResNet-18's proxies at 224 px, each added to something of its own; apart, and as one
whose output is cut into parts. Medians, taking turns; ratios above 1 speak for merging.
"""

from __future__ import annotations

import argparse
import statistics

import torch
import torch.nn.functional as F

from nettailor_cli.core.deploy.timing import Stopwatch
from nettailor_cli.core.training.precision import choose_machine

SHAPES = ((64, (64, 64), 56), (128, (128, 128, 256), 28), (256, (256, 256, 512), 14), (512, (512, 512), 7))
"""Channels in, channels out of each reader, pixels."""


def measure(dtype: torch.dtype, batch: int, inputs: int, outputs: tuple[int, ...], size: int, rounds: int) -> float:
    """How many times as fast the merged one is: the median over rounds."""

    def images(channels: int) -> torch.Tensor:
        return torch.randn(batch, channels, size, size).to(dtype).to(memory_format=torch.channels_last)

    x, others = images(inputs), [images(count) for count in outputs]
    weights = [torch.randn(count, inputs, 1, 1).to(dtype).to(memory_format=torch.channels_last) for count in outputs]
    whole = torch.cat(weights).contiguous(memory_format=torch.channels_last)

    def apart() -> None:
        for other, weight in zip(others, weights, strict=True):
            other + F.conv2d(x, weight)

    def merged() -> None:
        for other, part in zip(others, F.conv2d(x, whole).split(outputs, dim=1), strict=True):
            other + part

    stopwatch = Stopwatch(seconds=0, least=rounds, most=rounds, warm_up=5)
    taken = stopwatch.time({"apart": apart, "merged": merged}, choose_machine("cpu", "fp32"))
    return statistics.median(a / m for a, m in zip(taken["apart"], taken["merged"], strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    arguments = parser.parse_args()
    for dtype in (torch.float32, torch.bfloat16):
        for batch in (1, 32):
            ratios = [measure(dtype, batch, *shape, arguments.rounds) for shape in SHAPES]
            print(f"{str(dtype).removeprefix('torch.')}, batch {batch}: " + ", ".join(f"{r:.2f}" for r in ratios))


if __name__ == "__main__":
    main()
