"""What all torch encoders share, with modules small enough to check by hand."""

from __future__ import annotations

import dataclasses
import importlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from byname.encoders import torch_base
from byname.encoders.base import EncoderInfo
from byname.encoders.tokens import TextTokenizer
from byname.encoders.torch_base import Model, TorchEncoder, need, sha256_of_state, tower
from byname.encoders.torch_text import ListTokenizer, with_cleaning
from byname.errors import EncoderError, EncoderMemoryError, EncoderUnavailableError
from byname.images.preprocess import Preprocess
from byname.runs.encoding import Batcher
from tests.encoders import tiny

RECIPE = Preprocess(tiny.SIZE, tiny.SIZE, mean=tiny.MEAN, std=tiny.STD)


def model(kind: str = "causal", scale: float = 1.0, **changes: Any) -> Model:
    """Mean of the pixels, sum of the token vectors up to the end (or of all), as in ``tiny``."""
    torch = pytest.importorskip("torch", reason="needs torch")
    weights = torch.nn.ParameterList(
        [torch.tensor(tiny.PROJECTION * scale), torch.tensor(tiny.TOKENS * scale)]
    )

    def image(m: Any, pixels: Any) -> Any:
        return pixels.mean((2, 3)) @ m[0]

    def text(m: Any, ids: Any, mask: Any) -> Any:
        vectors = m[1][ids]
        if kind == "causal":
            return vectors.cumsum(1)[torch.arange(len(ids)), ids.argmax(1)]
        if kind == "masked":
            vectors = vectors * mask[..., None]
        return vectors.sum(1)

    content = tiny.tokenizer()
    made = Model(
        info=EncoderInfo("tiny", tiny.DIM, RECIPE, context_length=tiny.CONTEXT),
        visual=tower(weights, image),
        textual=tower(weights, text),
        tokens=TextTokenizer(content, tiny.CONTEXT),
        tokenizer_json=content,
        pad_id=0,
        vocabulary=len(tiny.WORDS),
    )
    return dataclasses.replace(made, **changes)


def pixels(count: int = 3) -> Any:
    shape = (count, tiny.SIZE, tiny.SIZE, 3)
    return np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.torch
def test_images() -> None:
    encoder = TorchEncoder(model())
    got = encoder.encode_images(pixels())
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, tiny.expected_images(pixels()), atol=1e-5)
    frozen = pixels()
    frozen.flags.writeable = False
    np.testing.assert_array_equal(encoder.encode_images(frozen), got)
    np.testing.assert_array_equal(encoder.encode_images(frozen[:, :, ::-1][:, :, ::-1]), got)
    with pytest.raises(EncoderError, match=r"got float64 pixels of shape \(1, 8, 8, 3\)"):
        encoder.encode_images(np.zeros((1, 8, 8, 3)))


