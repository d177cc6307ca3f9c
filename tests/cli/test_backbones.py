"""nettailor backbones"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from nettailor_cli.core.backbones.catalog import ARCHS
from nettailor_cli.core.backbones.embedded import DEFAULT
from nettailor_cli.core.backbones.families import FAMILIES
from tests.cli.helpers import Workshop, ok, refuses, untouched


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty one."""
    monkeypatch.setenv("NETTAILOR_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_list(shop: Workshop) -> None:
    document = ok("backbones", "list", "--json").document
    assert document["home"] == str(shop.home / "backbones")
    (stored,) = document["stored"]
    assert stored["name"] == "resnet18.custom" and stored["error"] is None
    assert stored["source"] == shop.weights.name and stored["bytes"] == Path(stored["file"]).stat().st_size
    assert "resnet18.imagenet1k_v1" in document["downloadable"]
    assert "resnet50.imagenet1k_v2" in document["downloadable"]
    people = ok("backbones")
    assert people.out == ok("backbones", "list").out
    assert "resnet18.custom" in people.out and stored["fingerprint"][:12] in people.out
    assert ["resnext50_32x4d", "224", "16", "25.03", "M", "4.230", "G", "v1", "v2"] in map(
        str.split, people.out.split("\n")
    )
    assert ok("backbones", "list", "--quiet").out == ""


def test_every_network_is_listed_with_what_it_costs_at_its_own_size(shop: Workshop) -> None:
    networks = {entry["arch"]: entry for entry in ok("backbones", "list", "--json").document["networks"]}
    assert networks["resnet18"] == {
        "arch": "resnet18",
        "family": "resnet",
        "size": 224,
        "blocks": 8,
        "parameters": 11_689_512,
        "macs": 1_814_073_344,
        "features": 512,
        "classifier": "fc",
        "tags": ["imagenet1k_v1"],
    }
    assert networks["efficientnet_b7"]["size"] == 600 and networks["inception_v3"]["size"] == 299
    assert {entry["family"] for entry in networks.values()} == set(FAMILIES)


def test_the_list_fits_into_60_columns(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    lines = ok("backbones", "list").out.splitlines()
    assert max(map(len, lines)) <= 60
    for arch in ARCHS:
        (row,) = (line.split() for line in lines if line.split()[:1] == [arch])
        assert row[1].isdigit() and row[2].isdigit() and row[4] in ("M", "k") and row[6] in ("G", "M"), row


def test_empty_home(home: Path) -> None:
    assert "nothing yet" in ok("backbones", "list").out
    assert ok("backbones", "list", "--json").document["stored"] == []
    (own,) = ok("backbones", "verify", "--json").document["backbones"]
    assert own["name"] == DEFAULT and own["whole"]


def test_the_packages_own_is_listed_beside_the_stored(shop: Workshop) -> None:
    document = ok("backbones", "list", "--json").document
    assert [entry["name"] for entry in document["embedded"]] == [DEFAULT]
    assert [entry["name"] for entry in document["stored"]] == ["resnet18.custom"]
    assert DEFAULT in ok("backbones").out and "comes with nettailor" in ok("backbones").out


def test_fetch_from_a_file(shop: Workshop, home: Path) -> None:
    result = ok("backbones", "fetch", "resnet18.mine", "--weights", shop.weights, "--mean", "0.5,0.5,0.5", "--json")
    assert result.document["name"] == "resnet18.mine"
    assert result.document["preprocessing"]["mean"] == [0.5, 0.5, 0.5]
    assert "0.229" in result.err and "ImageNet's default" in result.err
    (stored,) = ok("backbones", "list", "--json").document["stored"]
    assert stored["mean"] == [0.5, 0.5, 0.5] and stored["fingerprint"] == result.document["fingerprint"]
    assert "is ready" in ok("backbones", "fetch", "resnet18.mine").out


def test_mean_and_std_from_the_files_metadata(shop: Workshop, home: Path, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file(load_file(shop.weights), path, metadata={"mean": "[0.1, 0.2, 0.3]", "std": "[0.4, 0.5, 0.6]"})
    pre = ok("backbones", "fetch", "resnet18", "--weights", path, "--json").document["preprocessing"]
    assert (pre["mean"], pre["std"]) == ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])


def test_verify(shop: Workshop, home: Path) -> None:
    ok("backbones", "fetch", "resnet18", "--weights", shop.weights)
    assert ok("backbones", "verify").out.startswith("ok ")
    (stored,) = (home / "backbones").glob("*.safetensors")
    data = bytearray(stored.read_bytes())
    data[-5000] ^= 1
    stored.write_bytes(data)
    result = refuses("backbones", "verify", says=["1 of 2 backbones are damaged"])
    assert result.out.startswith("DAMAGED")
    result = refuses("backbones", "verify", "--json")
    assert result.document["backbones"][0]["whole"] is False
    stored.write_bytes(data[:1000])
    refuses("backbones", "verify", says=["1 of 2"])
    assert ok("backbones", "list", "--json").document["stored"][0]["error"]


def test_no_network(home: Path, shop: Workshop, tmp_path: Path) -> None:
    """One message that says which file to put where."""
    says = [
        "resnet34.imagenet1k_v1",
        "can't be downloaded",
        "resnet34-b627a593.pth",
        str(home / "backbones"),
        "--weights",
    ]
    refuses("backbones", "fetch", "resnet34", says=says)
    run = tmp_path / "run"
    refuses("teach", "--backbone", "resnet34", "--data", shop.data, "--run", run, says=says)
    refuses("tailor", "--backbone", "resnet34", "--data", shop.data, "--run", run, says=says)
    assert not run.exists()
    assert not [path for path in home.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("resnet19", "did you mean resnet18?"),
        ("resnt50", "did you mean resnet50?"),
        ("wide_resnet50", "did you mean wide_resnet50_2?"),
        ("vgg12", "did you mean vgg1"),
        ("vgg16.features", "torchvision has none (it has imagenet1k_v1)"),
        ("nonsense", "nettailor backbones list"),
        ("vit_b_16", "can't be tailored: its blocks attend over a sequence of patches"),
        ("squeezenet1_1", "can't be tailored: its classifier is a convolution"),
        ("resnet18.im net", "a tag is made of"),
        ("resnet18.nonsense", "resnet18.imagenet1k_v1"),
    ],
)
def test_unknown_names(shop: Workshop, tmp_path: Path, typed: str, hint: str) -> None:
    with untouched(shop.home):
        refuses("backbones", "fetch", typed, says=[typed.split(".")[0], hint])
        refuses("teach", "--backbone", typed, "--data", shop.data, "--run", tmp_path / "run", says=[hint])
    assert not (tmp_path / "run").exists()


