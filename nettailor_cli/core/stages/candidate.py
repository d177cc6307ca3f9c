"""One candidate of `fit`'s search: a smaller network made of a student (or of another candidate), and trained.

Its file, RUN/search/NAME.safetensors, is its record: what is there is not trained again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import Tensor

from nettailor_cli.core import delta
from nettailor_cli.core.delta import ModelDocument
from nettailor_cli.core.errors import FileError, Interrupted
from nettailor_cli.core.graph import Graph
from nettailor_cli.core.search.probe import Probe
from nettailor_cli.core.search.ranking import scores
from nettailor_cli.core.settings import FINETUNE, SHARED, Settings, completed, flag_of
from nettailor_cli.core.stages.carry_out import Part, lasting_settings
from nettailor_cli.core.stages.finetune import finetune
from nettailor_cli.core.stages.job import Job
from nettailor_cli.core.stages.workbench import Workbench
from nettailor_cli.core.task_tensors import Source
from nettailor_cli.core.teacher import Teacher
from nettailor_cli.core.training.memory import Memory

Delta = tuple[ModelDocument, dict[str, Tensor]]
"""What `delta.read` gives."""


class MadeOtherwise(FileError):
    """A candidate's file is there, and is not the one that would be made now."""


@dataclass(frozen=True)
class Fold:
    """A run directory with a student in it, its teacher, and the pictures that both were trained and measured on.

    memory: of the teacher's logits, in the candidates' trainings that see the same batches.
    """

    job: Job
    student: Delta
    student_digest: str
    teacher: Teacher
    teacher_digest: str
    settings: Settings
    bench: Workbench
    probe: Probe
    memory: Memory = field(default_factory=Memory)

    def file(self, name: str) -> Path:
        """Where the candidate `name` is, or will be."""
        return self.job.run.path / "search" / f"{name}.safetensors"

    @property
    def teacher_accuracy(self) -> float:
        """On this fold's val, percent."""
        return float(self.student[0].metrics["teacher"]["accuracy"])

    @property
    def images(self) -> int:
        """How many pictures this fold's val has."""
        return int(self.student[0].metrics["teacher"]["images"])

    def scores(self, state: Delta, ranking: str) -> dict[int, float]:
        """Block -> score, see `search.ranking`."""
        document, whole = state[0], self.student[0].graph
        sources = [(document.graph, state[1]), (whole, self.student[1])]

        def loss(smaller: Graph) -> float:
            return self.loss(smaller, sources)

        return self.job.processes.from_main(
            lambda: scores(document.graph, ranking, loss, document.shared_prefix, whole=whole)
        )

    def loss(self, graph: Graph, sources: Sequence[Source]) -> float:
        """See `Probe.loss`. Raises Interrupted when the user asked to stop: finished candidates are kept anyway."""
        signal = self.job.stop_or_fail()
        if signal is not None:
            raise Interrupted("search: stopped, finished candidates are kept", "fit --resume goes on", signal=signal)
        return self.probe.loss(graph, sources)

    def trained(
        self, graph: Graph, before: Sequence[Delta], part: Part, epochs: int, pruned: dict[str, object]
    ) -> Delta:
        """The candidate `part.name`: `graph` with the tensors of `before`, trained for `epochs`.

        `pruned`: what its file says of how it was made smaller. Batch norms are measured anew where paths are gone, and
        after a short training.
        Raises MadeOtherwise when its file is there and was made in another way.
        """
        output = self.file(part.name)
        pruned = {
            **pruned, "epochs": epochs, "share": part.share, "student": self.student_digest,
            "teacher": self.teacher_digest,
        }  # fmt: skip
        if output.exists():
            known = delta.read(output)
            self._refuse_made_otherwise(output, known[0], pruned, epochs)
            if part.floor >= known[0].metrics[delta.MODEL].get("given_up_below", 0.0):
                # left over when a kill came between the file and the end of its checkpoint
                leftover = self.job.run.checkpoint(FINETUNE, output)
                self.job.processes.alone(lambda: leftover.unlink(missing_ok=True))
                return known
            self.job.processes.alone(output.unlink)  # given up when more was asked for
        document = before[0][0]
        sources = [(earlier.graph, tensors) for earlier, tensors in before]
        gone = {path.name for path in document.graph.paths} != {path.name for path in graph.paths}
        student = self.probe.student(graph, sources, anew=gone)
        start = replace(
            document,
            stage=delta.PRUNED,
            graph=student.attended_graph(),
            settings={**document.settings, "prune": pruned},
            metrics={name: metric for name, metric in document.metrics.items() if name != delta.MODEL},
        )
        settings = replace(self.settings, epochs=epochs)
        job = replace(self.job, resume=True)
        memory = self.memory if part.alike else None
        finetune(
            job, start, student, self.teacher, self.teacher_digest, settings, self.bench, output, part, memory,
            afterwards=lambda: None if part.alike else self.probe.re_estimate(student),
        )  # fmt: skip
        return delta.read(output)

    def _refuse_made_otherwise(
        self, file: Path, document: ModelDocument, pruned: dict[str, object], epochs: int
    ) -> None:
        """Raises MadeOtherwise unless `file` was made of this student and teacher, `pruned` and retrained just so.

        The machine may be another.
        """
        made = document.settings.get("prune", {})
        if any(made.get(name) != pruned[name] for name in ("student", "teacher")):
            raise MadeOtherwise(f"{file} is another student's", "start again: --force")
        wanted = {**lasting_settings(replace(self.settings, epochs=epochs), self.bench, FINETUNE), **pruned}
        known = {**completed(document.settings.get(FINETUNE, {}), FINETUNE), **made}
        names = wanted.keys() - {"device", "precision"}
        different = sorted(name for name in names if known.get(name) != wanted[name])
        if different:
            known_flags = [flag_of(name) for name in different if name in (*SHARED, "ranking", "proxy_threshold")]
            raise MadeOtherwise(
                f"{file} was made with another {' and '.join(known_flags or ('--preset or --config',))}",
                "give the same as before, or start again: --force",
            )
