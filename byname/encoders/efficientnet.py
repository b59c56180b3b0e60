"""EfficientNet-Lite as an ONNX graph, built from a state dict.

EfficientNet-Lite is EfficientNet-B0 scaled in width and depth, without squeeze-excitation and with
relu6. Stem and head keep their width, the first and last stage their depth. Batch norm is folded
into the convolutions (in float64, so the folding itself costs no accuracy), and the pixel
normalisation is part of the graph, which takes uint8 pixels as they come.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byname.errors import EncoderError, EncoderUnavailableError

__all__ = ["LITE2", "LiteConfig", "build_graph"]

GRAPH_VERSION = "1"  # part of the cache key: raise it when the graph changes
# (blocks, kernel, stride) of the seven stages of B0
STAGES = ((1, 3, 1), (2, 3, 2), (2, 5, 2), (3, 3, 2), (3, 5, 1), (4, 5, 2), (1, 3, 1))
BN_EPS = 1e-3
Weights = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class LiteConfig:
    """What distinguishes the members of the family; widths are read from the weights."""

    name: str
    size: int
    depth: float

    def blocks(self) -> list[tuple[int, int]]:
        """(kernel, stride) of every block, in order."""
        last = len(STAGES) - 1
        return [
            (kernel, stride if i == 0 else 1)
            for stage, (count, kernel, stride) in enumerate(STAGES)
            for i in range(count if stage in (0, last) else math.ceil(count * self.depth))
        ]


LITE2 = LiteConfig("efficientnet-lite2", size=260, depth=1.2)


def build_graph(weights: Weights, config: LiteConfig = LITE2) -> bytes:
    """Serialised ONNX model: ``pixels`` uint8 (B, S, S, 3) to ``logits`` float32 (B, classes).

    Raises
    ------
    EncoderUnavailableError
        If the ``onnx`` package is not installed.
    EncoderError
        If the weights are not those of this network.
    """
    try:
        import onnx  # noqa: F401
    except ImportError:
        raise EncoderUnavailableError(
            f"build {config.name}", "the package 'onnx' is missing", 'pip install "byname[demo]"'
        ) from None
    try:
        return _Builder(weights, config).build()
    except (KeyError, ValueError, IndexError) as error:
        raise EncoderError(
            f"build {config.name}", f"the weights do not fit it ({type(error).__name__}: {error})"
        ) from None


class _Builder:
    """Appends nodes to a graph while following the side of the feature map."""

    def __init__(self, weights: Weights, config: LiteConfig) -> None:
        self.weights, self.config, self.side = weights, config, config.size
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def build(self) -> bytes:
        from onnx import TensorProto, checker, helper

        x = self._node("Cast", ["pixels"], to=TensorProto.FLOAT)
        x = self._node("Transpose", [x], perm=[0, 3, 1, 2])
        x = self._node("Sub", [x, self._constant("mean", np.float32(127))])
        x = self._node("Mul", [x, self._constant("scale", np.float32(1 / 128))])
        x = self._conv(x, "_conv_stem", "_bn0", stride=2)
        blocks = self.config.blocks()
        for i, (kernel, stride) in enumerate(blocks):
            x = self._block(x, f"_blocks.{i}", kernel, stride)
        if f"_blocks.{len(blocks)}._project_conv.weight" in self.weights:
            raise ValueError(f"they have more than {len(blocks)} blocks")
        x = self._conv(x, "_conv_head", "_bn1")
        x = self._node("Flatten", [self._node("GlobalAveragePool", [x])])
        fc = [self._constant(f"_fc.{w}", self.weights[f"_fc.{w}"]) for w in ("weight", "bias")]
        self._node("Gemm", [x, *fc], output="logits", transB=1)

        size, classes = self.config.size, len(self.weights["_fc.bias"])
        info = helper.make_tensor_value_info
        graph = helper.make_graph(
            self.nodes,
            self.config.name,
            [info("pixels", TensorProto.UINT8, ["batch", size, size, 3])],
            [info("logits", TensorProto.FLOAT, ["batch", classes])],
            self.constants,
        )
        opset = [helper.make_opsetid("", 17)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=8)
        checker.check_model(model)
        return bytes(model.SerializeToString())

    def _block(self, x: str, name: str, kernel: int, stride: int) -> str:
        depthwise = f"{name}._depthwise_conv"
        expand = self.weights.get(f"{name}._expand_conv.weight")
        width_in = self.weights[f"{depthwise}.weight"].shape[0]
        y = x
        if expand is not None:
            width_in = expand.shape[1]
            y = self._conv(y, f"{name}._expand_conv", f"{name}._bn0")
        if (seen := self.weights[f"{depthwise}.weight"].shape[-1]) != kernel:
            raise ValueError(f"{depthwise} has kernel {seen}, expected {kernel}")
        y = self._conv(y, depthwise, f"{name}._bn1", stride=stride, depthwise=True)
        y = self._conv(y, f"{name}._project_conv", f"{name}._bn2", relu6=False)
        width_out = self.weights[f"{name}._project_conv.weight"].shape[0]
        return self._node("Add", [y, x]) if stride == 1 and width_in == width_out else y

    def _conv(
        self,
        x: str,
        conv: str,
        norm: str,
        stride: int = 1,
        depthwise: bool = False,
        relu6: bool = True,
    ) -> str:
        kernel = np.asarray(self.weights[f"{conv}.weight"], np.float64)
        gamma, beta, mean, var = (
            np.asarray(self.weights[f"{norm}.{part}"], np.float64)
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        gain = gamma / np.sqrt(var + BN_EPS)
        before, after, self.side = _same_upper(self.side, kernel.shape[-1], stride)
        y = self._node(
            "Conv",
            [
                x,
                self._constant(f"{conv}.weight", kernel * gain[:, None, None, None]),
                self._constant(f"{conv}.bias", beta - mean * gain),
            ],
            strides=[stride, stride],
            pads=[before, before, after, after],
            group=kernel.shape[0] if depthwise else 1,
        )
        if not relu6:
            return y
        limits = [self._constant("zero", np.float32(0)), self._constant("six", np.float32(6))]
        return self._node("Clip", [y, *limits])

    def _node(self, op: str, inputs: list[str], output: str | None = None, **attrs: Any) -> str:
        from onnx import helper

        name = output or f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attrs))
        return name

    def _constant(self, name: str, value: Any) -> str:
        from onnx import numpy_helper

        if not any(c.name == name for c in self.constants):
            array = np.ascontiguousarray(value, np.float32).reshape(np.shape(value))
            self.constants.append(numpy_helper.from_array(array, name))
        return name


def _same_upper(side: int, kernel: int, stride: int) -> tuple[int, int, int]:
    """Padding before and after, and the new side, of TensorFlow's SAME rule (odd one after)."""
    out = math.ceil(side / stride)
    total = max((out - 1) * stride + kernel - side, 0)
    return total // 2, total - total // 2, out
