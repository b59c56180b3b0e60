"""8-bit copies of an encoder folder's graphs, made once and kept in the cache folder.

Weights of MatMul and Gemm become int8 with a scale a column; what flows between them is quantised
as it comes (ONNX Runtime's dynamic quantisation). The first layer of a vision transformer, a
convolution whose windows do not overlap, becomes a product of integers too: its input are the
pixels themselves, which are 8-bit already, with the normalisation inside the weights, so that
nothing is lost on that side and pixels cross the boundary as uint8.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from byname.cache import working_dir
from byname.encoders.layouts import Layout
from byname.encoders.towers import TextTower
from byname.errors import BynameError, CacheError, EncoderError, EncoderUnavailableError
from byname.files import parse_json

__all__ = ["PRECISIONS", "Int8Graphs", "check_precision", "int8_graphs"]

PRECISIONS = ("fp32", "int8", "int8-unchecked")
VERSION = "1"
"""Part of the fingerprint: another way of quantising gives other vectors."""
MOST = 127
NCHW = "byname_patch_nchw"


@dataclass(frozen=True)
class Int8Graphs:
    """Quantised towers; ``cut`` is whether padding is inert, as the fp32 text tower showed."""

    folder: Path
    visual: Path
    textual: Path
    cut: bool
    weights_sha256: str


def check_precision(asked: str, precision: str) -> None:
    """Refuse what is not one of ``PRECISIONS``."""
    if precision not in PRECISIONS:
        seen = f"there is no precision {precision!r}"
        raise EncoderError(asked, seen, f"It is {', '.join(PRECISIONS)}.")


def int8_graphs(layout: Layout, weights_sha256: str, cache_dir: Path | None = None) -> Int8Graphs:
    """The quantised graphs of a folder, made if they are not there.

    Raises
    ------
    EncoderUnavailableError
        If they must be made and the package onnx is missing.
    EncoderError
        If a graph cannot be quantised.
    CacheError
        If they cannot be kept, as on a full disk.
    """
    digest = hashlib.sha256(f"int8/{VERSION}/{weights_sha256}".encode()).hexdigest()
    folder = (cache_dir or working_dir()) / "int8" / digest[:32]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found = _find(folder, digest)
        if found is None:
            with FileLock(folder.with_suffix(".lock")):
                found = _find(folder, digest) or _make(layout, folder, digest)
    except BynameError:
        raise
    except OSError as error:
        raise CacheError(
            f"keep the int8 graphs in '{folder.parent}'",
            error.strerror or str(error),
            "Make room there, or set BYNAME_CACHE to another folder.",
        ) from error
    return found


def _find(folder: Path, digest: str) -> Int8Graphs | None:
    """The card is written last: without it nothing there counts."""
    visual, textual = folder / "visual.onnx", folder / "textual.onnx"
    try:
        card = parse_json((folder / "int8.json").read_bytes())
        sizes = [visual.stat().st_size, textual.stat().st_size]
        if card["sizes"] == sizes:
            return Int8Graphs(folder, visual, textual, bool(card["cut"]), digest)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def _make(layout: Layout, folder: Path, digest: str) -> Int8Graphs:
    asked = f"run '{layout.folder}' in int8"
    try:
        import onnx  # noqa: F401 - what quantising needs
        from onnxruntime.quantization import quantize_dynamic  # noqa: F401
    except ImportError as error:
        raise EncoderUnavailableError(
            asked,
            f"the package '{error.name}' is missing, which quantises the graphs once",
            'Install it: pip install "byname[export]"; or leave out --precision int8.',
        ) from None
    cut = TextTower(layout, None, "cpu").cut
    (folder / "int8.json").unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".making-") as place:
        for name, path in (("visual.onnx", layout.visual), ("textual.onnx", layout.textual)):
            made = Path(place) / name
            try:
                _quantise(path, made, layout if name == "visual.onnx" else None)
            except (BynameError, OSError):
                raise  # a place that cannot be written says nothing about the graph
            # onnx and onnxruntime raise a dozen classes of their own without a common base
            except Exception as error:
                raise EncoderError(
                    asked,
                    f"'{path.name}' cannot be quantised ({type(error).__name__}: {error!s:.160})",
                    "Leave out --precision int8; or export the folder again in fp32.",
                ) from error
            made.replace(folder / name)
        sizes = [(folder / n).stat().st_size for n in ("visual.onnx", "textual.onnx")]
        card = Path(place) / "int8.json"
        card.write_text(json.dumps({"cut": cut, "sizes": sizes}), encoding="utf-8")
        card.replace(folder / "int8.json")
    found = _find(folder, digest)
    assert found is not None
    return found


def _quantise(source: Path, target: Path, visual: Layout | None) -> None:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    try:
        model = onnx.load(str(source))
    except OSError as error:
        raise EncoderError(
            f"read '{source}'",
            error.strerror or str(error),
            "Get the folder again from its source, with all its files.",
        ) from error
    if visual is not None:
        _pixels_to_integers(model, visual)
    with _without_advice():
        quantize_dynamic(
            model,
            str(target),
            weight_type=QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=["MatMul", "Gemm"],
        )


@contextmanager
def _without_advice() -> Iterator[None]:
    """onnxruntime advises developers through the root logger, once a call."""
    root = logging.getLogger()
    quiet = logging.NullHandler()
    root.addHandler(quiet)
    root.addFilter(_nothing)
    try:
        yield
    finally:
        root.removeFilter(_nothing)
        root.removeHandler(quiet)


def _nothing(_: logging.LogRecord) -> bool:
    return False


def _pixels_to_integers(model: Any, layout: Layout) -> bool:
    """Replace the patch embedding by a product of uint8 pixels and int8 weights, if there is one.

    The graph then takes (B, size, size, 3) uint8 pixels called ``pixels``.
    """
    from onnx import TensorProto, helper

    graph = model.graph
    constants = _constants(graph)
    if len(graph.input) != 1:
        return False
    # a graph that takes uint8 normalises by itself
    if graph.input[0].type.tensor_type.elem_type not in (TensorProto.FLOAT, TensorProto.FLOAT16):
        return False
    size = layout.preprocess.size
    same = {graph.input[0].name}
    for node in graph.node:
        if node.input and node.input[0] in same and node.op_type in ("Cast", "Identity"):
            same.add(node.output[0])
    users = [n for n in graph.node if set(n.input) & same and n.output[0] not in same]
    convolutions = [n for n in users if n.op_type == "Conv"]
    shapes = [n for n in users if n.op_type == "Shape"]
    if len(convolutions) != 1 or len(users) != 1 + len(shapes):
        return False
    conv = convolutions[0]
    if conv.input[1] not in constants:
        return False
    weight = constants[conv.input[1]]
    bias = np.zeros(len(weight), np.float32)
    if len(conv.input) > 2:
        if conv.input[2] not in constants:
            return False
        bias = constants[conv.input[2]]
    side = weight.shape[-1]
    if not _is_patches(conv, weight, size) or weight.dtype != np.float32:
        return False
    scale, offset = _folded(weight, bias, layout)
    nodes, values = _patch_nodes(scale, offset, size, side, conv.output[0])
    if shapes:
        nodes.insert(0, helper.make_node("Transpose", ["pixels"], [NCHW], perm=[0, 3, 1, 2]))
        for node in shapes:
            node.input[0] = NCHW
    rest = [n for n in graph.node if n is not conv and n.output[0] not in same]
    del graph.node[:]
    # nothing but constants comes before what reads the input
    graph.node.extend([*nodes, *rest])
    graph.initializer.extend(values)
    batch = graph.input[0].type.tensor_type.shape.dim[0]
    _replace_input(graph, batch, size)
    return True


def _constants(graph: Any) -> dict[str, NDArray[Any]]:
    from onnx import numpy_helper

    found = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            found[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
        elif node.op_type == "Identity" and node.input[0] in found:
            found[node.output[0]] = found[node.input[0]]
    return found


def _is_patches(conv: Any, weight: NDArray[Any], size: int) -> bool:
    """Whether windows tile the image: stride equals kernel, no padding, no groups."""
    from onnx import helper

    attributes = {a.name: helper.get_attribute_value(a) for a in conv.attribute}
    side = weight.shape[-1]
    return (
        weight.shape[1:] == (3, side, side)
        and size % side == 0
        and list(attributes.get("strides", [1, 1])) == [side, side]
        and not any(attributes.get("pads", [0]))
        and attributes.get("auto_pad", b"NOTSET") in (b"NOTSET", b"VALID")
        and attributes.get("group", 1) == 1
        and all(d == 1 for d in attributes.get("dilations", [1]))
    )


def _folded(
    weight: NDArray[np.float32], bias: NDArray[np.float32], layout: Layout
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(side * side * 3, D) weights and (D,) bias that take pixels of 0-255."""
    mean, std = (np.array(v, np.float64) for v in (layout.preprocess.mean, layout.preprocess.std))
    wide = weight.astype(np.float64).transpose(2, 3, 1, 0) / (255 * std)[:, None]
    offset = bias - np.einsum("yxcd,c->d", wide, 255 * mean)
    return wide.reshape(-1, len(weight)), offset


