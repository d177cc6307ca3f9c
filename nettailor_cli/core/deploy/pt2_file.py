"""A standalone network as a .pt2 archive of torch.export, which torch alone loads and runs.

program = torch.export.load(file, extra_files={"nettailor.json": ""})
"""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from nettailor_cli.core.deploy.standalone import Array, Runner, StandaloneNetwork

RUNTIME = "torch.export"
DOCUMENT = "nettailor.json"
"""The file in the archive that holds the document."""

_TRACES = ("stack_trace", "nn_module_stack", "source_fn_stack", "from_node", "custom")
"""What the exporter notes of the code that a node came from: paths of this machine, and nobody's business."""


def write(path: Path, network: StandaloneNetwork, document: Mapping[str, Any]) -> None:
    """Write `network`, with the JSON `document` beside it, to `path`."""
    size = network.preprocessing.size
    pictures = torch.zeros(2, size, size, 3, dtype=torch.uint8)  # 2: with 1 the exporter would fix the batch at 1
    with _without_noise():
        program = torch.export.export(
            network.eval(), (pictures,), dynamic_shapes={"images": {0: torch.export.Dim("N", min=1)}}
        )
        for node in program.graph.nodes:
            for key in _TRACES:
                node.meta.pop(key, None)
        archive = io.BytesIO()  # given a name, torch insists on an ending of its own
        torch.export.save(program, archive, extra_files={DOCUMENT: json.dumps(document, sort_keys=True)})
    path.write_bytes(archive.getvalue())


def runner(path: Path) -> Runner:
    """The file `path` as a function of uint8 pictures (N, S, S, 3), on the CPU."""
    with _without_noise():
        program = _Watched(torch.export.load(io.BytesIO(path.read_bytes())).module())

    def run(images: Array) -> tuple[Array, Array]:
        with torch.inference_mode():
            output = program.run(torch.from_numpy(images))
        return output.numpy(), program.logits.numpy()

    return run


class _Watched(torch.fx.Interpreter):
    """Runs a program node by node and remembers its logits: the last linear layer's result, in float32."""

    logits: torch.Tensor

    def run_node(self, n: torch.fx.Node) -> Any:
        result = super().run_node(n)
        if n.target is torch.ops.aten.linear.default:
            self.logits = result.float()
        return result


@contextmanager
def _without_noise() -> Iterator[None]:
    """torch.export warns and logs of its own affairs; what goes wrong is an exception all the same."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
