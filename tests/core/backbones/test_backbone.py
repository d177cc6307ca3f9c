from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from nettailor_cli.core.backbones.backbone import Backbone, build, build_random, from_state, head_state
from nettailor_cli.core.backbones.fingerprint import fingerprint_of
from nettailor_cli.core.backbones.torchvision_shim import import_torchvision
from nettailor_cli.core.errors import FileError, UsageError
from nettailor_cli.core.preprocessing import Preprocessing
from tests.core.backbones.conftest import random_network


@pytest.fixture(scope="module")
def backbone18(state18: dict[str, Tensor]) -> Backbone:
    return from_state("resnet18.test", state18, Preprocessing()).freeze()


@pytest.mark.parametrize("arch", ["resnet18", "resnet50", "resnext50_32x4d"])
def test_it_computes_what_torchvision_computes(arch: str) -> None:
    network = random_network(arch, 3)
    backbone = from_state(f"{arch}.test", network.state_dict(), Preprocessing())
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        nodes = backbone.nodes(images)
        logits = network.fc(backbone.pool(nodes[-1]))
        assert torch.equal(logits, network(images))
        assert torch.equal(backbone(images), backbone.pool(nodes[-1]))
    assert [node.shape[1] for node in nodes] == list(backbone.channels)
    assert all(bool((node >= 0).all()) for node in nodes)


def test_nodes_are_the_outputs_of_torchvisions_blocks(backbone18: Backbone, network18: nn.Module) -> None:
    seen: list[Tensor] = []
    blocks = [block for n in (1, 2, 3, 4) for block in getattr(network18, f"layer{n}")]
    hooks = [part.register_forward_hook(lambda *a: seen.append(a[-1].clone())) for part in (network18.maxpool, *blocks)]
    images = torch.randn(1, 3, 72, 72)
    with torch.inference_mode():
        network18(images)
        nodes = backbone18.nodes(images)
    for hook in hooks:
        hook.remove()
    assert len(nodes) == len(seen) == 9
    assert all(torch.equal(a, b) for a, b in zip(nodes, seen, strict=True))


def test_gradients_are_those_of_torchvision_in_training_mode(state18: dict[str, Tensor]) -> None:
    network = import_torchvision().models.resnet18(weights=None)
    network.load_state_dict(state18)
    network.fc = nn.Identity()
    backbone = from_state("resnet18.test", state18, Preprocessing())
    images = torch.randn(4, 3, 32, 32)
    network.train()(images).square().sum().backward()
    backbone.train()(images).square().sum().backward()
    assert torch.equal(backbone.stem.conv1.weight.grad, network.conv1.weight.grad)
    assert torch.equal(backbone.blocks[2].conv1.weight.grad, network.layer2[0].conv1.weight.grad)
    assert torch.equal(backbone.state()["layer4.1.bn2.running_var"], network.layer4[1].bn2.running_var)


def test_the_state_is_torchvisions_without_classifier(backbone18: Backbone, state18: dict[str, Tensor]) -> None:
    state = backbone18.state()
    assert set(state) == {key for key in state18 if not key.startswith("fc.")}
    fresh = import_torchvision().models.resnet18(weights=None)
    assert fresh.load_state_dict(state, strict=False).missing_keys == ["fc.weight", "fc.bias"]
    assert all(torch.equal(t, state18[k]) for k, t in state.items() if not k.endswith("num_batches_tracked"))
    assert all(t.item() == 0 for k, t in state.items() if k.endswith("num_batches_tracked"))
    assert not any(tensor.requires_grad for tensor in state.values())


def test_classifier_counters_and_storage_type_make_no_difference(half18: dict[str, Tensor]) -> None:
    full = {key: tensor.half() for key, tensor in half18.items()}
    full |= {"fc.weight": torch.ones(3, 512), "fc.bias": torch.ones(3), "bn1.num_batches_tracked": torch.tensor(5)}
    one, two = (from_state("resnet18.x", state, Preprocessing()) for state in (full, half18))
    assert one.fingerprint == two.fingerprint == fingerprint_of(half18)
    assert all(torch.equal(tensor, two.state()[key]) for key, tensor in one.state().items())
    assert {tensor.dtype for tensor in one.parameters()} == {torch.float32}


def test_building_is_reproducible_and_leaves_the_generator_alone() -> None:
    before = torch.get_rng_state()
    one, same, other = build_random("resnet18", 5), build_random("resnet18", 5), build_random("resnet18", 6)
    assert torch.equal(torch.get_rng_state(), before)
    assert one.fingerprint == same.fingerprint != other.fingerprint
    assert (one.name, one.arch, one.training) == ("resnet18.random", "resnet18", False)
    torch.manual_seed(5)
    assert build("resnet18").fingerprint == one.fingerprint
    assert one.fingerprint == fingerprint_of(one.state())


def test_freezing_and_copying(backbone18: Backbone) -> None:
    assert not any(parameter.requires_grad for parameter in backbone18.parameters())
    twin = copy.deepcopy(backbone18)
    assert fingerprint_of(twin.state()) == backbone18.fingerprint
    assert set(twin.state()) == set(backbone18.state())


