"""nettailor prune"""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors import safe_open

from nettailor_cli.core import delta
from nettailor_cli.core.delta import read_document
from tests.cli.helpers import Workshop, contents, nettailor, ok, refuses, untouched


def names_in(path: Path) -> set[str]:
    with safe_open(path, framework="pt") as file:
        return set(file.keys())


def test_what_is_pruned_is_gone_from_the_file(shop: Workshop) -> None:
    before, after = (read_document(shop.run / f"{stage}.safetensors").graph for stage in ("student", "pruned"))
    assert len(after.universal) <= len(before.universal) - 3
    kept = {f"{path.source}-{path.sink}" for path in after.proxies}
    assert kept < {f"{path.source}-{path.sink}" for path in before.proxies}
    names = names_in(shop.run / "pruned.safetensors")
    assert {name.split(".")[1] for name in names if name.startswith("proxies.")} == kept
    assert names < names_in(shop.run / "student.safetensors")
    _, tensors = delta.read(shop.run / "pruned.safetensors")
    assert len(tensors["attention.logits"]) == len(after.paths)
    sizes = [(shop.run / f"{stage}.safetensors").stat().st_size for stage in ("student", "pruned")]
    assert sizes[1] < sizes[0]
    own = sum(tensor.numel() for name, tensor in tensors.items() if name.startswith(("proxies", "head")))
    running = sum(tensor.numel() for name, tensor in tensors.items() if name.endswith(("_mean", "_var")))
    assert own - running == after.task_cost.parameters


def test_the_blocks_with_the_smallest_alpha_go(shop: Workshop) -> None:
    before, after = (read_document(shop.run / f"{stage}.safetensors").graph for stage in ("student", "pruned"))
    weakest = sorted(before.universal, key=lambda path: path.alpha)[:3]
    assert not {path.sink for path in weakest} & {path.sink for path in after.universal}


def test_it_chooses_how_many_and_says_so(shop: Workshop, run: Path) -> None:
    result = ok("prune", run / "student.safetensors", "--force")
    document = read_document(run / "pruned.safetensors")
    cost, whole = document.graph.cost, document.graph.backbone
    assert cost.macs <= 0.6 * whole.macs
    remove = document.settings["prune"]["remove"]
    assert f"--remove {remove}" in result.err and f"{cost.macs / whole.macs:.0%}" in result.err
    # one less would not do
    ok("prune", run / "student.safetensors", "--remove", remove - 1, "-o", run / "less.safetensors")
    assert read_document(run / "less.safetensors").graph.cost.macs > 0.6 * whole.macs


def test_remove_nothing_and_everything(shop: Workshop, run: Path) -> None:
    ok("prune", run / "student.safetensors", "--remove", "0", "-o", run / "all.safetensors", "--proxy-threshold", "0")
    assert len(read_document(run / "all.safetensors").graph.paths) == 8 + 1 + 2 + 6 * 3
    ok("prune", run / "student.safetensors", "--remove", "8", "-o", run / "none.safetensors")
    graph = read_document(run / "none.safetensors").graph
    assert not graph.universal and graph.proxies
    ok("evaluate", run / "none.safetensors", "--data", shop.data)


@pytest.mark.parametrize("remove", ["9", "1000", "-1"])
def test_remove_too_large(shop: Workshop, run: Path, remove: str) -> None:
    with untouched(run):
        args = ("prune", run / "student.safetensors", "--remove", remove)
        refuses(*args, "--force", says=[f"--remove {remove}", "8 universal blocks"])


def test_bad_options(shop: Workshop, run: Path) -> None:
    with untouched(run):
        student = run / "student.safetensors"
        refuses("prune", student, "--force", "--proxy-threshold", "2", says=["--proxy-threshold 2"])
        refuses("prune", student, "--force", "--remove", "two", says=["--remove", "'two' is not a valid int"])
        refuses("prune", run / "nothing.safetensors", "--force", says=["there is no file", "nothing.safetensors"])
        refuses("prune", run / "teacher.safetensors", "--force", says=["is a teacher"])
        refuses("prune", run, "--force", says=["is a folder"])


def test_overwrites_only_when_forced(shop: Workshop, run: Path) -> None:
    with untouched(run):
        refuses("prune", run / "student.safetensors", "--remove", "1", says=["is there already", "--force"])
    old = contents(run)["pruned.safetensors"]
    ok("prune", run / "student.safetensors", "--remove", "1", "--force")
    assert contents(run)["pruned.safetensors"] != old


def test_same_bytes_again(shop: Workshop, run: Path) -> None:
    ok("prune", run / "student.safetensors", "--remove", "3", "--force")
    assert (run / "pruned.safetensors").read_bytes() == (shop.run / "pruned.safetensors").read_bytes()


def test_unwritable_place(shop: Workshop, run: Path) -> None:
    blocker = run / "blocker"
    blocker.write_text("a file")
    with untouched(run):
        args = ("prune", run / "student.safetensors", "-o", blocker / "pruned.safetensors")
        refuses(*args, says=["can't write"])


def test_needs_no_backbone(shop: Workshop, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETTAILOR_HOME", str(tmp_path / "empty"))
    assert nettailor("prune", run / "student.safetensors", "--force").code == 0
