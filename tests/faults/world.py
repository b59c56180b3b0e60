"""Photos, many links to them, and an encoder folder of random weights that is quick to run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

__all__ = ["encoder", "links", "photos"]

SIZE, WORDS = 32, ("<pad>", "a", "photo", "</s>")


def photos(folder: Path, count: int, *, width: int = 96, height: int = 72) -> list[Path]:
    """So many JPEGs, each from its number."""
    folder.mkdir(parents=True)
    paths = []
    for i in range(count):
        tiles = np.random.default_rng(i).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        paths.append(folder / f"{i:04d}.jpg")
        Image.fromarray(tiles).resize((width, height), Image.Resampling.BICUBIC).save(paths[-1])
    return paths


def links(folder: Path, files: Sequence[Path], count: int) -> Path:
    """``folder`` with so many links to the files, a thousand in each of its folders."""
    for i in range(count):
        place = folder / f"{i // 1000:04d}"
        if i % 1000 == 0:
            place.mkdir(parents=True)
        (place / f"{i:06d}.jpg").symlink_to(files[i % len(files)].resolve())
    return folder


def encoder(folder: Path, dim: int = 64, layers: int = 1) -> Path:
    """Random matrices: pixels through ``layers`` of them, and a sum of word vectors."""
    from onnx import TensorProto, helper
    from tokenizers import Tokenizer, models, pre_tokenizers

    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    make = helper.make_node
    nodes = [
        make("Cast", ["pixels"], ["x"], to=TensorProto.FLOAT),
        make("Flatten", ["x"], ["h0"]),
    ]
    wide, weights = SIZE * SIZE * 3, {}
    for i in range(layers):
        narrow = dim if i == layers - 1 else 512
        scaled = rng.normal(size=(wide, narrow)) / np.sqrt(wide) / (128 if i == 0 else 1)
        weights[f"w{i}"] = scaled.astype(np.float32)
        last = "embedding" if i == layers - 1 else f"m{i}"
        nodes.append(make("MatMul", [f"h{i}", f"w{i}"], [last]))
        if i < layers - 1:
            nodes.append(make("Relu", [last], [f"h{i + 1}"]))
        wide = narrow
    pixels = ("pixels", TensorProto.UINT8, ["batch", SIZE, SIZE, 3])
    _save(folder / "visual.onnx", nodes, pixels, weights, dim)
    texts = [
        make("Gather", ["table", "input_ids"], ["e"]),
        make("ReduceSum", ["e", "axis"], ["embedding"], keepdims=0),
    ]
    ids = ("input_ids", TensorProto.INT64, ["batch", "sequence"])
    table = rng.normal(size=(len(WORDS), dim)).astype(np.float32)
    _save(folder / "textual.onnx", texts, ids, {"table": table, "axis": np.array([1])}, dim)
    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="a"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.save(str(folder / "tokenizer.json"))
    card = {"size": SIZE, "mean": [0.5] * 3, "std": [0.5] * 3, "context_length": 8, "causal": False}
    (folder / "preprocess.json").write_text(json.dumps(card), encoding="utf-8")
    return folder


def _save(
    path: Path, nodes: list[Any], given: tuple[Any, ...], weights: dict[str, Any], dim: int
) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    info = helper.make_tensor_value_info
    outputs = [info("embedding", TensorProto.FLOAT, ["batch", dim])]
    constants = [numpy_helper.from_array(np.asarray(a), n) for n, a in weights.items()]
    graph = helper.make_graph(nodes, path.stem, [info(*given)], outputs, constants)
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
