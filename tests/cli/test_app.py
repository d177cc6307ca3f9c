"""Start-up: what is imported and how long it takes; help; unknown commands and flags."""

from __future__ import annotations

import re
import resource
import subprocess
import sys

import pytest

from nettailor_cli._version import __version__
from nettailor_cli.cli import commands
from tests.cli.helpers import Workshop, command, nettailor, ok, process, refuses

HEAVY = (
    "torch", "torchvision", "numpy", "PIL", "safetensors", "fvcore", "tensorboard", "matplotlib", "onnx", "onnxruntime"
)  # fmt: skip
COMMANDS = (
    "teach", "tailor", "prune", "finetune", "inspect", "evaluate", "predict", "fit", "benchmark", "export", "bundle",
    "backbones",
)  # fmt: skip


@pytest.mark.parametrize(
    "args",
    [
        ("--help",),
        ("--version",),
        ("teach", "--help"),
        ("predict", "--help"),
        ("benchmark", "--help"),
        ("export", "--help"),
        ("bundle", "--help"),
        ("inspect", "MODEL"),
        ("inspect", "MODEL", "--json"),
        ("inspect", "MODEL", "--svg", "NEW.svg"),
        ("backbones", "list"),
    ],
    ids=" ".join,
)
def test_starts_without_the_heavy_modules(shop: Workshop, args: tuple[str, ...]) -> None:
    arguments = [str(shop.run / "model.safetensors") if arg == "MODEL" else arg for arg in args]
    code = (
        "import sys\n"
        "from nettailor_cli.cli.app import app\n"
        "try:\n"
        f"    app({arguments!r})\n"
        "except SystemExit as exit:\n"
        "    assert not exit.code, exit.code\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr.splitlines()[-1] == "[]"
    assert done.stdout


@pytest.mark.parametrize("drawing", [(), ("--force", "--svg", "NEW.svg")], ids=["plain", "--svg"])
def test_inspect_takes_little_time(shop: Workshop, drawing: tuple[str, ...]) -> None:
    """At most five times the CPU of what any command has to import; torch alone would be twenty times as much.

    The best of five each, taking turns, for a machine that does other things too. In seconds: benchmarks/startup.py.
    """
    bare = [sys.executable, "-c", "import typer, rich.table, tomli_w, json, hashlib"]
    inspect = command("inspect", shop.run / "model.safetensors", *drawing)
    times = [(cpu_seconds(bare), cpu_seconds(inspect)) for _ in range(5)]
    least, own = (min(column) for column in zip(*times, strict=True))
    assert own < 5 * least, times


def cpu_seconds(words: list[str]) -> float:
    """Of one process, its start included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(words, capture_output=True, check=True, timeout=60)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_version() -> None:
    assert ok("--version").out == f"nettailor {__version__}\n"
    assert process("--version").stdout == f"nettailor {__version__}\n"


def test_help_names_every_command() -> None:
    out = ok("--help").out
    for name in COMMANDS:
        assert re.search(rf"│ {name} ", out), name
    assert "torch" not in out.lower()
    assert ok("-h").out == out


def test_the_list_of_commands_is_whole_and_says_what_each_says_itself() -> None:
    assert {*COMMANDS} == {*commands.COMMANDS}
    for name, line in commands.COMMANDS.items():
        own = " ".join((commands.load(name).help or "").split("\n\n")[0].split())
        assert own == line, name


def test_help_loads_one_command_and_nothing_that_reads_values() -> None:
    code = (
        "import sys\n"
        "from nettailor_cli.cli.app import app\n"
        "try:\n"
        "    app(['prune', '--help'])\n"
        "except SystemExit:\n"
        "    print([name for name in ('pydantic', 'nettailor_cli.cli.fit') if name in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr == "[]\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str) -> None:
    out = ok(name, "--help").out
    assert f"nettailor {name}" in " ".join(out.split())
    assert "--install-completion" not in out  # that is the program's


def test_first_options_of_help_are_few() -> None:
    """A first-time user sees a handful of options, the rest in groups below."""
    panels = re.split(r"╭─ ", ok("teach", "--help").out)
    first = next(panel for panel in panels if panel.startswith("Options"))
    assert len(re.findall(r"^│ +--", first, re.MULTILINE)) <= 8
    assert {panel.split(" ─")[0] for panel in panels[1:]} >= {"Options", "Training", "Data", "Running", "Output"}


def test_unknown_command() -> None:
    refuses("taech", says=["no such command 'taech'", "did you mean 'teach'"])


@pytest.mark.parametrize(
    ("name", "flag", "meant"),
    [
        ("teach", "--epohcs", "--epochs"),
        ("tailor", "--gama1", "--gamma1"),
        ("prune", "--remvoe", "--remove"),
        ("finetune", "--seeed", "--seed"),
        ("inspect", "--jsn", "--json"),
        ("evaluate", "--splt", "--split"),
        ("predict", "--fromat", "--format"),
        ("benchmark", "--max-latncy", "--max-latency"),
        ("export", "--fromat", "--format"),
        ("bundle", "--outptu", "--output"),
    ],
)
def test_unknown_flag_has_a_suggestion(name: str, flag: str, meant: str) -> None:
    err = " ".join(refuses(name, flag, says=[f"no such option: {flag}"]).err.replace("│", " ").split())
    assert re.search(rf"(Did you mean|Possible options:).*{meant}\b", err), err


def test_wrong_types() -> None:
    refuses("teach", "--epochs", "many", says=["--epochs", "'many' is not a valid int"])
    refuses("teach", "--size", "4", says=["--size"])
    refuses("inspect", says=["FILE"])


def test_nothing_typed_shows_the_help() -> None:
    result = nettailor()
    assert "Commands" in result.out + result.err
