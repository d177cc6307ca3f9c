from __future__ import annotations

import functools
import hashlib
import http.server
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor

from nettailor_cli.core.backbones import catalog, embedded
from nettailor_cli.core.backbones.backbone import from_state
from nettailor_cli.core.backbones.fingerprint import fingerprint_of
from nettailor_cli.core.backbones.listing import folder, listing
from nettailor_cli.core.backbones.store import find, find_by_fingerprint, verify
from nettailor_cli.core.errors import FileError, UsageError
from nettailor_cli.core.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from nettailor_cli.core.progress import Silent


class Notes(Silent):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.units: list[int] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def start(self, what: str, total: int) -> None:
        self.units.append(total)

    def advance(self, units: int = 1, figures: object = None) -> None:
        self.units.append(-units)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """A folder and the URL under which it is served."""
    root = tmp_path / "served"
    root.mkdir()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    handler = functools.partial(_Quiet, directory=str(root))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield root, f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture(autouse=True)
def empty_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes with the package has tests of its own."""
    monkeypatch.setattr(embedded, "FOLDER", tmp_path / "package")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture(scope="session")
def halves(tmp_path_factory: pytest.TempPathFactory, half18: dict[str, Tensor]) -> Path:
    """A resnet18 in fp16 with a mean and std of its own."""
    path = tmp_path_factory.mktemp("weights") / "mine.safetensors"
    metadata = {"mean": "[0, 0, 0]", "std": "[1, 1, 1]", "size": "64"}
    safetensors.torch.save_file({key: value.half() for key, value in half18.items()}, path, metadata=metadata)
    return path


def files(home: Path) -> list[str]:
    return sorted(path.name for path in folder(home).glob("*")) if folder(home).exists() else []


def serve(root: Path, state: dict[str, Tensor], arch: str, digits: str = "") -> str:
    """Save `state` as torchvision names its files; returns the name."""
    torch.save(state, root / "new.pth")
    digest = digits or hashlib.sha256((root / "new.pth").read_bytes()).hexdigest()[:8]
    return (root / "new.pth").rename(root / f"{arch}-{digest}.pth").name


def test_a_weights_file_is_imported_once(
    home: Path, halves: Path, half18: dict[str, Tensor], tmp_path: Path, offline: str
) -> None:
    progress = Notes()
    backbone = find("resnet18", home=home, weights=halves, progress=progress)
    fingerprint = fingerprint_of(half18)
    assert (backbone.name, backbone.fingerprint) == ("resnet18.custom", fingerprint)
    assert files(home) == [f"resnet18.custom-{fingerprint[:12]}.safetensors"]
    (stored,) = listing(home)
    with safe_open(stored.path, "pt") as file:
        assert {file.get_slice(key).get_dtype() for key in file.keys()} == {"F16"}  # noqa: SIM118
        assert json.loads(file.metadata()["mean"]) == [0.0, 0.0, 0.0]
        assert file.metadata()["source"] == "mine.safetensors"
    assert stored.bytes == stored.path.stat().st_size < 1.1 * halves.stat().st_size
    assert (backbone.preprocessing.mean, backbone.preprocessing.std) == ((0, 0, 0), (1, 1, 1))
    assert backbone.preprocessing.size == 64
    (note,) = progress.notes
    assert all(part in note for part in ("resnet18.custom", fingerprint[:12], str(halves), "(the file's metadata)"))

    # From here on without the file: by its name, by its ARCH, by its fingerprint.
    for name in ("resnet18.custom", "resnet18"):
        again = find(name, home=home, progress=progress)
        assert (again.fingerprint, again.preprocessing) == (fingerprint, backbone.preprocessing)
        assert str(stored.path) in progress.notes[-1]
    assert "the only resnet18 there" in progress.notes[-1]
    found = find_by_fingerprint(fingerprint, name="resnet18.anything", home=home)
    assert found.fingerprint == fingerprint

    # The same weights in another file, saying nothing of preprocessing: nothing new is stored.
    before = stored.path.stat().st_mtime_ns
    torch.save(half18, tmp_path / "same.pth")
    same = find("resnet18", home=home, weights=tmp_path / "same.pth", progress=progress)
    assert "already" in progress.notes[-1]
    assert same.preprocessing == backbone.preprocessing
    assert (len(files(home)), stored.path.stat().st_mtime_ns) == (1, before)

    # The user's own mean is stored, and holds from then on.
    find("resnet18", home=home, weights=halves, mean=[0.5, 0.5, 0.5], progress=progress)
    assert "0.5 0.5 0.5 (--mean), std 1 1 1 (the file's metadata)" in progress.notes[-1]
    assert find("resnet18", home=home, progress=progress).preprocessing.mean == (0.5, 0.5, 0.5)
    assert len(files(home)) == 1


def test_an_explicit_tag_is_used_and_default_preprocessing_is_imagenets(home: Path, pth18: Path) -> None:
    progress = Notes()
    backbone = find("resnet18.mine", home=home, weights=pth18, progress=progress)
    assert backbone.name == "resnet18.mine"
    assert (backbone.preprocessing.mean, backbone.preprocessing.std) == (IMAGENET_MEAN, IMAGENET_STD)
    assert progress.notes[0].count("(ImageNet's default)") == 2
    (stored,) = listing(home)
    with safe_open(stored.path, "pt") as file:
        assert not [key for key in file.keys() if key.startswith("fc.")]  # noqa: SIM118


def test_torchvisions_own_file_gets_its_own_tag(home: Path, pth18: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = hashlib.sha256(pth18.read_bytes()).hexdigest()
    known = {"imagenet1k_v1": {"file": f"resnet18-{digest[:8]}.pth"}}
    monkeypatch.setitem(catalog._NETWORKS["resnet18"], "weights", known)
    assert find("resnet18", home=home, weights=pth18, progress=Silent()).name == "resnet18.imagenet1k_v1"


def test_a_file_named_as_torchvisions_own_has_to_be_it(home: Path, tmp_path: Path, state18: dict[str, Tensor]) -> None:
    """Else a damaged one would be imported as somebody's own."""
    path = tmp_path / "resnet18-f37072fd.pth"
    torch.save(state18, path)
    with pytest.raises(FileError, match=r"not the file it should be.*f37072fd"):
        find("resnet18", home=home, weights=path, progress=Notes())
    assert files(home) == []


