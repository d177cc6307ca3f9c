"""A step's gradients: the same from micro-batches and from two real processes as from the whole batch at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nettailor_cli.core.complexity import ExpectedComplexity, student_graph
from nettailor_cli.core.data import Batch
from nettailor_cli.core.preprocessing import Preprocessing
from nettailor_cli.core.settings import Settings
from nettailor_cli.core.stages.tailor import TailorTrainee
from nettailor_cli.core.stages.teach import TeachTrainee
from nettailor_cli.core.student import Student
from nettailor_cli.core.teacher import Teacher
from nettailor_cli.core.training.frozen import quick_twin
from nettailor_cli.core.training.gradients import Gradients, synchronise_norms
from nettailor_cli.core.training.precision import Machine
from nettailor_cli.core.training.processes import ALONE, Processes
from nettailor_cli.core.training.trainee import Trainee
from tests.core.plain import fresh_backbone, shake
from tests.pair import in_two

CPU = Machine(torch.device("cpu"), bf16=False, reason="a test")
IMAGES, CLASSES, DONE = 7, 3, 0.5
Found = tuple[dict[str, float], dict[str, Tensor]]
"""Figures and gradients."""


def whole() -> Batch:
    generator = torch.Generator().manual_seed(1)
    return Batch(
        torch.randn(IMAGES, 3, 32, 32, generator=generator), torch.randint(CLASSES, (IMAGES,), generator=generator)
    )


def make_teacher() -> Teacher:
    teacher = Teacher(fresh_backbone("resnet18"), CLASSES)
    teacher.start_fresh(torch.Generator().manual_seed(2))
    return teacher


def teach(settings: Settings) -> Trainee:
    return TeachTrainee(make_teacher(), settings)


def tailor(settings: Settings, bn_stats: str = "frozen") -> Trainee:
    backbone = fresh_backbone("resnet18")
    backbone.preprocessing = Preprocessing(size=32)
    student = Student(backbone, student_graph(backbone, CLASSES, skips=2), CLASSES, bn_stats=bn_stats)
    student.start_fresh(torch.Generator().manual_seed(0))
    shake(student.proxies, 5)
    return TailorTrainee(student, make_teacher(), ExpectedComplexity(student.graph), settings, quick_twin(student, CPU))


TRAINEES: dict[str, Callable[[], Trainee]] = {
    "teach": lambda: teach(Settings(label_smoothing=0.1)),
    "tailor": lambda: tailor(Settings()),
    "block-local": lambda: tailor(Settings(hint="block-local")),
}


def gradients(trainee: Trainee, batch: Batch, processes: Processes = ALONE, accumulate: int = 1) -> Found:
    """With batch norms in evaluation mode: what they do in training depends on what they see at once."""
    step = Gradients(trainee, CPU, processes, accumulate)
    trainee.module.eval()
    figures = step(batch, DONE)
    return figures, {
        name: parameter.grad
        for group in trainee.groups()
        for name, parameter in group.parameters.items()
        if parameter.grad is not None
    }


def assert_same(found: Found, expected: Found) -> None:
    assert found[0] == pytest.approx(expected[0], rel=1e-4)
    assert found[1].keys() == expected[1].keys()
    for name, gradient in expected[1].items():
        bound = 1e-4 * gradient.abs().max().item() + 1e-7
        torch.testing.assert_close(
            found[1][name], gradient, rtol=0, atol=bound, msg=lambda text, n=name: f"{n}: {text}"
        )


def share(batch: Batch, processes: Processes) -> Batch:
    """4 of the 7 pictures for the first process, 3 for the second."""
    own = slice(0, 4) if processes.is_main else slice(4, 7)
    return Batch(batch.images[own], batch.labels[own], IMAGES)


@pytest.fixture(scope="module")
def of_one() -> dict[str, Found]:
    """By hand: one loss of the whole batch, one backward."""
    found = {}
    for name, make in TRAINEES.items():
        trainee = make()
        trainee.module.eval()
        losses = trainee.losses(whole(), DONE)
        losses["loss"].backward()
        grads = {n: p.grad for group in trainee.groups() for n, p in group.parameters.items() if p.grad is not None}
        found[name] = ({key: value.item() for key, value in losses.items()}, grads)
    return found


@pytest.fixture(scope="module")
def of_two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the two processes found, in one start."""

    def work(processes: Processes) -> dict[str, Any]:
        batch = share(whole(), processes)
        found: dict[str, Any] = {name: gradients(make(), batch, processes) for name, make in TRAINEES.items()}
        found["accumulated"] = gradients(TRAINEES["tailor"](), batch, processes, accumulate=3)
        adapting = tailor(Settings(), bn_stats="adapt")
        step = Gradients(adapting, CPU, processes)
        adapting.module.train()
        step(batch, DONE)
        found["statistics"] = {name: t.clone() for name, t in adapting.state().items() if "running" in name}
        if not processes.is_main:
            with torch.no_grad():
                for parameter in (other := teach(Settings())).module.parameters():
                    parameter.add_(1)
        else:
            other = teach(Settings())
        Gradients(other, CPU, processes)
        found["start"] = other.module.head.weight.detach().clone()
        return found

    return in_two(work, tmp_path_factory.mktemp("two"))


