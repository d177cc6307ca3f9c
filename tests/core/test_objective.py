from __future__ import annotations

import math

import pytest
import torch

from nettailor_cli.core.objective import entropy, hint, mean_squared_error, relative_error, warm_up


def full(value: float, *shape: int) -> torch.Tensor:
    return torch.full(shape, float(value))


def test_the_hint_is_mean_squared_errors_summed_over_nodes_and_logits_per_node() -> None:
    student = [full(9, 2, 1, 4, 4), full(1, 2, 3, 4, 4), full(2, 2, 5, 2, 2)]
    teacher = [full(0, 2, 1, 4, 4), full(3, 2, 3, 4, 4), full(2.5, 2, 5, 2, 2)]
    logits, wanted = torch.tensor([[0.0, 1.0], [2.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, 0.0]])
    # (1-3)^2 = 4; (2-2.5)^2 = 0.25; logits (0 + 1 + 4 + 0) / 4 = 1.25; two nodes; the stem's does not count
    assert hint(student, logits, teacher, wanted).item() == pytest.approx((4 + 0.25 + 1.25) / 2)


def test_a_node_is_a_mean_over_all_its_elements() -> None:
    x = torch.zeros(2, 1, 1, 2)
    x[0, 0, 0, 1] = 4.0
    value = hint([x, x], torch.zeros(2, 3), [x, torch.zeros_like(x)], torch.zeros(2, 3))
    assert value.item() == pytest.approx(16 / 4)


def test_nodes_that_are_gone_are_neither_summed_nor_counted() -> None:
    student = [full(0, 1, 1, 2, 2), None, full(1, 1, 1, 2, 2), None, full(3, 1, 1, 1, 1)]
    teacher = [full(0, 1, 1, 2, 2)] * 4 + [full(0, 1, 1, 1, 1)]
    assert hint(student, full(0, 1, 2), teacher, full(1, 1, 2)).item() == pytest.approx((1 + 9 + 1) / 2)


def test_the_hint_is_zero_for_the_teacher_itself_and_refuses_other_depths() -> None:
    nodes = [torch.randn(1, 2, 3, 3) for _ in range(4)]
    logits = torch.randn(1, 5)
    assert hint(nodes, logits, nodes, logits).item() == 0
    with pytest.raises(ValueError):
        hint(nodes, logits, nodes[:-1], logits)
    with pytest.raises(ValueError):
        hint(nodes, logits, None, logits)


def test_the_logits_alone_need_no_nodes_of_the_teacher_and_are_over_the_students_nodes() -> None:
    student = [full(9, 1, 1), full(1, 1, 1), None, full(5, 1, 1)]
    value = hint(student, full(1, 1, 2), None, full(4, 1, 2), weights="logits")
    assert value.item() == pytest.approx((1 - 4) ** 2 / 2)


def test_the_hint_is_computed_in_float32() -> None:
    student = [full(0, 1, 1, 1, 1).bfloat16(), full(256, 1, 1, 1, 1).bfloat16()]
    teacher = [full(0, 1, 1, 1, 1), full(257, 1, 1, 1, 1)]  # 257 is no bfloat16
    assert hint(student, full(0, 1, 1).bfloat16(), teacher, full(0, 1, 1)).item() == 1.0


def test_the_hints_gradient_is_twice_the_error_over_elements_and_nodes() -> None:
    x = full(1, 1, 1, 2, 2).requires_grad_()
    logits = full(3, 1, 2).requires_grad_()
    hint([full(0, 1), x, x.detach()], logits, [full(0, 1), 0 * x.detach(), x.detach()], full(0, 1, 2)).backward()
    assert x.grad is not None
    assert logits.grad is not None
    assert x.grad.flatten().tolist() == pytest.approx([2 * 1 / 4 / 2] * 4)
    assert logits.grad.flatten().tolist() == pytest.approx([2 * 3 / 2 / 2] * 2)


