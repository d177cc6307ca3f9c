"""What is never trained, made quick: batch norms folded into the convolutions before them, weights in the compute type.

The arithmetic is the same up to rounding. A frozen weight that stays in fp32 is cast again at every step under bf16.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from nettailor_cli.core.state import sharing_copy
from nettailor_cli.core.student import Student
from nettailor_cli.core.training.precision import Machine
from nettailor_cli.core.training.taps import go_tapwise


def quick(module: nn.Module, machine: Machine) -> None:
    """Fold and cast `module` in place, for evaluation only. To do it twice changes nothing."""
    module.eval().requires_grad_(False)
    _quicken(module, machine)


def quick_twin(student: Student, machine: Machine) -> Student:
    """`student` on quick copies of its frozen parts; everything that is trained is the very same in both.

    With bn_stats "adapt" nothing is frozen but the convolutions, and `student` itself comes back.
    """
    if student.bn_stats != "frozen":
        return student
    frozen = {name: sharing_copy(part) for name, part in student.frozen().items()}
    for part in frozen.values():
        _quicken(part, machine)
    return student.on(frozen)


def _quicken(module: nn.Module, machine: Machine) -> None:
    """Fold and cast what is frozen in `module`, in place; its tensors, which others may hold as well, stay as they are.

    Layer by layer, so that there are never two of all weights in fp32.
    """
    for parent in list(module.modules()):
        _fold_pairs(parent, machine)
    for layer in module.modules():
        _cast(layer, machine)
    go_tapwise(module, machine)


def _cast(layer: nn.Module, machine: Machine) -> nn.Module:
    """What is frozen in `layer` itself in the compute type, in the layout that is fast for convolutions."""
    # a norm that was not folded keeps its statistics exact, as under autocast
    if _trained(layer) or isinstance(layer, nn.BatchNorm2d):
        return layer
    for name, parameter in list(layer.named_parameters(recurse=False)):
        setattr(layer, name, nn.Parameter(_quick_tensor(parameter.detach(), machine), requires_grad=False))
    for name, buffer in list(layer.named_buffers(recurse=False)):
        setattr(layer, name, _quick_tensor(buffer, machine))
    return layer


def _quick_tensor(tensor: Tensor, machine: Machine) -> Tensor:
    if machine.bf16 and tensor.is_floating_point():
        tensor = tensor.to(torch.bfloat16)
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor


def _trained(layer: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in layer.parameters(recurse=False))


def _fold_pairs(parent: nn.Module, machine: Machine) -> None:
    """Every convolution of torch's among `parent`'s children that a batch norm follows takes it over.

    The blocks' children are registered in the order in which they run (tests compare every family's output); a traced
    part knows what follows what.
    """
    pairs = _traced_pairs(parent) if isinstance(parent, fx.GraphModule) else itertools.pairwise(parent.named_children())
    for (name, conv), (following, norm) in list(pairs):
        if type(conv) is nn.Conv2d and type(norm) is nn.BatchNorm2d and not (_trained(conv) or _trained(norm)):
            setattr(parent, name, _cast(fuse_conv_bn_eval(conv, norm), machine))
            setattr(parent, following, nn.Identity())


_Named = tuple[str, nn.Module]


def _traced_pairs(part: fx.GraphModule) -> Iterator[tuple[_Named, _Named]]:
    """Layers of which one alone reads what the other gives."""
    layers = dict(part.named_children())
    for node in part.graph.nodes:
        (before, *more) = node.all_input_nodes or (node,)
        called = node.op == before.op == "call_module" and before is not node
        if called and not more and len(before.users) == 1:
            first, second = str(before.target), str(node.target)
            yield (first, layers[first]), (second, layers[second])
