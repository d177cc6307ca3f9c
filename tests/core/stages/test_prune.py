from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nettailor_cli.core import delta
from nettailor_cli.core.complexity import student_graph
from nettailor_cli.core.delta import ModelDocument
from nettailor_cli.core.errors import FileError, UsageError
from nettailor_cli.core.graph import Graph
from nettailor_cli.core.preprocessing import Preprocessing
from nettailor_cli.core.pruning import prune
from nettailor_cli.core.stages.prune import prune_file
from nettailor_cli.core.student import Student
from nettailor_cli.core.task_tensors import tensors_for
from tests.core.plain import (
    assert_same,
    fresh_backbone,
    plain_forward,
    random_student,
    shake,
    shared_backbone,
    strides_of,
    triple_of,
    triples,
)

MEASURED = {"split": "val", "loss": 1.0, "images": 20}


def images() -> Tensor:
    return torch.randn(2, 3, 72, 72, generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize("bn_stats", ["frozen", "adapt"])
@pytest.mark.parametrize(
    ("arch", "skips", "remove", "threshold"),
    [("resnet18", 3, 0, 0.3), ("resnet18", 3, 4, 0.05), ("resnet18", None, 8, 0.3), ("resnet50", 2, 9, 0.2)],
)
def test_a_pruned_student_on_the_surviving_tensors_is_the_whole_one_with_paths_masked(
    arch: str, skips: int | None, remove: int, threshold: float, bn_stats: str
) -> None:
    paths = triples(len(strides_of(arch)), skips)
    whole = random_student(arch, paths, bn_stats=bn_stats, shared=bn_stats == "frozen", seed=remove)
    if bn_stats == "adapt":
        shake(whole.stem, 20)
        shake(whole.universal, 21)
    # scales and shifts of the backbone are its own; only statistics are the task's
    own_backbone = fresh_backbone(arch)
    statistics = {n: t for n, t in whole.state_dict().items() if "running_" in n}
    before = whole.attended_graph()
    after = prune(before, remove, threshold).graph
    assert len(after.paths) < len(before.paths)
    survivors = tensors_for(after, [(before, whole.task_state())])

    small = Student(own_backbone, after, 7, bn_stats=bn_stats)
    small.load_task_state(survivors)
    state = {**Student(fresh_backbone(arch), before, 7).state_dict(), **whole.task_state(), **statistics}
    left = [triple_of(path) for path in after.paths]
    logits = dict(zip(paths, whole.attention.logits.tolist(), strict=True))
    with torch.no_grad():
        nodes, class_logits = plain_forward(state, images(), arch, left, logits)
        activations = small(images())
    assert_same(activations.logits, class_logits)
    assert {n for n, x in enumerate(activations.nodes) if x is not None} == nodes.keys()
    # the attention that the file says is the one that the network has
    assert activations.alpha.tolist() == pytest.approx([p.alpha for p in after.paths], rel=1e-5)


def test_paths_that_are_pruned_leave_nothing_behind() -> None:
    whole = random_student("resnet18", triples(8, 3), bn_stats="adapt", shared=False)
    before = whole.attended_graph()
    after = prune(before, 5, 0.2).graph
    survivors = tensors_for(after, [(before, whole.task_state())])
    assert len(survivors["attention.logits"]) == len(after.paths)
    assert {n.split(".")[1] for n in survivors if n.startswith("proxies.")} == {
        f"{p.source}-{p.sink}" for p in after.proxies
    }
    assert {n.split(".")[1] for n in survivors if n.startswith("universal.")} == {str(p.sink) for p in after.universal}
    for name in ("head.weight", "head.bias", "stem.bn1.running_mean", "stem.bn1.running_var"):
        assert torch.equal(survivors[name], whole.task_state()[name])


def write_student(path: Path, stage: str = delta.STUDENT) -> tuple[ModelDocument, Student]:
    backbone = shared_backbone("resnet18")
    backbone.preprocessing = Preprocessing(size=64)
    graph = student_graph(backbone, 3, skips=2)
    student = Student(backbone, graph, 3)
    student.start_fresh(torch.Generator().manual_seed(1))
    with torch.no_grad():
        student.attention.logits.normal_(0, 2, generator=torch.Generator().manual_seed(2))
    document = ModelDocument(
        stage=stage,
        backbone="resnet18.random",
        fingerprint=backbone.fingerprint,
        graph=student.attended_graph(),
        classes=("a", "b", "c"),
        preprocessing=backbone.preprocessing,
        student={"bn_stats": "frozen", "proxy_width": None},
        data={"digest": "d"},
        settings={"tailor": {"epochs": 1}},
        metrics={"student": {**MEASURED, "accuracy": 50.0}, "model": {**MEASURED, "accuracy": 60.0}},
    )
    delta.write(path, document, student.task_state())
    return document, student


def test_a_student_file_becomes_a_smaller_file_that_runs(tmp_path: Path) -> None:
    document, student = write_student(tmp_path / "student")
    result = prune_file(tmp_path / "student", tmp_path / "pruned", remove=3, proxy_threshold=0.1)
    read, tensors = delta.read(tmp_path / "pruned")
    assert read == result.document
    assert (result.removed, result.chosen) == (3, False)
    assert read.stage == "pruned"
    assert read.graph == prune(document.graph, 3, 0.1).graph
    assert (read.classes, read.fingerprint, read.preprocessing) == (
        document.classes,
        document.fingerprint,
        document.preprocessing,
    )
    assert read.settings == {"tailor": {"epochs": 1}, "prune": {"remove": 3, "proxy_threshold": 0.1}}
    assert "model" not in read.metrics, "those were another model's"
    small = Student(fresh_backbone("resnet18"), read.graph, 3)
    small.load_task_state(tensors)
    left = [triple_of(path) for path in read.graph.paths]
    logits = {triple_of(p): a for p, a in zip(document.graph.paths, student.attention.logits.tolist(), strict=True)}
    with torch.no_grad():
        _, wanted = plain_forward(student.state_dict(), images(), "resnet18", left, logits)
        assert_same(small(images()).logits, wanted)


def test_a_pruned_file_can_be_pruned_again(tmp_path: Path) -> None:
    write_student(tmp_path / "student")
    first = prune_file(tmp_path / "student", tmp_path / "one", remove=2).document
    second = prune_file(tmp_path / "one", tmp_path / "two", remove=2).document
    assert second.graph.cost.macs < first.graph.cost.macs
    _, tensors = delta.read(tmp_path / "two")
    Student(fresh_backbone("resnet18"), second.graph, 3).load_task_state(tensors)


def test_without_a_number_the_macs_come_down_to_60_percent_with_the_fewest_removals(tmp_path: Path) -> None:
    document, _ = write_student(tmp_path / "student")
    result = prune_file(tmp_path / "student", tmp_path / "pruned", remove=None)

    def share(graph: Graph) -> float:
        return graph.cost.macs / document.graph.backbone.macs

    assert result.chosen
    assert result.removed > 0
    assert share(result.document.graph) <= 0.6 < share(prune(document.graph, result.removed - 1, 0.05).graph)


@pytest.mark.parametrize(("remove", "threshold"), [(-1, 0.05), (9, 0.05), (2, 1.5), (None, 1.5), (None, math.nan)])
def test_what_can_not_be_is_refused_and_nothing_is_written(
    tmp_path: Path, remove: int | None, threshold: float
) -> None:
    write_student(tmp_path / "student")
    with pytest.raises(UsageError):
        prune_file(tmp_path / "student", tmp_path / "pruned", remove=remove, proxy_threshold=threshold)
    assert [path.name for path in tmp_path.iterdir()] == ["student"]


def test_a_file_is_only_replaced_by_force(tmp_path: Path) -> None:
    write_student(tmp_path / "student")
    (tmp_path / "pruned").write_text("old")
    with pytest.raises(UsageError, match="there already"):
        prune_file(tmp_path / "student", tmp_path / "pruned", remove=1)
    assert (tmp_path / "pruned").read_text() == "old"
    prune_file(tmp_path / "student", tmp_path / "pruned", remove=1, force=True)
    assert delta.read_document(tmp_path / "pruned").stage == "pruned"


def test_a_teacher_is_not_pruned(tmp_path: Path) -> None:
    write_student(tmp_path / "teacher", stage=delta.TEACHER)
    with pytest.raises(FileError, match="teacher"):
        prune_file(tmp_path / "teacher", tmp_path / "pruned", remove=1)
    assert not (tmp_path / "pruned").exists()


def test_equal_students_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_student(tmp_path / name)
        prune_file(tmp_path / name, tmp_path / f"{name}.pruned", remove=2)
    assert (tmp_path / "one.pruned").read_bytes() == (tmp_path / "two.pruned").read_bytes()


def test_the_shared_prefix_that_the_file_tells_stays(tmp_path: Path) -> None:
    document, student = write_student(tmp_path / "student")
    # blocks 1 and 2 are the weakest by far
    logits = student.attention.logits.detach().clone()
    for row, path in enumerate(document.graph.paths):
        if path.is_universal:
            logits[row] = -20.0 if path.sink <= 2 else 0.0
    student.attention.logits.data.copy_(logits)
    for prefix, kept in ((0, 6), (2, 2)):
        own = replace(document, graph=student.attended_graph(), student={**document.student, "shared_prefix": prefix})
        delta.write(tmp_path / "student", own, student.task_state())
        removed = 2 if prefix == 0 else 6
        pruned = prune_file(tmp_path / "student", tmp_path / f"pruned{prefix}", remove=removed).document
        assert len(pruned.graph.universal) == kept and pruned.shared_prefix == prefix
        assert (1 in pruned.graph.blocks_kept) == (2 in pruned.graph.blocks_kept) == (prefix == 2)
    with pytest.raises(UsageError, match="beside the 2 of its shared prefix"):
        prune_file(tmp_path / "student", tmp_path / "more", remove=7)
