from __future__ import annotations

import pytest

from nettailor_cli.core.backbones.catalog import (
    ARCHS,
    BackboneName,
    default_tag,
    download_url,
    hash_in_url,
    network,
    parse_name,
    preprocessing,
    tag_of_file,
    torchvision_tags,
)
from nettailor_cli.core.backbones.families import OWN, why_refused
from nettailor_cli.core.backbones.torchvision_shim import import_torchvision
from nettailor_cli.core.errors import UsageError
from nettailor_cli.core.preprocessing import Preprocessing

LEFT_OUT = {"vgg16.imagenet1k_features"}


def test_every_classification_network_of_torchvision_is_in_the_table_or_refused_with_a_reason() -> None:
    models = import_torchvision().models
    theirs = set(models.list_models(module=models))
    refused = {arch for arch in theirs if why_refused(arch)}
    assert set(ARCHS) == theirs - refused | set(OWN)
    assert {arch.partition("_")[0].rstrip("10") for arch in refused} == {"vit", "swin", "maxvit", "squeezenet"}
    with pytest.raises(UsageError, match="vit_b_16 can't be tailored: its blocks attend"):
        parse_name("vit_b_16.imagenet1k_v1")


@pytest.mark.parametrize("arch", [arch for arch in ARCHS if arch not in OWN])
def test_the_table_is_torchvisions(arch: str) -> None:
    weights = import_torchvision().models.get_model_weights(arch)
    offered = {member.name.lower(): member for member in weights if f"{arch}.{member.name.lower()}" not in LEFT_OUT}
    assert torchvision_tags(arch) == tuple(offered)
    for tag, member in offered.items():
        assert download_url(parse_name(f"{arch}.{tag}")) == member.url
        ours, theirs = preprocessing(arch, tag), member.transforms()
        assert (theirs.crop_size, theirs.resize_size) == ([ours.size], [ours.resize])
        if arch not in ("googlenet", "inception_v3"):  # they normalise again inside, see their test
            assert (tuple(theirs.mean), tuple(theirs.std)) == (ours.mean, ours.std)
    known, first = network(arch), offered[default_tag(arch)]
    if known.size == first.transforms().crop_size[0] and arch not in ("googlenet", "inception_v3"):
        assert known.parameters == first.meta["num_params"]
        # torchvision's own count, rounded to a thousandth of a G
        assert known.macs / 1e9 == pytest.approx(first.meta["_ops"], abs=0.0006)


def test_names_that_torchvision_has_no_first_version_of() -> None:
    assert default_tag("resnet18") == "imagenet1k_v1"
    assert default_tag("regnet_y_128gf") == "imagenet1k_swag_e2e_v1"
    assert network("regnet_y_128gf").size == 384
    assert (default_tag("decathlon_wrn26"), torchvision_tags("decathlon_wrn26")) == ("custom", ())
    assert preprocessing("decathlon_wrn26", "mine") == Preprocessing(64, ratio=(72, 64))


def test_names_are_read_and_written() -> None:
    assert parse_name("resnet18") == BackboneName("resnet18")
    assert parse_name(" ResNet50.IMAGENET1K_V2 ") == BackboneName("resnet50", "imagenet1k_v2")
    assert str(parse_name("wide_resnet50_2.my-own_2")) == "wide_resnet50_2.my-own_2"


def test_an_unknown_arch_gets_a_suggestion() -> None:
    with pytest.raises(UsageError, match="unknown backbone 'resnet19'") as caught:
        parse_name("resnet19")
    assert caught.value.hint.startswith("did you mean resnet1")


@pytest.mark.parametrize("text", ["resnet18.", "resnet18.a.b", "resnet18.../x", "resnet18.a b", ""])
def test_a_name_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="unknown backbone"):
        parse_name(text)


def test_a_tag_that_torchvision_lacks_has_no_url() -> None:
    with pytest.raises(UsageError, match=r"it has resnet18\.imagenet1k_v1"):
        download_url(BackboneName("resnet18", "imagenet1k_v2"))


def test_a_file_is_known_by_its_hash() -> None:
    assert hash_in_url("https://x.org/a-12/resnet18-f37072fd.pth") == "f37072fd"
    assert hash_in_url("https://x.org/resnet18.pth") == ""
    assert tag_of_file("resnet50", "11ad3fa6" + "0" * 56) == "imagenet1k_v2"
    assert tag_of_file("resnet18", "11ad3fa6" + "0" * 56) is None
