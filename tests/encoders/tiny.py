"""Encoder folders small enough to check by hand: a mean of pixels, a sum of token vectors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIZE, DIM, CONTEXT = 8, 4, 7
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
WORDS = ["<pad>", "<unk>", "a", "photo", "of", "dog", "cat", ".", "<s>", "</s>"]
_rng = np.random.default_rng(0)
PROJECTION = _rng.standard_normal((3, DIM)).astype(np.float32)
TOKENS = _rng.standard_normal((len(WORDS), DIM)).astype(np.float32)


def expected_images(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    x = (pixels.astype(np.float64) / 255 - MEAN) / STD
    return unit(x.mean(axis=(1, 2)) @ PROJECTION)


def expected_text(text: str, pads: int = 0, context: int = CONTEXT) -> NDArray[np.float64]:
    """Sum of the token vectors up to the end token; ``pads`` says how many pads join in."""
    ids = [WORDS.index(w) if w in WORDS else 1 for w in text.split()]
    ids = [8, *ids[: context - 2], 9]
    return unit((TOKENS[ids].sum(0) + pads * TOKENS[0])[None])[0]


def unit(x: NDArray[Any]) -> NDArray[np.float64]:
    x = np.asarray(x, np.float64)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def tokenizer(markers: bool = True) -> str:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    made = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if markers:
        made.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 8), ("</s>", 9)]
        )
    made.enable_truncation(3)  # what the file says of itself must not matter
    made.enable_padding(length=20)
    return str(made.to_str())


def visual(
    *,
    kind: str = "float",
    batch: int | str = "batch",
    dim: int = DIM,
    name: str = "pixel_values",
    output: str = "image_embeds",
    scale: float = 1.0,
    free_width: bool = False,
    second_output: bool = False,
) -> bytes:
    """``kind``: float (NCHW), float-nhwc, uint8 (NHWC), uint8-nchw."""
    from onnx import TensorProto, helper, numpy_helper

    last = kind in ("uint8", "float-nhwc")
    shape = [batch, SIZE, SIZE, 3] if last else [batch, 3, SIZE, SIZE]
    weight = np.resize(PROJECTION, (3, dim)) * np.float32(scale)
    nodes, constants = [], [numpy_helper.from_array(weight, "w")]
    x = name
    if kind.startswith("uint8"):
        side = (3,) if last else (3, 1, 1)
        mean, std = (np.array(v, np.float32).reshape(side) for v in (MEAN, STD))
        constants += [
            numpy_helper.from_array(np.float32(255) * mean, "m"),
            numpy_helper.from_array(np.float32(255) * std, "s"),
        ]
        nodes += [
            helper.make_node("Cast", [name], ["f"], to=TensorProto.FLOAT),
            helper.make_node("Sub", ["f", "m"], ["c"]),
            helper.make_node("Div", ["c", "s"], ["x"]),
        ]
        x = "x"
    axes = [1, 2] if last else [2, 3]
    nodes += [
        helper.make_node("ReduceMean", [x], ["p"], axes=axes, keepdims=0),
        helper.make_node("MatMul", ["p", "w"], [output]),
    ]
    element = TensorProto.UINT8 if kind.startswith("uint8") else TensorProto.FLOAT
    outputs = [(output, [batch, "width" if free_width else dim])]
    if second_output:
        outputs.insert(0, ("p", [batch, 3]))
    return _model(nodes, constants, [(name, element, shape)], outputs)


def textual(
    *,
    kind: str = "causal",
    batch: int | str = "batch",
    length: int | str = "sequence",
    dim: int = DIM,
    name: str = "input_ids",
    output: str = "text_embeds",
    int32: bool = False,
    scale: float = 1.0,
    extra: str | None = None,
) -> bytes:
    """``kind``: causal (read at the end token), all (padding counts), masked."""
    from onnx import TensorProto, helper, numpy_helper

    table = np.resize(TOKENS, (len(WORDS), dim)) * np.float32(scale)
    constants = [numpy_helper.from_array(table, "table")]
    nodes = [helper.make_node("Gather", ["table", name], ["e"])]
    element = TensorProto.INT32 if int32 else TensorProto.INT64
    inputs = [(name, element, [batch, length])]
    if kind == "causal":
        constants.append(numpy_helper.from_array(np.array(1, np.int64), "one"))
        nodes += [
            helper.make_node("CumSum", ["e", "one"], ["sums"]),
            helper.make_node("Cast", [name], ["f"], to=TensorProto.FLOAT),
            helper.make_node("ArgMax", ["f"], ["at"], axis=1, keepdims=1),
            helper.make_node("GatherND", ["sums", "at"], [output], batch_dims=1),
        ]
    elif kind == "masked":
        constants.append(numpy_helper.from_array(np.array([2], np.int64), "two"))
        inputs += [(n, element, [batch, length]) for n in ("attention_mask", "token_type_ids")]
        nodes += [
            helper.make_node("Cast", ["attention_mask"], ["m"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["m", "two"], ["m3"]),
            helper.make_node("Mul", ["e", "m3"], ["em"]),
            helper.make_node("ReduceSum", ["em", "axis"], [output], keepdims=0),
        ]
        constants.append(numpy_helper.from_array(np.array([1], np.int64), "axis"))
    else:
        constants.append(numpy_helper.from_array(np.array([1], np.int64), "axis"))
        nodes.append(helper.make_node("ReduceSum", ["e", "axis"], [output], keepdims=0))
    if extra:
        inputs.append((extra, element, [batch, length]))
    return _model(nodes, constants, inputs, [(output, [batch, dim])])


def _model(nodes: Any, constants: Any, inputs: Any, outputs: Any) -> bytes:
    from onnx import TensorProto, helper

    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "tiny",
        [info(name, element, shape) for name, element, shape in inputs],
        [info(name, TensorProto.FLOAT, shape) for name, shape in outputs],
        constants,
    )
    opsets = [helper.make_opsetid("", 13)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


def write(folder: Path, files: dict[str, bytes | str | dict[str, Any]]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, dict):
            content = json.dumps(content)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def card(**changes: Any) -> dict[str, Any]:
    return {
        "size": SIZE,
        "resize_mode": "shortest",
        "interpolation": "bicubic",
        "mean": list(MEAN),
        "std": list(STD),
        "context_length": CONTEXT,
        "pad_id": 0,
        "logit_scale": 50.0,
        "activation": "softmax",
    } | changes


def byname_folder(
    folder: Path,
    visual_model: bytes | None = None,
    textual_model: bytes | None = None,
    **changes: Any,
) -> Path:
    return write(
        folder,
        {
            "visual.onnx": visual_model or visual(),
            "textual.onnx": textual_model or textual(),
            "tokenizer.json": tokenizer(),
            "preprocess.json": card(**changes),
        },
    )


def transformers_folder(folder: Path, suffix: str = "", **config: Any) -> Path:
    return write(
        folder,
        {
            f"onnx/vision_model{suffix}.onnx": visual(second_output=True),
            f"onnx/text_model{suffix}.onnx": textual(),
            "tokenizer.json": tokenizer(),
            "tokenizer_config.json": {"pad_token": "</s>"},
            "config.json": {
                "model_type": "clip",
                "text_config": {"max_position_embeddings": CONTEXT},
            }
            | config,
            "preprocessor_config.json": {
                "size": {"shortest_edge": 10},
                "crop_size": {"height": SIZE, "width": SIZE},
                "do_center_crop": True,
                "resample": 3,
                "image_mean": list(MEAN),
                "image_std": list(STD),
            },
            "README.md": "---\nlicense: mit\n---\n# A model\n",
        },
    )


def open_clip_folder(folder: Path, **text_cfg: Any) -> Path:
    return write(
        folder,
        {
            "visual/model.onnx": visual(batch=1, name="image", output="image_embedding"),
            "textual/model.onnx": textual(
                batch=1, length=CONTEXT, name="text", output="text_embedding", int32=True
            ),
            "visual/preprocess_cfg.json": {
                "size": [SIZE, SIZE],
                "mode": "RGB",
                "mean": list(MEAN),
                "std": list(STD),
                "interpolation": "bicubic",
                "resize_mode": "squash",
            },
            "textual/tokenizer.json": tokenizer(),
            "textual/tokenizer_config.json": {"pad_token": {"content": "<pad>"}},
            "config.json": {"embed_dim": DIM, "text_cfg": {"context_length": CONTEXT} | text_cfg},
            "LICENSE": "\nMIT License\n\nand so on",
        },
    )
