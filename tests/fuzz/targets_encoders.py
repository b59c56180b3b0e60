"""Encoder folders: descriptions, tokenizers and graphs."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from hypothesis import strategies as st

from byname.encoders.layouts import read_layout
from byname.encoders.onnx import OnnxEncoder
from byname.encoders.tokens import TextTokenizer
from tests.encoders import tiny
from tests.fuzz.harness import JSON, Target, cards, spoilt

__all__ = ["TARGETS"]


@cache
def _byname() -> dict[str, bytes]:
    return _held(tiny.byname_folder)


@cache
def _transformers() -> dict[str, bytes]:
    return _held(tiny.transformers_folder)


def _held(make: Any) -> dict[str, bytes]:
    """The files of a folder that ``make`` fills."""
    with TemporaryDirectory() as folder:
        make(Path(folder))
        files = (p for p in Path(folder).rglob("*") if p.is_file())
        return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


def _put(folder: str, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _open(files: dict[str, bytes]) -> None:
    with TemporaryDirectory() as folder:
        _put(folder, files)
        encoder = OnnxEncoder(folder, threads=1)
        try:
            size = encoder.info.preprocess.size if encoder.info.preprocess else 1
            for text in ("a dog", "", "x" * 50):
                assert np.isfinite(encoder.encode_texts([text])).all()
                assert encoder.count_tokens([text])[0] >= 0
            assert np.isfinite(encoder.encode_images(np.zeros((1, size, size, 3), np.uint8))).all()
            assert encoder.info.image_fingerprint()
            encoder.info.text_fingerprint()
        finally:
            encoder.close()


def _layout(files: dict[str, bytes]) -> None:
    with TemporaryDirectory() as folder:
        _put(folder, files)
        layout = read_layout(Path(folder))
        layout.info(4, layout.context).image_fingerprint()


def _tokenizer(text: str) -> None:
    rows = TextTokenizer(text, 7)
    rows.token_id("a")
    for row in rows.rows(["a photo of a dog", "", "\U0001f600 \ud7ff", "a" * 500]):
        assert len(row) <= 7
    rows.counts(["a dog"])


def _nested(base: dict[str, Any], path: tuple[str, ...], value: Any) -> str:
    """The object with the value in that place."""
    made = json.loads(json.dumps(base))
    held = made
    for name in path[:-1]:
        held = held[name] if isinstance(held, dict) and isinstance(held.get(name), dict) else made
    held[path[-1]] = value
    return json.dumps(made)


@cache
def _tokenizer_card() -> dict[str, Any]:
    made: dict[str, Any] = json.loads(tiny.tokenizer())
    return made


_UNIGRAM = {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["a", -1.0]]}
_BPE = {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"], "unk_token": None,
        "dropout": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
        "fuse_unk": False, "byte_fallback": True}  # fmt: skip
_MODELS: tuple[Any, ...] = (
    _UNIGRAM, _UNIGRAM | {"unk_id": 9}, _UNIGRAM | {"vocab": []}, _UNIGRAM | {"unk_id": None},
    _BPE, _BPE | {"merges": ["a c"]}, _BPE | {"vocab": {"a": 2**32 - 1}, "merges": []},
    _BPE | {"dropout": 7.0}, _BPE | {"unk_token": "zz"},
    {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "<none>"},
    {"type": "WordPiece", "vocab": {"a": 0}, "unk_token": "[UNK]",
     "continuing_subword_prefix": "##", "max_input_chars_per_word": 100},
)  # fmt: skip
_PARTS: tuple[Any, ...] = (
    None, {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    {"type": "Split", "pattern": {"Regex": "(a*)*b"}, "behavior": "Isolated", "invert": False},
    {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": False},
    {"type": "Replace", "pattern": {"String": ""}, "content": "aa"},
    {"type": "Prepend", "prepend": "a" * 100},
    {"type": "Precompiled", "precompiled_charsmap": "AAAA"},
    {"type": "Precompiled", "precompiled_charsmap": "/////w=="},
    {"type": "Sequence", "pretokenizers": [], "normalizers": [], "processors": []},
    {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<z>", "type_id": 0}}],
     "pair": [], "special_tokens": {}},
    {"type": "BertProcessing", "sep": ["x", 2**31], "cls": ["y", 7]},
)  # fmt: skip
_TOKENIZERS = st.one_of(
    st.builds(
        _nested,
        st.builds(_tokenizer_card),
        st.sampled_from(
            [("model",), ("model", "unk_token"), ("model", "vocab"), ("normalizer",),
             ("pre_tokenizer",), ("post_processor",), ("added_tokens",), ("decoder",),
             ("truncation",), ("padding",), ("version",), ("post_processor", "special_tokens")]
        ),
        st.one_of(st.sampled_from(_MODELS), st.sampled_from(_PARTS), JSON),
    ),
    st.builds(
        lambda model, where, part: _nested(
            json.loads(_nested(_tokenizer_card(), ("model",), model)), (where,), part
        ),
        st.sampled_from(_MODELS),
        st.sampled_from(["normalizer", "pre_tokenizer", "post_processor"]),
        st.sampled_from(_PARTS),
    ),
    spoilt([tiny.tokenizer().encode()]).map(lambda b: b.decode("utf-8", "replace")),
)  # fmt: skip

_CARD = cards(
    tiny.card(),
    ["id", "licence", "source", "causal", "logit_bias", "resize", "crop", "crop_rounding"],
)
_CONFIG = cards(
    {"model_type": "clip", "text_config": {"max_position_embeddings": 7, "pad_token_id": 0}},
    ["vision_config"],
)
_SIDE = cards({"pad_token": "<pad>"}, most=1)


def _layouts() -> st.SearchStrategy[dict[str, bytes]]:
    pre = json.loads(_transformers()["preprocessor_config.json"])
    return st.one_of(
        st.builds(lambda c: _byname() | {"preprocess.json": c}, _CARD),
        st.builds(lambda c: _transformers() | {"config.json": c}, _CONFIG),
        st.builds(
            lambda c: _transformers() | {"preprocessor_config.json": c},
            cards(pre, ["do_pad", "do_rescale", "rescale_factor", "crop_size", "resample"]),
        ),
        st.builds(lambda c: _transformers() | {"tokenizer_config.json": c}, _SIDE),
        st.builds(
            lambda c: _transformers() | {"byname.json": c},
            cards({"logit_scale": 10.0, "logit_bias": 0.0}),
        ),
        st.builds(
            lambda c: _byname() | {"README.md": c, "LICENSES/MIT.txt": c}, st.binary(max_size=20)
        ),
    )


def _graphs() -> st.SearchStrategy[dict[str, bytes]]:
    made = {"visual.onnx": (tiny.visual(), tiny.visual(kind="uint8")),
            "textual.onnx": (tiny.textual(), tiny.textual(kind="masked"))}  # fmt: skip
    return st.one_of(
        *(
            st.builds(lambda d, n=name: _byname() | {n: d}, spoilt(seeds, most=3))
            for name, seeds in made.items()
        )
    )


TARGETS = (
    Target("layout", _layouts(), _layout),
    Target("folder", _layouts(), _open),
    Target("tokenizer", _TOKENIZERS, _tokenizer),
    Target("graph", _graphs(), _open),
)