@pytest.mark.torch
@pytest.mark.parametrize("how", ["of its own", "without words", "of the allocator"])
def test_want_of_memory(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = importlib.import_module("torch")
    encoder = TorchEncoder(model())
    wanted, real, sizes = encoder.encode_images(pixels(7)), encoder.visual, list[int]()

    def short(*inputs: Any) -> Any:
        sizes.append(len(inputs[0]))
        if len(inputs[0]) <= 2 and inputs[0].dim() == 4:
            return real(*inputs)
        if how == "of the allocator":
            return torch.empty(2**55)
        raise torch.OutOfMemoryError(*["CUDA out of memory"] * (how == "of its own"))

    monkeypatch.setattr(encoder, "visual", short)
    monkeypatch.setattr(encoder, "textual", short)
    for ask in (lambda: encoder.encode_images(pixels(7)), lambda: encoder.encode_texts(["a dog"])):
        with pytest.raises(EncoderMemoryError, match="memory does not suffice") as caught:
            ask()
        assert caught.value.__context__ is None, "it would keep what the failed call had in memory"
    sizes.clear()
    found = Batcher(encoder).vectors(dict(enumerate(pixels(7))))
    assert sizes == [7, 4, 2, 2, 2, 1]
    np.testing.assert_allclose(np.stack([found[i] for i in range(7)]), wanted, atol=1e-5)


@pytest.mark.torch
@pytest.mark.parametrize(
    ("kind", "changes", "cut", "pads"),
    [
        ("causal", {}, True, False),
        ("masked", {}, True, False),
        ("all", {}, False, True),
        ("masked", {"mask_padding": False}, False, True),
        ("causal", {"may_cut": False}, False, False),
    ],
)
def test_texts_are_cut_only_where_padding_is_inert(
    kind: str, changes: dict[str, Any], cut: bool, pads: bool
) -> None:
    encoder = TorchEncoder(model(kind, **changes))
    assert encoder.causal is cut
    texts = ["dog", "a photo of a cat", "cat cat cat cat cat cat cat cat"]
    rows = encoder.tokenize(texts)
    assert [len(row) for row in rows] == [3, 7, 7]
    want = [
        tiny.expected_text(text, pads=(tiny.CONTEXT - len(row)) * pads)
        for text, row in zip(texts, rows, strict=True)
    ]
    np.testing.assert_allclose(encoder.encode_texts(texts), np.stack(want), atol=1e-5)
    assert encoder.count_tokens(texts) == [3, 7, 10]


@pytest.mark.torch
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision(precision: str) -> None:
    encoder = TorchEncoder(model(), precision=precision, threads=1)
    full = TorchEncoder(model()).info
    assert encoder.info.image_fingerprint() != full.image_fingerprint()  # no mixing in the cache
    assert encoder.info.text_fingerprint() != full.text_fingerprint()
    for got, want in (
        (encoder.encode_images(pixels()), tiny.expected_images(pixels())),
        (encoder.encode_texts(["dog"]), tiny.expected_text("dog")[None]),
    ):
        assert got.dtype == np.float32
        cosine = (got * want).sum(1)
        assert (cosine > 0.999).all()
        assert np.abs(got - want).max() > 1e-6  # it was computed coarsely


@pytest.mark.torch
def test_what_cannot_be_asked_for() -> None:
    import torch

    with pytest.raises(EncoderError, match="in precision 'int8': a torch model runs in fp32, bf16"):
        TorchEncoder(model(), precision="int8")
    devices = ["tpu"] if torch.cuda.is_available() else ["tpu", "cuda", "cuda:1", "cpu:x", "cpu:1"]
    for device in devices:
        with pytest.raises(EncoderError, match=f"on device '{device}': torch .* offers cpu"):
            TorchEncoder(model(), device=device)


@pytest.mark.torch
def test_numbers_that_are_none() -> None:
    encoder = TorchEncoder(model(scale=float("nan")))
    with pytest.raises(
        EncoderError, match=r"the model answered NaN .* export or download it again"
    ):
        encoder.encode_images(pixels())
    with pytest.raises(EncoderError, match=r"NaN or infinite numbers for row 0 .'dog'."):
        encoder.encode_texts(["dog"])
    assert encoder.causal is False  # nothing was seen to agree
    coarse = TorchEncoder(model(scale=1e6), precision="fp16")
    with pytest.raises(EncoderError, match="fp16 may be too coarse for this model: try fp32"):
        coarse.encode_texts(["dog"])


@pytest.mark.torch
def test_towers_that_do_not_fit() -> None:
    import torch

    def broken(call: Callable[..., Any]) -> Any:
        return tower(torch.nn.Linear(1, 1), call)

    narrow = broken(lambda m, x: x.mean((2, 3)))
    with pytest.raises(EncoderError, match="image vectors have width 3, its text vectors 4"):
        TorchEncoder(model(visual=narrow))
    with pytest.raises(EncoderError, match=r"its image tower gives shape \(1, 3, 8, 8\)"):
        TorchEncoder(model(visual=broken(lambda m, x: x)))
    failing = broken(lambda m, x: x @ torch.zeros(5, 5))
    with pytest.raises(EncoderError, match=r"it failed on one image and one text \(RuntimeError"):
        TorchEncoder(model(visual=failing))
    wide = dataclasses.replace(model().info, dim=99)
    assert TorchEncoder(model(info=wide)).info.dim == tiny.DIM


@pytest.mark.torch
def test_a_token_beyond_the_vocabulary() -> None:
    with pytest.raises(EncoderError, match=r"gives the number 9 for 'a'.* model knows 9 tokens"):
        TorchEncoder(model(vocabulary=9))


@pytest.mark.torch
def test_without_images_and_closed() -> None:
    encoder = TorchEncoder(model(visual=None))
    assert encoder.encode_texts(["dog"]).shape == (1, 4)
    with pytest.raises(EncoderError, match="it has no image tower"):
        encoder.encode_images(pixels())
    encoder.close()
    assert encoder.textual is None


@pytest.mark.torch
def test_the_hash_of_a_state() -> None:
    import torch

    state = {"b": torch.zeros(2), "a": torch.ones(1, 2, dtype=torch.bfloat16)}
    known = sha256_of_state(state)
    assert known == sha256_of_state(dict(reversed(state.items())))
    others: list[dict[str, Any]] = [
        state | {"b": torch.ones(2)},
        state | {"b": torch.zeros(1, 2)},
        state | {"b": torch.zeros(2, dtype=torch.float64)},
        {"c": state["b"], "a": state["a"]},
    ]
    hashes = {sha256_of_state(other) for other in others} | {sha256_of_state(state, ["tokens"])}
    assert len(hashes) == 5
    assert known not in hashes


def test_a_missing_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(EncoderUnavailableError) as caught:
        need("torch", "clip-rn50")
    message = str(caught.value)
    assert "cannot use encoder 'clip-rn50': the package 'torch' is missing" in message
    assert 'pip install "byname[torch]"' in message
    assert "CPU build of torch first" in message


@pytest.mark.parametrize(
    ("error", "seen"),
    [
        (RuntimeError("operator torchvision::nms does not exist"), "lacks its C\\+\\+ operators"),
        (OSError("libcudart.so.12: cannot open"), "'open_clip' cannot be imported .OSError"),
    ],
)
def test_a_broken_library(monkeypatch: pytest.MonkeyPatch, error: Exception, seen: str) -> None:
    def broken(name: str) -> Any:
        raise error

    monkeypatch.setattr(torch_base.importlib, "import_module", broken)
    with pytest.raises(EncoderUnavailableError, match=seen):
        need("open_clip", "any")


def test_torch_is_not_imported_before_it_is_used() -> None:
    names = ("torch_base", "torch_card", "torch_text", "transformers", "transformers_pixels")
    names += ("clap", "open_clip", "open_clip_text", "load", "presets", "hub")
    code = "".join(f"import byname.encoders.{name}\n" for name in names)
    code += "import sys; assert not {'torch', 'transformers', 'open_clip'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_tokens_of_another_library_are_cut() -> None:
    tokens = ListTokenizer(lambda texts: [[1, *map(ord, t), 2] for t in texts], 4)
    assert tokens.rows(["abcd", "", "ab"]) == [[1, 97, 98, 2], [1, 2], [1, 97, 98, 2]]
    assert tokens.counts(["abcd", ""]) == [6, 2]
    assert ListTokenizer(tokens.encode, None).rows(["abcd"]) == [[1, 97, 98, 99, 100, 2]]


@pytest.mark.parametrize(
    ("clean", "text", "want"),
    [
        ("whitespace", "  A  dog. ", "A dog."),
        ("lower", "A \n dog.", "a dog."),
        ("canonicalize", "A_dog's [toy]!", "a dogs toy"),
    ],
)
def test_cleaning_belongs_to_the_tokenizer(clean: Any, text: str, want: str) -> None:
    tokenizers = importlib.import_module("tokenizers")
    content = with_cleaning(tiny.tokenizer(), clean, "t.json")
    normalizer = tokenizers.Tokenizer.from_str(content).normalizer
    assert normalizer.normalize_str(text) == want
    twice = tokenizers.Tokenizer.from_str(with_cleaning(content, clean, "t.json")).normalizer
    assert twice.normalize_str(text) == want
    with pytest.raises(EncoderError, match=r"cannot read 't\.json': it is not a tokenizer"):
        with_cleaning("{}", clean, "t.json")
