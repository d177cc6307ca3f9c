from __future__ import annotations

from pathlib import Path

import pytest

from nettailor_cli.core.drawing.candidates import CANDIDATE, TEACHER, Row
from nettailor_cli.core.drawing.pictures import draw_architecture
from nettailor_cli.core.drawing.run_pictures import write_pictures
from nettailor_cli.core.progress import Silent
from tests.core.drawing.graphs import document_of, pruned_graph

ROWS = [Row("teacher", TEACHER, 100.0, 93.0, 1.0), Row("4", CANDIDATE, 50.0, 92.0, 1.1)]


class Notes(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_a_run_gets_four_pictures_and_older_ones_are_replaced(tmp_path: Path) -> None:
    document = document_of(pruned_graph(8, 1, 2))
    (tmp_path / "architecture.svg").write_text("old")
    progress = Notes()
    written = write_pictures(tmp_path, document, ROWS, progress, tolerance=0.5)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in written)
    assert [path.name for path in written] == [
        "architecture.svg",
        "architecture.png",
        "candidates.svg",
        "candidates.png",
    ]
    assert written[0].read_bytes() == draw_architecture(document, "svg")
    assert b"pets, resnet18.imagenet1k_v1" in written[2].read_bytes()
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written if path.suffix == ".png")
    assert progress.notes == []


@pytest.mark.usefixtures("without_matplotlib")
def test_without_matplotlib_a_run_gets_the_svg_and_a_note(tmp_path: Path) -> None:
    progress = Notes()
    written = write_pictures(tmp_path, document_of(pruned_graph(8, 1, 2)), ROWS, progress)
    assert [path.name for path in tmp_path.iterdir()] == ["architecture.svg"] == [path.name for path in written]
    (note,) = progress.notes
    assert "architecture.png, candidates.svg, candidates.png" in note
    assert "pip install 'nettailor[plot]'" in note
