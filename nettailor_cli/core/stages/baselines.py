"""What a tailored network is compared with: whole and shortened backbones, fine-tuned for the same number of epochs."""

from __future__ import annotations

from dataclasses import replace

from nettailor_cli.core import delta
from nettailor_cli.core.delta import ModelDocument
from nettailor_cli.core.run import RunDirectory
from nettailor_cli.core.search.choice import BASELINE, Row
from nettailor_cli.core.settings import SHARED
from nettailor_cli.core.stages.job import Job
from nettailor_cli.core.stages.start import start_teach


def fine_tuned(job: Job, student: ModelDocument, chosen: Row) -> list[Row]:
    """Rows of: everything fine-tuned, the classifier alone, and the backbone cut to about the MACs of `chosen`.

    Each in RUN/baselines/NAME, for as many epochs as `chosen` has behind it; finished ones are not done again.
    """
    cut = _closest_cut(student, chosen.macs)
    return [
        _teach(job, student, "reference", chosen),
        _teach(job, student, "classifier", chosen, freeze=True),
        _teach(job, student, f"cut-{cut:02d}", chosen, cut=cut),
    ]


def _closest_cut(student: ModelDocument, macs: int) -> int:
    """After which block to cut for the MACs closest to `macs`; the classifier's difference is not counted."""
    graph = student.graph
    sums = [graph.stem.macs + graph.head.macs + sum(b.macs for b in graph.blocks[:n]) for n in range(graph.last + 1)]
    return min(range(1, graph.last + 1), key=lambda n: abs(sums[n] - macs))


def _teach(job: Job, student: ModelDocument, name: str, chosen: Row, **settings: object) -> Row:
    run = RunDirectory(job.run.path / "baselines" / name)
    shared = {key: value for key, value in job.flags.items() if key in SHARED}
    given = student.preprocessing
    document = start_teach(
        replace(
            job, run=run, backbone=student.backbone, weights=None, mean=given.mean, std=given.std, size=given.size,
            resume=True, force=False, flags={**shared, "epochs": round(chosen.epochs), **settings},
            data=job.data_folder(),
        )
    )  # fmt: skip
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
        epochs=round(chosen.epochs),
    )
