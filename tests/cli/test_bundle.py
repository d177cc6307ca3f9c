"""nettailor bundle, and its tasks wherever a command takes a model"""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from nettailor_cli.core.deploy import checking
from tests.cli.helpers import CLASSES, TEST_IMAGES, Workshop, nettailor, ok, process, refuses, untouched

TASKS = ("whole", "lean")


@pytest.fixture(scope="session")
def folder(shop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student and a final model of one run as if they were two tasks."""
    folder = tmp_path_factory.mktemp("bundled") / "bundle"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NETTAILOR_HOME", str(shop.home))
        ok("bundle", *(f"{task}={original(shop, task)}" for task in TASKS), "-o", folder)
    return folder


@pytest.fixture
def nothing_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETTAILOR_HOME", str(tmp_path / "empty home"))


def original(shop: Workshop, task: str) -> Path:
    return shop.run / {"whole": "student.safetensors", "lean": "model.safetensors"}[task]


def test_says_what_it_takes_and_who_keeps_what(shop: Workshop, tmp_path: Path) -> None:
    models = [f"{task}={original(shop, task)}" for task in TASKS]
    result = ok("bundle", *models, "-o", tmp_path / "bundle")
    assert "checking 2 tasks against the originals on 32 drawn pictures" in result.err
    out = " ".join(result.out.split())
    assert f"wrote {tmp_path / 'bundle'}" in out
    again = ok("bundle", *models, "-o", tmp_path / "bundle", "--force", "--json", "--quiet", "--data", shop.data)
    assert again.err == ""
    document = again.document
    known = {task: ok("inspect", original(shop, task), "--json").document for task in TASKS}
    blocks = {task: [p["sink"] for p in known[task]["graph"]["paths"] if p["kind"] == "universal"] for task in TASKS}
    assert {task: document["tasks"][task]["blocks"] for task in TASKS} == blocks
    assert document["backbone"]["blocks"] == blocks["whole"] == list(range(1, 9)), "the student has all"
    gone = sorted(set(blocks["whole"]) - set(blocks["lean"]))
    assert {task: document["tasks"][task]["blocks_alone"] for task in TASKS} == {"whole": gone, "lean": []} and gone
    assert f"1 2 3 4 5 6 7 8 {' '.join(map(str, gone))} " in out
    files = [tmp_path / "bundle" / f"{name}.safetensors" for name in ("backbone", *TASKS)]
    assert document["bytes"] == sum(file.stat().st_size for file in files)
    assert document["finetuned_bytes"] == 4 * sum(known[task]["backbone_totals"]["parameters"] for task in TASKS)
    share = f"{100 * document['bytes'] / document['finetuned_bytes']:.1f} % of 2 fine-tuned networks in fp32"
    assert f"{document['bytes'] / 1e6:.2f} MB in all, {share}" in out
    assert document["macs"]["one_by_one"] == sum(known[task]["totals"]["macs"] for task in TASKS)
    stem = known["whole"]["graph"]["stem"]["macs"]
    assert 0 < document["macs"]["together"] <= document["macs"]["one_by_one"] - stem
    assert document["check"] == {"pictures": f"up to 32 pictures of {shop.data}", "limit": 1e-4}
    assert all(task["check"]["logits"] == 0.0 and task["check"]["images"] == 32 for task in document["tasks"].values())


def test_half_precision(shop: Workshop, folder: Path, tmp_path: Path) -> None:
    models = [f"{task}={original(shop, task)}" for task in TASKS]
    document = ok("bundle", *models, "-o", tmp_path / "half", "--fp16", "--json").document
    whole = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    assert document["precision"] == "fp16" and document["check"]["limit"] == 1e-2
    assert 0.49 < document["bytes"] / whole < 0.55
    assert ok("evaluate", tmp_path / "half" / "lean.safetensors", "--data", shop.data, "--json").document["images"]


@pytest.mark.usefixtures("nothing_at_home")
class TestEveryCommandThatTakesAModelTakesATask:
    @pytest.mark.parametrize("task", TASKS)
    def test_evaluate(self, shop: Workshop, folder: Path, task: str, monkeypatch: pytest.MonkeyPatch) -> None:
        own = ok("evaluate", folder / f"{task}.safetensors", "--data", shop.data, "--json").document
        monkeypatch.setenv("NETTAILOR_HOME", str(shop.home))
        theirs = ok("evaluate", original(shop, task), "--data", shop.data, "--json").document
        assert own.pop("file") == str(folder / f"{task}.safetensors") and theirs.pop("file")
        assert own == theirs

    def test_predict(self, shop: Workshop, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        own = ok("predict", folder / "lean.safetensors", shop.data / "test", "--format", "jsonl")
        assert f"from {folder / 'backbone.safetensors'}" in own.err
        monkeypatch.setenv("NETTAILOR_HOME", str(shop.home))
        assert own.out == ok("predict", original(shop, "lean"), shop.data / "test", "--format", "jsonl").out

    def test_inspect(self, shop: Workshop, folder: Path) -> None:
        own, theirs = (
            ok("inspect", file, "--json").document for file in (folder / "lean.safetensors", original(shop, "lean"))
        )
        assert own.pop("file") != theirs.pop("file") and own == theirs

    def test_export(self, folder: Path, tmp_path: Path) -> None:
        args = ("export", folder / "lean.safetensors", "--format", "safetensors", "-o", tmp_path / "net")
        assert ok(*args, "--json").document["check"]["same_class"] == 32

    def test_benchmark(self, folder: Path) -> None:
        args = ("benchmark", folder / "lean.safetensors", "--batch", "1", "--seconds", "0", "--device", "cpu")
        rows = ok(*args, "--json").document["rows"]
        assert [row["name"] for row in rows] == ["backbone", "model", "folded backbone", "folded model"]

    def test_bundle(self, folder: Path, tmp_path: Path) -> None:
        document = ok("bundle", folder / "lean.safetensors", "-o", tmp_path / "one", "--json").document
        assert list(document["tasks"]) == ["lean"]


@pytest.mark.usefixtures("nothing_at_home")
class TestPredictForAllTasks:
    def rows(self, *args: object) -> list[dict[str, object]]:
        return [json.loads(line) for line in ok("predict", *args, "--format", "jsonl").out.splitlines()]

    def test_gives_what_each_task_gives_alone(self, shop: Workshop, folder: Path) -> None:
        rows = self.rows("--bundle", folder, shop.data / "test")
        assert [row["task"] for row in rows] == list(TASKS) * TEST_IMAGES
        for task in TASKS:
            alone = self.rows(folder / f"{task}.safetensors", shop.data / "test")
            assert [{k: v for k, v in row.items() if k != "task"} for row in rows if row["task"] == task] == alone
            assert self.rows("--bundle", folder, "--task", task, shop.data / "test") == [
                row for row in rows if row["task"] == task
            ]

    def test_in_all_formats(self, shop: Workshop, folder: Path) -> None:
        args = ("predict", "--bundle", folder, shop.data / "test", "--top-k", "2")
        rows = self.rows(*args[1:])
        assert ok(*args, "--json").document == {"bundle": str(folder), "tasks": list(TASKS), "predictions": rows}
        table = list(csv.reader(io.StringIO(ok(*args, "--format", "csv").out)))
        assert table[0] == ["image", "task", "class_1", "probability_1", "class_2", "probability_2", "error"]
        assert [row[:2] for row in table[1:]] == [[row["image"], row["task"]] for row in rows]
        people = ok(*args).out
        assert people.split()[:3] == ["image", "task", "classes"] and people.count(" lean ") == TEST_IMAGES

    def test_broken_pictures_are_counted_once(self, shop: Workshop, folder: Path, tmp_path: Path) -> None:
        broken, good = tmp_path / "broken.jpg", shop.data / "test" / CLASSES[0] / "00.png"
        broken.write_bytes(b"nothing")
        args = ("predict", "--bundle", folder, good, broken, "--format", "csv")
        result = refuses(*args, says=["1 of 2 pictures can't be read"])
        table = list(csv.reader(io.StringIO(result.out)))
        assert [bool(row[-1]) for row in table[1:]] == [False, False, True, True]
        assert {len(row) for row in table} == {9}

    def test_wrong_use(self, shop: Workshop, folder: Path) -> None:
        pictures = shop.data / "test"
        refuses("predict", "--bundle", folder, says=["which pictures?"])
        refuses("predict", says=["which model, and which pictures?", "--bundle FOLDER"])
        refuses("predict", folder / "lean.safetensors", says=["which pictures?"])
        refuses("predict", folder / "lean.safetensors", pictures, "--task", "lean", says=["--bundle FOLDER"])
        refuses("predict", "--bundle", folder, "--task", "laen", pictures, says=["no task laen", "did you mean lean?"])
        refuses("predict", "--bundle", shop.run, pictures, says=["is no bundle"])
        refuses("predict", folder, pictures, says=["is a folder, not a model file", "name a model file in it"])
        refuses("predict", folder / "backbone.safetensors", pictures, says=["is not a model file"])
        refuses("predict", "--bundle", folder, pictures, "--top-k", "4", says=["no task has more than 3 classes"])


def test_names_come_from_files_and_runs(shop: Workshop, run: Path, tmp_path: Path) -> None:
    other = tmp_path / "signs.safetensors"
    other.write_bytes((run / "model.safetensors").read_bytes())
    strange = tmp_path / "a=b.safetensors"
    strange.write_bytes(other.read_bytes())
    args = (run / "model.safetensors", other, f"c={strange}", "-o", tmp_path / "bundle", "--json")
    assert list(ok("bundle", *args).document["tasks"]) == [run.name, "signs", "c"]
    new = ("-o", tmp_path / "new")
    both = (run / "model.safetensors", run / "student.safetensors")
    with untouched(tmp_path):
        refuses("bundle", *both, *new, says=[f"two tasks are called {run.name}", "NAME=FILE"])
        refuses("bundle", f"x={other}", f"x={other}", *new, says=["two tasks are called x"])
        refuses("bundle", strange, *new, says=["'a=b' can't be a task's name", "NAME=FILE"])
        refuses("bundle", f"backbone={other}", *new, says=["no task can be called backbone"])


def test_wrong_use(shop: Workshop, folder: Path, tmp_path: Path) -> None:
    model = shop.run / "model.safetensors"
    with untouched(tmp_path), untouched(folder):
        refuses("bundle", "-o", tmp_path / "new", says=["MODEL"])
        refuses("bundle", model, says=["--output"])
        refuses("bundle", f"t={shop.run / 'teacher.safetensors'}", "-o", tmp_path / "new", says=["is a teacher"])
        refuses("bundle", tmp_path / "none.safetensors", "-o", tmp_path / "new", says=["there is no file"])
        refuses("bundle", model, "-o", folder, says=["is there already", "--force"])
        refuses("bundle", model, "-o", shop.run, "--force", says=["is no bundle"])


def test_a_difference_fails_with_1(shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(checking.LIMITS, "fp16", 1e-12)
    with untouched(tmp_path):
        args = ("bundle", f"lean={shop.run / 'model.safetensors'}", "-o", tmp_path / "new", "--fp16")
        refuses(*args, code=1, says=["nothing was kept: lean differs", "leave --fp16 out"])


def test_killed_in_the_middle_it_leaves_no_bundle(shop: Workshop, tmp_path: Path) -> None:
    """In a process of its own that dies without a word as soon as the files are written."""
    code = (
        "import os, sys\n"
        "from nettailor_cli.core.deploy import bundling\n"
        "bundling.load_bundle = lambda folder: os._exit(9)\n"
        "from nettailor_cli.cli.app import app\n"
        "app(sys.argv[1:])\n"
    )
    words = ["bundle", f"x={shop.run / 'student.safetensors'}", "-o", str(tmp_path / "new")]
    assert subprocess.run([sys.executable, "-c", code, *words], check=False, timeout=100).returncode == 9
    assert not (tmp_path / "new").exists()
    assert nettailor("predict", "--bundle", tmp_path / "new", shop.data / "test").code == 2
    ok(*words)


def test_inspect_starts_at_once_for_a_task_of_a_bundle(folder: Path) -> None:
    done = process("inspect", folder / "lean.safetensors")
    assert done.returncode == 0 and "digests checked" in done.stdout
