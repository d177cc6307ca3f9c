"""One candidate of `fit`'s search: a smaller network made of a student (or of another candidate), and trained.

Its file, RUN/search/NAME.safetensors, is its record: what is there is not trained again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from nettailor_cli.core import delta
from nettailor_cli.core.delta import ModelDocument
from nettailor_cli.core.graph import Graph
from nettailor_cli.core.search.probe import Probe
from nettailor_cli.core.search.ranking import scores
from nettailor_cli.core.settings import Settings
from nettailor_cli.core.stages.carry_out import Part
from nettailor_cli.core.stages.finetune import finetune
from nettailor_cli.core.stages.job import Job
from nettailor_cli.core.stages.workbench import Workbench
from nettailor_cli.core.teacher import Teacher

Delta = tuple[ModelDocument, dict[str, Tensor]]
"""What `delta.read` gives."""


@dataclass(frozen=True)
class Fold:
    """A run directory with a student in it, its teacher, and the pictures that both were trained and measured on."""

    job: Job
    student: Delta
    teacher: Teacher
    teacher_digest: str
    settings: Settings
    bench: Workbench
    probe: Probe

    def file(self, name: str) -> Path:
        """Where the candidate `name` is, or will be."""
        return self.job.run.path / "search" / f"{name}.safetensors"

    def scores(self, state: Delta, ranking: str) -> dict[int, float]:
        """Block -> score, see `search.ranking`."""
        graph, tensors = state[0].graph, state[1]
        prefix = state[0].shared_prefix
        return scores(graph, ranking, lambda smaller: self.probe.loss(smaller, [(graph, tensors)]), prefix)

    def trained(
        self, graph: Graph, before: Sequence[Delta], part: Part, epochs: int, pruned: dict[str, object]
    ) -> Delta:
        """The candidate `part.name`: `graph` with the tensors of `before`, trained for `epochs`.

        `pruned`: what its file says of how it was made smaller. Batch norms are measured anew where paths are gone.
        """
        output = self.file(part.name)
        if not output.exists():
            document = before[0][0]
            sources = [(earlier.graph, tensors) for earlier, tensors in before]
            student = self.probe.student(graph, sources, anew=graph != document.graph)
            start = replace(
                document,
                stage=delta.PRUNED,
                graph=student.attended_graph(),
                settings={**document.settings, "prune": pruned},
                metrics={name: metric for name, metric in document.metrics.items() if name != delta.MODEL},
            )
            settings = replace(self.settings, epochs=epochs)
            job = replace(self.job, resume=True)
            finetune(job, start, student, self.teacher, self.teacher_digest, settings, self.bench, output, part)
        return delta.read(output)
