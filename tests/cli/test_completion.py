"""Tab, through the environment variables that Typer's completion scripts set."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nettailor_cli.cli.completion import model_files
from tests.cli.helpers import ok
from tests.cli.test_app import HEAVY

FILES = (
    "model.safetensors",
    "mode.txt",
    "more.pth",
    "runs/log.jsonl",
    "runs/flowers/model.safetensors",
    "runs/flowers/student.safetensors",
    "runs/flowers/run.toml",
    "runs/signs/checkpoints/last.pt",
    "deep/er/still/one.safetensors",
    "photos/cat.jpg",
    ".hidden/h.safetensors",
    "my models/a b.safetensors",
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    top = tmp_path / "top"
    for name in FILES:
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).touch()
    monkeypatch.chdir(top)
    return top


def test_model_files_and_folders_are_offered(folder: Path) -> None:
    assert model_files("mo") == ["model.safetensors"]
    assert model_files("runs/") == ["runs/flowers/", "runs/signs/"]
    assert model_files("runs/flowers/s") == ["runs/flowers/student.safetensors"]
    assert model_files(f"{folder}/runs/flowers/m") == [f"{folder}/runs/flowers/model.safetensors"]
    assert model_files("./mo") == ["./model.safetensors"]
    assert model_files("../top/mo") == ["../top/model.safetensors"]
    for nothing in ("x", "none/", "none/x", "model.safetensors/", "photos/c", "~nobody-of-that-name/x"):
        assert model_files(nothing) == []


def test_a_sole_folder_is_gone_into(folder: Path) -> None:
    both = ["runs/flowers/model.safetensors", "runs/flowers/student.safetensors"]
    assert model_files("runs/f") == model_files("runs/flowers/") == both
    assert model_files("de") == ["deep/er/still/one.safetensors"]
    assert model_files("pho") == ["photos/"]  # nothing in it


def test_hidden_names_need_a_dot(folder: Path) -> None:
    assert model_files(".hid") == [".hidden/h.safetensors"]
    assert not any("hidden" in offer for offer in model_files(""))


def test_names_that_need_quotes_are_left_to_the_shell(folder: Path) -> None:
    assert model_files("my") == model_files("") == []


def test_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    assert model_files("~/runs/flowers/m") == ["~/runs/flowers/model.safetensors"]


def asking(line: str, shell: str = "bash") -> dict[str, str]:
    """The variables by which a shell asks to complete the last word of `line`."""
    return {
        "_NETTAILOR_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split(" ")) - 1),
        "_TYPER_COMPLETE_ARGS": line,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }


def completed(line: str, shell: str = "bash") -> list[str]:
    """The lines that `nettailor` answers."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in asking(line, shell).items():
            patch.setenv(name, value)
        return ok().out.removesuffix("\n").split("\n")


def test_nothing_heavy_is_loaded(folder: Path) -> None:
    code = (
        "import sys\n"
        "from nettailor_cli.cli.app import app\n"
        "try:\n"
        "    app(prog_name='nettailor')\n"
        "finally:\n"
        f"    print([name for name in {(*HEAVY, 'matplotlib')!r} if name in sys.modules], file=sys.stderr)\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **asking("nettailor predict mo")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("model.safetensors\n", "[]\n")


def test_each_command_that_takes_a_model_offers_models(folder: Path) -> None:
    both = ["runs/flowers/model.safetensors", "runs/flowers/student.safetensors"]
    for name in ("inspect", "evaluate", "predict", "prune", "finetune"):
        assert completed(f"nettailor {name} runs/f") == both


def test_pictures_and_data_are_left_to_the_shell(folder: Path) -> None:
    """bash and zsh then complete files and folders as for any other command."""
    assert completed("nettailor predict model.safetensors pho") == [""]
    assert completed("nettailor evaluate model.safetensors --data pho") == [""]
    assert completed("nettailor predict model.safetensors pho", "zsh") == ["_files"]


def test_other_shells(folder: Path) -> None:
    assert completed("nettailor predict runs/flowers/s", "fish") == ["runs/flowers/student.safetensors"]
    assert "runs/flowers/student.safetensors" in completed("nettailor predict runs/flowers/s", "zsh")[0]


def test_the_script_for_bash_works_in_bash(folder: Path) -> None:
    """The function that it defines is called as bash does when Tab is pressed."""
    program = folder / "bin" / "nettailor"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\nfrom nettailor_cli.cli.app import app\napp(prog_name='nettailor')\n")
    program.chmod(0o755)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PATH": f"{program.parent}:{os.environ['PATH']}"}

    def output_of(*words: str, **more: str) -> str:
        done = subprocess.run(words, env={**env, **more}, capture_output=True, text=True, timeout=60, check=True)
        return done.stdout

    source = output_of("nettailor", _NETTAILOR_COMPLETE="source_bash")
    assert "complete -o default" in source  # what lets files through when nothing is offered
    tab = "COMP_WORDS=(nettailor inspect runs/f); COMP_CWORD=2; _nettailor_completion nettailor"
    replies = output_of("bash", "--norc", "-c", f"{source}\n{tab}\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"")
    assert replies.split() == ["runs/flowers/model.safetensors", "runs/flowers/student.safetensors"]
