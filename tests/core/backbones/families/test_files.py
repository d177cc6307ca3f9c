"""What is special about some families' files and inputs, and teachers' files of all."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from nettailor_cli.core.backbones.backbone import Backbone, from_state, head_state
from nettailor_cli.core.backbones.catalog import ARCHS, network, parse_name, preprocessing
from nettailor_cli.core.backbones.decomposition import make_network
from nettailor_cli.core.backbones.store import find
from nettailor_cli.core.backbones.torchvision_shim import import_torchvision
from nettailor_cli.core.errors import FileError, UsageError
from nettailor_cli.core.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from nettailor_cli.core.progress import Silent
from nettailor_cli.core.teacher import Teacher
from tests.core.backbones.families.networks import CLASSES, SMALL, small_backbone

models = import_torchvision().models


@pytest.fixture(scope="module")
def googlenet() -> nn.Module:
    """As torchvision makes it for its own weights: auxiliary heads, and inputs normalised again inside."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return models.googlenet(weights=None, aux_logits=True, init_weights=False, transform_input=True).eval()


def test_auxiliary_heads_are_left_out_of_what_is_loaded_and_kept(googlenet: nn.Module, tmp_path: Path) -> None:
    torch.save(googlenet.state_dict(), tmp_path / "w.pth")
    found = find("googlenet", home=tmp_path, weights=tmp_path / "w.pth", progress=Silent())
    assert not any(key.startswith(("aux", "fc.")) for key in found.state())
    plain = {key: t for key, t in googlenet.state_dict().items() if not key.startswith("aux")}
    assert from_state("googlenet.x", plain, Preprocessing()).fingerprint == found.fingerprint
    again = find("googlenet", home=tmp_path, progress=Silent())
    assert again.fingerprint == found.fingerprint and again.preprocessing == preprocessing("googlenet")


def test_the_inputs_of_inceptions_are_those_that_torchvision_normalises_again_inside(googlenet: nn.Module) -> None:
    pixels = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    backbone = Backbone("googlenet.x", googlenet, preprocessing("googlenet"))

    def normalised(mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
        return (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]

    own = backbone.preprocessing
    with torch.inference_mode():
        logits = googlenet.fc(backbone(normalised(own.mean, own.std)))
        torch.testing.assert_close(logits, googlenet(normalised(IMAGENET_MEAN, IMAGENET_STD)), rtol=1e-4, atol=1e-5)
    assert (own.mean, own.std) == ((0.5,) * 3, (0.5,) * 3)
    assert preprocessing("inception_v3") == Preprocessing(299, (0.5,) * 3, (0.5,) * 3, ratio=(342, 299))


def test_torchvisions_files_of_densenets_have_older_names(tmp_path: Path) -> None:
    """norm.1.weight in the file, norm1.weight in the network."""
    state = {
        key: torch.zeros(t.shape, dtype=t.dtype) for key, t in make_network("densenet121", "meta").state_dict().items()
    }
    old = {re.sub(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", key): t for key, t in state.items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, tmp_path / "w.pth")
    found = find("densenet121.mine", home=tmp_path, weights=tmp_path / "w.pth", progress=Silent())
    assert found.fingerprint == from_state("densenet121.x", state, Preprocessing()).fingerprint
    assert find("densenet121.mine", home=tmp_path, progress=Silent()).fingerprint == found.fingerprint


@pytest.mark.parametrize(
    ("given", "asked"), [("mobilenet_v3_small", "googlenet"), ("shufflenet_v2_x0_5", "mnasnet0_5")]
)
def test_a_file_of_another_family_is_told_by_name(given: str, asked: str) -> None:
    state = {key: torch.zeros(t.shape) for key, t in make_network(given, "meta").state_dict().items()}
    with pytest.raises(FileError, match=f"It is a {given}"):
        from_state(f"{asked}.x", state, Preprocessing())


@pytest.mark.parametrize("arch", SMALL)
def test_a_teachers_file_has_torchvisions_names_classifier_included(arch: str) -> None:
    backbone = copy.deepcopy(small_backbone(arch))
    teacher = Teacher(backbone, CLASSES)
    teacher.start_fresh(torch.Generator().manual_seed(0))
    state = teacher.state()
    known = parse_name(backbone.name).arch
    assert known not in ARCHS or network(known).classifier == backbone.classifier
    head = head_state(state, backbone.classifier)
    assert head is not None and torch.equal(head["weight"], teacher.head.weight)
    before = backbone.fingerprint
    backbone.load(state)
    assert backbone.fingerprint != before


def test_a_cut_teacher_averages_what_is_there_without_the_layers_behind_the_last_block() -> None:
    backbone = copy.deepcopy(small_backbone("mobilenet_v2")).cut(2)
    images = torch.randn(2, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        nodes = backbone.nodes(images)
        torch.testing.assert_close(backbone(images), nodes[2].mean(dim=(2, 3)))
    assert len(nodes) == 3 and backbone.features == nodes[2].shape[1]
    assert all(key.startswith(("features.0.", "features.1.", "features.2.")) for key in backbone.state())


def test_a_size_that_is_too_small_is_refused_with_the_smallest() -> None:
    inception = Backbone("inception_v3.x", make_network("inception_v3", "meta"), preprocessing("inception_v3"))
    inception.check_size(75)
    with pytest.raises(UsageError, match="inception_v3 can't take pictures of 74 px") as caught:
        inception.check_size(74)
    assert "--size 75" in caught.value.hint
    # torchvision's own figure, too
    assert models.get_model_weights("inception_v3").DEFAULT.meta["min_size"] == (75, 75)


def test_preprocessing_is_written_as_ever_where_it_is_the_usual_and_read_with_and_without_a_ratio() -> None:
    usual, other = Preprocessing(96), Preprocessing(299, ratio=(342, 299))
    assert usual.to_json() == {
        "size": 96,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "interpolation": "bilinear",
        "resize": 110,
    }
    assert other.to_json()["ratio"] == [342, 299] and other.resize == 342
    for one in (usual, other, Preprocessing(600, ratio=(600, 600))):
        assert Preprocessing.from_json(one.to_json()) == one
    for wrong in ([224, 256], [0, 0], [256], ["a", 1], [5000, 1]):
        with pytest.raises((ValueError, TypeError)):
            Preprocessing.from_json({**usual.to_json(), "ratio": wrong})
