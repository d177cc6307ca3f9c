"""Step 4, prune: read a student, drop what its attention calls unimportant, write what is left."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from nettailor_cli.core import delta
from nettailor_cli.core.delta import ModelDocument
from nettailor_cli.core.errors import FileError
from nettailor_cli.core.lock import locked
from nettailor_cli.core.progress import SILENT, Progress
from nettailor_cli.core.pruning import PROXY_THRESHOLD, Pruned, prune, prune_to
from nettailor_cli.core.run import RunDirectory, refuse_to_overwrite
from nettailor_cli.core.task_tensors import tensors_for

MACS_SHARE = 0.6
"""Without a number of blocks to remove, MACs come down to this share of the backbone's."""


@dataclass(frozen=True)
class PruneResult:
    """The pruned document, how many blocks were removed by rank, and whether that number was chosen here."""

    document: ModelDocument
    removed: int
    chosen: bool


def prune_file(
    student: Path,
    output: Path,
    *,
    remove: int | None,
    proxy_threshold: float = PROXY_THRESHOLD,
    force: bool = False,
    progress: Progress = SILENT,
) -> PruneResult:
    """Prune the model file `student` into `output`.

    `remove` None means as many universal blocks as it takes to come to `MACS_SHARE` of the backbone's MACs. A student
    in a run directory is noted in run.toml, so the run is locked. Raises UsageError when `remove` is too large or
    another command writes into the run, FileError when the file is a teacher or damaged.
    """
    run = RunDirectory(student.parent)
    if not run.toml.exists():
        return _prune_file(student, output, remove, proxy_threshold, force)
    with locked(run.path, progress):
        run.remove_leftovers()
        result = _prune_file(student, output, remove, proxy_threshold, force)
        run.record({"prune": result.document.settings["prune"]})
        return result


def _prune_file(student: Path, output: Path, remove: int | None, proxy_threshold: float, force: bool) -> PruneResult:
    refuse_to_overwrite(output, force=force)
    document, tensors = delta.read(student)
    if document.stage == delta.TEACHER:
        raise FileError(
            f"{student} is a teacher: it has nothing to prune", "prune a student: nettailor tailor makes one"
        )
    pruned: Pruned
    if remove is None:
        pruned = prune_to(document.graph, MACS_SHARE, proxy_threshold, document.shared_prefix)
    else:
        pruned = prune(document.graph, remove, proxy_threshold, document.shared_prefix)
    smaller = replace(
        document,
        stage=delta.PRUNED,
        graph=pruned.graph,
        settings={**document.settings, "prune": {"remove": pruned.removed, "proxy_threshold": proxy_threshold}},
        # the old model's figures aren't this one's
        metrics={name: metric for name, metric in document.metrics.items() if name != delta.MODEL},
    )
    delta.write(output, smaller, tensors_for(pruned.graph, [(document.graph, tensors)]))
    return PruneResult(smaller, pruned.removed, chosen=remove is None)
