"""nettailor inspect"""

from __future__ import annotations

import json
import re
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from nettailor_cli.core import delta
from nettailor_cli.core.delta import read_document
from nettailor_cli.core.sealed import read_content, read_tensors, write_sealed
from tests.cli.helpers import CLASSES, Workshop, command, ok, process, refuses, replace_bytes, untouched

STAGES = ("teacher", "student", "pruned", "model")


def squeezed(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


@pytest.mark.parametrize("columns", [60, 100])
@pytest.mark.parametrize("stage", STAGES)
def test_key_facts_in_lines(shop: Workshop, monkeypatch: pytest.MonkeyPatch, stage: str, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    file = shop.run / f"{stage}.safetensors"
    graph = read_document(file).graph
    result = ok("inspect", file)
    assert result.err == ""
    lines = squeezed(result.out)
    assert any(line.startswith("node block") for line in lines[:3])
    nodes = {line.split()[0]: line for line in lines if re.match(r"\d+ (stem|kept|removed|gone)", line)}
    assert set(nodes) == {str(node) for node in range(9)}
    for node in range(1, 9):
        kept = any(path.sink == node for path in graph.universal)
        fed = bool(graph.into(node))
        assert nodes[str(node)].split()[1] == ("kept" if kept else "removed" if fed else "gone")
    totals = f"blocks {len(graph.universal)} 8 {100 * (1 - len(graph.universal) / 8):.1f} %"
    assert totals in lines
    assert any(re.fullmatch(r"parameters .* M .* % ?(more)?", line) for line in lines)
    assert any(re.fullmatch(r"MACs .* M .* % ?(more)?", line) for line in lines)
    text = " ".join(lines)
    for fact in ("fingerprint", f"3: {', '.join(CLASSES)}", "32 px", "digests checked", "nettailor 0.", "seed 0"):
        assert fact in text
    assert max(map(len, result.out.splitlines())) <= columns


def test_proxies_with_source_and_alpha(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    file = shop.run / "pruned.safetensors"
    lines = squeezed(ok("inspect", file).out)
    for path in read_document(file).graph.proxies:
        line = next(line for line in lines if re.match(rf"{path.sink} (kept|removed)", line))
        assert f"{path.source} ({path.alpha:.2f})" in line


@pytest.mark.parametrize("stage", STAGES)
def test_json_has_all_of_it(shop: Workshop, stage: str) -> None:
    file = shop.run / f"{stage}.safetensors"
    result = ok("inspect", file, "--json")
    document = result.document
    assert result.err == ""
    read = read_document(file)
    graph = read.graph
    assert document["stage"] == stage and document["bytes"] == file.stat().st_size
    assert document["backbone"] == {"name": read.backbone, "fingerprint": read.fingerprint}
    assert document["classes"] == list(CLASSES)
    assert document["graph"] == json.loads(json.dumps(graph.to_json()))
    assert document["metrics"] == read.metrics and document["settings"] == read.settings
    assert document["totals"]["parameters"] == graph.cost.parameters
    assert document["totals"]["macs"] == graph.cost.macs
    assert document["totals"]["blocks"] == len(graph.universal)
    assert document["backbone_totals"]["blocks"] == 8
    removed = document["removed"]
    assert removed["blocks"] == 100 * (1 - len(graph.universal) / 8)
    assert removed["macs"] == pytest.approx(100 * (1 - graph.cost.macs / graph.backbone.macs))


def test_quiet_only_checks(shop: Workshop) -> None:
    result = ok("inspect", shop.run / "model.safetensors", "--quiet")
    assert (result.out, result.err) == ("", "")


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_damaged_files(shop: Workshop, tmp_path: Path) -> None:
    whole = (shop.run / "model.safetensors").read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    for length in (0, 5, 8, 1000, start, start + 5, len(whole) - 1):
        short = write(tmp_path / "short.safetensors", whole[:length])
        refuses("inspect", short, says=["short.safetensors"])
    for place in (0, 9, 200, start - 20, start, start + 4000, len(whole) - 1):
        flipped = bytearray(whole)
        flipped[place] ^= 0x10
        refuses("inspect", write(tmp_path / "flipped.safetensors", bytes(flipped)), says=["flipped.safetensors"])
    refuses("inspect", write(tmp_path / "long.safetensors", whole + b"x"), says=["long.safetensors is damaged"])


def test_other_files(shop: Workshop, tmp_path: Path) -> None:
    refuses("inspect", tmp_path / "none.safetensors", says=["there is no file"])
    refuses("inspect", tmp_path, says=["is a folder"])
    refuses("inspect", shop.pth, says=["is not a safetensors file"])
    refuses("inspect", shop.weights, says=["is not a nettailor file", "--weights"])
    refuses("inspect", shop.data / "test" / CLASSES[0] / "00.png", says=["is not a safetensors file"])


def test_newer_format_is_refused_by_name(shop: Workshop, tmp_path: Path) -> None:
    model = shop.run / "model.safetensors"
    newer = tmp_path / "newer.safetensors"
    content = {**read_content(model), "format": delta.FORMAT + 1, "package": "9.9.0", "something": "new"}
    write_sealed(newer, content, read_tensors(model))
    says = [f"format {delta.FORMAT + 1}", f"up to {delta.FORMAT}", "nettailor 9.9.0", "upgrade"]
    refuses("inspect", newer, says=says)
    refuses("evaluate", newer, "--data", shop.data, says=says)
    refuses("prune", newer, says=says)


def test_strange_class_names_stay_harmless(shop: Workshop, tmp_path: Path) -> None:
    model = shop.run / "model.safetensors"
    strange = tmp_path / "strange.safetensors"
    content = {**read_content(model), "classes": ["[red]x[/red]", "\x1b[31mevil", "two\nlines"]}
    write_sealed(strange, content, read_tensors(model))
    out = ok("inspect", strange).out
    assert "[red]x[/red]" in out and "\x1b" not in out and "\\x1b[31mevil" in out and "two\\nlines" in out


def test_a_reader_that_leaves_early_is_no_error(shop: Workshop) -> None:
    """`nettailor inspect FILE | head -0`"""
    model = shop.run / "model.safetensors"
    for args in (("inspect", model), ("inspect", model, "--json"), ("--help",), ("backbones", "--help")):
        child = subprocess.Popen(
            command(*args),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert child.stdout is not None and child.stderr is not None
        child.stdout.close()
        err = child.stderr.read()
        child.stderr.close()
        assert (child.wait(60), err) == (0, "")


def test_a_full_disk_behind_stdout(shop: Workshop) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command("inspect", shop.run / "model.safetensors", "--json"),
            stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=60,
        )  # fmt: skip
    assert done.returncode == 1 and "Traceback" not in done.stderr and "the disk is full" in done.stderr


def test_closed_streams(shop: Workshop) -> None:
    """`nettailor inspect FILE >&-`: there is nowhere to print to, which is no bug of ours."""
    line = " ".join(command("inspect", f"'{shop.run / 'model.safetensors'}'"))
    for closed in (">&-", "2>&-"):
        done = subprocess.run(["sh", "-c", f"{line} {closed}"], capture_output=True, text=True, check=False, timeout=60)
        assert "Traceback" not in done.stderr, done.stderr
    assert process("inspect", shop.run / "model.safetensors").returncode == 0


def test_replaced_in_place_is_noticed(shop: Workshop, run: Path) -> None:
    """A tensor of the same size from another file of ours: the digests are per file."""
    model, pruned = run / "model.safetensors", run / "pruned.safetensors"
    data = model.read_bytes()
    tail = pruned.read_bytes()[-1000:]
    replace_bytes(model, data[:-1000] + tail)
    refuses("inspect", model, says=["is damaged"])


class TestGates:
    def test_met_and_missed(self, shop: Workshop) -> None:
        file = shop.run / "model.safetensors"
        graph = read_document(file).graph
        for flag, value in (("--max-macs", graph.cost.macs), ("--max-params", graph.cost.parameters)):
            ok("inspect", file, flag, value)  # just at the limit
            result = refuses("inspect", file, flag, value - 1, code=3, says=[f"above {flag} {value - 1}"])
            assert "node" in result.out  # the work was done, so its result is shown

    def test_percent_of_the_backbone_with_this_classifier(self, shop: Workshop) -> None:
        file = shop.run / "model.safetensors"
        graph = read_document(file).graph
        share = 100 * graph.cost.macs / graph.backbone.macs
        ok("inspect", file, "--max-macs", f"{share + 0.01:.3f}%")
        refuses("inspect", file, "--max-macs", f"{share - 0.01:.3f}%", code=3, says=[f"({share:.1f} % of"])

    def test_all_that_were_missed_are_named_and_json_is_whole(self, shop: Workshop) -> None:
        file = shop.run / "model.safetensors"
        result = refuses(
            "inspect", file, "--json", "--max-macs", "1k", "--max-params", "0.1%", code=3,
            says=["MACs", "--max-macs 1k", "parameters", "--max-params 0.1%"],
        )  # fmt: skip
        assert result.document["stage"] == "model"
        assert refuses("inspect", file, "--quiet", "--max-macs", "1k", code=3).out == ""

    def test_what_is_no_budget(self, shop: Workshop) -> None:
        file = shop.run / "model.safetensors"
        refuses("inspect", file, "--max-macs", "12ms", says=["--max-macs 12ms", "900M", "40%"])
        refuses("inspect", file, "--max-params", "0", says=["--max-params 0"])


def test_svg_of_every_stage(shop: Workshop, tmp_path: Path) -> None:
    for stage in STAGES:
        file, picture = shop.run / f"{stage}.safetensors", tmp_path / "new" / f"{stage}.svg"
        plain = ok("inspect", file)
        result = ok("inspect", file, "--svg", picture)
        assert result.out == plain.out
        assert result.err == f"drawn: {picture}\n"
        root = ElementTree.parse(picture).getroot()
        drawn = {e.get("id"): float(e.get("opacity", "1")) for e in root.iter() if e.get("id")}
        paths = read_document(file).graph.paths
        assert drawn == pytest.approx({path.name.replace(" ", "-"): path.alpha for path in paths}, abs=1e-4)


def test_svg_and_png_in_one_go_are_named_in_json_and_the_same_each_time(shop: Workshop, tmp_path: Path) -> None:
    model = shop.run / "model.safetensors"
    assert ok("inspect", model, "--json").document["pictures"] == {}
    seen = []
    for name in ("one", "two"):
        svg, png = tmp_path / f"{name}.svg", tmp_path / f"{name}.PNG"
        result = ok("inspect", model, "--svg", svg, "--png", png, "--json", "--quiet")
        assert result.document["pictures"] == {"svg": str(svg), "png": str(png)}
        assert result.err == ""
        seen.append((svg.read_bytes(), png.read_bytes()))
    assert seen[0] == seen[1]
    assert seen[0][1].startswith(b"\x89PNG")


def test_pictures_are_only_replaced_by_force_and_models_never(shop: Workshop, tmp_path: Path) -> None:
    model = shop.run / "model.safetensors"
    old = tmp_path / "old.svg"
    old.write_text("old")
    refuses("inspect", model, "--svg", old, says=["is there already", "--force"])
    assert old.read_text() == "old"
    ok("inspect", model, "--svg", old, "--force")
    assert old.read_text().startswith("<?xml")
    with untouched(shop.run):
        for flag in ("--svg", "--png"):
            refuses("inspect", model, flag, model, "--force", says=[f"has to end in .{flag[2:]}"])
    refuses("inspect", model, "--svg", tmp_path / "picture.png", says=["has to end in .svg"])
    refuses("inspect", model, "--svg", tmp_path / "new.svg", "--png", tmp_path / "new.jpg", says=["end in .png"])
    assert [path.name for path in tmp_path.iterdir() if path.name != "here"] == ["old.svg"]


def test_places_where_no_picture_can_be(shop: Workshop, tmp_path: Path) -> None:
    model = shop.run / "model.safetensors"
    (tmp_path / "folder.svg").mkdir()
    (tmp_path / "file").write_text("")
    refuses("inspect", model, "--svg", tmp_path / "folder.svg", "--force", says=["folder.svg", "name another file"])
    refuses("inspect", model, "--svg", tmp_path / "file" / "a.svg", says=["can't write", "name another file"])


@pytest.mark.usefixtures("without_matplotlib")
def test_png_without_matplotlib(shop: Workshop, tmp_path: Path) -> None:
    model, svg, png = shop.run / "model.safetensors", tmp_path / "a.svg", tmp_path / "a.png"
    refuses(
        "inspect",
        model,
        "--svg",
        svg,
        "--png",
        png,
        says=["matplotlib is not installed", "pip install 'nettailor[plot]'"],
    )
    assert not svg.exists() and not png.exists()
    ok("inspect", model, "--svg", svg)


def test_pictures_of_strange_names(shop: Workshop, tmp_path: Path) -> None:
    model = shop.run / "model.safetensors"
    strange, svg = tmp_path / "strange.safetensors", tmp_path / "<a>&\x1b.svg"
    content = read_content(model)
    content["classes"] = ["<script>", "\x1b[31mevil", "\ud800"]
    content["data"] = {**content["data"], "name": "</title><a>$\\frac{$"}
    write_sealed(strange, content, read_tensors(model))
    result = ok("inspect", strange, "--svg", svg, "--png", tmp_path / "a.png")
    assert "\x1b" not in result.err
    text = svg.read_text()
    ElementTree.fromstring(text)
    assert "<script>" not in text and "\x1b" not in text and "&lt;script&gt;, \\x1b[31mevil, \\ud800" in text
