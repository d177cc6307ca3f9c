"""The rival: the fine-tuned backbone with its channels pruned by Torch-Pruning, then fine-tuned again.

    python examples/benchmarks/channel_pruning.py --run RUN --data DATA --macs 0.4 --epochs 24

RUN has a teacher.safetensors; that is the network that is pruned (group magnitude, one ratio for all layers, one shot)
to the share --macs of its multiply-adds, and trained for --epochs more with the settings of `nettailor teach`: choose
them so that both have the same total. Prints one JSON document: MACs, parameters, accuracy on val and on test.
Needs Torch-Pruning: pip install '.[benchmarks]'.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import torch_pruning
from torch import Tensor, nn

from nettailor_cli.core.backbones.torchvision_shim import import_torchvision
from nettailor_cli.core.complexity import macs, parameters
from nettailor_cli.core.data import Batch, evaluation_batches, load_pictures, select
from nettailor_cli.core.delta import ModelDocument, read
from nettailor_cli.core.presets import resolve
from nettailor_cli.core.progress import Silent
from nettailor_cli.core.settings import TEACH
from nettailor_cli.core.stages.carry_out import stage_seed
from nettailor_cli.core.stages.teach import accuracy
from nettailor_cli.core.stages.workbench import find_pictures, open_workbench
from nettailor_cli.core.training.evaluate import evaluate
from nettailor_cli.core.training.loop import Run, Training
from nettailor_cli.core.training.precision import choose_machine, to_machine
from nettailor_cli.core.training.trainee import Group


@dataclass
class Pruned:
    """A plain torchvision network, all of it trained on cross-entropy."""

    module: nn.Module
    lr: float
    weight_decay: float

    def groups(self) -> list[Group]:
        return [Group(dict(self.module.named_parameters()), self.lr, self.weight_decay)]

    def losses(self, batch: Batch, done: float) -> dict[str, Tensor]:
        logits = self.module(batch.images).float()
        return {"loss": F.cross_entropy(logits, batch.labels), "accuracy": accuracy(logits, batch.labels)}

    def predict(self, images: Tensor) -> Tensor:
        return self.module(images)

    def predict_exactly(self, images: Tensor) -> Tensor:
        return self.module(images)

    def figures(self) -> dict[str, Any]:
        return {}

    def state(self) -> dict[str, Tensor]:
        return dict(self.module.state_dict())


def load(document: ModelDocument, tensors: dict[str, Tensor]) -> nn.Module:
    arch = document.backbone.split(".")[0]
    network = getattr(import_torchvision().models, arch)(weights=None, num_classes=len(document.classes))
    network.load_state_dict(tensors, strict=False)  # batch norm's counters are not kept
    return network.eval()


def prune_channels(network: nn.Module, size: int, share: float) -> nn.Module:
    """To the smallest uniform ratio that brings the MACs to `share`, by bisection on copies."""
    images = torch.zeros(1, 3, size, size)
    whole = macs(network, images)
    low, high, best = 0.0, 0.95, network
    for _ in range(8):
        ratio = (low + high) / 2
        candidate = pruned(network, images, ratio)
        if macs(candidate, images) <= share * whole:
            high, best = ratio, candidate
        else:
            low = ratio
    return best


def pruned(network: nn.Module, images: Tensor, ratio: float) -> nn.Module:
    candidate = copy.deepcopy(network)
    for parameter in candidate.parameters():
        parameter.requires_grad_(True)
    torch_pruning.pruner.MagnitudePruner(
        candidate, images, importance=torch_pruning.importance.GroupMagnitudeImportance(), pruning_ratio=ratio,
        ignored_layers=[candidate.fc],
    ).step()  # fmt: skip
    return candidate.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--macs", type=float, required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--precision", default="auto")
    arguments = parser.parse_args()
    document, tensors = read(arguments.run / "teacher.safetensors")
    size = document.preprocessing.size
    whole = load(document, tensors)
    network = prune_channels(whole, size, arguments.macs)
    taught = document.settings[TEACH]
    carried = {
        name: taught[name] for name in ("seed", "group", "val_fraction", "flip", "augment", "min_crop", "jitter")
    }
    settings = replace(resolve(TEACH, flags={**carried, "epochs": arguments.epochs}))
    machine = choose_machine("auto", arguments.precision)
    home = Path(os.environ.get("NETTAILOR_HOME", Path.home() / ".nettailor"))
    dataset = find_pictures(arguments.data, settings)
    bench = open_workbench(dataset, settings, document.preprocessing, machine, Silent(), home)
    to_machine(network, machine)
    trainee = Pruned(network, settings.lr, settings.weight_decay)
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder) / "checkpoint", {}, False, Silent(), lambda record: None, lambda: None)
        batches = bench.training(settings, stage_seed("channels", settings.seed))
        Training(trainee, batches, None, settings, machine, run, "channels").go()  # measured once, at its end
    exact = replace(machine, bf16=False)
    result = {"macs_share": macs(network.cpu(), torch.zeros(1, 3, size, size)) / document.graph.backbone.macs}
    result["parameters_share"] = parameters(network) / document.graph.backbone.parameters
    to_machine(network, machine)
    for split in ("val", "test"):
        pictures = load_pictures(
            dataset, select(dataset, split), document.preprocessing.resize, workers=2, progress=Silent(),
            memory_limit=settings.memory_limit, skip_bad=False,
        )  # fmt: skip
        batches = evaluation_batches(pictures, document.preprocessing, machine.device)
        result[split] = evaluate(trainee.predict, network, batches, exact).accuracy
    print(json.dumps(result))


if __name__ == "__main__":
    main()