def test_several_of_one_arch_are_ambiguous_unless_named(home: Path, halves: Path, pth18: Path, offline: str) -> None:
    find("resnet18.one", home=home, weights=halves, progress=Silent())
    find("resnet18.two", home=home, weights=pth18, progress=Silent())
    with pytest.raises(UsageError, match=r"could be any of 2 .*resnet18\.one [0-9a-f]{12}; resnet18\.two [0-9a-f]{12}"):
        find("resnet18", home=home, progress=Silent())
    assert find("resnet18.two", home=home, progress=Silent()).name == "resnet18.two"
    find("resnet18.imagenet1k_v1", home=home, weights=pth18, progress=Silent())
    assert find("resnet18", home=home, progress=Silent()).name == "resnet18.imagenet1k_v1"


@pytest.mark.parametrize("values", [[0.5, 0.5], [0.5, 0.5, 0.0]])
def test_a_wrong_std_is_refused(home: Path, halves: Path, values: list[float]) -> None:
    with pytest.raises(UsageError, match="--mean and --std take three numbers"):
        find("resnet18", home=home, weights=halves, std=values, progress=Silent())
    assert files(home) == []


@pytest.mark.parametrize("mean", ["[0, 0]", "nonsense", "7", '{"a": 1}'])
def test_wrong_metadata_are_refused(home: Path, tmp_path: Path, half18: dict[str, Tensor], mean: str) -> None:
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file(half18, path, metadata={"mean": mean})
    with pytest.raises(FileError, match=r"metadata of .*w\.safetensors"):
        find("resnet18", home=home, weights=path, progress=Silent())
    assert files(home) == []


def test_the_wrong_architecture_is_not_stored(home: Path, halves: Path) -> None:
    with pytest.raises(FileError, match=r"mine\.safetensors does not fit resnet34: .*It is a resnet18"):
        find("resnet34", home=home, weights=halves, progress=Silent())
    assert files(home) == []


