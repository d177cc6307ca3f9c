"""Where the latencies come from that a student is tailored for."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from nettailor_cli.core.backbones.backbone import Backbone
from nettailor_cli.core.errors import FileError, UsageError
from nettailor_cli.core.preprocessing import Preprocessing
from nettailor_cli.core.progress import Silent
from nettailor_cli.core.run import RunDirectory
from nettailor_cli.core.settings import Settings
from nettailor_cli.core.stages import latencies
from nettailor_cli.core.stages.job import Job
from nettailor_cli.core.stages.latencies import settle_latencies
from tests.core.deploy.clocks import CPU
from tests.core.deploy.tables import hand_made
from tests.core.plain import shared_backbone


class Words(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def job_in(folder: Path, words: Words, *, resume: bool = False) -> Job:
    return Job(run=RunDirectory(folder), home=folder, progress=words, stop=lambda: None, resume=resume)


@pytest.fixture
def backbone() -> Backbone:
    shared = shared_backbone("resnet18")
    shared.preprocessing = Preprocessing(size=32)
    return shared


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """What `calibrate` was asked for; it answers with the table made by hand."""
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def calibrate(*args: Any, **options: Any) -> Any:
        calls.append((args, options))
        return hand_made()

    monkeypatch.setattr(latencies, "calibrate", calibrate)
    return calls


LATENCY = Settings(cost="latency")


def test_without_a_table_this_machine_is_measured_and_told(
    tmp_path: Path, backbone: Backbone, asked: list[tuple[tuple[Any, ...], dict[str, Any]]]
) -> None:
    words = Words()
    settings = Settings(cost="latency", latency_batch=4, proxy_width=8, proxy_depthwise=True)
    found = settle_latencies(job_in(tmp_path, words), settings, backbone, CPU, None)
    assert found is not None and found.table == hand_made() and found.batch == 4
    assert found.data == hand_made().to_toml().encode()
    assert found.digest == hashlib.sha256(found.data).hexdigest()
    ((args, options),) = asked
    assert args[:2] == ("resnet18", 32)
    assert options["batches"] == (1, 32, 4) and options["proxy_width"] == 8
    assert options["proxy_depthwise"] is True
    assert "so this machine is measured" in words.notes[0] and words.notes[1:] == hand_made().summary()
    assert list(tmp_path.iterdir()) == []  # what a run keeps is written when everything was found to fit


def test_a_run_that_goes_on_takes_the_table_that_it_keeps_and_a_new_one_does_not(
    tmp_path: Path, backbone: Backbone, asked: list[tuple[tuple[Any, ...], dict[str, Any]]]
) -> None:
    text = hand_made().to_toml().replace("median = 500.0", "median = 500.1")
    (tmp_path / "latency.toml").write_text(text)
    kept = settle_latencies(job_in(tmp_path, Words(), resume=True), LATENCY, backbone, CPU, None)
    assert kept is not None and kept.data == text.encode() and asked == []
    assert kept.table.timings[1]["stem"].median == 500.1
    settle_latencies(job_in(tmp_path, Words()), LATENCY, backbone, CPU, None)
    assert len(asked) == 1


def test_a_named_table_wins_and_its_bytes_are_kept_as_they_are(
    tmp_path: Path, backbone: Backbone, asked: list[tuple[tuple[Any, ...], dict[str, Any]]]
) -> None:
    (tmp_path / "latency.toml").write_text("the run's own")
    named = tmp_path / "named.toml"
    named.write_text("# a comment\n" + hand_made().to_toml())
    found = settle_latencies(job_in(tmp_path, Words(), resume=True), LATENCY, backbone, CPU, named)
    assert found is not None and found.data == named.read_bytes() and asked == []
    assert found.table == hand_made()
    assert found.to_json() == {
        "digest": hashlib.sha256(named.read_bytes()).hexdigest(),
        "machine": 'A "quick" one (cpu), 2 threads, fp32, torch 2.6.0',
    }


def test_another_cost_needs_no_table_and_says_that_a_named_one_is_idle(tmp_path: Path, backbone: Backbone) -> None:
    words = Words()
    assert settle_latencies(job_in(tmp_path, words), Settings(), backbone, CPU, tmp_path / "none.toml") is None
    assert words.warnings == ["--latency-table has no effect: --cost is not latency"]


def test_what_is_no_table_is_refused(tmp_path: Path, backbone: Backbone) -> None:
    job = job_in(tmp_path, Words())
    with pytest.raises(UsageError, match=r"can't read the latency table .*none.toml: No such file"):
        settle_latencies(job, LATENCY, backbone, CPU, tmp_path / "none.toml")
    with pytest.raises(UsageError, match="can't read"):
        settle_latencies(job, LATENCY, backbone, CPU, tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FileError, match="is not a latency table"):
        settle_latencies(job, LATENCY, backbone, CPU, tmp_path / "binary")