def test_micro_batches_add_up_to_the_whole_batch(of_one: dict[str, Found]) -> None:
    for name, make in TRAINEES.items():
        assert_same(gradients(make(), whole(), accumulate=3), of_one[name])  # 3, 2 and 2 pictures


def test_two_processes_have_the_gradients_and_figures_of_the_whole_batch(
    of_one: dict[str, Found], of_two: list[dict[str, Any]]
) -> None:
    for name in TRAINEES:
        for found in of_two:
            assert_same(found[name], of_one[name])


def test_micro_batches_in_two_processes_too(of_one: dict[str, Found], of_two: list[dict[str, Any]]) -> None:
    for found in of_two:
        assert_same(found["accumulated"], of_one["tailor"])  # 2, 1, 1 and 1, 1, 1 pictures


def test_two_processes_have_the_same_gradients_to_the_last_bit(of_two: list[dict[str, Any]]) -> None:
    first, second = of_two
    for name in (*TRAINEES, "accumulated"):
        assert all(torch.equal(second[name][1][key], gradient) for key, gradient in first[name][1].items())


def test_the_statistics_of_local_batch_norms_are_their_weighted_means(of_two: list[dict[str, Any]]) -> None:
    expected: dict[str, Tensor] = {}
    for number in range(2):
        own = share(whole(), Processes(number, 2))
        trainee = tailor(Settings(), bn_stats="adapt")
        trainee.module.train()
        trainee.losses(own, DONE)
        for name, tensor in trainee.state().items():
            if "running" in name:
                expected[name] = expected.get(name, 0) + tensor * own.share
    assert any(name.startswith("proxies") for name in expected) and any(name.startswith("stem") for name in expected)
    for found in of_two:
        assert found["statistics"].keys() == expected.keys()
        for name, tensor in expected.items():
            torch.testing.assert_close(found["statistics"][name], tensor)


def test_the_main_processs_weights_are_everyones(of_two: list[dict[str, Any]]) -> None:
    assert torch.equal(of_two[0]["start"], make_teacher().head.weight)
    assert torch.equal(of_two[1]["start"], of_two[0]["start"])


def test_alone_nothing_is_rounded_differently(of_one: dict[str, Found]) -> None:
    figures, found = gradients(TRAINEES["tailor"](), whole())
    assert figures == of_one["tailor"][0]
    assert all(torch.equal(found[name], gradient) for name, gradient in of_one["tailor"][1].items())


@pytest.mark.parametrize("bn_stats", ["frozen", "adapt"])
def test_on_accelerators_batch_norms_that_learn_see_all_and_keep_their_names(bn_stats: str) -> None:
    student = tailor(Settings(), bn_stats).module
    before, parameters = student.task_state(), dict(student.named_parameters())
    synchronise_norms(student)
    norms = {name: module for name, module in student.named_modules() if "BatchNorm" in type(module).__name__}
    for name, norm in norms.items():
        learns = bn_stats == "adapt" or name.startswith("proxies")
        assert isinstance(norm, nn.SyncBatchNorm) == learns and norm.training == learns
    after = student.task_state()
    assert after.keys() == before.keys()
    assert all(tensor.data_ptr() == before[name].data_ptr() for name, tensor in after.items())
    assert all(parameter is parameters[name] for name, parameter in student.named_parameters())
