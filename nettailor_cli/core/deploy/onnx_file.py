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
    steps = _Steps(np.dtype(np.float16 if half else np.float32), network.shapes())
    nodes = [
        helper.make_node("Transpose", [_INPUT], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planes"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["pixels", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "shift"], ["normalised"]),
        helper.make_node("Cast", ["normalised"], [IMAGE], to=TensorProto.FLOAT16 if half else TensorProto.FLOAT),
        *(node for step in network.plan.steps for node in steps.nodes(step)),
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
        initializer=[numpy_helper.from_array(array, name) for name, array in (constants | steps.constants).items()],
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


_NODES = {
    "mul": "Mul",
    "average": "GlobalAveragePool",
    "flatten": "Flatten",
    "relu": "Relu",
    "sigmoid": "Sigmoid",
    "hard_swish": "HardSwish",
}
"""Operations that ONNX has under another name, without attributes."""


class _Steps:
    """Steps as nodes of the graph; `constants` are the numbers that they need beside the plan's tensors.

    `kind` is the type of all values, `shapes` has theirs: value -> (channels, height, width), or (features,).
    """

    def __init__(self, kind: np.dtype[Any], shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.kind = kind
        self.shapes = shapes
        self.constants: dict[str, Array] = {}

    def nodes(self, step: Step) -> list[onnx.NodeProto]:
        """`step` and its ReLU."""
        output = _RAW if step.output == LOGITS else step.output
        before = f"{output}_before_relu" if step.relu else output
        return self._nodes(step, output, before) + [helper.make_node("Relu", [before], [output])] * step.relu

    def _nodes(self, step: Step, output: str, before: str) -> list[onnx.NodeProto]:
        inputs = [*step.inputs, *(name for name in (step.weight, step.bias) if name)]
        (x, *_), node = inputs, helper.make_node
        window: dict[str, Any] = {"strides": [step.stride] * 2, "pads": [*step.paddings] * 2}
        pool = {**window, "kernel_shape": [step.kernel] * 2, **({"ceil_mode": 1} if step.ceil else {})}
        if step.op in _NODES:
            return [node(_NODES[step.op], inputs, [before])]
        if step.op == "conv":
            return [node("Conv", inputs, [before], group=step.groups, **window)]
        if step.op == "max_pool":
            return [node("MaxPool", inputs, [before], **pool)]
        if step.op == "avg_pool":
            return [node("AveragePool", inputs, [before], **pool, count_include_pad=int(not step.ceil))]
        if step.op == "mean":
            pooled = f"{output}_pooled"
            return [node("GlobalAveragePool", inputs, [pooled]), node("Flatten", [pooled], [before])]
        if step.op == "linear":
            return [node("Gemm", inputs, [before], transB=1)]
        if step.op == "concat":
            return [node("Concat", inputs, [before], axis=1)]
        if step.op == "hard_sigmoid":
            return [node("HardSigmoid", inputs, [before], alpha=1 / 6, beta=0.5)]
        if step.op == "relu6":
            return [node("Clip", [x, self._number("zero", 0), self._number("six", 6)], [before])]
        if step.op == "silu":
            return [node("Sigmoid", [x], [f"{output}_gate"]), node("Mul", [x, f"{output}_gate"], [before])]
        if step.op == "gelu":  # opset 17 has none
            root, half, one = self._number("root_half", 0.5**0.5), self._number("half", 0.5), self._number("one", 1)
            names = [f"{output}_{part}" for part in ("scaled", "erf", "gate", "doubled")]
            return [
                node("Mul", [x, root], [names[0]]),
                node("Erf", [names[0]], [names[1]]),
                node("Add", [names[1], one], [names[2]]),
                node("Mul", [x, names[2]], [names[3]]),
                node("Mul", [names[3], half], [before]),
            ]
        if step.op == "gelu_tanh":
            inner, outer = self._number("gelu_cubic", 0.044715), self._number("root_two_by_pi", (2 / np.pi) ** 0.5)
            half, one = self._number("half", 0.5), self._number("one", 1)
            names = [
                f"{output}_{part}" for part in ("square", "bent", "around", "slope", "all", "tanh", "gate", "doubled")
            ]
            return [
                node("Mul", [x, x], [names[0]]),
                node("Mul", [names[0], inner], [names[1]]),
                node("Add", [names[1], one], [names[2]]),
                node("Mul", [names[2], outer], [names[3]]),
                node("Mul", [names[3], x], [names[4]]),
                node("Tanh", [names[4]], [names[5]]),
                node("Add", [names[5], one], [names[6]]),
                node("Mul", [x, names[6]], [names[7]]),
                node("Mul", [names[7], half], [before]),
            ]
        if step.op == "layer_norm":
            last, normed = f"{output}_channels_last", f"{output}_normed"
            return [
                node("Transpose", [x], [last], perm=[0, 2, 3, 1]),
                node("LayerNormalization", [last, *inputs[1:]], [normed], axis=-1, epsilon=step.epsilon),
                node("Transpose", [normed], [before], perm=[0, 3, 1, 2]),
            ]
        if step.op == "slice":
            ends = [self._whole(step.start), self._whole(step.stop), self._whole(1)]
            return [node("Slice", [x, *ends], [before])]
        if step.op == "shuffle":
            channels = np.arange(self.shapes[x][0]).reshape(step.groups, -1).T.reshape(-1)
            self.constants[f"{output}_order"] = channels
            return [node("Gather", [x, f"{output}_order"], [before], axis=1)]
        if step.op == "average_to":  # a mean over rows, then one over columns, as products of matrices
            _, height, width = self.shapes[x]
            self.constants[f"{output}_rows"] = self._averages(height, step.kernel)
            self.constants[f"{output}_columns"] = self._averages(width, step.kernel).T.copy()
            rows = f"{output}_over_rows"
            return [
                node("MatMul", [f"{output}_rows", x], [rows]),
                node("MatMul", [rows, f"{output}_columns"], [before]),
            ]
        assert step.op == "add"
        # Add takes two inputs; Sum, which takes any number, is not fused with anything
        nodes, total = [], x
        for number, term in enumerate(inputs[1:], start=2):
            partial = before if number == len(inputs) else f"{output}_sum{number}"
            nodes.append(node("Add", [total, term], [partial]))
            total = partial
        return nodes

    def _number(self, name: str, value: float) -> str:
        self.constants[f"number_{name}"] = np.array(value, self.kind)
        return f"number_{name}"

    def _whole(self, value: int) -> str:
        self.constants[f"whole_{value}"] = np.array([value], np.int64)
        return f"whole_{value}"

    def _averages(self, size: int, count: int) -> Array:
        """(count, size): row i is the mean of positions floor(i size / count) up to ceil((i + 1) size / count)."""
        matrix = np.zeros((count, size), self.kind)
        for i in range(count):
            start, stop = i * size // count, -(-(i + 1) * size // count)
            matrix[i, start:stop] = 1 / (stop - start)
        return matrix


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
