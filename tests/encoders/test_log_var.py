"""Encoders that say how sure they are of a vector, and how that reaches the members."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from byname import Classifier
from byname.encoders import PrecomputedEncoder
from byname.encoders.onnx import OnnxEncoder
from byname.errors import EncoderError
from byname.wrapped import LogVarEncoder
from tests.encoders import tiny
from tests.helpers import FakeEncoder, make_photos

pytest.importorskip("onnx", reason="needs onnx to make graphs")


def with_log_var(graph: bytes, output: str, factor: float) -> bytes:
    """The graph with ``factor`` times its vector, which is not of length one, as log_var."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load_from_string(graph)
    model.graph.initializer.append(numpy_helper.from_array(np.float32(factor), "factor"))
    model.graph.node.append(helper.make_node("Mul", [output, "factor"], ["log_var"]))
    model.graph.output.insert(
        0, helper.make_tensor_value_info("log_var", TensorProto.FLOAT, ["batch", tiny.DIM])
    )
    return bytes(model.SerializeToString())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    card = {
        "size": tiny.SIZE,
        "mean": tiny.MEAN,
        "std": tiny.STD,
        "context_length": tiny.CONTEXT,
        "logit_scale": 10.0,
    }
    return tiny.write(
        tmp_path / "enc",
        {
            "visual.onnx": with_log_var(tiny.visual(), "image_embeds", 2.0),
            "textual.onnx": with_log_var(tiny.textual(), "text_embeds", -3.0),
            "tokenizer.json": tiny.tokenizer(),
            "preprocess.json": {k: list(v) if isinstance(v, tuple) else v for k, v in card.items()},
        },
    )


def test_graphs_with_a_second_output(folder: Path) -> None:
    encoder = OnnxEncoder(folder)
    assert encoder.gives_log_var == {"images", "texts"}
    pixels = np.random.default_rng(0).integers(0, 256, (11, 8, 8, 3), dtype=np.uint8)
    x = (pixels.astype(np.float64) / 255 - tiny.MEAN) / tiny.STD
    raw = x.mean(axis=(1, 2)) @ tiny.PROJECTION
    np.testing.assert_allclose(encoder.encode_images(pixels), tiny.unit(raw), atol=1e-5)
    np.testing.assert_allclose(encoder.image_log_var(pixels), 2 * raw, atol=1e-4)
    ids = [8, tiny.WORDS.index("a"), tiny.WORDS.index("cat"), 9]
    summed = tiny.TOKENS[ids].sum(0)
    texts = ["a cat", "a", "a cat"]
    np.testing.assert_allclose(
        encoder.encode_texts(texts)[0], tiny.unit(summed[None])[0], atol=1e-5
    )
    np.testing.assert_allclose(encoder.text_log_var(texts)[2], -3 * summed, atol=1e-4)
    assert encoder.text_log_var([]).shape == (0, tiny.DIM)


def test_they_reach_members_that_look_at_them(folder: Path, tmp_path: Path) -> None:
    encoder = OnnxEncoder(folder)
    photos = make_photos(tmp_path / "photos", 3)
    used = Classifier(["cat", "dog"], encoder, "bprw", templates=["a {}"])
    batch = used.gather(photos).batch
    assert batch.log_var.shape == (3, tiny.DIM)
    assert encoder.info.preprocess is not None
    from byname.images.load import load_pixels

    keys = used.gather(photos).embeddings.keys
    pixels = np.stack(
        [load_pixels((photos / k).read_bytes(), encoder.info.preprocess) for k in keys]
    )
    np.testing.assert_allclose(batch.log_var, encoder.image_log_var(pixels), rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(
        used._texts.text_log_var, encoder.text_log_var(["a cat", "a dog"]), rtol=1e-5
    )
    plain = Classifier(["cat", "dog"], encoder, "plain", templates=["a {}"])
    assert plain.gather(photos).batch.log_var is None
    assert plain._texts.text_log_var is None
    # of vectors alone there is nothing to be asked
    assert used.gather(plain.embed(photos)).batch.log_var is None


def test_stored_variances(tmp_path: Path) -> None:
    spread = np.array([[-6.0, 2.0], [0.0, 0.5]])
    encoder = PrecomputedEncoder.from_arrays(["a cat", "a dog"], np.eye(2), log_var=spread)
    assert encoder.gives_log_var == {"texts"}
    np.testing.assert_allclose(encoder.text_log_var(["a dog", "a cat"]), spread[::-1])
    with pytest.raises(EncoderError, match="variances of images: it gives none"):
        encoder.image_log_var(np.zeros((1, 8, 8, 3), np.uint8))
    other = PrecomputedEncoder.from_arrays(["a cat", "a dog"], np.eye(2), log_var=spread + 1)
    assert other.info.weights_sha256 != encoder.info.weights_sha256
    used = Classifier(["cat", "dog"], encoder, "prolip", templates=["a {}"])
    np.testing.assert_allclose(used.prepare()._texts.text_log_var, spread, atol=1e-6)
    make_photos(tmp_path, 2)
    for name, array in (("texts", np.eye(2)), ("images", np.eye(2))):
        np.save(tmp_path / f"{name}.npy", array)
        np.save(tmp_path / f"{name}_log_var.npy", spread)
    (tmp_path / "texts.txt").write_text("a cat\na dog")
    (tmp_path / "images.txt").write_text("0001.png\n0000.png")
    both = PrecomputedEncoder.from_path(tmp_path)
    batch = Classifier(["cat", "dog"], both, "bprw", templates=["a {}"]).gather(tmp_path).batch
    np.testing.assert_allclose(batch.log_var, spread[::-1], atol=1e-6)


@pytest.mark.parametrize(
    "given", [np.zeros((2, 3)), np.full((2, 2), np.nan), np.array([["a"] * 2] * 2)]
)
def test_variances_that_do_not_fit(given: Any) -> None:
    with pytest.raises(EncoderError, match=r"log variances of the texts.*\(2, 2\)"):
        PrecomputedEncoder.from_arrays(["a", "b"], np.eye(2), log_var=given)


def test_an_encoder_without_them() -> None:
    assert not FakeEncoder().gives_log_var
    with pytest.raises(EncoderError, match="ask 'fake' for variances: it gives none"):
        LogVarEncoder(FakeEncoder())
    with pytest.raises(EncoderError, match="variances of texts: it gives none"):
        FakeEncoder().text_log_var(["a"])


def test_they_survive_being_kept_as_unit_vectors() -> None:
    log_var = np.random.default_rng(0).normal(-6, 3, (20, 5)).astype(np.float32)
    kept = np.concatenate([log_var, np.ones((20, 1), np.float32)], axis=1).astype(np.float16)
    rows = kept.astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(LogVarEncoder.log_var(rows), log_var, rtol=1e-3, atol=1e-3)
