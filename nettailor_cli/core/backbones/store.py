"""Where a backbone's weights are: a file that the user names, the home folder, the package, torchvision's or timm's
download.

Whatever comes from outside is kept in HOME/backbones for good, and from then on found by its fingerprint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from nettailor_cli.core.backbones import catalog
from nettailor_cli.core.backbones.backbone import Backbone, from_state
from nettailor_cli.core.backbones.catalog import BackboneName, parse_name
from nettailor_cli.core.backbones.decomposition import make_network
from nettailor_cli.core.backbones.download import DownloadError, check_hash, download
from nettailor_cli.core.backbones.embedded import embedded
from nettailor_cli.core.backbones.families import TIMM
from nettailor_cli.core.backbones.keeping import cannot_write_hint, keep
from nettailor_cli.core.backbones.listing import SHORT, StoredBackbone, folder, listing
from nettailor_cli.core.backbones.preprocessing_choice import choose
from nettailor_cli.core.backbones.weights_file import read_weights
from nettailor_cli.core.errors import FileError, NettailorError, RunFailed, UsageError, did_you_mean
from nettailor_cli.core.files import sha256_of, temporary_folder
from nettailor_cli.core.preprocessing import Preprocessing
from nettailor_cli.core.progress import Progress, Silent

_STORED = "stored with it"
_FROM_FILE = "the file's metadata"


@dataclass(frozen=True)
class _Found:
    backbone: Backbone
    origin: str  # where it came from, to be printed
    preprocessing: str  # what was chosen and who said so, to be printed


def find(
    name: str,
    *,
    home: Path,
    weights: Path | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    progress: Progress,
) -> Backbone:
    """The backbone ARCH or ARCH.TAG, fp32, on the CPU, in evaluation mode.

    Looked for in `weights` (.safetensors or .pth, imported into `home`), `home`, the package, torchvision's download,
    or timm's for timm/... (kept in `home`). A bare ARCH is ARCH.imagenet1k_v1 (timm's default), or the only ARCH that
    `home` has; never the package's. `mean` and `std` (three numbers each, [0, 1] scale) win over what files say; with
    `weights` they are stored. One note tells what was found, where, and its preprocessing. Raises UsageError when the
    name is unknown or ambiguous or nothing can be had, FileError for a damaged or foreign file, RunFailed when the disk
    is full.
    """
    wanted = parse_name(name)
    if weights is not None:
        found = _import(wanted, weights, home, mean, std)
    else:
        stored, why = _in_home(wanted, home, progress)
        if stored is None:
            stored, why = _in_package(wanted)
        found = _read(stored, why, mean, std) if stored else _downloaded(wanted, home, mean, std, progress)
    short = found.backbone.fingerprint[:SHORT]
    progress.note(f"backbone {found.backbone.name}, fingerprint {short}, {found.origin}; {found.preprocessing}")
    return found.backbone


def find_by_fingerprint(fingerprint: str, *, name: str, home: Path, progress: Progress | None = None) -> Backbone:
    """The very backbone that a delta was made from: `fingerprint` in full, `name` its ARCH.TAG.

    Looked for in `home` under any name, in the package, then at torchvision if the tag is one of its own. Raises
    FileError when it can't be had or is damaged, and when the download is another one.
    """
    progress = progress or Silent()
    wanted = parse_name(name)
    same = [stored for stored in (*_whole(home), *embedded()) if stored.fingerprint == fingerprint]
    same.sort(key=lambda stored: stored.name != name)
    if same:
        progress.note(f"backbone {same[0].name}, fingerprint {fingerprint[:SHORT]}, from {same[0].path}")
        return _load(same[0])
    needed = f"this file needs the backbone {name} with fingerprint {fingerprint[:SHORT]}"
    others = [f"{s.name} {s.short}" for s in _whole(home) if s.parsed.arch == wanted.arch]
    there = f" (there: {', '.join(others)})" if others else ""
    hint = f"nettailor backbones fetch {name} --weights FILE imports it from the weights file that it was made from"
    if wanted.tag not in catalog.offered_tags(wanted.arch):
        raise FileError(f"{needed}, which is not in {folder(home)}{there}", hint)
    try:
        backbone = _downloaded(wanted, home, None, None, progress).backbone
    except UsageError as error:
        raise FileError(f"{needed}, which is not in {folder(home)}{there}: {error.message}", error.hint) from error
    if backbone.fingerprint != fingerprint:
        raise FileError(f"{needed}; {_offerer(wanted)}'s {name} has {backbone.fingerprint[:SHORT]}", hint)
    progress.note(f"backbone {name}, fingerprint {fingerprint[:SHORT]}, downloaded from {_offerer(wanted)}")
    return backbone


def verify(home: Path) -> list[tuple[StoredBackbone, bool, str]]:
    """Every backbone in `home` and in the package, whether its tensors have its fingerprint, and what is to be said."""
    results = []
    for stored in (*listing(home), *embedded()):
        try:
            if stored.error:
                raise FileError(stored.error)
            _load(stored)
        except NettailorError as error:
            results.append((stored, False, error.message))
        else:
            results.append((stored, True, "its tensors have its fingerprint"))
    return results


def _import(
    wanted: BackboneName, weights: Path, home: Path, mean: Sequence[float] | None, std: Sequence[float] | None
) -> _Found:
    state, metadata = read_weights(weights)
    digest = sha256_of(weights)
    if weights.name in _torchvision_names(wanted.arch):
        check_hash(weights.name, digest, str(weights))  # else a damaged one would be taken for somebody's own
    tag = wanted.tag or catalog.tag_of_file(wanted.arch, digest) or catalog.CUSTOM_TAG
    backbone = from_state(f"{wanted.arch}.{tag}", state, Preprocessing(), source=str(weights))
    stored = _same_in_home(backbone, home, any_name=wanted.tag is None)
    tables = [(_FROM_FILE, metadata)]
    if stored is not None:
        backbone.name = stored.name
        tables.append((_STORED, stored.metadata()))
    default = catalog.preprocessing(wanted.arch, tag)
    backbone.preprocessing, reason = choose(mean, std, tables, source=str(weights), default=default)
    if stored is None or backbone.preprocessing != _preprocessing(stored):
        # An unchanged file is left alone; so is the stored source when only the preprocessing is new.
        stored = keep(backbone, state, source=stored.source if stored else weights.name, home=home)
        return _Found(backbone, f"imported from {weights} to {stored.path}", reason)
    return _Found(backbone, f"{weights} is already at {stored.path}", reason)


def _torchvision_names(arch: str) -> set[str]:
    """What torchvision's own files of `arch` are called; the names hold the start of their SHA-256."""
    urls = (catalog.download_url(BackboneName(arch, tag)) for tag in catalog.torchvision_tags(arch))
    return {url.rpartition("/")[2] for url in urls}


