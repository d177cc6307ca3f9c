"""Model files as networks that run: a delta on its backbone, or a teacher whole."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nettailor_cli.core import delta
from nettailor_cli.core.backbones.backbone import Backbone, from_state, head_state
from nettailor_cli.core.backbones.bundled import read_bundled
from nettailor_cli.core.backbones.catalog import parse_name
from nettailor_cli.core.backbones.store import find_by_fingerprint
from nettailor_cli.core.backbones.weights_file import read_weights
from nettailor_cli.core.delta import ModelDocument
from nettailor_cli.core.errors import FileError
from nettailor_cli.core.folding import fold_proxies
from nettailor_cli.core.manifest import manifest_beside
from nettailor_cli.core.preprocessing import Preprocessing
from nettailor_cli.core.progress import SILENT, Progress
from nettailor_cli.core.sealed import is_sealed
from nettailor_cli.core.settings import TEACH
from nettailor_cli.core.state import check_state, copy_state
from nettailor_cli.core.student import Student
from nettailor_cli.core.task_tensors import check_values
from nettailor_cli.core.teacher import Teacher


@dataclass
class Model:
    """A network with what its file says of it. `network` is in evaluation mode, on the CPU, in fp32.

    Unless it was loaded to be trained, the batch norms of a student's proxies are folded.
    """

    document: ModelDocument
    network: Student | Teacher

    def logits(self, images: Tensor) -> Tensor:
        """Images (N, 3, size, size), preprocessed -> (N, classes)."""
        return self.network(images).logits


def load_model(path: Path, *, home: Path, progress: Progress = SILENT, trainable: bool = False) -> Model:
    """The model in the file `path`: a teacher, or a delta with its backbone; `trainable`, or ready for inference.

    That is looked for in the bundle that `path` lies in, if it lies in one (see `manifest`), else by fingerprint under
    `home`. Raises UsageError or FileError; see `delta.read_document` and `backbones.store.find_by_fingerprint`.
    """
    document, tensors = delta.read(path)
    if document.stage == delta.TEACHER:
        return Model(document, _own_teacher(path, document, tensors))
    backbone = _backbone_for(document, path, home, progress)
    backbone.preprocessing = document.preprocessing
    student = student_from(document, tensors, backbone, source=str(path))
    return Model(document, student if trainable else fold_proxies(student))


def _backbone_for(document: ModelDocument, path: Path, home: Path, progress: Progress) -> Backbone:
    bundle = manifest_beside(path)
    if bundle is not None and bundle.serves(document.fingerprint, document.graph.blocks_kept):
        return read_bundled(path.parent, bundle, progress)
    return find_by_fingerprint(document.fingerprint, name=document.backbone, home=home, progress=progress)


def student_from(
    document: ModelDocument, tensors: dict[str, Tensor], backbone: Backbone, *, source: str = "this delta"
) -> Student:
    """The network of a delta on its `backbone`, whose modules it takes over, in evaluation mode.

    Raises FileError when the three don't fit together; `source` is how messages call the delta.
    """
    if len(backbone.blocks) != document.graph.last:
        raise FileError(
            f"{source} has {document.graph.last} blocks, its backbone {document.backbone} {len(backbone.blocks)}"
        )

    def make() -> Student:
        return Student(
            backbone,
            document.graph,
            len(document.classes),
            **document.shaping,
        )

    try:
        with torch.device("meta"):  # a file that claims a width of millions is refused before that is allocated
            check_state(make().task_state(), tensors)
        student = make()
        student.load_task_state(tensors)
    except FileError as error:
        raise FileError(f"{source}: {error.message}", error.hint) from error
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise FileError(f"{source} does not fit its own description: {error}") from error
    return student.eval()


def student_among(
    document: ModelDocument, tensors: dict[str, Tensor], backbone: Backbone, *, source: str = "this delta"
) -> Student:
    """`student_from` on a `backbone` that other students stand on, too, and that stays as it is.

    All of them have the very same weights in memory. One whose batch-norm statistics are adapted has its own of those.
    """
    if document.shaping["bn_stats"] != "frozen":
        backbone = backbone.with_own_statistics()
    return student_from(document, tensors, backbone, source=source)


def load_teacher(
    path: Path, backbone: str, preprocessing: Preprocessing, classes: tuple[str, ...]
) -> tuple[Teacher, ModelDocument | None]:
    """The teacher in `path`, for students of the ARCH.TAG `backbone`, and its document if the file is one of ours.

    A file that is not ours holds torchvision's tensors of the same architecture with a classifier, whose outputs are
    taken to be in the order of `classes`. Raises FileError when the file is damaged or for something else.
    """
    if is_sealed(path):
        document, tensors = delta.read(path)
        if document.stage != delta.TEACHER:
            raise FileError(f"{path} is not a teacher but a {document.stage}", "nettailor teach makes a teacher")
        arch = parse_name(backbone).arch
        if parse_name(document.backbone).arch != arch:
            raise FileError(f"{path} is a {document.backbone}; a teacher of {arch} is needed")
        if document.classes != classes:
            raise FileError(f"{path} knows other classes than the data", "teach again for this data: nettailor teach")
        given = document.preprocessing
        if (preprocessing.mean, preprocessing.std) != (given.mean, given.std):
            raise FileError(
                f"{path} was made for other mean and std than the backbone's", "teach again: nettailor teach"
            )
        if document.settings.get(TEACH, {}).get("cut") is not None:
            raise FileError(
                f"{path} was cut after block {document.graph.last}: a student's teacher has all blocks",
                "teach one without --cut",
            )
        return _own_teacher(path, document, tensors), document
    tensors, _ = read_weights(path)
    return _teacher_from(path, backbone, tensors, preprocessing, len(classes)), None


def _own_teacher(path: Path, document: ModelDocument, tensors: dict[str, Tensor]) -> Teacher:
    classes, last = len(document.classes), document.graph.last
    return _teacher_from(path, document.backbone, tensors, document.preprocessing, classes, last)


def _teacher_from(
    path: Path,
    name: str,
    tensors: dict[str, Tensor],
    preprocessing: Preprocessing,
    classes: int,
    last: int | None = None,
) -> Teacher:
    backbone = from_state(name, tensors, preprocessing, source=str(path), last=last)
    head = head_state(tensors, backbone.classifier)
    if head is None:
        raise FileError(f"{path} has no classifier, a teacher needs one", "nettailor teach makes a teacher")
    if len(head["bias"]) != classes:
        raise FileError(f"{path} knows {len(head['bias'])} classes, the data have {classes}")
    try:
        check_values({f"{backbone.classifier}.{key}": tensor for key, tensor in head.items()})
    except FileError as error:
        raise FileError(f"{path}: {error.message}") from error
    teacher = Teacher(backbone, classes)
    copy_state(dict(teacher.head.named_parameters()), head)
    return teacher
