"""torchvision's own downloaders on miniature archives in the true formats; nothing but the web is replaced."""

from __future__ import annotations

import urllib.error
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nettailor_cli.core.backbones.torchvision_shim import import_torchvision
from nettailor_cli.core.data import read_dataset, torchvision_sets
from nettailor_cli.core.data.torchvision_sets import ELSEWHERE, SETS, data_folder, set_name
from nettailor_cli.core.errors import UsageError
from nettailor_cli.core.progress import SILENT
from tests.core.data import archives

import_torchvision()
from torchvision.datasets import utils  # noqa: E402

Serve = Callable[[archives.Files], list[str]]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Serve:
    """From here on the web has these files, by the last part of their address. Returns the addresses asked for."""

    def start(files: archives.Files) -> list[str]:
        asked: list[str] = []

        def retrieve(url: str, filename: str, chunk_size: int = 0) -> None:
            asked.append(url)
            name = url.split("?")[0].rpartition("/")[2]
            if name not in files:
                raise urllib.error.URLError("no such host")
            Path(filename).write_bytes(files[name])

        monkeypatch.setattr(utils, "_urlretrieve", retrieve)
        monkeypatch.setattr(utils, "_get_redirect_url", lambda url, max_hops=3: url)
        monkeypatch.setattr(utils, "check_md5", lambda path, md5: True)
        return asked

    return start


def laid_out(name: str, home: Path) -> dict[str, list[str]]:
    """Per split and class, the files."""
    folder = data_folder(Path(f"torchvision:{name}"), home, SILENT)
    assert folder == home / "data" / name
    found: dict[str, list[str]] = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        place = file.relative_to(folder)
        found.setdefault(str(place.parent), []).append(place.name)
    return found


THREE = ("train", "val", "test")


@pytest.mark.parametrize(
    ("name", "files", "expected"),
    [
        (
            "svhn",
            archives.svhn(),
            {f"{split}/{digit}": [f"{n:06}.png"] for split in ("train", "test") for n, digit in enumerate((2, 3, 0))},
        ),
        (
            "flowers102",
            archives.flowers102(),
            {
                f"{split}/{label}": [f"image_{2 * n + m + 1:05}-{m:06}.jpg"]
                for n, split in enumerate(THREE)
                for m, label in enumerate(("pink primrose", "hard-leaved pocket orchid"))
            },
        ),
        (
            "gtsrb",
            archives.gtsrb(),
            {
                "train/00000": ["00000_00000-000000.png", "00001_00000-000001.png"],
                "train/00001": ["00000_00000-000002.png"],
                "test/00001": ["00000-000000.png"],
                "test/00000": ["00001-000001.png"],
            },
        ),
        (
            "cifar100",
            archives.cifar100(),
            {
                "train/apple": ["000000.png"],
                "train/aquarium_fish": ["000001.png", "000002.png"],
                "test/apple": ["000000.png"],
                "test/aquarium_fish": ["000001.png"],
            },
        ),
        (
            "dtd",
            archives.dtd(),
            {
                f"{split}/{label}": [f"{label}_000{n + 1}-{m:06}.jpg"]
                for n, split in enumerate(THREE)
                for m, label in enumerate(("banded", "dotted"))
            },
        ),
        (
            "eurosat",
            archives.eurosat(),
            {"Forest": ["Forest_1-000000.jpg", "Forest_2-000001.jpg"], "River": ["River_1-000002.jpg"]},
        ),
        (
            "omniglot",
            archives.omniglot(),
            {f"{part}-0000": ["0001_01-000000.png", "0002_01-000001.png"] for part in ("background", "evaluation")},
        ),
        (
            "fgvc_aircraft",
            archives.fgvc_aircraft(),
            {
                f"{split}/{label}": [f"{n}00000{m + 1}-{m:06}.jpg"]
                for n, split in enumerate(THREE)
                for m, label in enumerate(("F-16A-B", "707-320"))
            },
        ),
        (
            "oxford_iiit_pet",
            archives.oxford_iiit_pet(),
            {
                "train/Abyssinian": ["Abyssinian_1-000000.jpg"],
                "train/Beagle": ["beagle_1-000001.jpg"],
                "test/Abyssinian": ["Abyssinian_2-000000.jpg"],
                "test/Beagle": ["beagle_2-000001.jpg"],
            },
        ),
        (
            "mnist",
            archives.mnist(),
            {
                f"{split}/{n}": [f"{i:06}.png"]
                for split in ("train", "test")
                for i, n in enumerate(("5 - five", "0 - zero"))
            },
        ),
    ],
)
def test_a_set_is_laid_out_by_split_and_class(
    name: str, files: archives.Files, expected: dict[str, list[str]], serve: Serve, tmp_path: Path
) -> None:
    serve(files)
    assert laid_out(name, tmp_path) == expected
    read_dataset(tmp_path / "data" / name, seed=0)  # as the tool wants it
    assert [path.name for path in (tmp_path / "data").iterdir()] == [name], "the download goes"


