"""nettailor tailor"""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from nettailor_cli.core import delta
from nettailor_cli.core.backbones.torchvision_shim import import_torchvision
from nettailor_cli.core.delta import read_document
from tests.cli.helpers import (
    CLASSES,
    ONE,
    SIZE,
    Workshop,
    contents,
    log_of,
    make_pictures,
    ok,
    refuses,
    replace_bytes,
    untouched,
)


def student_options(shop: Workshop, run: Path) -> tuple[object, ...]:
    return ("tailor", *shop.start(run), *ONE)


def torchvision_teacher(classes: int, path: Path) -> Path:
    torch.manual_seed(3)
    network = import_torchvision().models.resnet18(num_classes=classes)
    torch.save(network.state_dict(), path)
    return path


def test_file_holds_only_what_the_task_owns(shop: Workshop) -> None:
    document, tensors = delta.read(shop.run / "student.safetensors")
    assert document.stage == "student" and len(document.graph.universal) == 8
    assert {name.split(".")[0] for name in tensors} == {"attention", "proxies", "head"}
    assert len(tensors["attention.logits"]) == len(document.graph.paths)
    assert {p.source for p in document.graph.proxies if p.sink == 5} == {2, 3, 4}  # three skips
    assert set(document.settings) == {"teach", "tailor"} and set(document.metrics) == {"teacher", "student"}
    assert document.settings["tailor"]["teacher"] is True


def test_log_has_the_figures_of_the_objective(shop: Workshop) -> None:
    line = next(line for line in log_of(shop.run) if line["stage"] == "tailor")
    assert {"cross_entropy", "expected_complexity", "hint", "loss", "lr", "images_per_second"} <= set(line)
    names = {path.name for path in read_document(shop.run / "student.safetensors").graph.paths}
    assert set(line["alpha"]) == names and all(0 <= alpha <= 1 for alpha in line["alpha"].values())


def test_teaches_first_when_there_is_no_teacher(shop: Workshop, tmp_path: Path) -> None:
    run = tmp_path / "run"
    config = tmp_path / "quick.toml"
    config.write_text("epochs = 1\nbatch_size = 8\nlr = 0.01\n")
    result = ok("tailor", *shop.start(run), "--config", config, "--device", "cpu", "--precision", "fp32", "--json")
    assert "taught first" in result.err and result.document["stage"] == "student"
    assert {*contents(run)} == {"teacher.safetensors", "student.safetensors", "run.toml", "log.jsonl"}
    assert [line["stage"] for line in log_of(run)] == ["teach", "tailor"]
    # the same as in two commands
    for file in ("teacher.safetensors", "student.safetensors"):
        assert (run / file).read_bytes() == (shop.run / file).read_bytes()


def test_reuses_a_fitting_teacher(shop: Workshop, run: Path) -> None:
    before = (run / "teacher.safetensors").stat()
    result = ok("tailor", "--run", run, *ONE, "--force", "--gamma1", "5")
    assert "same backbone, classes, data and size" in result.err
    after = (run / "teacher.safetensors").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert [line["stage"] for line in log_of(run)].count("teach") == 1


@pytest.mark.parametrize("what", ["size", "data", "classes"])
def test_refuses_a_teacher_of_something_else(shop: Workshop, run: Path, tmp_path: Path, what: str) -> None:
    (run / "student.safetensors").unlink()
    args: tuple[object, ...] = ("--size", "40")
    if what != "size":
        make_pictures(tmp_path / "other", 4, seed=7, classes=CLASSES if what == "data" else CLASSES[:2])
        args = ("--data", tmp_path / "other")
    with untouched(run):
        refuses("tailor", "--run", run, *ONE, *args, says=["taught with another", what, "--force"])


