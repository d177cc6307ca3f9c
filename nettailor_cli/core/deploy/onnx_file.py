"""A plan as an ONNX file, operation by operation, and running it with onnxruntime. Needs the extra `export`.

Written straight from the plan and not by torch's exporter: a dozen plain operations, the same bytes each time, nothing
that depends on the version of torch. Opset 17 and IR version 8, for runtimes from 2022 on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

from nettailor_cli._version import __version__
from nettailor_cli.core.deploy.plan import IMAGE, LOGITS, Step
from nettailor_cli.core.deploy.standalone import PROBABILITIES, Array, Runner, StandaloneNetwork, normalisation

RUNTIME = "onnxruntime"
KEY = "nettailor"
"""The metadata entry that holds the document."""

_OPSET, _IR = 17, 8
_ERRORS_ONLY = 3
_INPUT = "images"
_RAW, _SCORES = "raw_logits", "scores"
"""The plan's logits before and after they are float32: the name "logits" is the graph's output's."""


def write(path: Path, network: StandaloneNetwork, document: Mapping[str, Any]) -> None:
    """Write `network`, with the JSON `document` beside it, to `path`."""
    half = network.dtype == torch.float16
    scale, shift = (np.array(v, np.float32).reshape(3, 1, 1) for v in normalisation(network.preprocessing))
    constants = {name: tensor.numpy() for name, tensor in network.tensors().items()} | {"scale": scale, "shift": shift}
    nodes = [
        helper.make_node("Transpose", [_INPUT], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planes"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["pixels", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "shift"], ["normalised"]),
        helper.make_node("Cast", ["normalised"], [IMAGE], to=TensorProto.FLOAT16 if half else TensorProto.FLOAT),
        *(node for step in network.plan.steps for node in _nodes(step)),
        helper.make_node("Cast", [_RAW], [_SCORES], to=TensorProto.FLOAT),
        helper.make_node("Softmax", [_SCORES], [network.output], axis=1)
        if network.output == PROBABILITIES
        else helper.make_node("Identity", [_SCORES], [network.output]),
    ]
    size = network.preprocessing.size
    graph = helper.make_graph(
        nodes,
        "nettailor",
        inputs=[helper.make_tensor_value_info(_INPUT, TensorProto.UINT8, ["N", size, size, 3])],
        outputs=[helper.make_tensor_value_info(network.output, TensorProto.FLOAT, ["N", len(document["classes"])])],
        initializer=[numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(
        graph,
        producer_name="nettailor",
        producer_version=__version__,
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR,
    )
    helper.set_model_props(model, {KEY: json.dumps(document, sort_keys=True)})
    path.write_bytes(model.SerializeToString())


def _nodes(step: Step) -> list[onnx.NodeProto]:
    """`step` and its ReLU."""
    output = _RAW if step.output == LOGITS else step.output
    inputs = [*step.inputs, *(name for name in (step.weight, step.bias) if name)]
    before = f"{output}_before_relu" if step.relu else output
    window: dict[str, Any] = {"strides": [step.stride] * 2, "pads": [step.padding] * 4}
    if step.op == "conv":
        nodes = [helper.make_node("Conv", inputs, [before], group=step.groups, **window)]
    elif step.op == "max_pool":
        nodes = [helper.make_node("MaxPool", inputs, [before], kernel_shape=[step.kernel] * 2, **window)]
    elif step.op == "mean":
        pooled = f"{output}_pooled"
        nodes = [
            helper.make_node("GlobalAveragePool", inputs, [pooled]),
            helper.make_node("Flatten", [pooled], [before]),
        ]
    elif step.op == "linear":
        nodes = [helper.make_node("Gemm", inputs, [before], transB=1)]
    else:  # Add takes two inputs; Sum, which takes any number, is not fused with anything
        nodes, total = [], inputs[0]
        for number, term in enumerate(inputs[1:], start=2):
            partial = before if number == len(inputs) else f"{output}_sum{number}"
            nodes.append(helper.make_node("Add", [total, term], [partial]))
            total = partial
    return nodes + [helper.make_node("Relu", [before], [output])] * step.relu


def runner(path: Path) -> Runner:
    """The file `path` as a function of uint8 pictures (N, S, S, 3), on as many CPU threads as torch has."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.intra_op_num_threads = torch.get_num_threads()
    model = onnx.load(path)
    model.graph.output.append(helper.make_tensor_value_info(_SCORES, TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def run(images: Array) -> tuple[Array, Array]:
        output, logits = session.run(None, {_INPUT: images})
        return output, logits

    return run
