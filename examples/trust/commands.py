"""The same through the command line: a file is changed where a command finds it, and the command is run.

Right is exit 2 with one message and no traceback, or exit 0 with the result that the whole file gives.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from mutations import ADDRESSES, FAITHFUL, REFUSED, SPARE, Round, ways_of
from PIL import Image
from specimens import CLASSES, NAME, SIZE, Specimen, make_backbone, model_document, model_file, teacher_file

from nettailor_cli.core import delta
from nettailor_cli.core.backbones.backbone import from_state
from nettailor_cli.core.backbones.keeping import keep
from nettailor_cli.core.preprocessing import Preprocessing
from nettailor_cli.core.run import RunDirectory
from nettailor_cli.core.student import Student

SECONDS = 300  # for a command: other work may take the machine, too
VOLATILE = ("seconds", "images_per_second", "file", "path", "bytes", "written", "run")
MACHINE = ("--device", "cpu")


@dataclass(frozen=True)
class Scene:
    """A file and a command that reads it. `ways` as a Specimen of `kind` has them; `result` is the whole file's."""

    kind: str
    place: Path
    command: tuple[str, ...]
    result: str = ""
    peak: int = 0
    product: Path | None = None  # a file that the command writes; its bytes are the result


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str
    peak: int
    seconds: float


def through_commands(first: int, count: int, seed: int) -> Iterator[Round]:
    """Carry the rounds out, one command each."""
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        scenes = make_scenes(root)
        marker = root / "code was run"
        for number in range(first, first + count):
            rng = random.Random(f"{seed}/cli/{number}")
            scene = scenes[number % len(scenes)]
            data = scene.place.read_bytes()
            sealed = scene.kind in ("model", "teacher", "checkpoint")
            faithful = scene.kind not in ("run.toml",)
            specimen = Specimen(scene.kind, scene.place.name, data, lambda path: "", faithful, sealed)
            way = rng.choice(ways_of(specimen, marker))
            with kept(root):
                scene.place.unlink()
                scene.place.write_bytes(way.change(data, rng))
                done = run(scene, root)
                outcome, reason = judged(scene, way.wanted, done, len(data))
                if marker.exists():
                    outcome, reason = "FAILED", "code from the file was run"
            name = f"{scene.kind}: {scene.command[0]}"
            yield Round(number, name, way.name, outcome, reason)


def judged(scene: Scene, wanted: str, done: Done, size: int) -> tuple[str, str]:
    """The outcome, and what is wrong."""
    said = done.err.strip()[-400:]
    if done.seconds > SECONDS:
        return "FAILED", f"took {done.seconds:.0f} s"
    if "Traceback" in done.err or "a bug" in done.err or done.code not in (0, 2):
        return "FAILED", f"exit {done.code}: {said}"
    if done.peak > scene.peak + 2 * size + SPARE:
        return "FAILED", f"took {(done.peak - scene.peak) / 2**20:.0f} MB more than for the whole file"
    if done.code == 2:
        if done.err.count("error:") + done.err.count("─ Error ─") != 1:
            return "FAILED", f"not one message: {said}"
        return "refused", ""
    same = result_of(scene, done) == scene.result
    if wanted == REFUSED or (wanted == FAITHFUL and not same):
        return "FAILED", f"exit 0 with {'the same' if same else 'another'} result"
    return ("same content" if same else "as forged"), ""


def run(scene: Scene, root: Path) -> Done:
    """The command in a process of its own."""

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))

    environment = {**os.environ, "NETTAILOR_HOME": str(root / "home"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "nettailor_cli", *scene.command]
    begun = time.monotonic()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, env=environment, cwd=root, preexec_fn=limited)
        with contextlib.suppress(subprocess.TimeoutExpired):
            waited = None
            while waited is None and time.monotonic() - begun <= SECONDS:
                pid, status, used = os.wait4(process.pid, os.WNOHANG)
                waited = (status, used) if pid else None
                time.sleep(0.05)
        if waited is None:
            process.kill()
            _, status, used = os.wait4(process.pid, 0)
        else:
            status, used = waited
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - begun
        out.seek(0)
        err.seek(0)
        return Done(process.returncode, out.read(), err.read(), used.ru_maxrss * 1024, seconds)


def result_of(scene: Scene, done: Done) -> str:
    """What a command found, without what differs from run to run."""
    if scene.product is not None:
        return repr(scene.product.read_bytes()) if scene.product.exists() else "nothing written"
    return json.dumps(lasting(json.loads(done.out)), sort_keys=True)


def lasting(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: lasting(part) for key, part in value.items() if key not in VOLATILE}
    return [lasting(part) for part in value] if isinstance(value, list) else value


@contextlib.contextmanager
def kept(root: Path) -> Iterator[None]:
    """Whatever is done inside, afterwards all files are as before."""
    copy = root.parent / f"{root.name}.kept"
    shutil.copytree(root, copy, copy_function=os.link)  # the tool replaces files and never writes into one
    try:
        yield
    finally:
        for path in root.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for path in copy.iterdir():
            path.rename(root / path.name)
        copy.rmdir()