def test_a_refused_command_does_not_change_what_the_run_remembers(shop: Workshop, run: Path, tmp_path: Path) -> None:
    (run / "student.safetensors").unlink()
    refuses("tailor", "--run", run, *ONE, "--size", "40")
    refuses("tailor", "--run", run, *ONE, "--data", tmp_path / "nothing")
    ok("tailor", "--run", run, *ONE)
    assert (run / "student.safetensors").read_bytes() == (shop.run / "student.safetensors").read_bytes()


def test_force_teaches_again_for_other_pictures(shop: Workshop, run: Path, tmp_path: Path) -> None:
    make_pictures(tmp_path / "other", 4, seed=7)
    config = tmp_path / "quick.toml"
    config.write_text("epochs = 1\n")
    ok("tailor", "--run", run, "--data", tmp_path / "other", "--force", "--config", config, "--precision", "fp32")
    documents = [read_document(run / f"{stage}.safetensors") for stage in ("teacher", "student")]
    assert documents[0].data["digest"] == documents[1].data["digest"]
    assert documents[0].data["name"] == "other"


def test_own_teacher_by_name(shop: Workshop, tmp_path: Path) -> None:
    run = tmp_path / "run"
    ok(*student_options(shop, run), "--teacher", shop.run / "teacher.safetensors")
    assert not (run / "teacher.safetensors").exists()
    document = read_document(run / "student.safetensors")
    assert "teacher" in document.metrics  # comes with the file
    assert (run / "student.safetensors").read_bytes() == (shop.run / "student.safetensors").read_bytes()


def test_own_teacher_for_other_classes(shop: Workshop, tmp_path: Path) -> None:
    make_pictures(tmp_path / "other", 4, seed=7, classes=("cat", "dog", "newt"))
    args = ("--data", tmp_path / "other", "--teacher", shop.run / "teacher.safetensors")
    refuses(*student_options(shop, tmp_path / "run"), *args, says=["knows other classes", "nettailor teach"])
    assert not (tmp_path / "run" / "student.safetensors").exists()


def test_student_is_no_teacher(shop: Workshop, tmp_path: Path) -> None:
    args = ("--teacher", shop.run / "student.safetensors")
    refuses(*student_options(shop, tmp_path / "run"), *args, says=["is not a teacher but a student"])


def test_torchvisions_teacher(shop: Workshop, tmp_path: Path) -> None:
    run = tmp_path / "run"
    ok(*student_options(shop, run), "--teacher", torchvision_teacher(3, tmp_path / "three.pth"))
    assert log_of(run)[0]["hint"] > 0
    assert read_document(run / "student.safetensors").settings["tailor"]["teacher"] is True
    args = ("--teacher", torchvision_teacher(5, tmp_path / "five.pth"))
    refuses(*student_options(shop, tmp_path / "other"), *args, says=["five.pth knows 5 classes, the data have 3"])
    args = ("--teacher", shop.weights)
    refuses(*student_options(shop, tmp_path / "other"), *args, says=["has no classifier"])
    assert not (tmp_path / "other" / "student.safetensors").exists()


def test_without_teacher(shop: Workshop, tmp_path: Path) -> None:
    run = tmp_path / "run"
    ok(*student_options(shop, run), "--no-teacher")
    assert {*contents(run)} == {"student.safetensors", "run.toml", "log.jsonl"}
    assert "hint" not in log_of(run)[0]
    document = read_document(run / "student.safetensors")
    assert document.settings["tailor"]["teacher"] is False and list(document.metrics) == ["student"]
    # and finetune goes on without one
    ok("prune", run / "student.safetensors", "--remove", "2")
    ok("finetune", run / "pruned.safetensors", *ONE)
    assert read_document(run / "model.safetensors").settings["finetune"]["teacher"] is False


def test_teacher_and_no_teacher(shop: Workshop, tmp_path: Path) -> None:
    args = ("--no-teacher", "--teacher", shop.run / "teacher.safetensors")
    refuses(*student_options(shop, tmp_path / "run"), *args, says=["--teacher and --no-teacher"])


