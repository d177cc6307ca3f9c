"""timm's networks: taken apart on a trace, or refused with the reason; their names, weights and pictures."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, fx, nn

from nettailor_cli.core.backbones import store, timm_catalog
from nettailor_cli.core.backbones.backbone import Backbone, from_state
from nettailor_cli.core.backbones.catalog import default_tag, name_of_file, parse_name, preprocessing
from nettailor_cli.core.backbones.comparing import compare
from nettailor_cli.core.backbones.decomposition import decompose, make_network
from nettailor_cli.core.backbones.download import DownloadError
from nettailor_cli.core.backbones.listing import folder, listing
from nettailor_cli.core.backbones.measures import measured
from nettailor_cli.core.backbones.store import find, find_by_fingerprint
from nettailor_cli.core.backbones.timm_shim import import_timm
from nettailor_cli.core.backbones.torchvision_shim import import_torchvision
from nettailor_cli.core.deploy.lowering import lower
from nettailor_cli.core.errors import UsageError
from nettailor_cli.core.preprocessing import Preprocessing
from nettailor_cli.core.progress import Progress, Silent
from nettailor_cli.core.teacher import Teacher
from nettailor_cli.core.training.frozen import quick
from nettailor_cli.core.training.precision import Machine
from tests.core.backbones.families.networks import small_network

import_torchvision()
timm = pytest.importorskip("timm")
CPU = Machine(torch.device("cpu"), bf16=False, reason="a test")
SMALLEST = "timm/test_resnet"


def state_of(arch: str, seed: int = 0) -> dict[str, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return {key: tensor.clone() for key, tensor in make_network(arch).state_dict().items()}


@pytest.mark.parametrize(
    ("arch", "blocks", "activation", "proxies"),
    [
        ("timm/resnet18", 8, "ReLU", "basic"),  # layer1, ...
        ("timm/resnet26", 8, "ReLU", "bottleneck"),
        ("timm/efficientnet_lite0", 16, "Identity", "budgeted"),  # blocks, in stages
        ("timm/mobilenetv3_small_050", 12, "Identity", "budgeted"),  # the last is a 1x1 convolution
        ("timm/regnetx_002", 13, "ReLU", "budgeted"),  # s1, ...
        ("timm/convnext_atto", 12, "Identity", "budgeted"),  # stages, with blocks and downsampling inside
        ("timm/cs3darknet_focus_s", 4, "Identity", "budgeted"),  # stages that are no rows of blocks
        ("timm/rexnet_100", 17, "Identity", "budgeted"),  # features
        ("timm/vgg11", 7, "Identity", "budgeted"),  # features: plain layers
    ],
)
def test_blocks_are_found(arch: str, blocks: int, activation: str, proxies: str) -> None:
    parts = decompose(arch, make_network(arch, "meta"))
    assert len(parts.blocks) == blocks
    assert (type(parts.activation).__name__, parts.proxies) == (activation, proxies)


@pytest.mark.parametrize(
    ("arch", "reason"),
    [
        ("timm/test_vit", "not in a row"),
        ("timm/test_vit_relpos", "maps"),
        ("timm/test_maxvit", "maps"),
        ("timm/test_mambaout", "maps"),
        ("timm/hrnet_w18_small", "more than one map"),
        ("timm/repvit_m0_9", "several classifiers"),
        ("timm/eva02_tiny_patch14_224", "classifier head is a Identity"),
    ],
)
def test_what_does_not_come_apart_is_refused_by_name_with_the_reason(
    arch: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match=f"{arch} can't be tailored: .*{reason}"):
        measured(arch, decompose(arch, make_network(arch, "meta")))
    assert capsys.readouterr().err == ""


def test_its_resnet_is_torchvisions() -> None:
    network = import_torchvision().models.resnet18(weights=None)
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    theirs = from_state("timm/resnet18.x", network.state_dict(), Preprocessing())
    ours = from_state("resnet18.x", network.state_dict(), Preprocessing())
    assert theirs.fingerprint == ours.fingerprint and theirs.scalings == ours.scalings
    with torch.inference_mode():
        for one, other in zip(theirs.nodes(images), ours.nodes(images), strict=True):
            torch.testing.assert_close(one, other)
        torch.testing.assert_close(theirs(images), ours(images))
    for one, other in zip(theirs.blocks, ours.blocks, strict=True):
        assert sorted(p.shape for p in one.parameters()) == sorted(p.shape for p in other.parameters())
    assert [p.shape for p in theirs.make_proxy(1, 3).parameters()] == [
        p.shape for p in ours.make_proxy(1, 3).parameters()
    ]


def test_parts_that_give_something_else_than_the_whole_are_found_out() -> None:
    network = copy.deepcopy(small_network(SMALLEST))
    backbone = Backbone(f"{SMALLEST}.x", network, Preprocessing())
    compare(backbone, network)
    assert isinstance(network.get_submodule(backbone.classifier), nn.Linear), "as it was"
    backbone.blocks[0] = nn.Identity()
    with pytest.raises(UsageError, match=r"timm/test_resnet can't be tailored: in parts it gives something else"):
        compare(backbone, network)


def test_constants_that_no_file_holds_are_there_after_loading() -> None:
    """Blur kernels."""
    state = state_of("timm/resnetblur18")
    assert not any("aa" in key for key in state)
    backbone = from_state("timm/resnetblur18.x", state, Preprocessing())
    network = make_network("timm/resnetblur18").eval()
    network.load_state_dict(state)
    network.reset_classifier(0)
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(backbone(images), network(images))


def test_a_network_that_takes_no_odd_maps_can_be_tailored_at_other_sizes() -> None:
    backbone = Backbone("timm/dla34.x", make_network("timm/dla34", "meta"), Preprocessing())
    backbone.check_size(64)
    with pytest.raises(UsageError, match="can't take pictures of 75 px") as caught:
        backbone.check_size(75)
    assert "--size 95" in caught.value.hint


def test_a_norm_is_folded_only_into_a_convolution_that_nobody_else_reads() -> None:
    class Part(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.norm1 = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
            self.conv2, self.norm2 = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv1(x)
            z: Tensor = self.norm1(y) + self.norm2(self.conv2(y))
            return z

    part = fx.symbolic_trace(Part().double().eval())
    for module in (part.norm1, part.norm2):
        module.running_mean.normal_(generator=torch.Generator().manual_seed(1))
    images = torch.randn(1, 3, 4, 4, dtype=torch.float64)
    expected = part(images)
    quick(part, CPU)
    torch.testing.assert_close(part(images), expected)
    assert isinstance(part.norm1, nn.BatchNorm2d) and isinstance(part.norm2, nn.Identity)


@pytest.mark.parametrize(("arch", "layer"), [("timm/test_nfnet", "ScaledStdConv2d"), ("timm/resnetblur18", "pad")])
def test_what_can_not_be_exported_is_refused_by_name(arch: str, layer: str) -> None:
    backbone = Backbone(f"{arch}.x", make_network(arch), Preprocessing(64))
    with pytest.raises(UsageError, match=f"can't be exported: .*{layer}"):
        lower(Teacher(backbone, 3))


def test_names() -> None:
    name = parse_name("timm/ResNet18.a1_in1k")
    assert (name.arch, name.tag, name.as_file) == ("timm/resnet18", "a1_in1k", "timm--resnet18.a1_in1k")
    assert name_of_file(name.as_file) == str(name)
    for wrong in ("timm/", "timm/a/b", "timm/../x", "timm/resnet18.a/b", "other/resnet18"):
        with pytest.raises(UsageError, match="unknown backbone"):
            parse_name(wrong)
    with pytest.raises(UsageError, match="no network 'resnet19'") as caught:
        make_network("timm/resnet19")
    assert caught.value.hint.startswith("did you mean timm/resnet1")


def test_without_timm_one_message_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    for call in (import_timm, lambda: find(SMALLEST, home=tmp_path, progress=Silent())):
        with pytest.raises(UsageError, match="timm is not installed") as caught:
            call()
        assert caught.value.hint == "pip install 'nettailor[timm]'"


@pytest.mark.parametrize("name", ["resnet18.a1_in1k", "efficientnet_lite0.ra_in1k", "convnext_atto.d2_in1k"])
def test_pictures_are_as_timm_says(name: str) -> None:
    theirs: dict[str, Any] = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    arch, _, tag = name.partition(".")
    ours = preprocessing(f"timm/{arch}", tag)
    assert (3, ours.size, ours.size) == theirs["input_size"]
    assert (ours.mean, ours.std) == (theirs["mean"], theirs["std"])
    assert ours.resize == int(ours.size / theirs["crop_pct"])
    assert default_tag(f"timm/{arch}") == timm.get_pretrained_cfg(arch).tag


def test_a_file_is_imported_and_found_again(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.save(state_of(SMALLEST), file)
    found = find(f"{SMALLEST}.mine", home=tmp_path, weights=file, progress=Silent())
    (stored,) = listing(tmp_path)
    assert stored.name == f"{SMALLEST}.mine" and not stored.error
    assert stored.path == folder(tmp_path) / f"timm--test_resnet.mine-{found.fingerprint[:12]}.safetensors"
    for again in (
        find(SMALLEST, home=tmp_path, progress=Silent()),
        find_by_fingerprint(found.fingerprint, name="timm/test_resnet.mine", home=tmp_path),
    ):
        assert again.fingerprint == found.fingerprint
        assert again.preprocessing == preprocessing(SMALLEST)


def test_timms_download_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(url: str, path: Path, progress: Progress) -> None:
        asked.append(url)
        save_file(state_of(SMALLEST), path)

    monkeypatch.setattr(store, "download", download)
    found = find(SMALLEST, home=tmp_path, progress=Silent())
    assert found.name == f"{SMALLEST}.r160_in1k" and found.preprocessing.size == 160
    assert find(SMALLEST, home=tmp_path, progress=Silent()).fingerprint == found.fingerprint
    assert asked == ["https://huggingface.co/timm/test_resnet.r160_in1k/resolve/main/model.safetensors"]
    (stored,) = listing(tmp_path)
    assert [stored.source] == asked == [timm_catalog.url(found.name)]


def test_without_a_connection_one_message_says_which_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(url: str, path: Path, progress: Progress) -> None:
        raise DownloadError("no connection")

    monkeypatch.setattr(store, "download", download)
    with pytest.raises(UsageError, match="can't be downloaded \\(no connection\\)") as caught:
        find(SMALLEST, home=tmp_path, progress=Silent())
    assert "https://huggingface.co/timm/test_resnet.r160_in1k/resolve/main/model.safetensors" in caught.value.hint
    assert f"fetch {SMALLEST}.r160_in1k --weights FILE" in caught.value.hint
    with pytest.raises(UsageError, match=r"timm has none \(it has r160_in1k\)"):
        find(f"{SMALLEST}.other", home=tmp_path, progress=Silent())


def test_nothing_is_downloaded_of_what_can_not_be_tailored_or_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="test_vit can't be tailored"):
        find("timm/test_vit", home=tmp_path, progress=Silent())
    with pytest.raises(UsageError, match="has no network 'test_vitt'"):
        find("timm/test_vitt", home=tmp_path, progress=Silent())
