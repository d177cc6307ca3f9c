"""A file of every format version that ever was stays readable, and means what it meant; newer ones are refused by name.

`make.py` made the files of folder N with the package that wrote format N. Those of format 1 are from before model files
had an environment, so they show as well that its absence does no harm.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import torch

from nettailor_cli.core import delta
from nettailor_cli.core.deploy import latency_table
from nettailor_cli.core.deploy.latency_table import LatencyTable
from nettailor_cli.core.deploy.spread import Spread
from nettailor_cli.core.errors import FileError
from nettailor_cli.core.manifest import FORMAT as MANIFEST_FORMAT
from nettailor_cli.core.manifest import MANIFEST, read_manifest
from nettailor_cli.core.models import load_model
from nettailor_cli.core.progress import Silent
from nettailor_cli.core.sealed import digest_of, read_content
from nettailor_cli.core.training import checkpoint
from nettailor_cli.core.training.checkpoint import Position
from tests.core.formats.make import CLASSES, DATA, SIZE, images
from tests.core.test_sealed import reseal

HERE = Path(__file__).parent
VERSIONS = tuple(range(1, delta.FORMAT + 1))
MANIFEST_VERSIONS = tuple(range(1, MANIFEST_FORMAT + 1))
TABLE_VERSIONS = tuple(range(1, latency_table.FORMAT + 1))
IDENTITY = {"stage": "teach", "lr": 0.02, "group": None}


@pytest.fixture(params=VERSIONS)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The model files of one version, all of them unpacked."""
    for file in (HERE / str(request.param)).glob("*.safetensors*"):
        data = file.read_bytes()
        (tmp_path / file.name.removesuffix(".gz")).write_bytes(gzip.decompress(data) if file.suffix == ".gz" else data)
    return tmp_path


def logits_of(version: str) -> dict[str, list[list[float]]]:
    return json.loads((HERE / version / "logits.json").read_text())


@pytest.mark.parametrize("stage", delta.STAGES)
def test_a_model_file_says_what_it_said(folder: Path, stage: str) -> None:
    document = delta.read_document(folder / f"{stage}.safetensors")
    assert (document.stage, document.classes, document.preprocessing.size) == (stage, CLASSES, SIZE)
    assert document.backbone == "resnet18.tiny_imagenet" and document.fingerprint.startswith("c5c930666dc6")
    assert document.data == DATA and document.package == "0.1.0" and document.environment == {}
    steps = ("teach", "tailor", "prune", "finetune")[: 1 + delta.STAGES.index(stage)]
    assert set(document.settings) == set(steps)
    for step in set(steps) - {"prune"}:
        assert document.settings[step]["seed"] == 3 and document.settings[step]["lr"] == 0.02
    measured = {"teacher": 75.0, "student": 50.0, "model": 100.0}
    names = [name for name in measured if delta.STAGES.index(name) <= delta.STAGES.index(stage)]
    assert {name: metric["accuracy"] for name, metric in document.metrics.items()} == {n: measured[n] for n in names}


def test_their_graphs_are_what_they_were(folder: Path) -> None:
    graphs = {stage: delta.read_document(folder / f"{stage}.safetensors").graph for stage in delta.STAGES}
    universal = [f"universal {number}" for number in range(1, 9)]
    proxies = {"proxy 0-1", "proxy 0-2"}
    assert [path.name for path in graphs["teacher"].paths] == universal[:1]
    assert {path.name for path in graphs["student"].paths} == {*universal, *proxies}
    for stage in ("pruned", "model"):
        assert {path.name for path in graphs[stage].paths} == {*universal[1:], *proxies}
    alphas = {path.name: path.alpha for path in graphs["student"].paths}
    sigmoid = torch.sigmoid(torch.tensor([2.0, 0.5])).tolist()  # logits 1 against -1, 0.5 against 0
    assert [alphas["proxy 0-1"], alphas["universal 2"]] == pytest.approx(sigmoid, abs=1e-6)
    assert graphs["student"].stem.parameters == 9536 and graphs["student"].head.parameters == 512 * 3 + 3


