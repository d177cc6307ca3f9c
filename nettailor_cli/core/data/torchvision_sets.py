"""`--data torchvision:NAME`: a set that torchvision can download, laid out once as a folder like any other.

HOME/data/NAME is what the tool reads from then on. The download itself goes when that folder is complete: pictures
that came as files are linked there, arrays were written as PNG.
"""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import inspect
import shutil
import sys
import tarfile
import traceback
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nettailor_cli.core.data.layout import NO_SPLIT, Layout, laying_out
from nettailor_cli.core.errors import NettailorError, UsageError, did_you_mean
from nettailor_cli.core.progress import Progress

PREFIX = "torchvision:"
Arguments = Mapping[str, Any]


@dataclass(frozen=True)
class _Set:
    """dataset: the class in torchvision.datasets. parts: which split the pictures of which arguments belong to.

    needs: a package beside torchvision. names: class names that the dataset does not tell, from its arguments and
    target. files: the pictures' files, where only a private attribute has them.
    """

    dataset: str
    parts: tuple[tuple[str, Arguments], ...]
    needs: str = ""
    names: Callable[[Arguments, int], str] | None = None
    files: Callable[[Any], list[Path]] | None = None


def _by_split(**splits: str) -> tuple[tuple[str, Arguments], ...]:
    return tuple((ours, {"split": theirs}) for ours, theirs in splits.items())


_TRAIN_TEST = _by_split(train="train", test="test")
_THREE = _by_split(train="train", val="val", test="test")
_FLAG = (("train", {"train": True}), ("test", {"train": False}))
_WHOLE: tuple[tuple[str, Arguments], ...] = ((NO_SPLIT, {}),)


def _number(_: Arguments, target: int) -> str:
    return str(target)


SETS: dict[str, _Set] = {
    "cifar10": _Set("CIFAR10", _FLAG),
    "cifar100": _Set("CIFAR100", _FLAG),
    "clevr_count": _Set("CLEVRClassification", _by_split(train="train", test="val"), names=_number),
    "country211": _Set("Country211", _by_split(train="train", val="valid", test="test")),
    "dtd": _Set("DTD", _THREE),
    "emnist": _Set(
        "EMNIST", tuple((split, {"split": "balanced", **arguments}) for split, arguments in _FLAG)
    ),
    "eurosat": _Set("EuroSAT", _WHOLE),
    "fashion_mnist": _Set("FashionMNIST", _FLAG),
    "fgvc_aircraft": _Set("FGVCAircraft", _THREE),
    "flowers102": _Set("Flowers102", _THREE, needs="scipy"),
    "food101": _Set("Food101", _TRAIN_TEST),
    "gtsrb": _Set(
        "GTSRB", _TRAIN_TEST, names=lambda _, target: f"{target:05}",
        files=lambda dataset: [Path(path) for path, _ in dataset._samples],
    ),
    "imagenette": _Set("Imagenette", _by_split(train="train", val="val")),
    "kmnist": _Set("KMNIST", _FLAG),
    "mnist": _Set("MNIST", _FLAG),
    "omniglot": _Set(
        "Omniglot", ((NO_SPLIT, {"background": True}), (NO_SPLIT, {"background": False})),
        names=lambda arguments, target: f"{'background' if arguments['background'] else 'evaluation'}-{target:04}",
    ),
    "oxford_iiit_pet": _Set(
        "OxfordIIITPet", _by_split(train="trainval", test="test"), files=lambda dataset: dataset._images
    ),
    "rendered_sst2": _Set("RenderedSST2", _THREE),
    "semeion": _Set("SEMEION", _WHOLE, names=_number),
    "stl10": _Set("STL10", _TRAIN_TEST),
    "sun397": _Set("SUN397", _WHOLE),
    "svhn": _Set("SVHN", _TRAIN_TEST, needs="scipy", names=_number),
    "usps": _Set("USPS", _FLAG, names=_number),
}  # fmt: skip

ELSEWHERE = {
    "stanford_cars": "torchvision can't download it any more; examples/recipes/stanford_cars.py reads its files",
    "voc2012": "its pictures are not of one class each; examples/recipes/voc2012.py cuts the objects out",
    "fer2013": "torchvision reads it, but can't download it",
    "caltech101": "it lies where torchvision needs the package gdown for; download it yourself",
    "caltech256": "it lies where torchvision needs the package gdown for; download it yourself",
    "pcam": "it lies where torchvision needs the package gdown for; download it yourself",
    "imagenet": "its owners ask for a registration",
    "places365": "its torchvision download can't go on where it was stopped; it has 24 GB and more",
    "inaturalist": "its torchvision download can't go on where it was stopped; it has 40 GB and more",
}
"""Names that one might try, and why they are not among SETS."""


def set_name(data: Path) -> str | None:
    """NAME of torchvision:NAME; None for what is a folder."""
    text = str(data)
    return text[len(PREFIX) :].lower().replace("-", "_") if text.startswith(PREFIX) else None


