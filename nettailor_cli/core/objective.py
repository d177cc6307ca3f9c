"""The loss of tailoring (PAPER.md, Eqs. 11-12).

    L = cross-entropy + gamma1 * E[C] + gamma2 * Omega

Omega is the hint: how far the student's node activations and logits are from the teacher's. As in the released code, to
which gamma2 = 10 belongs, it is a mean squared error per node, summed over nodes and logits, over the number of nodes.
ResNets' activations are of the order of 1. Where other families' are not (an identity follows their nodes, and values
of 30 are common) the error is taken relative to the teacher's mean square, so that the same gamma2 fits.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nettailor_cli.core.settings import LOGITS


def hint(
    student_nodes: Sequence[Tensor | None],
    student_logits: Tensor,
    teacher_nodes: Sequence[Tensor] | None,
    teacher_logits: Tensor,
    *,
    relative: bool = False,
    weights: str = "equal",
) -> Tensor:
    """Omega, zero or more. Nodes 1..L count (node 0 is the stem's, which the student doesn't train); lost ones don't.

    Shapes: nodes (N, C_l, H_l, W_l) with the stem's first, logits (N, classes). `relative`: each node's error over the
    mean square of the teacher's node; the logits' is as it is. `weights` of the nodes: "equal", "rising" in proportion
    to their number, with the same mean, or "logits", which leaves the nodes out: `teacher_nodes` may be None then.
    """
    nodes = [(node, x) for node, x in enumerate(student_nodes) if node and x is not None]
    errors = mean_squared_error(student_logits.float(), teacher_logits.float())
    if weights != LOGITS:
        if teacher_nodes is None or len(teacher_nodes) != len(student_nodes):
            raise ValueError(f"the student has {len(student_nodes)} nodes, the teacher other ones")
        of = relative_error if relative else mean_squared_error
        mean = sum(node for node, _ in nodes) / len(nodes)
        for node, x in nodes:
            errors = errors + (node / mean if weights == "rising" else 1.0) * of(x, teacher_nodes[node])
    return errors / len(nodes)


def mean_squared_error(x: Tensor, y: Tensor) -> Tensor:
    """A float32 number. The difference is taken in the tensors' own type, its squares are added up in float32.

    One pass less than torch's loss on float32 copies, forward and backward: three times as fast on large bf16 nodes.
    """
    with torch.autocast(x.device.type, enabled=False):
        return _mean_square(x - y)


def relative_error(x: Tensor, y: Tensor) -> Tensor:
    """`mean_squared_error` over the mean square of `y`, which has no gradient: 1 for x = 0. 0 where y is 0 all over."""
    with torch.no_grad():
        square = _mean_square(y)
        factor = torch.where(square > 0, 1 / square, 0)  # no question to the device in between
    return factor * mean_squared_error(x, y)


def _mean_square(x: Tensor) -> Tensor:
    norm = torch.linalg.vector_norm(x, dtype=torch.float32)
    return norm * norm / x.numel()


def entropy(alpha: Tensor, nodes: int) -> Tensor:
    """Of the attention `alpha` (P,), the mean over `nodes` nodes, in nats: 0 where every node has one path left."""
    return -torch.xlogy(alpha, alpha.clamp_min(torch.finfo(alpha.dtype).tiny)).sum() / nodes


def warm_up(gamma1: float, share: float, done: float) -> float:
    """gamma1 after the share `done` of all steps, rising in a line from 0 over the first `share` of them."""
    return gamma1 * min(1.0, done / share) if share > 0 else gamma1
