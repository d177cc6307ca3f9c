from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from nettailor_cli.core.backbones import embedded as package
from nettailor_cli.core.backbones.backbone import from_state
from nettailor_cli.core.backbones.embedded import DEFAULT, embedded
from nettailor_cli.core.backbones.listing import described
from nettailor_cli.core.backbones.store import find, find_by_fingerprint, verify
from nettailor_cli.core.errors import FileError, UsageError
from nettailor_cli.core.preprocessing import Preprocessing
from nettailor_cli.core.progress import Silent


def write(folder: Path, state: dict[str, Tensor], name: str = DEFAULT) -> Path:
    """A stored backbone in `folder`, fp16."""
    halves = {key: value.half() for key, value in state.items()}
    backbone = from_state(name, halves, Preprocessing(size=64))
    path = folder / f"{name}-{backbone.fingerprint[:12]}.safetensors"
    entry = described(
        path, name=name, fingerprint=backbone.fingerprint, preprocessing=backbone.preprocessing, source="a test"
    )
    safetensors.torch.save_file(halves, path, metadata=entry.metadata())
    return path


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, half18: dict[str, Tensor]) -> Path:
    """Another file in the place of the package's own."""
    folder = tmp_path / "package"
    folder.mkdir()
    monkeypatch.setattr(package, "FOLDER", folder)
    return write(folder, half18)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def test_found_by_its_full_name_and_nothing_is_copied(shipped: Path, home: Path) -> None:
    backbone = find(DEFAULT, home=home, progress=Silent())
    assert backbone.name == DEFAULT and backbone.preprocessing.size == 64
    assert not home.exists()


def test_found_by_its_fingerprint(shipped: Path, home: Path) -> None:
    fingerprint = embedded()[0].fingerprint
    assert find_by_fingerprint(fingerprint, name=DEFAULT, home=home).fingerprint == fingerprint


def test_the_home_folder_goes_before_the_package(
    shipped: Path, home: Path, pth18: Path, state18: dict[str, Tensor]
) -> None:
    mine = find(DEFAULT, home=home, weights=pth18, progress=Silent())
    assert find(DEFAULT, home=home, progress=Silent()).fingerprint == mine.fingerprint != embedded()[0].fingerprint


def test_a_bare_arch_is_never_the_packages(shipped: Path, home: Path, offline: str) -> None:
    with pytest.raises(UsageError, match="imagenet1k_v1"):
        find("resnet18", home=home, progress=Silent())


def test_damage_in_the_package_is_said(shipped: Path, home: Path) -> None:
    data = bytearray(shipped.read_bytes())
    data[-1000] ^= 1
    shipped.write_bytes(bytes(data))
    with pytest.raises(FileError, match="damaged"):
        find(DEFAULT, home=home, progress=Silent())
    shipped.write_bytes(bytes(data[:5000]))
    with pytest.raises(FileError, match="damaged"):
        find(DEFAULT, home=home, progress=Silent())
    assert [ok for _, ok, _ in verify(home)] == [False]


def test_the_packages_own_file_is_whole_small_and_knows_200_classes(home: Path) -> None:
    (entry,) = embedded()
    assert entry.name == DEFAULT and not entry.error and entry.size == 64
    assert entry.bytes <= 25_000_000
    assert [(ok, message) for _, ok, message in verify(home)] == [(True, "its tensors have its fingerprint")]
    tensors = safetensors.torch.load_file(entry.path)
    assert tensors["fc.weight"].shape == (200, 512)
    assert all(tensor.dtype == torch.float16 for tensor in tensors.values())
    backbone = find(DEFAULT, home=home, progress=Silent())
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.isfinite(backbone(images)).all()
