"""One pretrained network as the student needs it: stem, blocks 1..L, pooling, and torchvision's keys for its tensors.

Legend: N images, H x W pixels, L blocks, nodes 0..L (node 0 is the stem's output), C_l channels of node l.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Self

import torch
from torch import Tensor, nn

from nettailor_cli.core.backbones.catalog import parse_name, preprocessing
from nettailor_cli.core.backbones.comparing import compare, has_constants
from nettailor_cli.core.backbones.decomposition import decompose, make_network
from nettailor_cli.core.backbones.families import TIMM
from nettailor_cli.core.backbones.fingerprint import counts, fingerprint_of
from nettailor_cli.core.backbones.fitting import checked
from nettailor_cli.core.backbones.measures import bears, measured
from nettailor_cli.core.errors import FileError, UsageError
from nettailor_cli.core.preprocessing import Preprocessing
from nettailor_cli.core.proxies import BypassedProxy, budgeted_width, make_proxy
from nettailor_cli.core.state import sharing_copy


class Backbone(nn.Module):
    """A network without its classifier. Made by `build`, `build_random` and `from_state`, in evaluation mode.

    name           ARCH.TAG
    fingerprint    of the weights as built or last loaded, 64 hexadecimal digits
    preprocessing  what its inputs have to look like
    stem           (N, 3, H, W) -> node 0
    blocks         block l at index l-1: node l-1 -> what goes into node l's activation
    activation     between a block's output and the node
    norm           between node L and the pooling: what a task's own starts from; the identity in most families
    pooling        node L -> (N, features), with the frozen layers that some families have there
    channels       of nodes 0..L
    scalings       of blocks 1..L: what they do to height and width
    features       numbers per image that the classifier sees
    proxy_kind     "basic", "bottleneck" or "budgeted", see core.proxies
    classifier     the linear layer that is left out, in torchvision's keys
    left_out       that, and the auxiliary heads
    """

    def __init__(self, name: str, network: nn.Module, preprocessing: Preprocessing) -> None:
        """`network` is torchvision's; its parameters are shared, not copied. It may live on the meta device."""
        super().__init__()
        parts = decompose(parse_name(name).arch, network)
        measures = measured(parse_name(name).arch, parts)
        self.name = name
        self.fingerprint = ""
        self.preprocessing = preprocessing
        self.stem = parts.stem
        self.blocks = nn.ModuleList(parts.blocks)
        self.activation = parts.activation
        self.norm = parts.norm
        self.pooling = parts.pooling
        self.channels = measures.channels
        self.scalings = measures.scalings
        self.features = measures.features
        self.proxy_kind = parts.proxies
        self._work, self._bypassed = measures.work, measures.bypassed
        self.classifier = parts.classifier
        self.left_out = (parts.classifier, *parts.auxiliary)
        self._old_names = parts.old_names
        # The same tensor has our name here and torchvision's there, whatever the family: no renaming rules to keep.
        theirs = {id(tensor): key for key, tensor in network.state_dict(keep_vars=True).items()}
        self._torchvision_key = {key: theirs[id(t)] for key, t in self.state_dict(keep_vars=True).items()}
        self.eval()

    @property
    def arch(self) -> str:
        """The ARCH of ARCH.TAG."""
        return parse_name(self.name).arch

    def nodes(self, images: Tensor) -> list[Tensor]:
        """Images (N, 3, H, W), preprocessed -> activations of nodes 0..L, each (N, C_l, H_l, W_l)."""
        nodes = [self.stem(images)]
        for block in self.blocks:
            nodes.append(self.activation(block(nodes[-1])))
        return nodes

    def pool(self, last: Tensor) -> Tensor:
        """Node L (N, C_L, H, W) -> (N, features)."""
        return self.pooling(self.norm(last))

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W), preprocessed -> (N, features)."""
        return self.pool(self.nodes(images)[-1])

    def make_proxy(self, source: int, sink: int, width: int | None = None, *, depthwise: bool = False) -> nn.Module:
        """A proxy from node `source` to node `sink`; `width` inside instead of the default, where it has one.

        `depthwise`: see `proxies.make_proxy`.
        """
        channels_in, channels_out = self.channels[source], self.channels[sink]
        if self.proxy_kind == "budgeted" and width is None:
            work = self._work[sink - 1]
            width = budgeted_width(channels_in, channels_out, usual=work.usual, least=work.least)
        proxy = make_proxy(self.proxy_kind, channels_in, channels_out, width, depthwise=depthwise)
        # x_sink is x_source and what the blocks between add to it: when they go, that much stays
        return BypassedProxy(proxy) if all(self._bypassed[source:sink]) else proxy

    def check_size(self, size: int) -> None:
        """Raises UsageError when pictures of `size` x `size` pixels are too small for this network."""
        if not bears(self, size):
            enough = next((larger for larger in range(size + 1, 512) if bears(self, larger)), 512)
            raise UsageError(
                f"{self.arch} can't take pictures of {size} px", f"--size {enough} is the next that it can"
            )

    def state(self) -> dict[str, Tensor]:
        """Every tensor under torchvision's key, classifier excepted: the tensors themselves, detached, not copies."""
        return {self._torchvision_key[key]: tensor for key, tensor in self.state_dict().items()}

    def among(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What counts of a torchvision-keyed state, under today's names: no classifier, auxiliary heads, counters."""
        if self._old_names is not None:
            pattern, today = self._old_names
            state = {re.sub(pattern, today, key): tensor for key, tensor in state.items()}
        return {key: tensor for key, tensor in state.items() if counts(key, self.left_out)}

    def load(self, state: Mapping[str, Tensor], *, source: str = "this set of weights") -> None:
        """Copies torchvision-keyed values in and takes their fingerprint.

        A classifier is ignored, auxiliary heads and num_batches_tracked too (set to 0: with a fixed momentum it has no
        effect); other floating types become fp32. `source` is how messages call the file. Raises FileError, and changes
        nothing, for missing or unknown names, other shapes and values that are not finite.
        """
        own = self.state()
        expected = {key: tuple(tensor.shape) for key, tensor in own.items() if counts(key, self.left_out)}
        values = checked(self.among(state), expected, arch=self.arch, source=source)
        with torch.no_grad():
            for key, tensor in own.items():
                if key in values:
                    tensor.copy_(values[key])
                else:
                    tensor.zero_()
        self.fingerprint = fingerprint_of(values, left_out=self.left_out)

    def cut(self, last: int) -> Self:
        """Without what follows block `last` (1..L): the average over what was the next block's input is pooled now."""
        if last == len(self.blocks):
            return self
        self.blocks = self.blocks[:last]
        self.norm = nn.Identity()
        self.pooling = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.channels, self.scalings = self.channels[: last + 1], self.scalings[:last]
        self.features = self.channels[last]
        self._torchvision_key = {key: self._torchvision_key[key] for key in self.state_dict()}
        return self

    def only(self, blocks: Collection[int]) -> Self:
        """Without the weights of all blocks but those numbered in `blocks` (1..L): the others can't run any more."""
        self.blocks = nn.ModuleList(
            block if number in blocks else _Absent() for number, block in enumerate(self.blocks, start=1)
        )
        self._torchvision_key = {key: self._torchvision_key[key] for key in self.state_dict()}
        return self

    def with_own_statistics(self) -> Self:
        """A second view of this backbone: the very same parameters, and a copy of the batch-norm statistics."""
        return sharing_copy(self, self.buffers())

    def freeze(self) -> Self:
        """No parameter asks for a gradient from here on."""
        return self.requires_grad_(False)


class _Absent(nn.Module):
    """Stands where a block is that was left out, so that the others keep their numbers."""

    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("this block of the backbone was left out")


def build(arch: str) -> Backbone:
    """ARCH.random: the network's own random initialisation from torch's current generator, fp32, on the CPU."""
    network = make_network(arch)
    backbone = Backbone(f"{arch}.random", network, preprocessing(arch))
    if arch.startswith(TIMM):
        compare(backbone, network)
    backbone.fingerprint = fingerprint_of(backbone.state(), left_out=backbone.left_out)
    return backbone


def build_random(arch: str, seed: int) -> Backbone:
    """`build` from `seed`; torch's own generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(arch)


def from_state(
    name: str,
    state: Mapping[str, Tensor],
    preprocessing: Preprocessing,
    *,
    source: str = "this set of weights",
    last: int | None = None,
    blocks: Collection[int] | None = None,
) -> Backbone:
    """The backbone ARCH.TAG with these torchvision-keyed weights, fp32, on the CPU. Raises what `load` does.

    `last`: the weights are those of a backbone that was cut after this block, see `Backbone.cut`. `blocks`: there are
    weights for these blocks alone, see `Backbone.only`.
    """
    arch = parse_name(name).arch
    # On the meta device nothing is initialised: load is about to overwrite every value.
    network = make_network(arch, "meta")
    if arch.startswith(TIMM):  # to be compared with; constants that no file holds have to be made
        network = make_network(arch) if has_constants(network) else network.to_empty(device="cpu")
    backbone = Backbone(name, network, preprocessing)
    if last is not None and last < len(backbone.blocks):
        backbone.cut(last)
    if blocks is not None:
        backbone.only(blocks)
    if next(backbone.parameters()).is_meta:
        backbone.to_empty(device="cpu")
    backbone.load(state, source=source)
    if arch.startswith(TIMM) and last is None and blocks is None:
        compare(backbone, network)
    return backbone


def head_state(state: Mapping[str, Tensor], classifier: str) -> dict[str, Tensor] | None:
    """The linear classifier in a torchvision-keyed state, for nn.Linear's load_state_dict; None when there is none.

    `weight` (classes, features) and `bias` (classes,), fp32. Raises FileError when the two don't belong together.
    """
    weight, bias = state.get(f"{classifier}.weight"), state.get(f"{classifier}.bias")
    if weight is None or bias is None:
        return None
    if weight.shape[2:] == (1, 1):  # some of timm's classify with a 1x1 convolution
        weight = weight.flatten(1)
    if weight.dim() != 2 or bias.shape != weight.shape[:1]:
        shapes = f"weight {tuple(weight.shape)} and bias {tuple(bias.shape)}"
        raise FileError(f"the classifier in the file is damaged: {shapes} don't belong together")
    return {"weight": weight.detach().to(torch.float32), "bias": bias.detach().to(torch.float32)}
