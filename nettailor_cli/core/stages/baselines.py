"""What a tailored network is compared with: whole and shortened backbones, fine-tuned for the same number of epochs."""

from __future__ import annotations

from dataclasses import replace

from nettailor_cli.core import delta
from nettailor_cli.core.delta import ModelDocument
from nettailor_cli.core.run import RunDirectory
from nettailor_cli.core.search.choice import BASELINE, Row
from nettailor_cli.core.settings import TEACH, fields_of
from nettailor_cli.core.stages.candidate import Fold
from nettailor_cli.core.stages.carry_out import Part
from nettailor_cli.core.stages.start import start_teach


def fine_tuned(fold: Fold, chosen: Row) -> list[Row]:
    """Rows of: everything fine-tuned, the classifier alone, and the backbone cut to about the MACs of `chosen`.

    With the teacher's settings, for as many epochs as `chosen` has behind it, each in RUN/baselines/NAME-EPOCHS;
    finished ones are not done again. Measured on the val of `fold`.
    """
    cut = _closest_cut(fold.student[0], chosen.macs)
    return [
        _teach(fold, "reference", chosen),
        _teach(fold, "classifier", chosen, freeze=True),
        _teach(fold, f"cut-{cut:02d}", chosen, cut=cut),
    ]


def _closest_cut(student: ModelDocument, macs: int) -> int:
    """After which block to cut for the MACs closest to `macs`; the classifier's difference is not counted."""
    graph = student.graph
    sums = [graph.stem.macs + graph.head.macs + sum(b.macs for b in graph.blocks[:n]) for n in range(graph.last + 1)]
    return min(range(1, graph.last + 1), key=lambda n: abs(sums[n] - macs))


def _teach(fold: Fold, name: str, chosen: Row, **settings: object) -> Row:
    job, epochs = fold.job, round(chosen.epochs)
    run = RunDirectory(job.run.path / "baselines" / f"{name}-{epochs}")
    taught = fold.student[0].settings.get(TEACH, {})
    flags = {key: value for key, value in taught.items() if key in fields_of(TEACH) and value is not None}
    flags |= {"epochs": epochs, "min_steps": 0, **settings}
    document = start_teach(replace(job.within(run, fold.bench.dataset.root), flags=flags), Part(name, alike=True))
    metric, cost = document.metrics[delta.TEACHER], document.graph.cost
    return Row(
        name=name,
        kind=BASELINE,
        blocks=document.graph.blocks_kept,
        accuracy=metric["accuracy"],
        images=metric["images"],
        macs=cost.macs,
        parameters=cost.parameters,
        bytes=run.teacher.stat().st_size,
        epochs=epochs,
    )