@pytest.mark.parametrize(
    "args",
    [
        ("--hint", "block-local"),
        ("--exclusion", "independence"),
        ("--cost", "params"),
        ("--gamma2", "0"),
        ("--bn-stats", "adapt"),
        ("--precision", "bf16"),
    ],
    ids=lambda args: " ".join(args),
)
def test_variants_change_the_result(shop: Workshop, run: Path, args: tuple[str, ...]) -> None:
    ok("tailor", "--run", run, *ONE, "--force", *args)
    own, usual = (load_file(place / "student.safetensors") for place in (run, shop.run))
    assert any(not torch.equal(own[name], tensor) for name, tensor in usual.items())
    name = args[0][2:].replace("-", "_")
    settings = read_document(run / "student.safetensors").settings["tailor"]
    assert str(settings[name]) in (args[1], f"{args[1]}.0")


def test_dense_skips(shop: Workshop, run: Path) -> None:
    ok("tailor", "--run", run, *ONE, "--force", "--skips", "dense")
    document = read_document(run / "student.safetensors")
    assert len(document.graph.proxies) == 8 * 9 // 2
    assert document.settings["tailor"]["skips"] == "dense"
    assert tomllib.loads((run / "run.toml").read_text())["tailor"]["skips"] == "dense"
    # a dense run can be gone on with: the word comes back out of run.toml
    (run / "student.safetensors").unlink()
    ok("tailor", "--run", run, "--resume")
    assert read_document(run / "student.safetensors") == document


def test_preset_paper(shop: Workshop, run: Path) -> None:
    args = ("--force", "--preset", "paper", "--epochs", "1", "--precision", "fp32", "--lr", "0.001")
    ok("tailor", "--run", run, *args)
    used = read_document(run / "student.safetensors").settings["tailor"]
    assert (used["hint"], used["bn_stats"], used["exclusion"]) == ("block-local", "adapt", "published")
    assert (used["schedule"], used["step_epochs"], used["gamma1"], used["gamma2"]) == ("step", 20, 0.3, 10.0)
    assert (used["batch_size"], used["lr"], used["logits_lr"], used["epochs"]) == (32, 0.001, 0.1, 1)


class TestAdaptedStatistics:
    @pytest.fixture
    def adapted(self, run: Path) -> Path:
        ok("tailor", "--run", run, *ONE, "--force", "--bn-stats", "adapt")
        return run / "student.safetensors"

    def test_are_in_the_file(self, shop: Workshop, adapted: Path) -> None:
        document, tensors = delta.read(adapted)
        assert document.student["bn_stats"] == "adapt"
        statistics = {name for name in tensors if name.endswith(("running_mean", "running_var"))}
        parts = {name.split(".")[0] for name in statistics}
        assert {"stem", "universal"} <= parts
        # as many as torchvision's resnet18 has batch norms: 20, a mean and a variance each
        assert len([name for name in statistics if name.startswith(("stem", "universal"))]) == 2 * 20
        backbone = load_file(shop.weights)
        mean = next(tensors[name] for name in statistics if name.startswith("stem") and "mean" in name)
        assert not torch.equal(mean, backbone["bn1.running_mean"].float())

    def test_are_used(self, shop: Workshop, adapted: Path, tmp_path: Path) -> None:
        document, tensors = delta.read(adapted)
        other = {
            name: tensor * 2 if name.startswith("universal") and name.endswith("running_var") else tensor
            for name, tensor in tensors.items()
        }
        delta.write(tmp_path / "other.safetensors", document, other)
        losses = [
            ok("evaluate", file, "--data", shop.data, "--json").document["loss"]
            for file in (adapted, tmp_path / "other.safetensors")
        ]
        assert abs(losses[0] - losses[1]) > 1e-3

    def test_go_with_their_blocks(self, adapted: Path) -> None:
        ok("prune", adapted, "--remove", "3", "--force")
        document, tensors = delta.read(adapted.parent / "pruned.safetensors")
        kept = {str(path.sink) for path in document.graph.universal}
        assert len(kept) <= 5
        assert {name.split(".")[1] for name in tensors if name.startswith("universal.")} == kept
        assert any(name.startswith("stem.") for name in tensors)