def _patch_nodes(
    weight: NDArray[np.float64], offset: NDArray[np.float64], size: int, side: int, output: str
) -> tuple[list[Any], list[Any]]:
    from onnx import TensorProto, helper, numpy_helper

    grid, width = size // side, weight.shape[1]
    scale = np.abs(weight).max(axis=0) / MOST
    scale[scale == 0] = 1.0
    rounded = np.rint(weight / scale).astype(np.int8)
    # pixels are counted from the middle grey, so that rounding of the weights matters least
    grey = 114
    offset = offset + grey * weight.sum(axis=0)
    arrays: dict[str, NDArray[Any]] = {
        "tiles": np.array([-1, grid, side, grid, side, 3], np.int64),
        "rows": np.array([-1, grid * grid, side * side * 3], np.int64),
        "grid": np.array([-1, grid, grid, width], np.int64),
        "weight": rounded,
        "grey": np.array(grey, np.uint8),
        "zero": np.array(0, np.int8),
        "scale": scale.astype(np.float32),
        "offset": offset.astype(np.float32),
    }
    p = "byname_patch_"
    values = [numpy_helper.from_array(a, p + n) for n, a in arrays.items()]
    make = helper.make_node
    nodes = [
        make("Reshape", ["pixels", p + "tiles"], [p + "a"]),
        make("Transpose", [p + "a"], [p + "b"], perm=[0, 1, 3, 2, 4, 5]),
        make("Reshape", [p + "b", p + "rows"], [p + "c"]),
        make("MatMulInteger", [p + "c", p + "weight", p + "grey", p + "zero"], [p + "d"]),
        make("Cast", [p + "d"], [p + "e"], to=TensorProto.FLOAT),
        make("Mul", [p + "e", p + "scale"], [p + "f"]),
        make("Add", [p + "f", p + "offset"], [p + "g"]),
        make("Reshape", [p + "g", p + "grid"], [p + "h"]),
        make("Transpose", [p + "h"], [output], perm=[0, 3, 1, 2]),
    ]
    for node in nodes:
        node.name = node.output[0] + "_node"
    return nodes, values


def _replace_input(graph: Any, batch: Any, size: int) -> None:
    from onnx import TensorProto, helper

    first = batch.dim_value if batch.HasField("dim_value") else (batch.dim_param or "batch")
    value = helper.make_tensor_value_info("pixels", TensorProto.UINT8, [first, size, size, 3])
    del graph.input[:]
    graph.input.append(value)
    del graph.value_info[:]
