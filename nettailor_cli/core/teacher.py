"""Step 1, teach: the teacher is the whole backbone, fine-tuned on the task, with a classifier of its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nettailor_cli.core.backbones.backbone import Backbone
from nettailor_cli.core.student import Activations, reset_classifier


class Teacher(nn.Module):
    """`backbone` with a linear classifier; takes the backbone's modules over.

    Every parameter is trained; with `frozen` the classifier alone, on the backbone's features as they are.
    """

    def __init__(self, backbone: Backbone, classes: int, *, frozen: bool = False) -> None:
        super().__init__()
        self.backbone = backbone
        self.frozen = frozen
        for parameter in backbone.parameters():
            parameter.requires_grad_(not frozen)
        self.head = nn.Linear(backbone.features, classes)
        self.train(False)

    def start_fresh(self, generator: torch.Generator) -> None:
        """A fresh classifier on the pretrained backbone."""
        reset_classifier(self.head, generator)

    def train(self, mode: bool = True) -> Teacher:
        """Training mode for what is trained; a frozen backbone keeps its statistics."""
        super().train(mode)
        if self.frozen:
            self.backbone.train(False)
        return self

    def forward(self, images: Tensor) -> Activations:
        """Images (N, 3, H, W), normalised as the backbone wants them; alpha is 1 for every block."""
        nodes = self.backbone.nodes(images)
        logits = self.head(self.backbone.pool(nodes[-1]))
        return Activations(list(nodes), logits, logits.new_ones(len(nodes) - 1))

    def state(self) -> dict[str, Tensor]:
        """Everything, under torchvision's names, without batch norm's counters; the tensors are the live ones."""
        state = {
            name: tensor for name, tensor in self.backbone.state().items() if not name.endswith("num_batches_tracked")
        }
        for name, tensor in self.head.state_dict().items():
            state[f"{self.backbone.classifier}.{name}"] = tensor
        return state