@pytest.mark.parametrize("stage", delta.STAGES)
def test_a_model_file_computes_what_it_did(folder: Path, stage: str, request: pytest.FixtureRequest) -> None:
    """Against the outputs that were written down when it was made."""
    version = request.node.callspec.params["folder"]
    model = load_model(folder / f"{stage}.safetensors", home=folder, progress=Silent())
    with torch.inference_mode():
        logits = model.logits(images())
    expected = torch.tensor(logits_of(str(version))[stage])
    assert expected.abs().max() > 0.01 and not torch.equal(expected[0], expected[1])
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


def test_a_checkpoint_can_be_gone_on_with(folder: Path) -> None:
    position, groups = checkpoint.load(folder / "checkpoint.safetensors", identity=IDENTITY)
    assert position == Position(epoch=2, batch=5, sums={"loss": 1.25, "images": 40.0}, best_epoch=1, best_accuracy=62.5)
    weight = torch.arange(6.0).reshape(2, 3)
    assert groups.keys() == {"model", "best", "momentum"}
    assert torch.equal(groups["model"]["fc.weight"], weight) and torch.equal(groups["best"]["fc.weight"], weight + 1)
    assert torch.equal(groups["momentum"]["head.weight"], weight * 2)
    following = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(3), following)


@pytest.mark.parametrize("version", MANIFEST_VERSIONS)
def test_a_manifest_says_what_it_said(version: int) -> None:
    manifest = read_manifest(HERE / str(version) / "bundle")
    assert (manifest.backbone, manifest.precision) == ("resnet18.tiny_imagenet", "fp32")
    assert manifest.blocks == (2, 3, 4, 5, 6, 7, 8) and manifest.file.sha256 == "ab" * 32
    task = manifest.tasks["signs"]
    model = HERE / str(version) / "model.safetensors"
    assert list(manifest.tasks) == ["signs"] and task.file.bytes == model.stat().st_size
    assert (task.stage, task.classes, task.blocks) == ("model", 3, manifest.blocks)


@pytest.mark.parametrize("version", TABLE_VERSIONS)
def test_a_latency_table_says_what_it_said(version: int) -> None:
    file = HERE / str(version) / "latency.toml"
    table = LatencyTable.from_toml(file.read_text(encoding="utf-8"), str(file))
    assert (table.backbone, table.size, table.proxy_width, sorted(table.timings)) == ("resnet18", SIZE, None, [1, 8])
    assert table.machine["name"] == "A machine" and table.timings[8]["stem"] == Spread(10.0, 9.5, 30.5)
    assert table.timings[1]["proxy 0-2"].median == 20.0 and table.timings[1]["head"].median == 21.0


class TestNewer:
    """Refused, and the file and its version are named."""

    @pytest.mark.parametrize("stage", delta.STAGES)
    def test_model_file(self, folder: Path, stage: str) -> None:
        file = folder / f"{stage}.safetensors"
        newer = delta.FORMAT + 1
        reseal(file, {**read_content(file), "format": newer, "package": "7.8.9"})
        with pytest.raises(FileError, match=f"{stage}.safetensors has format {newer}") as caught:
            load_model(file, home=folder, progress=Silent())
        assert "7.8.9" in caught.value.hint and "upgrade" in caught.value.hint

    def test_checkpoint(self, folder: Path) -> None:
        file = folder / "checkpoint.safetensors"
        reseal(file, {**read_content(file), "checkpoint": checkpoint.FORMAT + 1})
        with pytest.raises(FileError, match=r"checkpoint\.safetensors is not a checkpoint of this version"):
            checkpoint.load(file, identity=IDENTITY)

    def test_manifest(self, tmp_path: Path) -> None:
        document = json.loads((HERE / "1" / "bundle" / MANIFEST).read_text())
        document["bundle"] = MANIFEST_FORMAT + 1
        del document["digest"]
        (tmp_path / MANIFEST).write_text(json.dumps({**document, "digest": digest_of(document)}))
        with pytest.raises(FileError, match=f"{MANIFEST} has format {MANIFEST_FORMAT + 1}"):
            read_manifest(tmp_path)

    def test_latency_table(self) -> None:
        newer = latency_table.FORMAT + 1
        text = (HERE / "1" / "latency.toml").read_text(encoding="utf-8").replace("format = 1", f"format = {newer}")
        with pytest.raises(FileError, match=f"the table is of format {newer}"):
            LatencyTable.from_toml(text, "the table")