def test_damaged_teacher(shop: Workshop, run: Path) -> None:
    (run / "student.safetensors").unlink()
    data = bytearray((run / "teacher.safetensors").read_bytes())
    data[-1000] ^= 1
    replace_bytes(run / "teacher.safetensors", bytes(data))
    refuses("tailor", "--run", run, *ONE, says=["teacher.safetensors is damaged"])


def test_nothing_to_go_by(shop: Workshop, tmp_path: Path) -> None:
    refuses("tailor", *ONE, says=["--data DIR is missing"])
    weights = ("--data", shop.data, "--weights", shop.weights)
    refuses("tailor", *ONE, "--run", tmp_path / "none", *weights, says=["which network is in", "--backbone resnet18"])
    refuses("tailor", *ONE, "--run", tmp_path / "none", "--backbone", "resnet18", says=["which pictures?", "--data"])
    assert not (tmp_path / "none").exists()


def test_size_is_remembered(shop: Workshop) -> None:
    assert read_document(shop.run / "student.safetensors").preprocessing.size == SIZE


def test_flags_without_effect_are_named_with_the_reason(shop: Workshop, tmp_path: Path) -> None:
    args = ("--step-epochs", "3", "--hint", "block-local", "--lr", "0.01")
    err = ok("tailor", *shop.start(tmp_path / "run"), *ONE, "--no-teacher", *args).err
    assert "--step-epochs has no effect: the schedule is not step" in err
    assert "--hint has no effect: there is no teacher" in err
    assert err.count("has no effect") == 2


def test_another_runs_toml_brings_its_size_along(shop: Workshop, run: Path, tmp_path: Path) -> None:
    config = tmp_path / "run.toml"
    config.write_text((run / "run.toml").read_text().replace("size = 32", "size = 40"))
    args = ("--backbone", "resnet18", "--weights", shop.weights, "--data", shop.data, "--run", tmp_path / "other")
    ok("teach", *args, "--config", config, "--epochs", "1")
    assert read_document(tmp_path / "other" / "teacher.safetensors").preprocessing.size == 40


class TestSharedPrefix:
    @pytest.fixture
    def student(self, run: Path) -> Path:
        ok("tailor", "--run", run, *ONE, "--force", "--shared-prefix", "2")
        return run / "student.safetensors"

    def test_stays_through_every_stage(self, student: Path) -> None:
        run = student.parent
        ok("prune", student, "--remove", "6", "--force")
        ok("finetune", run / "pruned.safetensors", *ONE, "--force")
        for name in ("student", "pruned", "model"):
            document = read_document(run / f"{name}.safetensors")
            assert document.shared_prefix == document.student["shared_prefix"] == 2
            for node in (1, 2):
                (alone,) = document.graph.into(node)
                assert alone.is_universal and alone.alpha == 1.0
        assert document.graph.blocks_kept == (1, 2)
        assert "blocks 1 to 2 alone" in ok("inspect", run / "model.safetensors").out
        refuses("prune", student, "--remove", "7", "--force", says=["beside the 2 of its shared prefix"])

    def test_is_shared_by_tasks_of_a_bundle(self, shop: Workshop, student: Path, tmp_path: Path) -> None:
        """The stem, blocks 1 and 2, and block 3, where the first proxies join."""
        models = (f"a={student}", f"b={student}")
        macs = ok("bundle", *models, "-o", tmp_path / "shared", "--json").document["macs"]
        graph = read_document(student).graph
        shared = graph.stem.macs + sum(cost.macs for cost in graph.blocks[:3])
        assert macs["one_by_one"] - macs["together"] == shared
        models = (f"a={shop.run / 'student.safetensors'}", f"b={student}")
        macs = ok("bundle", *models, "-o", tmp_path / "one", "--json").document["macs"]
        assert macs["one_by_one"] - macs["together"] == graph.stem.macs + graph.blocks[0].macs

    def test_wrong_use(self, shop: Workshop, tmp_path: Path) -> None:
        args = (*student_options(shop, tmp_path / "run"), "--no-teacher")
        refuses(*args, "--shared-prefix", "9", says=["--shared-prefix 9", "has 8 blocks"])
        result = ok(*args, "--shared-prefix", "1", "--bn-stats", "adapt")
        assert "nothing can be shared" in result.err


