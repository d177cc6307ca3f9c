"""Bundle: tasks on one backbone, together as one by one, and what a switch touches."""

from __future__ import annotations

import gc
import weakref
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from nettailor_cli.core import delta
from nettailor_cli.core.deploy.bundle import Bundle, load_bundle
from nettailor_cli.core.deploy.bundling import write_bundle
from nettailor_cli.core.errors import UsageError
from nettailor_cli.core.inference import predict, predict_tasks, probabilities_of
from nettailor_cli.core.models import load_model
from nettailor_cli.core.sharing import macs_together
from nettailor_cli.core.training.precision import choose_machine
from tests.core.deploy.tasks import PATHS, Tasks, images


@pytest.fixture(scope="module")
def folder(tasks: Tasks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served") / "bundle"
    write_bundle(tasks.files, folder, home=tasks.home)
    return folder


@pytest.fixture
def bundle(folder: Path) -> Bundle:
    return load_bundle(folder)


class Runs:
    """How often the stem (0) and each block ran, in all of a bundle's models, also in a twin with other statistics."""

    def __init__(self, bundle: Bundle) -> None:
        self.counts: Counter[int] = Counter()
        parts: dict[nn.Module, int] = {}
        for task in bundle.tasks:
            network = bundle.model(task).network
            parts |= {network.stem: 0} | {block: int(number) for number, block in network.universal.items()}
        for part, number in parts.items():
            part.register_forward_hook(lambda *_, number=number: self.counts.update([number]))

    def take(self) -> dict[int, int]:
        taken, self.counts = dict(self.counts), Counter()
        return taken


def test_together_is_bit_by_bit_one_by_one_and_a_common_prefix_runs_once(tasks: Tasks, bundle: Bundle) -> None:
    names = list(PATHS)
    runs = Runs(bundle)
    x = images()
    together = bundle.logits(x, names)
    # flowers feeds 1, 2 and 3 with what is common, signs 1 and 2, digits 1, lean none
    assert runs.take() == {0: 1, 1: 1, 2: 1, 3: 1, 4: 1, 5: 1, 7: 1}
    assert list(together) == names
    for name in names:
        with torch.inference_mode():
            assert torch.equal(together[name], load_model(tasks.files[name], home=tasks.home).logits(x)), name
            assert torch.equal(together[name], bundle.model(name).logits(x)), name
    assert runs.take() == {0: 4, 1: 3, 2: 2, 3: 1, 4: 1, 5: 1, 7: 1}


def test_a_block_behind_a_mixed_node_runs_for_each_task(tasks: Tasks, tmp_path: Path) -> None:
    """Both tasks keep block 4, behind mixed nodes: different inputs."""
    models = {"one": tasks.files["digits"], "two": tasks.files["digits"]}
    write_bundle(models, tmp_path / "twice", home=tasks.home)
    bundle = load_bundle(tmp_path / "twice")
    runs = Runs(bundle)
    found = bundle.logits(images())
    assert runs.take() == {0: 1, 1: 1, 4: 2}
    assert torch.equal(found["one"], found["two"])


def test_adapted_statistics_share_nothing_and_disturb_nobody(tasks: Tasks, bundle: Bundle) -> None:
    x = images()
    runs = Runs(bundle)
    for order in (["adapted", "flowers", "signs"], ["signs", "adapted", "flowers"]):
        found = bundle.logits(x, order)
        assert runs.take() == {0: 2, 1: 2, 2: 2, 3: 2, 5: 2, 7: 1}
        for name in order:
            with torch.inference_mode():
                assert torch.equal(found[name], load_model(tasks.files[name], home=tasks.home).logits(x)), name
    # but for the statistics, its blocks are the others'
    adapted, flowers = (bundle.model(name).network.universal["1"] for name in ("adapted", "flowers"))
    assert adapted.conv1.weight is flowers.conv1.weight
    assert not torch.equal(adapted.bn1.running_mean, flowers.bn1.running_mean)


@pytest.mark.parametrize("names", [("flowers", "signs"), ("digits", "lean"), tuple(PATHS), ("flowers", "adapted")])
def test_the_macs_that_are_told_are_those_that_are_computed(
    tasks: Tasks, bundle: Bundle, names: tuple[str, ...]
) -> None:
    documents = {name: delta.read_document(tasks.files[name]) for name in names}
    runs = Runs(bundle)
    bundle.logits(images(), names)
    graph = documents[names[0]].graph
    universal = sum(count * (graph.blocks[n - 1] if n else graph.stem).macs for n, count in runs.take().items())
    own = sum(document.graph.task_cost.macs for document in documents.values())
    assert macs_together(documents.values()) == universal + own


def test_images_of_different_sizes_are_not_the_same_picture(bundle: Bundle) -> None:
    with pytest.raises(UsageError, match="different size"):
        bundle.logits(images(), ["flowers", "large"])


def storages(module: nn.Module) -> Iterator[tuple[int, int]]:
    for tensor in (*module.parameters(), *module.buffers()):
        yield tensor.untyped_storage().data_ptr(), tensor.untyped_storage().nbytes()


def test_a_switch_touches_small_tensors_only(tasks: Tasks, bundle: Bundle) -> None:
    """The universal weights stay where they are, unchanged; the task before is let go."""
    first = bundle.switch("flowers")
    frozen = {name: tensor for name, tensor in first.network.state_dict(keep_vars=True).items() if "universal" in name}
    versions = {name: tensor._version for name, tensor in frozen.items()}
    places = set(storages(first.network))
    gone = weakref.ref(first.network)
    del first
    second = bundle.switch("signs")
    gc.collect()
    assert gone() is None, "one task at a time"
    assert {name: tensor._version for name, tensor in frozen.items()} == versions, "nothing was written into them"
    kept = second.network.universal["1"]
    assert set(storages(kept)) <= places
    new = sum(size for place, size in set(storages(second.network)) - places)
    own = sum(tensor.numel() * 4 for tensor in second.network.task_state().values())
    blocks = set(storages(second.network.universal["7"]))  # flowers had no use for it
    assert new - sum(size for _, size in blocks) < 1.01 * own + 10_000
    with torch.inference_mode():
        assert torch.equal(second.logits(images()), load_model(tasks.files["signs"], home=tasks.home).logits(images()))


def test_models_stay_until_a_switch(bundle: Bundle) -> None:
    one = bundle.model("lean")
    assert bundle.model("lean") is one and bundle.switch("lean") is one
    bundle.switch("signs")
    assert bundle.model("lean") is not one


def test_an_unknown_task(bundle: Bundle) -> None:
    with pytest.raises(UsageError, match="has no task flower") as caught:
        bundle.switch("flower")
    assert caught.value.hint == "did you mean flowers?"
    with pytest.raises(UsageError, match="has no task"):
        bundle.logits(images(), ["lean", "nobody"])
    assert bundle.tasks == (*PATHS, "adapted", "large")


def test_predictions_of_several_tasks_of_any_size_and_number_of_classes(
    tasks: Tasks, bundle: Bundle, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    pictures = [tmp_path / f"{number}.png" for number in range(3)]
    for path in pictures:
        Image.fromarray(rng.integers(0, 256, (60, 50, 3), dtype=np.uint8)).save(path)
    pictures.insert(1, tmp_path / "none.png")
    machine = choose_machine("cpu", "fp32")
    names = ["flowers", "large", "lean", "signs"]
    models = {task: bundle.model(task) for task in names}
    (batch,) = predict_tasks(models, pictures, machine, top_k=4, workers=1)
    assert [(row.path, row.task) for row in batch] == [(path, task) for path in pictures for task in names]
    for task in names:
        own = [row for row in batch if row.task == task]
        known = min(4, len(models[task].document.classes))
        alone = predict(load_model(tasks.files[task], home=tasks.home), pictures, machine, top_k=known, workers=1)
        assert [(row.path, row.classes, row.error) for row in own] == [(r.path, r.classes, r.error) for r in alone]
        assert [bool(row.error) for row in own] == [False, True, False, False]
        assert {len(row.classes) for row in own if not row.error} == {known}
    with pytest.raises(UsageError, match="--top-k 6: no task has more than 5 classes"):
        predict_tasks(models, pictures, machine, top_k=6)
    square = np.zeros((1, 37, 37, 3), np.uint8)
    with pytest.raises(UsageError, match="different size"):
        probabilities_of(models, square, machine)