def _same_in_home(backbone: Backbone, home: Path, *, any_name: bool) -> StoredBackbone | None:
    same = [stored for stored in _whole(home) if stored.fingerprint == backbone.fingerprint]
    named = [stored for stored in same if stored.name == backbone.name]
    return next(iter(named or (same if any_name else [])), None)


def _in_home(wanted: BackboneName, home: Path, progress: Progress) -> tuple[StoredBackbone | None, str]:
    """What `home` has under this name, and why it was taken."""
    for stored in listing(home):
        if stored.error and BackboneName(wanted.arch, wanted.tag or catalog.default_tag(wanted.arch)) == _named(stored):
            progress.warn(f"{stored.path} is passed over: {stored.error}")
    of_arch = [stored for stored in _whole(home) if stored.parsed.arch == wanted.arch]
    named = [stored for stored in of_arch if stored.parsed.tag == (wanted.tag or catalog.default_tag(wanted.arch))]
    why = ""
    if not named and wanted.tag is None and of_arch:
        named, why = of_arch, f", the only {wanted.arch} there"
    if len({stored.fingerprint for stored in named}) > 1:  # the same weights under two names are no choice to make
        several = "; ".join(f"{stored.name} {stored.short}" for stored in named)
        raise UsageError(
            f"{wanted} could be any of {len(named)} backbones in {folder(home)}: {several}",
            f"write --backbone {wanted.arch}.TAG, or name the file with --weights {named[0].path}",
        )
    return (named[0], f"from {named[0].path}{why}") if named else (None, "")


def _in_package(wanted: BackboneName) -> tuple[StoredBackbone | None, str]:
    """The package's own file of this full name, and what to say of where it came from."""
    for stored in embedded():
        if stored.name == str(wanted):
            if stored.error:
                raise FileError(f"{stored.path} is damaged: {stored.error}", "install nettailor again")
            return stored, "which comes with nettailor"
    return None, ""


