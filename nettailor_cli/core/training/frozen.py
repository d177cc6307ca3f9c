"""What is never trained, made quick: batch norms folded into the convolutions before them, weights in the compute type.

The arithmetic is the same up to rounding. A frozen weight that stays in fp32 is cast again at every step under bf16.
"""

from __future__ import annotations

import copy
import itertools

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from nettailor_cli.core.student import Student
from nettailor_cli.core.training.precision import Machine


def quick(module: nn.Module, machine: Machine) -> None:
    """Fold and cast `module` in place, for evaluation only. To do it twice changes nothing."""
    module.eval()
    for parent in list(module.modules()):
        _fold_pairs(parent)
    module.requires_grad_(False)
    if machine.bf16:
        module.to(torch.bfloat16)
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def quick_twin(student: Student, machine: Machine) -> Student:
    """`student` on quick copies of its frozen parts; everything that is trained is the very same in both.

    With bn_stats "adapt" nothing is frozen but the convolutions, and `student` itself comes back.
    """
    if student.bn_stats != "frozen":
        return student
    frozen = copy.deepcopy(student.frozen())
    for part in frozen.values():
        quick(part, machine)
    return student.on(frozen)


def _fold_pairs(parent: nn.Module) -> None:
    """Every convolution among `parent`'s children that a batch norm follows takes it over.

    The blocks' children are registered in the order in which they run (tests compare every family's output).
    """
    children = list(parent.named_children())
    for (name, conv), (following, norm) in itertools.pairwise(children):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            setattr(parent, name, fuse_conv_bn_eval(conv, norm))
            setattr(parent, following, nn.Identity())