def test_files_stay_as_they_are_and_arrays_keep_their_values(serve: Serve, tmp_path: Path) -> None:
    serve(archives.flowers102() | archives.svhn())
    laid_out("flowers102", tmp_path)
    laid_out("svhn", tmp_path)
    flower = tmp_path / "data/flowers102/test/pink primrose/image_00005-000000.jpg"
    assert flower.read_bytes() == archives.image(50)
    digit = np.asarray(Image.open(tmp_path / "data/svhn/train/0/000002.png"))
    assert digit.shape == (32, 32, 3) and (digit == 200).all()


def test_what_is_there_is_not_downloaded_again(serve: Serve, tmp_path: Path) -> None:
    asked = serve(archives.eurosat())
    laid_out("eurosat", tmp_path)
    assert len(asked) == 1
    serve({})
    assert laid_out("EuroSAT".lower(), tmp_path)


def test_without_the_web_the_error_says_what_to_put_where_and_then_it_goes_on(serve: Serve, tmp_path: Path) -> None:
    serve({})
    with pytest.raises(UsageError) as caught:
        data_folder(Path("torchvision:dtd"), tmp_path, SILENT)
    place = tmp_path / "data/.dtd.download/dtd/dtd-r1.0.1.tar.gz"
    assert "torchvision:dtd can't be downloaded: no such host" in caught.value.message
    assert str(place) in caught.value.hint and "/dtd-r1.0.1.tar.gz there yourself" in caught.value.hint
    assert not (tmp_path / "data/dtd").exists()
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(archives.dtd()["dtd-r1.0.1.tar.gz"])
    assert "train/banded" in laid_out("dtd", tmp_path)


def test_what_an_interrupted_command_unpacked_is_not_taken_for_the_whole(serve: Serve, tmp_path: Path) -> None:
    serve(archives.dtd())
    half = tmp_path / "data/.dtd.download/dtd/dtd/images"  # torchvision looks for the folder alone
    half.mkdir(parents=True)
    assert len(laid_out("dtd", tmp_path)) == 6


def test_a_damaged_archive_is_named(serve: Serve, tmp_path: Path) -> None:
    serve({"EuroSAT.zip": b"no zip"})
    with pytest.raises(UsageError, match="eurosat") as caught:
        data_folder(Path("torchvision:eurosat"), tmp_path, SILENT)
    assert "delete" in caught.value.hint


def test_a_missing_package_is_told_before_the_download(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = serve(archives.svhn())
    monkeypatch.setattr(torchvision_sets.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="needs scipy"):
        data_folder(Path("torchvision:svhn"), tmp_path, SILENT)
    assert not asked


def test_names(tmp_path: Path) -> None:
    assert set_name(Path("some/folder")) is None
    assert set_name(Path("torchvision:Fashion-MNIST")) == "fashion_mnist"
    assert data_folder(tmp_path, tmp_path / "home", SILENT) == tmp_path
    for name, hint in (("flowers12", "flowers102"), ("stanford_cars", "stanford_cars.py"), ("zzz", "cifar10")):
        with pytest.raises(UsageError) as caught:
            data_folder(Path(f"torchvision:{name}"), tmp_path, SILENT)
        assert hint in caught.value.hint


def test_every_set_of_the_table_is_one_that_torchvision_downloads_with_these_arguments() -> None:
    import inspect

    datasets = import_torchvision().datasets
    for own in SETS.values():
        known = inspect.signature(getattr(datasets, own.dataset)).parameters
        for _, arguments in own.parts:
            assert "download" in known or "kwargs" in known
            assert "kwargs" in known or set(arguments) <= set(known), own.dataset
    assert not set(ELSEWHERE) & set(SETS)