@pytest.mark.parametrize(
    ("share", "done", "factor"),
    [(0.3, 0.0, 0.0), (0.3, 0.15, 0.5), (0.3, 0.3, 1.0), (0.3, 0.9, 1.0), (0.0, 0.0, 1.0), (1.0, 0.25, 0.25)],
)
def test_gamma1_rises_in_a_line_over_its_share_of_the_steps(share: float, done: float, factor: float) -> None:
    assert warm_up(3.0, share, done) == pytest.approx(3.0 * factor)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_mean_squared_error_and_its_gradient_are_those_of_the_definition(dtype: torch.dtype) -> None:
    """Also under autocast, and where there is no error at all, whose root has no slope."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(4, 8, 6, 6, generator=generator).to(dtype) for _ in range(2))
    x.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        value = mean_squared_error(x, y)
    value.backward()
    assert value.dtype == torch.float32
    error = x.detach().double() - y.double()
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    assert value.item() == pytest.approx(error.square().mean().item(), rel=tolerance)
    assert x.grad is not None
    torch.testing.assert_close(x.grad.double(), 2 * error / error.numel(), rtol=2 * tolerance, atol=1e-6)
    x.grad = None
    mean_squared_error(x, x.detach()).backward()
    assert x.grad is not None and not x.grad.any()


def test_a_relative_hint_is_each_nodes_error_over_the_teachers_mean_square() -> None:
    student = [full(0, 1), full(1, 2, 3, 4, 4), full(20, 2, 5, 2, 2)]
    teacher = [full(0, 1), full(3, 2, 3, 4, 4), full(25, 2, 5, 2, 2)]
    logits, wanted = full(2, 2, 2), full(0, 2, 2)
    # (1-3)^2 / 9 = 4/9; (20-25)^2 / 625 = 1/25; the logits' 4 stays as it is; two nodes
    assert hint(student, logits, teacher, wanted, relative=True).item() == pytest.approx((4 / 9 + 1 / 25 + 4) / 2)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [("equal", (1 + 4 + 9 + 2) / 3), ("rising", (1 * 1 / 2 + 2 / 2 * 4 + 3 / 2 * 9 + 2) / 3), ("logits", 2 / 3)],
)
def test_nodes_count_equally_rising_or_not_at_all(weights: str, expected: float) -> None:
    student = [full(5, 1), *(full(value, 2, 3, 4, 4) for value in (1, 2, 3))]
    teacher = [full(0, 1), *(full(0, 2, 3, 4, 4) for _ in range(3))]
    logits = torch.tensor([[2.0, 0.0]])
    assert hint(student, logits, teacher, 0 * logits, weights=weights).item() == pytest.approx(expected)


def test_rising_weights_go_by_the_number_of_the_node_whatever_is_gone() -> None:
    student = [full(0, 1), full(1, 1), None, full(1, 1)]
    value = hint(student, full(0, 1, 1), [full(0, 1)] * 4, full(0, 1, 1), weights="rising")
    assert value.item() == pytest.approx((1 / 2 + 3 / 2) / 2)


def test_the_attentions_entropy_is_a_mean_over_nodes_and_zero_where_one_path_is_left() -> None:
    alpha = torch.tensor([0.5, 0.5, 1.0, 0.25, 0.25, 0.25, 0.25, 1.0, 0.0], requires_grad=True)
    value = entropy(alpha, 4)
    assert value.item() == pytest.approx((math.log(2) + 0 + math.log(4) + 0) / 4)
    value.backward()
    assert alpha.grad is not None and bool(alpha.grad.isfinite().all())


def test_the_scale_of_a_teacher_does_not_change_a_relative_error_and_a_silent_one_counts_nothing() -> None:
    x, y = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    assert relative_error(30 * x, 30 * y).item() == pytest.approx(relative_error(x, y).item(), rel=1e-5)
    assert relative_error(0 * x, y).item() == pytest.approx(1)
    silent = x.clone().requires_grad_()
    relative_error(silent, torch.zeros_like(y)).backward()
    assert silent.grad is not None and not silent.grad.any()