def test_no_shared_prefix_is_the_default(shop: Workshop) -> None:
    document = read_document(shop.run / "student.safetensors")
    assert document.shared_prefix == 0 and len(document.graph.proxies) == 21


def test_parts_of_the_tasks_own_inside_the_blocks_go_all_the_way(shop: Workshop, run: Path, tmp_path: Path) -> None:
    weak = ("--gamma2", "0.01")  # random activations of hundreds, and no batch norm behind an adapter
    ok("tailor", "--run", run, *ONE, *weak, "--bn-affine", "tuned", "--adapter-rank", "2", "--force")
    student, tensors = delta.read(run / "student.safetensors")
    assert student.student["bn_affine"] == "tuned" and student.student["adapter_rank"] == 2
    assert {"universal.1.bn1.weight", "universal.8.conv2.up.weight"} <= tensors.keys()
    ok("prune", run / "student.safetensors", "--remove", "5", "--force")
    ok("finetune", run / "pruned.safetensors", *ONE, *weak, "--force")
    model = run / "model.safetensors"
    document, after = delta.read(model)
    kept = {str(number) for number in document.graph.blocks_kept}
    assert len(kept) == 3 and {name.split(".")[1] for name in after if name.startswith("universal.")} == kept
    assert all(not torch.equal(after[name], tensors[name]) for name in after if name.endswith("up.weight"))
    shown = ok("inspect", model)
    assert "scales and shifts and adapters of rank 2 of the task's own in the universal blocks" in shown.out
    totals = ok("inspect", model, "--json").document["totals"]
    assert totals["parameters"] == totals["universal_parameters"] + totals["task_parameters"]
    own = sum(path.own.parameters for path in document.graph.universal)
    assert own == sum(tensor.numel() for name, tensor in after.items() if name.startswith("universal."))
    # in one memory with a task that has nothing of its own inside the same blocks; both commands check what they made
    ok("bundle", f"own={model}", f"plain={shop.run / 'model.safetensors'}", "-o", tmp_path / "bundle")
    ok("export", model, "--format", "onnx", "-o", tmp_path / "net.onnx", "--data", shop.data / "test")


def test_own_parts_that_are_unknown_or_have_no_price_are_refused(shop: Workshop, run: Path) -> None:
    with untouched(run):
        refuses(
            "tailor", "--run", run, *ONE, "--force", "--cost", "latency", "--adapter-rank", "2",
            says=["--adapter-rank", "latency"],
        )  # fmt: skip
        refuses("tailor", "--run", run, *ONE, "--force", "--bn-affine", "thawed", says=["--bn-affine"])
        refuses("fit", "--run", run, "--force", "--cost", "latency", "--adapter-rank", "2", says=["--adapter-rank"])


def test_adapters_that_fit_nowhere_are_told_and_not_shown(shop: Workshop, run: Path) -> None:
    told = ok("tailor", "--run", run, *ONE, "--force", "--adapter-rank", "3000").err
    assert "--adapter-rank has no effect" in told
    assert "inside" not in ok("inspect", run / "student.safetensors").out


def test_a_hint_of_logits_alone_names_what_it_makes_idle(shop: Workshop, run: Path) -> None:
    told = ok("tailor", "--run", run, *ONE, "--force", "--hint-weights", "logits", "--hint", "block-local").err
    assert "--hint has no effect: the hint has the logits alone" in told and "--hint-scale" not in told
