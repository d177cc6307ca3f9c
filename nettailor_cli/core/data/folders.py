"""DIR/train/CLASS/** with optional val/ and test/, or DIR/CLASS/** ("flat"), into a Dataset. Classes go by name.

train/, val/ and test/ are splits only if they hold folders: in a flat folder of vehicles, train/ is a class. Hidden
entries and files that are no pictures are passed over. Links are followed, but no folder is entered twice.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from nettailor_cli.core.data.dataset import SPLITS, Dataset, Example
from nettailor_cli.core.data.grouping import check_group
from nettailor_cli.core.data.splits import divide
from nettailor_cli.core.errors import DataError, did_you_mean

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff"})

_LAYOUT = "expected DIR/train/CLASS/*.jpg (val/ and test/ optional) or DIR/CLASS/*.jpg"
_ALIASES = {"training": "train", "valid": "val", "validation": "val", "testing": "test"}


def read_dataset(
    root: Path,
    *,
    seed: int,
    group: str | None = None,
    classes: Sequence[str] | None = None,
    val_fraction: float = 0.2,
    fold: int = 0,
) -> Dataset:
    """Find the pictures below `root`, label them, and split val off train if there is no val/ (see `splits`).

    `classes` is a model's class list: labels are positions in it, any of its classes may be absent, and val/ or test/
    alone will do. Without it the classes are train's folders in sorted order, at least two, none without pictures.
    `group` (see `divide`) matters only when val is split off here: a val/ that exists is taken as it is, but for
    another `fold` than 0, for which train/ and val/ are put together and parted anew.

    Raises DataError when the folder can't be read or is not laid out like this, UsageError for a bad `group`.
    """
    if group is not None:
        check_group(group)
    folders = _split_folders(root, evaluating=classes is not None)
    # a link from a class up to the root must not bring test's pictures into train
    closed = {_identity(folder) for folder in (root, *folders.values())}
    found = {split: _read_split(folder, closed) for split, folder in folders.items()}
    for split, pictures in found.items():
        if not any(pictures.values()):
            where = root / split if len(found) > 1 else root
            hint = f"fill {split}/ or remove it" if split != "train" else _LAYOUT
            raise DataError(f"{where} has no class folder with images", hint)
    if classes is None:
        classes = _training_classes(root, found["train"])
    _refuse_unknown(root, found, classes)

    labels = {name: label for label, name in enumerate(classes)}
    splits = {
        split: tuple(
            sorted(
                (
                    Example(path, f"{name}/{below}", labels[name])
                    for name, paths in pictures.items()
                    for below, path in paths.items()
                ),
                key=lambda example: example.name,
            )
        )
        for split, pictures in found.items()
    }
    if "train" in splits and (fold or "val" not in splits):
        both = sorted((*splits["train"], *splits.pop("val", ())), key=lambda example: example.name)
        train, val = divide(both, seed=seed, group=group, val_fraction=val_fraction, fold=fold)
        splits |= {"train": train} | ({"val": val} if val else {})
    return Dataset(root, tuple(classes), {split: splits[split] for split in SPLITS if split in splits})


def _split_folders(root: Path, *, evaluating: bool) -> dict[str, Path]:
    """Where each split lies: {"train": root} if the folder is flat."""
    folders = {entry.name: Path(entry.path) for entry in _entries(root) if _is_folder(entry)}
    holding = [name for name, path in folders.items() if any(_is_folder(entry) for entry in _entries(path))]
    for name in holding:
        meant = _ALIASES.get(name.lower(), name.lower())
        # passed over in silence, these would cost the user the split that he made
        if meant in SPLITS and name != meant:
            raise DataError(f"{root / name} looks like a split under another name", f"rename it to {meant}")
    if "train" in holding or (evaluating and any(split in holding for split in SPLITS)):
        return {split: folders[split] for split in SPLITS if split in folders}
    for split in SPLITS:
        if split in holding:
            raise DataError(f"{root} has {split}/ but no train/ with class folders", _LAYOUT)
    return {"train": root}


def _read_split(folder: Path, closed: set[tuple[int, int]]) -> dict[str, dict[str, Path]]:
    """Per class folder, the pictures below it, `closed` left out: path from the class folder on -> full path."""
    class_folders = [Path(entry.path) for entry in _entries(folder) if _is_folder(entry)]
    seen = set(closed)
    first = []
    for path in class_folders:  # taken before any is walked: a link from one class into another brings nothing
        if _identity(path) not in seen:
            seen.add(_identity(path))
            first.append(path)
    return {path.name: _walk(path, seen) if path in first else {} for path in class_folders}


def _walk(top: Path, seen: set[tuple[int, int]]) -> dict[str, Path]:
    found = {}
    todo = [top]
    while todo:
        for entry in _entries(todo.pop()):
            path = Path(entry.path)
            if _is_folder(entry):
                if _identity(path) not in seen:
                    seen.add(_identity(path))
                    todo.append(path)
            elif path.suffix.lower() in IMAGE_SUFFIXES and _is_picture(entry):
                found[path.relative_to(top).as_posix()] = path
    return found


def _training_classes(root: Path, pictures: dict[str, dict[str, Path]]) -> tuple[str, ...]:
    empty = [name for name, paths in pictures.items() if not paths]
    if empty:
        raise DataError(f"{root}: no images of class {_listed(empty)}", "add some, or remove the folder")
    if len(pictures) == 1:
        raise DataError(f"{root} has a single class, {next(iter(pictures))}", f"at least two are needed; {_LAYOUT}")
    return tuple(sorted(pictures))


def _refuse_unknown(root: Path, found: dict[str, dict[str, dict[str, Path]]], classes: Sequence[str]) -> None:
    for split, pictures in found.items():
        unknown = sorted(name for name, paths in pictures.items() if paths and name not in classes)
        if unknown:
            raise DataError(
                f"{root}: {split} has classes that are not among the {len(classes)} known ones: {_listed(unknown)}",
                did_you_mean(unknown[0], classes) or f"known: {_listed(classes)}",
            )


def _listed(names: Iterable[str], limit: int = 10) -> str:
    names = list(names)
    return ", ".join(names[:limit]) + (f" ... and {len(names) - limit} more" if len(names) > limit else "")


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What is visible in a folder, by name."""
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"can't read the folder {folder}: {error.strerror or error}", _LAYOUT) from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_picture(entry: os.DirEntry[str]) -> bool:
    """No pipes or sockets: opening one may wait for ever. A link to nowhere stays in, to be reported as unreadable."""
    try:
        return entry.is_file() or not Path(entry.path).exists()
    except OSError:
        return True


def _identity(folder: Path) -> tuple[int, int]:
    try:
        status = folder.stat()
    except OSError as error:
        raise DataError(f"can't read {folder}: {error.strerror or error}") from error
    return status.st_dev, status.st_ino
