from __future__ import annotations

import pytest

from nettailor_cli.core.backbones.catalog import (
    ARCHS,
    BackboneName,
    download_url,
    hash_in_url,
    parse_name,
    tag_of_file,
    torchvision_tags,
)
from nettailor_cli.core.backbones.torchvision_shim import import_torchvision
from nettailor_cli.core.errors import UsageError
from nettailor_cli.core.preprocessing import Preprocessing


def test_the_table_is_torchvisions() -> None:
    models = import_torchvision().models
    resnets = {name: models.get_model_weights(name) for name in models.list_models(module=models) if "resne" in name}
    assert set(ARCHS) == set(resnets)
    for arch, weights in resnets.items():
        assert torchvision_tags(arch) == tuple(member.name.lower() for member in weights)
        for member in weights:
            assert download_url(parse_name(f"{arch}.{member.name}")) == member.url
            assert member.transforms().crop_size == [Preprocessing().size]


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