def test_wrong_use(shop: Workshop, home: Path) -> None:
    fetch = ("backbones", "fetch", "resnet18", "--weights", shop.weights)
    refuses(*fetch, "--mean", "0.5", says=["--mean 0.5", "three numbers"])
    refuses(*fetch, "--std", "a,b,c", says=["--std a,b,c"])
    refuses(*fetch, "--std", "0,0,0", says=["std"])
    refuses("backbones", "lst", says=["did you mean", "list"])
    assert not [path for path in home.rglob("*") if path.is_file()]


def test_home_that_can_not_be_written(shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "blocker").write_text("a file")
    monkeypatch.setenv("NETTAILOR_HOME", str(tmp_path / "blocker"))
    refuses("backbones", "fetch", "resnet18", "--weights", shop.weights, says=["can't write", "NETTAILOR_HOME"])
    refuses("backbones", "fetch", "resnet34", says=["can't write", "NETTAILOR_HOME"])


@pytest.mark.skipif(find_spec("timm") is None, reason="timm is not installed")
def test_timms_networks_are_listed_by_a_pattern(shop: Workshop) -> None:
    assert "timm/test_resnet r160_in1k" in ok("backbones", "list", "timm/test_res*").out.splitlines()
    document = ok("backbones", "list", "timm/test_res*", "--json").document
    assert document == {"timm": ["timm/test_resnet"], "downloadable": ["timm/test_resnet.r160_in1k"]}
    refuses("backbones", "list", "timm/nothing*", says=["timm has no network 'timm/nothing*'"])
    refuses("backbones", "list", "resnet*", says=["a pattern has to start with timm/"])