def _read(stored: StoredBackbone, origin: str, mean: Sequence[float] | None, std: Sequence[float] | None) -> _Found:
    backbone = _load(stored)
    backbone.preprocessing, reason = choose(mean, std, [(_STORED, stored.metadata())], source=str(stored.path))
    return _Found(backbone, origin, reason)


def _load(stored: StoredBackbone) -> Backbone:
    """The stored file, its tensors checked against its fingerprint."""
    state, _ = read_weights(stored.path)
    backbone = from_state(stored.name, state, _preprocessing(stored), source=str(stored.path))
    if backbone.fingerprint != stored.fingerprint:
        raise FileError(
            f"{stored.path} is damaged: its tensors have the fingerprint {backbone.fingerprint[:SHORT]}, "
            f"it was stored as {stored.short}",
            f"delete it, then nettailor backbones fetch {stored.name} (from {stored.source or 'its weights file'})",
        )
    return backbone


def _offerer(wanted: BackboneName) -> str:
    return "timm" if wanted.arch.startswith(TIMM) else "torchvision"


def _downloaded(
    wanted: BackboneName, home: Path, mean: Sequence[float] | None, std: Sequence[float] | None, progress: Progress
) -> _Found:
    wanted = replace(wanted, tag=wanted.tag or catalog.default_tag(wanted.arch))
    tags = catalog.offered_tags(wanted.arch)
    if wanted.tag not in tags:
        near = did_you_mean(str(wanted), [f"{wanted.arch}.{tag}" for tag in tags])
        theirs = f"(it has {', '.join(tags)})" if tags else "of this architecture"
        raise UsageError(
            f"there is no {wanted} in {folder(home)}, and {_offerer(wanted)} has none {theirs}",
            near or "--weights FILE imports it",
        )
    url = catalog.download_url(wanted)
    if wanted.arch.startswith(TIMM):  # one that can't be tailored should not cost a download
        Backbone(str(wanted), make_network(wanted.arch, "meta"), Preprocessing())
    state, origin = _offered_file(wanted, url, home, progress)
    default = catalog.preprocessing(wanted.arch, wanted.tag)
    backbone = from_state(str(wanted), state, default, source=origin)
    kept = keep(backbone, state, source=url, home=home)
    # The user's own mean and std hold for this command; what is stored describes these weights for all others.
    backbone.preprocessing, reason = choose(mean, std, [], source=url, default=default)
    return _Found(backbone, f"{origin}, kept as {kept.path}", reason)


def _offered_file(name: BackboneName, url: str, home: Path, progress: Progress) -> tuple[Mapping[str, Tensor], str]:
    """torchvision's own file, put beside the stored backbones by hand or downloaded, or timm's, and where it was."""
    by_hand = folder(home) / url.rpartition("/")[2]
    told_apart = not name.arch.startswith(TIMM)  # all of timm's files are called alike
    if told_apart and by_hand.is_file():
        check_hash(url, sha256_of(by_hand), str(by_hand))
        return read_weights(by_hand)[0], f"from {by_hand}"
    try:
        folder(home).mkdir(parents=True, exist_ok=True)
        with temporary_folder(by_hand) as temporary:
            file = temporary / by_hand.name
            download(url, file, progress)
            return read_weights(file)[0], f"downloaded from {url}"
    except DownloadError as error:
        raise UsageError(
            f"{name} is not in {folder(home)} and can't be downloaded ({error})",
            f"put {url} into {folder(home)}, or name a weights file with --weights FILE"
            if told_apart
            else f"get {url} in another way, then: nettailor backbones fetch {name} --weights FILE",
        ) from error
    except (PermissionError, FileExistsError, NotADirectoryError) as error:
        raise UsageError(f"can't write to {folder(home)}: {error.strerror}", cannot_write_hint(home)) from error
    except OSError as error:
        raise RunFailed(f"can't write to {folder(home)}: {error.strerror or error}", cannot_write_hint(home)) from error


def _whole(home: Path) -> list[StoredBackbone]:
    return [stored for stored in listing(home) if not stored.error]


def _named(stored: StoredBackbone) -> BackboneName | None:
    try:
        return stored.parsed
    except UsageError:
        return None


def _preprocessing(stored: StoredBackbone) -> Preprocessing:
    return choose(None, None, [(_STORED, stored.metadata())], source=str(stored.path))[0]
