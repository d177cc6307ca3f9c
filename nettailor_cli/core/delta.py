"""The model file: a safetensors file whose metadata is one readable JSON document.

A delta (stages "student", "pruned", "model") holds only what a task owns; a teacher holds a whole network under
torchvision's names. Both carry the same document. `ModelDocument`
says what stands in it; `FORMAT` is its version. Reading it needs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nettailor_cli._version import __version__
from nettailor_cli.core.errors import FileError, RunFailed
from nettailor_cli.core.graph import Graph
from nettailor_cli.core.preprocessing import Preprocessing
from nettailor_cli.core.sealed import read_content, read_tensors, write_sealed
from nettailor_cli.core.task_tensors import check_tensors
from nettailor_cli.core.validation import check_model_document

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
SHAPING = {
    "bn_stats": "frozen",
    "bn_affine": "frozen",
    "adapter_rank": 0,
    "proxy_width": None,
    "proxy_depthwise": False,
}
"""The settings that shape a student beside its graph, as `Student` takes them, with what a file means that has none."""

TEACHER, STUDENT, PRUNED, MODEL = "teacher", "student", "pruned", "model"
STAGES = (TEACHER, STUDENT, PRUNED, MODEL)


@dataclass(frozen=True)
class ModelDocument:
    """What a model file says of itself.

    stage: one of STAGES. backbone, fingerprint: which backbone it stands on. classes: names, as the logits are ordered.
    student: the settings that shape the network (`SHAPING` and shared_prefix). data: summary, digest and split
    of the images. settings: resolved settings per stage so far. metrics: name -> {"split": ..., "accuracy": percent,
    ...}. environment: stage -> the machine and the versions that it was trained with; older files have none.
    """

    stage: str
    backbone: str
    fingerprint: str
    graph: Graph
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    student: dict[str, Any]
    data: dict[str, Any]
    settings: dict[str, Any]
    metrics: dict[str, Any]
    package: str = __version__
    environment: dict[str, Any] = field(default_factory=dict)

    @property
    def shaping(self) -> dict[str, Any]:
        """The settings that shape the network beside its graph, as `Student` takes them."""
        said = {name: value for name, value in self.student.items() if value is not None}
        return {name: said.get(name, usual) for name, usual in SHAPING.items()}

    @property
    def shared_prefix(self) -> int:
        """N: nodes 1..N have the universal path alone, and no pruning takes these blocks."""
        return int(self.student.get("shared_prefix") or 0)

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "package": self.package,
            "stage": self.stage,
            "backbone": {"name": self.backbone, "fingerprint": self.fingerprint},
            "graph": self.graph.to_json(),
            "classes": list(self.classes),
            "preprocessing": self.preprocessing.to_json(),
            "student": self.student,
            "data": self.data,
            "settings": self.settings,
            "metrics": self.metrics,
            **({"environment": self.environment} if self.environment else {}),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> ModelDocument:
        """Raises KeyError, TypeError or ValueError when the document is not one that `to_json` wrote."""
        check_model_document(document, STAGES)
        return cls(
            stage=document["stage"],
            backbone=document["backbone"]["name"],
            fingerprint=document["backbone"]["fingerprint"],
            graph=Graph.from_json(document["graph"]),
            classes=tuple(document["classes"]),
            preprocessing=Preprocessing.from_json(document["preprocessing"]),
            student=document["student"],
            data=document["data"],
            settings=document["settings"],
            metrics=document["metrics"],
            package=document["package"],
            environment=document.get("environment", {}),
        )


def write(path: Path, document: ModelDocument, tensors: Mapping[str, Tensor]) -> None:
    """Write the model file `path`, whole or not at all.

    Raises UsageError, or RunFailed for a full disk and for tensors with values that are not finite.
    """
    from nettailor_cli.core.state import first_broken

    if broken := first_broken(tensors):
        raise RunFailed(f"{path} is not written: {broken} has values that are not finite (NaN or infinite)")
    write_sealed(path, document.to_json(), tensors)


def read_document(path: Path) -> ModelDocument:
    """The document of the model file `path`, after all digests were checked.

    Raises UsageError when there is no such file, FileError when it is damaged, foreign, or of a newer format.
    """
    content = read_content(path)
    version = content.get("format")
    if type(version) is not int or version < 1:
        raise FileError(f"{path} is not a model file")
    if version > FORMAT:
        raise FileError(
            f"{path} has format {version}; this nettailor ({__version__}) reads up to {FORMAT}",
            f"the file was written by nettailor {content.get('package', 'of a later version')}: upgrade",
        )
    try:
        return ModelDocument.from_json(content)
    except KeyError as error:
        raise FileError(f"{path}: the metadata makes no sense: there is no {error}") from error
    except (TypeError, ValueError) as error:
        raise FileError(f"{path}: the metadata makes no sense: {error}") from error


def read(path: Path) -> tuple[ModelDocument, dict[str, Tensor]]:
    """The document and the tensors (on the CPU) of the model file `path`. Raises as `read_document` does.

    Of a delta the tensors are those that its graph asks for, and their values are finite; a teacher's are checked
    against its backbone, see `models`.
    """
    document = read_document(path)
    tensors = read_tensors(path)
    if document.stage != TEACHER:
        try:
            check_tensors(document.graph, len(document.classes), tensors)
        except FileError as error:
            raise FileError(f"{path}: {error.message}", error.hint) from error
    return document, tensors
