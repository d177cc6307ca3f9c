"""--data torchvision:NAME for the commands that read a folder of pictures; the archive lies where the web would be."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tests.cli.helpers import ONE, SIZE, Workshop, nettailor, ok, refuses, untouched
from tests.core.data import archives


@pytest.fixture
def eurosat(shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home in which torchvision's archive lies already; its MD5 is not the true one's."""
    from nettailor_cli.core.backbones.torchvision_shim import import_torchvision

    import_torchvision()
    from torchvision.datasets import utils

    monkeypatch.setattr(utils, "check_md5", lambda path, md5: True)
    home = tmp_path / "home"
    (home / "backbones").mkdir(parents=True)
    for file in (shop.home / "backbones").iterdir():
        (home / "backbones" / file.name).hardlink_to(file)
    monkeypatch.setenv("NETTAILOR_HOME", str(home))
    place = home / "data/.eurosat.download/eurosat/EuroSAT.zip"
    place.parent.mkdir(parents=True)
    pictures = {
        f"2750/{name}/{name}_{n}.jpg": archives.image(40 * n, size=SIZE)
        for name in ("Forest", "River")
        for n in range(6)
    }
    place.write_bytes(archives.zipped(pictures))
    return home / "data" / "eurosat"


def test_teach_downloads_tailor_and_evaluate_find_it(eurosat: Path) -> None:
    ok("teach", "--backbone", "resnet18", "--data", "torchvision:eurosat", "--size", SIZE, *ONE)
    run = Path("runs/eurosat-resnet18")
    assert tomllib.loads((run / "run.toml").read_text())["run"]["data"] == str(eurosat)
    with untouched(eurosat):
        ok("tailor", "--run", run, *ONE)
        teacher = run / "teacher.safetensors"
        result = ok("evaluate", teacher, "--data", "torchvision:eurosat", "--split", "all", "--json")
    assert result.document["images"] == 12
    by_folder = ok("evaluate", teacher, "--data", eurosat, "--split", "all", "--json")
    assert by_folder.document["accuracy"] == result.document["accuracy"]


def test_an_unknown_set_is_refused_with_a_suggestion() -> None:
    refuses(
        "teach", "--data", "torchvision:flowers12", *ONE, says=("no torchvision:flowers12", "did you mean flowers102")
    )


def test_wrong_settings_are_told_before_any_download(shop: Workshop) -> None:
    refuses("teach", "--data", "torchvision:dtd", "--group", "(", "--epochs", "0", says=("epochs",))
    assert not (shop.home / "data").exists()


def test_without_the_web_it_says_what_to_put_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import urllib.error
    import urllib.request

    def no_network(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no network in the tests")

    monkeypatch.setenv("NETTAILOR_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    place = tmp_path / "home/data/.dtd.download/dtd/dtd-r1.0.1.tar.gz"
    result = nettailor("teach", "--data", "torchvision:dtd", *ONE)
    assert result.code == 2 and result.out == ""
    told = "".join(result.err.split())
    assert "torchvision:dtdcan'tbedownloaded:nonetworkinthetests" in told
    assert f"put{'https://www.robots.ox.ac.uk/~vgg/data/dtd/download/dtd-r1.0.1.tar.gz'}thereyourself,as{place}" in told