def data_folder(data: Path, home: Path, progress: Progress) -> Path:
    """`data`; or HOME/data/NAME for torchvision:NAME, after the download if it is not there yet.

    Raises UsageError for a name that is unknown, a package that is missing and a download that fails: it says which
    file to put where. Then the same command goes on from there.
    """
    name = set_name(data)
    if name is None:
        return data
    if name not in SETS:
        reason = ELSEWHERE.get(name)
        hint = reason or did_you_mean(name, SETS) or "there are: " + ", ".join(SETS)
        raise UsageError(f"there is no {PREFIX}{name}", hint)
    folder = home / "data" / name
    if not folder.is_dir():
        _lay_out(name, folder, progress)
    return folder


def _lay_out(name: str, folder: Path, progress: Progress) -> None:
    own = SETS[name]
    if own.needs and importlib.util.find_spec(own.needs) is None:
        raise UsageError(f"{PREFIX}{name} needs {own.needs}", "pip install 'nettailor[recipes]'")
    downloads = folder.with_name(f".{name}.download")
    _forget_unpacked(downloads)
    progress.note(f"data: torchvision's {own.dataset}, downloaded to {downloads}")
    with laying_out(folder) as layout:
        for split, arguments in own.parts:
            with _explained(name, downloads):
                dataset = _dataset(own, downloads, arguments)
            _add(layout, own, dataset, split, arguments, progress)
        images = ", ".join(f"{count} {split}".strip() for split, count in layout.images().items())
    shutil.rmtree(downloads, ignore_errors=True)
    progress.note(f"data: {folder}, {images}")


def _dataset(own: _Set, downloads: Path, arguments: Arguments) -> Any:
    from nettailor_cli.core.backbones.torchvision_shim import import_torchvision

    kind = getattr(import_torchvision().datasets, own.dataset)
    # where the pictures are files, their paths will do
    more = {"loader": Path} if "loader" in inspect.signature(kind).parameters else {}
    downloads.mkdir(parents=True, exist_ok=True)
    with contextlib.redirect_stdout(sys.stderr):  # some of them print
        return kind(str(downloads), download=True, **arguments, **more)


def _add(layout: Layout, own: _Set, dataset: Any, split: str, arguments: Arguments, progress: Progress) -> None:
    files = own.files(dataset) if own.files else None
    progress.start(f"laying out {split}".strip(), len(dataset))
    for index in range(len(dataset)):
        picture, target = dataset[index]
        picture = files[index] if files else picture
        label = own.names(arguments, int(target)) if own.names else dataset.classes[target]
        # a file keeps its name, which may tell what belongs together (--group); the number keeps it apart from others
        stem = f"{picture.stem}-{index:06}" if isinstance(picture, Path) else f"{index:06}"
        layout.add(split, label, stem, picture)
        progress.advance()
    progress.finish()


@contextlib.contextmanager
def _explained(name: str, downloads: Path) -> Iterator[None]:
    """What torchvision raises where a download fails, as one error that says what to put where."""
    try:
        yield
    except (NettailorError, MemoryError):
        raise
    except (OSError, RuntimeError, EOFError, tarfile.TarError, zipfile.BadZipFile) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        reason = " ".join(str(getattr(error, "reason", error)).split())
        url, place = _attempted(error)
        if place is None:
            hint = f"put the file into {downloads} yourself, or delete what is there if it is damaged, and start again"
        elif place.exists():
            hint = f"{place} may be damaged: delete it, and start again"
        else:
            hint = f"put {url} there yourself, as {place}, and start again"
        raise UsageError(f"{PREFIX}{name} can't be downloaded: {reason}", hint) from error


def _attempted(error: BaseException) -> tuple[str, Path | None]:
    """What was to be downloaded, and to where: torchvision's errors do not say it, the frames that they passed do."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_name == "download_url" and "fpath" in frame.f_locals:
            return str(frame.f_locals["url"]), Path(frame.f_locals["fpath"])
    before = error.__cause__ or error.__context__  # where several mirrors were tried, the last one's
    return _attempted(before) if before is not None else ("", None)


def _forget_unpacked(downloads: Path) -> None:
    """Remove what an interrupted command unpacked: torchvision would take half of it for all. Archives stay."""
    if not downloads.is_dir():
        return
    for folder in [path for path in downloads.iterdir() if path.is_dir()]:
        _forget_below(folder)


def _forget_below(folder: Path) -> bool:
    """Remove every folder without an archive in or below it; whether `folder` had one."""
    below = [_forget_below(path) for path in folder.iterdir() if path.is_dir() and not path.is_symlink()]
    own = any(path.suffix in _ARCHIVES for path in folder.iterdir() if path.is_file())
    if not own and not any(below):
        shutil.rmtree(folder)
    return own or any(below)


_ARCHIVES = frozenset({".zip", ".tar", ".tgz", ".gz", ".bz2", ".mat", ".data"})