def test_downloading(
    home: Path, served: tuple[Path, str], state34: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, url = served
    name = serve(root, state34, "resnet34")
    monkeypatch.setattr(catalog, "download_url", lambda _: f"{url}/{name}")
    progress = Notes()
    backbone = find("resnet34", home=home, mean=(0.1, 0.2, 0.3), progress=progress)
    assert (backbone.name, backbone.fingerprint) == ("resnet34.imagenet1k_v1", fingerprint_of(state34))
    assert f"downloaded from {url}/{name}" in progress.notes[0]
    assert "(--mean)" in progress.notes[0]
    assert sum(progress.units) == 0  # as many megabytes as announced
    assert progress.units[0] == (root / name).stat().st_size // 1_000_000

    # Kept for good, with torchvision's preprocessing: the server is not needed any more.
    (root / name).unlink()
    assert files(home) == [f"resnet34.imagenet1k_v1-{backbone.fingerprint[:12]}.safetensors"]
    again = find("resnet34", home=home, progress=progress)
    assert (again.fingerprint, again.preprocessing.mean) == (backbone.fingerprint, IMAGENET_MEAN)
    assert listing(home)[0].source == f"{url}/{name}"


def test_a_download_with_the_wrong_hash_leaves_nothing(
    home: Path, served: tuple[Path, str], half18: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, url = served
    name = serve(root, half18, "resnet18", digits="0badcafe")
    monkeypatch.setattr(catalog, "download_url", lambda _: f"{url}/{name}")
    with pytest.raises(FileError, match=r"SHA-256 starts .* not 0badcafe"):
        find("resnet18", home=home, progress=Silent())
    assert files(home) == []


def test_what_the_server_does_not_have_is_an_error(
    home: Path, served: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "download_url", lambda _: f"{served[1]}/resnet18-00000000.pth")
    with pytest.raises(UsageError, match="the server answers 404"):
        find("resnet18", home=home, progress=Silent())
    assert files(home) == []


def test_offline_and_absent_says_what_to_put_where(home: Path, offline: str) -> None:
    with pytest.raises(UsageError, match=r"resnet18\.imagenet1k_v1 is not in .*no connection") as caught:
        find("resnet18", home=home, progress=Silent())
    assert all(part in caught.value.hint for part in (offline, str(folder(home)), "--weights FILE"))
    assert files(home) == []


def test_a_file_put_there_by_hand_is_taken(
    home: Path, half18: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch, offline: str
) -> None:
    folder(home).mkdir(parents=True)
    name = serve(folder(home), half18, "resnet18")
    monkeypatch.setattr(catalog, "download_url", lambda _: f"https://nowhere.invalid/{name}")
    assert find("resnet18", home=home, progress=Silent()).fingerprint == fingerprint_of(half18)
    assert len(listing(home)) == 1


def test_a_tag_that_nobody_has(home: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no resnet50\.imagenet1k_v3") as caught:
        find("resnet50.imagenet1k_v3", home=home, progress=Silent())
    assert "did you mean resnet50.imagenet1k_v" in caught.value.hint
    with pytest.raises(UsageError) as caught:
        find("resnet50.flowers", home=home, progress=Silent())
    assert "--weights FILE" in caught.value.hint


def test_by_fingerprint_when_it_is_not_there(
    home: Path, served: tuple[Path, str], half18: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch, offline: str
) -> None:
    wanted = "ab" * 32
    with pytest.raises(FileError, match=r"resnet18\.mine with fingerprint abababababab, which is not in") as caught:
        find_by_fingerprint(wanted, name="resnet18.mine", home=home)
    assert "nettailor backbones fetch resnet18.mine --weights FILE" in caught.value.hint
    with pytest.raises(FileError, match=r"fingerprint abababababab, .*can't be downloaded") as caught:
        find_by_fingerprint(wanted, name="resnet18.imagenet1k_v1", home=home)
    assert offline in caught.value.hint

    root, url = served
    name = serve(root, half18, "resnet18")
    monkeypatch.setattr(catalog, "download_url", lambda _: f"{url}/{name}")
    real = fingerprint_of(half18)
    with pytest.raises(FileError, match=f"abababababab; torchvision's .* has {real[:12]}"):
        find_by_fingerprint(wanted, name="resnet18.imagenet1k_v1", home=home)
    shutil.rmtree(home)
    assert find_by_fingerprint(real, name="resnet18.imagenet1k_v1", home=home).fingerprint == real


def test_damage_is_found(home: Path, halves: Path, pth18: Path, offline: str) -> None:
    good = find("resnet18.good", home=home, weights=pth18, progress=Silent())
    bad = find("resnet18.bad", home=home, weights=halves, progress=Silent())
    path = folder(home) / f"resnet18.bad-{bad.fingerprint[:12]}.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert [(stored.name, ok) for stored, ok, _ in verify(home)] == [("resnet18.bad", False), ("resnet18.good", True)]
    assert "is damaged" in verify(home)[0][2]
    for look in (
        lambda: find("resnet18.bad", home=home, progress=Silent()),
        lambda: find_by_fingerprint(bad.fingerprint, name=bad.name, home=home),
    ):
        with pytest.raises(FileError, match="is damaged") as caught:
            look()
        assert "delete it" in caught.value.hint
    assert find("resnet18.good", home=home, progress=Silent()).fingerprint == good.fingerprint


def test_half_a_file_is_passed_over_and_said(home: Path, halves: Path, offline: str) -> None:
    find("resnet18", home=home, weights=halves, progress=Silent())
    (stored,) = listing(home)
    stored.path.write_bytes(stored.path.read_bytes()[:-100])
    progress = Notes()
    with pytest.raises(UsageError, match=r"there is no resnet18\.custom"):
        find("resnet18.custom", home=home, progress=progress)
    assert str(stored.path) in progress.warnings[0]
    assert find("resnet18", home=home, weights=halves, progress=progress).name == "resnet18.custom"
    assert [ok for _, ok, _ in verify(home)] == [True]


def test_a_home_that_refuses_files(home: Path, halves: Path, offline: str) -> None:
    home.write_text("a file where a folder should be")
    with pytest.raises(UsageError, match="can't write") as caught:
        find("resnet18", home=home, weights=halves, progress=Silent())
    assert "NETTAILOR_HOME" in caught.value.hint
    with pytest.raises(UsageError, match="can't write"):
        find("resnet18", home=home, progress=Silent())


def test_what_is_stored_computes_the_same(home: Path, pth18: Path, state18: dict[str, Tensor]) -> None:
    find("resnet18.x", home=home, weights=pth18, progress=Silent())
    images = torch.randn(1, 3, 64, 64)
    stored = find("resnet18.x", home=home, progress=Silent())
    direct = from_state("resnet18.x", state18, stored.preprocessing)
    with torch.inference_mode():
        assert torch.equal(stored(images), direct(images))