# what there is to begin with


def make_scenes(root: Path) -> list[Scene]:
    """Pictures, a backbone, models, an interrupted run, a bundle; each command's result on whole files."""
    pictures(root / "data")
    state = {name: t.half() if t.is_floating_point() else t for name, t in make_backbone().state().items()}
    backbone = from_state(NAME, state, Preprocessing(SIZE))
    home = keep(backbone, state, source="drawn", home=root / "home").path
    made = root / "made"
    made.mkdir()
    (root / "model.safetensors").write_bytes(model_file(made, backbone))
    (root / "teacher.safetensors").write_bytes(teacher_file(made, backbone))
    torch.save(state, root / "w.pth")
    plain = {name: tensor for name, tensor in state.items() if tensor.is_floating_point()}
    safetensors.torch.save_file(plain, root / "w.safetensors")
    student = from_state(NAME, state, Preprocessing(SIZE))
    document = model_document(student, stage=delta.PRUNED)
    network = Student(student, document.graph, len(CLASSES))
    network.start_fresh(torch.Generator().manual_seed(2))
    delta.write(root / "run" / "pruned.safetensors", document, network.task_state())
    finetune = (
        "finetune", "run/pruned.safetensors", "--data", "data", "--no-teacher", "--epochs", "1", "--batch-size", "4",
        "--lr", "0.001", "--workers", "1", "--precision", "fp32", *MACHINE,
    )  # fmt: skip
    about = {"backbone": NAME, "fingerprint": backbone.fingerprint, "data": "data"}
    RunDirectory(root / "run").record({"run": {**about, "preprocessing": backbone.preprocessing.to_json()}})
    interrupted(finetune, root)
    evaluate = ("--data", "data", "--split", "all", "--json", *MACHINE)
    scenes = [
        Scene("model", root / "model.safetensors", ("evaluate", "model.safetensors", *evaluate)),
        Scene("checkpoint", next((root / "run" / "checkpoints").iterdir()), (*finetune, "--resume", "--quiet"),
              product=root / "run" / "model.safetensors"),
        Scene("model", root / "model.safetensors",
              ("prune", "model.safetensors", "--remove", "0", "-o", "less.safetensors"),
              product=root / "less.safetensors"),
        Scene("teacher", root / "teacher.safetensors", ("evaluate", "teacher.safetensors", *evaluate)),
        Scene("model", root / "model.safetensors", ("inspect", "model.safetensors", "--json")),
        Scene("backbone .pth", root / "w.pth", ("backbones", "fetch", "resnet18.new", "--weights", "w.pth", "--json")),
        Scene("model", root / "model.safetensors",
              ("predict", "model.safetensors", "data/a/0.png", "--json", *MACHINE)),
        Scene("run.toml", root / "run" / "run.toml", (*(finetune[:2] + finetune[4:]), "--resume", "--quiet"),
              product=root / "run" / "model.safetensors"),
        Scene("backbone .safetensors", home, ("evaluate", "model.safetensors", *evaluate)),
    ]  # fmt: skip
    subprocess.run(
        [sys.executable, "-m", "nettailor_cli", "bundle", "signs=model.safetensors", "-o", "bundle", "--quiet"],
        check=True, cwd=root, env={**os.environ, "NETTAILOR_HOME": str(root / "home")},
    )  # fmt: skip
    scenes.append(
        Scene("manifest", root / "bundle" / "bundle.json", ("evaluate", "bundle/signs.safetensors", *evaluate))
    )
    run(scenes[0], root)  # which fills the cache
    (cache,) = (root / "home" / "cache").iterdir()
    scenes.append(Scene("cache", cache, ("evaluate", "model.safetensors", *evaluate)))
    return [measured(scene, root) for scene in scenes]


def measured(scene: Scene, root: Path) -> Scene:
    with kept(root):
        done = run(scene, root)
        if done.code != 0:
            sys.exit(f"{scene.command}: exit {done.code}\n{done.err}")
        return Scene(scene.kind, scene.place, scene.command, result_of(scene, done), done.peak, scene.product)


def pictures(folder: Path) -> None:
    rng = random.Random(5)
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
        for number in range(6):
            picture = Image.frombytes("RGB", (SIZE, SIZE), rng.randbytes(SIZE * SIZE * 3))
            picture.save(folder / name / f"{number}.png")


def interrupted(command: tuple[str, ...], root: Path) -> None:
    """The training is asked to stop after two steps, and leaves its checkpoint."""
    program = (
        "import sys\n"
        "from nettailor_cli.cli import training\n"
        "steps = iter([None, 2])\n"
        "training.StopRequest = lambda: lambda: next(steps)\n"
        "from nettailor_cli.cli.app import app\n"
        "app(sys.argv[1:])\n"
    )
    environment = {**os.environ, "NETTAILOR_HOME": str(root / "home"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program, *command],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 130:
        sys.exit(f"the training was not interrupted: exit {done.returncode}\n{done.stderr}")