def test_another_architecture_is_named(state18: dict[str, Tensor], state34: dict[str, Tensor]) -> None:
    too_large = r"a\.pth does not fit resnet18: .*unknown: layer1\.2\.conv1\.weight.*It is a resnet34"
    with pytest.raises(FileError, match=too_large) as caught:
        from_state("resnet18.x", state34, Preprocessing(), source="a.pth")
    assert caught.value.hint == "use --backbone resnet34"
    with pytest.raises(FileError, match=r"missing: layer1\.2\.conv1\.weight.* and \d+ more\. It is a resnet18"):
        from_state("resnet34.x", state18, Preprocessing())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bn1.weight": torch.full((64,), float("nan"))}, r"not finite.*bn1\.weight"),
        ({"bn1.weight": torch.full((64,), 1e300, dtype=torch.float64)}, r"not finite.*bn1\.weight"),
        ({"bn1.weight": torch.ones(64, dtype=torch.int64)}, r"not floating-point numbers in bn1\.weight"),
        ({"bn1.weight": torch.ones(63)}, r"bn1\.weight \(63 instead of 64\)"),
        ({"bn1.weight": torch.tensor(1.0)}, r"bn1\.weight \(a single number instead of 64\)"),
        ({"head.weight": torch.ones(1)}, r"1 tensors unknown: head\.weight"),
        ({"bn1.weight": None}, r"1 tensors missing: bn1\.weight$"),
    ],
)
def test_a_wrong_tensor_is_named_and_nothing_is_changed(
    backbone18: Backbone, half18: dict[str, Tensor], change: dict[str, Tensor | None], message: str
) -> None:
    state = {key: value for key, value in {**half18, **change}.items() if value is not None}
    before = backbone18.fingerprint
    with pytest.raises(FileError, match=message):
        backbone18.load(state)
    assert fingerprint_of(backbone18.state()) == before


def test_an_unknown_architecture_is_refused(half18: dict[str, Tensor]) -> None:
    with pytest.raises(UsageError, match="unknown backbone"):
        from_state("resnet19.x", half18, Preprocessing())


def test_the_classifier_of_a_teacher(state18: dict[str, Tensor], half18: dict[str, Tensor]) -> None:
    head = head_state(state18, "fc")
    assert head is not None
    linear = nn.Linear(512, 1000)
    linear.load_state_dict(head)
    assert torch.equal(linear.weight, state18["fc.weight"])
    assert head_state(half18, "fc") is None
    with pytest.raises(FileError, match="classifier"):
        head_state({"fc.weight": torch.ones(3, 512), "fc.bias": torch.ones(4)}, "fc")


class TestOnlySomeBlocks:
    def test_the_others_leave_nothing_behind_and_can_not_run(self, half18: dict[str, Tensor]) -> None:
        whole = from_state("resnet18.x", half18, Preprocessing())
        part = from_state("resnet18.x", half18, Preprocessing()).only([2, 5])
        assert set(part.state()) < set(whole.state())
        assert {key.partition(".conv")[0] for key in part.state() if ".conv" in key} == {"layer1.1", "layer3.0"}
        assert len(part.blocks) == 8 and part.channels == whole.channels and part.scalings == whole.scalings
        x = torch.rand(1, 64, 8, 8)
        assert torch.equal(part.blocks[1](x), whole.blocks[1](x))
        with pytest.raises(RuntimeError, match="left out"):
            part.blocks[0](x)

    def test_can_be_loaded_from_what_is_stored_of_them(self, half18: dict[str, Tensor]) -> None:
        stored = from_state("resnet18.x", half18, Preprocessing()).only([2, 5]).state()
        part = from_state("resnet18.x", stored, Preprocessing(), blocks=[2, 5])
        assert all(torch.equal(tensor, stored[key]) for key, tensor in part.state().items())
        assert sum(p.numel() for p in part.parameters()) < 2_000_000
        with pytest.raises(FileError, match="missing"):
            from_state("resnet18.x", stored, Preprocessing(), blocks=[2, 5, 6])
        with pytest.raises(FileError, match="unknown"):
            from_state("resnet18.x", stored, Preprocessing(), blocks=[2])

    def test_none_at_all_leaves_the_stem(self, half18: dict[str, Tensor]) -> None:
        part = from_state("resnet18.x", half18, Preprocessing()).only([])
        assert all(key.startswith(("conv1", "bn1")) for key in part.state())


def test_a_view_with_statistics_of_its_own(backbone18: Backbone) -> None:
    twin = backbone18.with_own_statistics()
    assert [id(p) for p in twin.parameters()] == [id(p) for p in backbone18.parameters()]
    x = torch.rand(1, 3, 64, 64)
    before = backbone18(x)
    assert torch.equal(twin(x), before)
    for name, buffer in twin.named_buffers():
        if name.endswith("running_mean"):
            buffer.add_(1.0)
    assert not torch.equal(twin(x), before) and torch.equal(backbone18(x), before)
