"""The pictures of a run of `fit`: the model that was chosen, and everything that was tried."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from nettailor_cli.core.delta import ModelDocument
from nettailor_cli.core.drawing.candidates import TEACHER, Row, draw_candidates
from nettailor_cli.core.drawing.forms import PNG, SVG
from nettailor_cli.core.drawing.pictures import draw_architecture
from nettailor_cli.core.drawing.plotting import check_plotting
from nettailor_cli.core.errors import UsageError
from nettailor_cli.core.files import write_bytes
from nettailor_cli.core.progress import Progress


def write_pictures(
    folder: Path,
    document: ModelDocument,
    rows: Sequence[Row],
    progress: Progress,
    *,
    tolerance: float | None = None,
    aims_at: str = TEACHER,
    split: str = "val",
) -> list[Path]:
    """Write architecture.svg, architecture.png, candidates.svg and candidates.png to `folder`, replacing older ones.

    `document` is the model that was chosen; `rows`, `tolerance`, `aims_at` and `split` are as in `draw_candidates`.
    Without matplotlib only the first is written, with a note that says why. Returns what was written.
    """
    title = f"{document.data.get('name', 'all networks')}, {document.backbone}"
    scatter = partial(draw_candidates, rows, tolerance=tolerance, aims_at=aims_at, split=split, title=title)
    pictures: dict[str, Callable[[], bytes]] = {"architecture.svg": partial(draw_architecture, document, SVG)}
    plots: dict[str, Callable[[], bytes]] = {
        "architecture.png": partial(draw_architecture, document, PNG),
        "candidates.svg": partial(scatter, SVG),
        "candidates.png": partial(scatter, PNG),
    }
    try:
        check_plotting()
        pictures |= plots
    except UsageError as error:
        progress.note(f"without {', '.join(plots)}: {error.message} ({error.hint})")
    for name, draw in pictures.items():
        write_bytes(folder / name, draw())
    return [folder / name for name in pictures]
