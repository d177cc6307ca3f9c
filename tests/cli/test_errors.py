"""Bad input: one clear message, the right exit code, no traceback, and nothing destroyed."""

from __future__ import annotations

import errno
import io
import os
import sys
from pathlib import Path

import pytest
import typer
from torch import Tensor

from nettailor_cli.cli.errors import _explain, exit_code, reader_may_go
from nettailor_cli.core import files
from nettailor_cli.core.data import Batch
from nettailor_cli.core.errors import (
    DataError,
    FileError,
    GateNotMet,
    Interrupted,
    NettailorError,
    RunFailed,
    UsageError,
)
from nettailor_cli.core.stages.tailor import TailorTrainee
from nettailor_cli.core.stages.teach import TeachTrainee
from tests.cli.helpers import (
    BASE,
    CLASSES,
    ONE,
    SIZE,
    Workshop,
    contents,
    make_pictures,
    nettailor,
    ok,
    process,
    refuses,
    replace_bytes,
    untouched,
)


class TestTheFolder:
    """Every stage that reads pictures refuses a bad folder and leaves a finished run as it was."""

    @pytest.fixture(params=["teach", "tailor", "finetune", "evaluate"])
    def on(self, request: pytest.FixtureRequest, shop: Workshop, run: Path) -> tuple[object, ...]:
        """All but --data."""
        if request.param == "evaluate":
            return ("evaluate", run / "model.safetensors")
        where = (run / "pruned.safetensors",) if request.param == "finetune" else ("--run", run)
        return (request.param, *where, "--force", *ONE)

    def test_missing(self, on: tuple[object, ...], run: Path, tmp_path: Path) -> None:
        with untouched(run):
            refuses(*on, "--data", tmp_path / "nowhere", says=["nowhere", "No such file", "DIR/train/CLASS"])

    def test_empty(self, on: tuple[object, ...], run: Path, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        with untouched(run):
            refuses(*on, "--data", tmp_path / "empty", says=["empty", "DIR/train/CLASS"])

    def test_a_file(self, on: tuple[object, ...], run: Path, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with untouched(run):
            refuses(*on, "--data", tmp_path / "file", says=["file", "Not a directory"])

    def test_val_has_a_class_that_train_has_not(self, on: tuple[object, ...], run: Path, tmp_path: Path) -> None:
        data = tmp_path / "data"
        make_pictures(data / "train", 3, seed=1)
        make_pictures(data / "val", 1, seed=2, classes=(*CLASSES[:2], "red sqare"))
        with untouched(run):
            refuses(*on, "--data", data, says=["val", "red sqare", "did you mean red square?"])

    def test_broken_images_are_all_listed(self, on: tuple[object, ...], run: Path, tmp_path: Path) -> None:
        data = tmp_path / "data"
        make_pictures(data / "train", 4, seed=1)
        make_pictures(data / "val", 2, seed=2)
        whole = (data / "train" / CLASSES[1] / "00.png").read_bytes()
        (data / "train" / CLASSES[0] / "00.png").write_bytes(b"")
        (data / "train" / CLASSES[1] / "01.png").write_bytes(whole[: len(whole) // 2])
        (data / "val" / CLASSES[2] / "00.png").write_bytes(b"this is text")
        split = () if on[0] != "evaluate" else ("--split", "all")
        with untouched(run):
            names = [f"{CLASSES[0]}/00.png", f"{CLASSES[1]}/01.png", f"{CLASSES[2]}/00.png"]
            says = ["3 of 18 images can't be read", *names, "--skip-bad-images"]
            refuses(*on, *split, "--data", data, says=says)


@pytest.mark.parametrize("name", ["teach", "tailor"])  # the others have the model's classes; any part of them will do
def test_single_class(run: Path, tmp_path: Path, name: str) -> None:
    make_pictures(tmp_path / "one" / "train", 3, seed=1, classes=CLASSES[:1])
    with untouched(run):
        says = ["a single class", CLASSES[0], "at least two"]
        refuses(name, "--run", run, "--force", *ONE, "--data", tmp_path / "one", says=says)


def test_bad_images_are_skipped_with_a_count(shop: Workshop, tmp_path: Path) -> None:
    data = tmp_path / "data"
    make_pictures(data / "train", 4, seed=1)
    for name in ("00.png", "02.png"):
        (data / "train" / CLASSES[0] / name).write_bytes(b"")
    run = tmp_path / "run"
    args = ("teach", "--backbone", "resnet18", "--data", data, "--size", SIZE, "--run", run, *ONE)
    assert "2 of 12 images can't be read and are left out" in ok(*args, "--skip-bad-images").err
    # later stages of the run need no second word
    assert "2 of 12" in ok("tailor", "--run", run, *ONE).err
    for name in ("01.png", "03.png"):
        (data / "train" / CLASSES[0] / name).write_bytes(b"")
    refuses(*args, "--skip-bad-images", "--force", says=["not one image can be read", CLASSES[0]])


class TestSettings:
    def test_unknown_config_key(self, shop: Workshop, tmp_path: Path) -> None:
        config = tmp_path / "my.toml"
        for text, says in (
            ("epohcs = 3\n", ["epohcs", "my.toml", "did you mean epochs?"]),
            ("[teach]\ngama2 = 3\n", ["gama2", "[teach]"]),
            ("[tailor]\ngama1 = 3\n", ["gama1", "[tailor]", "did you mean gamma1?"]),
            ("[techa]\nlr = 3\n", ["techa", "did you mean teach?"]),
            ('lr = "much"\n', ["--lr", "much"]),
            ("epochs = 1.5\n", ["--epochs", "whole number"]),
            ("flip = 1\n", ["--flip", "true or false"]),
            ("lr = [\n", ["my.toml is not TOML"]),
        ):
            config.write_text(text)
            refuses("teach", *shop.start(tmp_path / "run"), "--config", config, says=says)
        refuses("teach", *shop.start(tmp_path / "run"), "--config", tmp_path / "no.toml", says=["no.toml"])
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize(
        ("args", "says"),
        [
            (("--lr", "1e6"), ["--lr 1e+06 is not between"]),
            (("--epochs", "0"), ["--epochs 0 is not between"]),
            (("--batch-size", "-3"), ["--batch-size -3"]),
            (("--momentum", "nan"), ["--momentum nan"]),
            (("--schedule", "cosin"), ["--schedule cosin", "did you mean cosine?"]),
            (("--preset", "papr"), ["papr", "did you mean paper?"]),
            (("--device", "gpu"), ["--device gpu", "cuda"]),
            (("--group", "("), ["--group", "regular expression"]),
            (("--mean", "1,2"), ["--mean 1,2", "three numbers"]),
            (("--val-fraction", "2"), ["--val-fraction 2"]),
        ],
    )
    def test_values_that_make_no_sense(
        self, shop: Workshop, tmp_path: Path, args: tuple[str, ...], says: list[str]
    ) -> None:
        refuses("teach", *shop.start(tmp_path / "run"), *args, says=says)
        assert not (tmp_path / "run").exists()

    def test_of_tailor(self, shop: Workshop, tmp_path: Path) -> None:
        start = ("tailor", *shop.start(tmp_path / "run"))
        refuses(*start, "--skips", "densse", says=["--skips", "densse"])
        refuses(*start, "--hint", "block", says=["--hint block", "block-local"])
        refuses(*start, "--gamma1", "-1", says=["--gamma1 -1"])
        assert not (tmp_path / "run").exists()


class TestDamage:
    """A truncated or bit-flipped delta: prune, finetune, evaluate and predict all refuse it."""

    @pytest.fixture(params=["cut", "flipped"])
    def how(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    def damage(self, path: Path, how: str) -> None:
        data = bytearray(path.read_bytes())
        if how == "cut":
            del data[-1000:]
        else:
            data[-1000] ^= 4
        replace_bytes(path, bytes(data))

    def test_delta(self, shop: Workshop, run: Path, how: str) -> None:
        for stage in ("student", "pruned", "model"):
            self.damage(run / f"{stage}.safetensors", how)
        with untouched(run):
            for args in (
                ("prune", run / "student.safetensors", "--force"),
                ("finetune", run / "pruned.safetensors", "--force", *ONE),
                ("evaluate", run / "model.safetensors", "--data", shop.data),
                ("predict", run / "model.safetensors", shop.data / "test"),
                ("inspect", run / "model.safetensors"),
            ):
                refuses(*args, says=["is damaged" if how == "flipped" else "damaged"])

    def test_teacher(self, run: Path, how: str) -> None:
        self.damage(run / "teacher.safetensors", how)
        with untouched(run):
            refuses("tailor", "--run", run, "--force", *ONE, says=["teacher.safetensors", "damaged"])
            refuses("finetune", run / "pruned.safetensors", "--force", *ONE, says=["teacher.safetensors", "damaged"])

    def test_run_toml(self, run: Path, how: str) -> None:
        (run / "run.toml").write_text("[run\n")
        with untouched(run):
            refuses("tailor", "--run", run, "--force", *ONE, says=["run.toml is damaged"])
            refuses("finetune", run / "pruned.safetensors", "--force", *ONE, says=["run.toml is damaged"])


class TestPlacesThatCanNotBeWritten:
    @pytest.mark.parametrize("name", ["teach", "tailor"])
    def test_a_file_is_in_the_way(self, shop: Workshop, tmp_path: Path, name: str) -> None:
        blocker = tmp_path / "blocker"
        blocker.write_text("precious")
        for run in (blocker, blocker / "run"):
            refuses(name, *shop.start(run), *ONE, says=["blocker"])
            refuses(name, *shop.start(run), *ONE, "--force", says=["blocker"])
        assert blocker.read_text() == "precious"

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
    def test_read_only_directory(self, shop: Workshop, tmp_path: Path) -> None:
        closed = tmp_path / "closed"
        closed.mkdir()
        closed.chmod(0o500)
        try:
            refuses("teach", *shop.start(closed / "run"), *ONE, says=["can't write"])
        finally:
            closed.chmod(0o700)

    @pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
    def test_what_the_system_says_then(
        self, shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
    ) -> None:
        """For root, too: the system's answer is put in its mouth."""

        def refuse(*args: object, **options: object) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(files.tempfile, "mkstemp", refuse)
        refuses("teach", *shop.start(tmp_path / "run"), *ONE, says=["can't write", os.strerror(number)])

    def test_the_model_is_a_folder(self, shop: Workshop, run: Path) -> None:
        (run / "student.safetensors").unlink()
        (run / "student.safetensors").mkdir()
        refuses("tailor", "--run", run, *ONE, says=["student.safetensors"])


def full(*args: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fill_disk(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """From now on the disk is full half-way through every file whose name has `name` in it."""
    write = Path.write_bytes

    def half_then_full(path: Path, data: bytes) -> int:
        if name not in path.name:
            return write(path, data)
        write(path, data[: len(data) // 2])
        full()
        return 0

    monkeypatch.setattr(Path, "write_bytes", half_then_full)


class TestAFullDisk:
    """Exit 1; the old file is whole; no half file is left behind."""

    @pytest.mark.parametrize(
        ("args", "file"),
        [
            (("teach", "--run", "RUN", *ONE), "teacher"),
            (("tailor", "--run", "RUN", *ONE), "student"),
            (("prune", "RUN/student.safetensors"), "pruned"),
            (("finetune", "RUN/pruned.safetensors", *ONE), "model"),
        ],
        ids=lambda value: value if isinstance(value, str) else value[0],
    )
    def test_while_the_model_is_written(
        self, run: Path, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...], file: str
    ) -> None:
        before = contents(run)
        fill_disk(monkeypatch, f"{file}.safetensors")
        typed = [arg.replace("RUN", str(run)) for arg in args]
        refuses(*typed, "--force", code=1, says=[f"{file}.safetensors", "No space left", "free some space"])
        after = contents(run)
        assert after[f"{file}.safetensors"] == before[f"{file}.safetensors"]
        assert after.keys() == before.keys()

    def test_while_the_log_is_written(self, shop: Workshop, run: Path) -> None:
        (run / "log.jsonl").unlink()
        (run / "log.jsonl").symlink_to("/dev/full")
        before = (run / "teacher.safetensors").read_bytes()
        args = ("teach", "--run", run, "--force", *ONE)
        refuses(*args, code=1, says=["log.jsonl", "No space left"])
        assert (run / "teacher.safetensors").read_bytes() == before

    def test_while_run_toml_is_written(self, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        fill_disk(monkeypatch, "run.toml")
        with untouched(run):
            refuses("tailor", "--run", run, "--force", *ONE, code=1, says=["run.toml", "No space left"])

    def test_while_a_backbone_is_kept(self, shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("NETTAILOR_HOME", str(tmp_path / "home"))
        fill_disk(monkeypatch, ".safetensors")
        says = ["No space left", "NETTAILOR_HOME"]
        refuses("teach", *shop.start(tmp_path / "run"), "--weights", shop.weights, *ONE, code=1, says=says)
        assert contents(tmp_path / "home") == {}


class TestNotFinite:
    """Exit 1, and the old model is whole."""

    def test_loss(self, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The step is named."""
        losses, steps = TeachTrainee.losses, 0

        def breaking(self: TeachTrainee, batch: Batch, done: float) -> dict[str, Tensor]:
            nonlocal steps
            steps += 1
            figures = losses(self, batch, done)
            return {**figures, "loss": figures["loss"] * (float("nan") if steps == 3 else 1)}

        before = contents(run)["teacher.safetensors"]
        monkeypatch.setattr(TeachTrainee, "losses", breaking)
        says = [
            "teach: the loss is nan at epoch 2, step 3 (not finite: cross-entropy)",
            "kept is the checkpoint of epoch 1, batch 0",  # --force has begun with one
            "--lr 0.0025",
        ]
        refuses("teach", "--run", run, *BASE, "--epochs", "3", "--force", code=1, says=says)
        assert contents(run)["teacher.safetensors"] == before

    def test_a_learning_rate_that_blows_up(self, run: Path) -> None:
        before = contents(run)["teacher.safetensors"]
        wild = ("--lr", "100", "--warmup", "0", "--momentum", "0.99", "--epochs", "5")
        refuses(
            "teach", "--run", run, *BASE, *wild, "--force", code=1, says=["teach: ", "epoch", "finite", "--lr 0.02"]
        )
        assert contents(run)["teacher.safetensors"] == before

    @pytest.mark.parametrize(("term", "named"), [("hint", "hint"), ("expected_complexity", "E[C]")])
    def test_the_term_is_named(self, run: Path, monkeypatch: pytest.MonkeyPatch, term: str, named: str) -> None:
        """As when the teacher's activations are far away, or a cost is."""
        losses = TailorTrainee.losses

        def breaking(self: TailorTrainee, batch: Batch, done: float) -> dict[str, Tensor]:
            figures = losses(self, batch, done)
            far = figures[term] * float("inf")
            return {**figures, term: far, "loss": figures["loss"] + far}

        monkeypatch.setattr(TailorTrainee, "losses", breaking)
        says = [f"tailor: the loss is inf at epoch 1, step 1 (not finite: {named})", "[tailor]"]
        before = contents(run)["student.safetensors"]
        refuses("tailor", "--run", run, *ONE, "--force", code=1, says=says)
        assert contents(run)["student.safetensors"] == before


class TestWhatErrorsMean:
    @pytest.mark.parametrize(
        ("error", "code"),
        [
            (UsageError("x"), 2),
            (DataError("x"), 2),
            (FileError("x"), 2),
            (GateNotMet("x"), 3),
            (RunFailed("x"), 1),
            (NettailorError("x"), 1),
            (Interrupted("x", signal=2), 130),
            (Interrupted("x", signal=15), 143),
        ],
    )
    def test_family(self, error: NettailorError, code: int) -> None:
        assert exit_code(error) == code

    @pytest.mark.parametrize(
        ("error", "code", "text"),
        [
            (KeyboardInterrupt(), 130, "stopped"),
            (MemoryError(), 1, "out of memory"),
            (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), 1, "out of memory"),
            (OSError(errno.ENOSPC, "No space left on device", "x"), 1, "the disk is full"),
            (PermissionError(errno.EACCES, "Permission denied", "x"), 2, "not allowed"),
            (OSError(errno.EROFS, "Read-only file system", "x"), 2, "not allowed"),
            (ZeroDivisionError("by zero\nand more"), 1, "a bug: ZeroDivisionError: by zero"),
        ],
    )
    def test_others(self, error: BaseException, code: int, text: str) -> None:
        message, _, exits = _explain(error)
        assert exits == code and text in message and "\n" not in message

    def test_debugging_shows_it_whole(self, shop: Workshop) -> None:
        done = process("inspect", "nothing", env={**os.environ, "NETTAILOR_DEBUG": "1"})
        assert done.returncode != 0 and "Traceback" in done.stderr and "UsageError" in done.stderr

    def test_json_leaves_stdout_empty_on_error(self, shop: Workshop, tmp_path: Path) -> None:
        for args in (("inspect", "nothing"), ("evaluate", "nothing", "--data", shop.data), ("prune", "nothing")):
            result = nettailor(*args, "--json")
            assert result.code == 2 and result.out == "" and result.err.startswith("error: ")


def test_a_reader_that_has_gone_hides_no_other_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gate that was not met stays one, though there is still output that nobody will read."""

    class Gone(io.StringIO):
        def flush(self) -> None:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Gone())
    with pytest.raises(typer.Exit) as ending, reader_may_go():
        raise typer.Exit(3)
    assert ending.value.exit_code == 3
