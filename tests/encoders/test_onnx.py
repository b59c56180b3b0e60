"""Folders in three layouts against vectors computed by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="builds small models with the package onnx")

from byname.encoders import load_encoder
from byname.encoders.onnx import OnnxEncoder
from byname.errors import EncoderError
from tests.encoders import tiny

TEXTS = ["a photo of a dog .", "dog", "a cat", "dog", "a photo of a cat"]
PIXELS = np.random.default_rng(1).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)


def expect_texts(texts: list[str] = TEXTS, **kwargs: Any) -> np.ndarray:
    return np.stack([tiny.expected_text(t, **kwargs) for t in texts])


@pytest.mark.parametrize("kind", ["float", "float-nhwc", "uint8", "uint8-nchw"])
@pytest.mark.parametrize("batch", ["batch", 1, 3])
def test_images_of_every_input_type(tmp_path: Path, kind: str, batch: int | str) -> None:
    encoder = OnnxEncoder(tiny.byname_folder(tmp_path, tiny.visual(kind=kind, batch=batch)))
    got = encoder.encode_images(PIXELS)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, tiny.expected_images(PIXELS), atol=1e-5)
    assert encoder.encode_images(PIXELS[:0]).shape == (0, tiny.DIM)


@pytest.mark.parametrize("length", ["sequence", tiny.CONTEXT, 6])
@pytest.mark.parametrize("batch", ["batch", 1, 3])
@pytest.mark.parametrize("kind", ["causal", "masked"])
@pytest.mark.parametrize("int32", [False, True])
def test_texts_of_every_input_type(
    tmp_path: Path, length: int | str, batch: int | str, kind: str, int32: bool
) -> None:
    model = tiny.textual(kind=kind, length=length, batch=batch, int32=int32)
    encoder = OnnxEncoder(tiny.byname_folder(tmp_path, None, model))
    context = length if isinstance(length, int) else tiny.CONTEXT
    assert encoder.info.context_length == context
    np.testing.assert_allclose(
        encoder.encode_texts(TEXTS), expect_texts(context=context), atol=1e-5
    )
    assert encoder._texts.cut is (length == "sequence")
    assert encoder.encode_texts([]).shape == (0, tiny.DIM)


@pytest.mark.parametrize("declared", [{}, {"causal": True}, {"causal": False}])
def test_a_tower_that_attends_to_padding_is_never_cut(
    tmp_path: Path, declared: dict[str, bool]
) -> None:
    folder = tiny.byname_folder(tmp_path, None, tiny.textual(kind="all"), **declared)
    encoder = OnnxEncoder(folder)
    assert encoder._texts.cut is False
    want = tiny.expected_text("dog", pads=tiny.CONTEXT - 3)
    np.testing.assert_allclose(encoder.encode_texts(["dog"])[0], want, atol=1e-5)


def test_causal_false_is_obeyed(tmp_path: Path) -> None:
    assert OnnxEncoder(tiny.byname_folder(tmp_path, causal=False))._texts.cut is False


def test_a_text_does_not_depend_on_its_neighbours(tmp_path: Path) -> None:
    encoder = OnnxEncoder(tiny.byname_folder(tmp_path))
    alone = np.concatenate([encoder.encode_texts([t]) for t in TEXTS])
    np.testing.assert_array_equal(encoder.encode_texts(TEXTS), alone)


def test_truncation_keeps_the_end_token(tmp_path: Path) -> None:
    encoder = OnnxEncoder(tiny.byname_folder(tmp_path))
    long = "a photo of a dog . cat cat cat"
    np.testing.assert_allclose(
        encoder.encode_texts([long])[0], tiny.expected_text("a photo of a dog"), atol=1e-5
    )
    assert encoder.count_tokens([long, "dog"]) == [11, 3]


def test_card_of_the_byname_layout(tmp_path: Path) -> None:
    folder = tiny.byname_folder(tmp_path / "enc", resize=10, logit_bias=-3, activation="sigmoid")
    info = OnnxEncoder(folder).info
    assert (info.id, info.dim, info.licence) == ("onnx:enc", tiny.DIM, "unknown")
    assert (info.logit_scale, info.logit_bias, info.activation) == (50.0, -3.0, "sigmoid")
    assert info.preprocess is not None
    assert (info.preprocess.size, info.preprocess.resize) == (8, 10)
    assert info.preprocess.mean == tiny.MEAN
    named = tiny.byname_folder(tmp_path / "b", id="mine", licence="MIT", source="here")
    info = OnnxEncoder(named).info
    assert (info.id, info.licence, info.source) == ("mine", "MIT", "here")


def test_transformers_layout(tmp_path: Path) -> None:
    encoder = OnnxEncoder(tiny.transformers_folder(tmp_path))
    np.testing.assert_allclose(
        encoder.encode_images(PIXELS), tiny.expected_images(PIXELS), atol=1e-5
    )
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), expect_texts(), atol=1e-5)
    assert encoder.info.licence == "mit"
    assert encoder.info.preprocess is not None
    assert encoder.info.preprocess.resize == 10
    assert encoder.info.preprocess.crop_rounding == "floor"
    assert encoder._texts.pad == tiny.WORDS.index("</s>")


def test_transformers_siglip_is_sigmoid_and_never_cut(tmp_path: Path) -> None:
    encoder = OnnxEncoder(tiny.transformers_folder(tmp_path, model_type="siglip"))
    assert encoder.info.activation == "sigmoid"
    assert encoder._texts.cut is False


def test_transformers_squash(tmp_path: Path) -> None:
    folder = tiny.transformers_folder(tmp_path)
    tiny.write(
        folder,
        {
            "preprocessor_config.json": {
                "size": {"height": 8, "width": 8},
                "resample": 2,
                "image_mean": [0.5] * 3,
                "image_std": [0.5] * 3,
            }
        },
    )
    preprocess = OnnxEncoder(folder).info.preprocess
    assert preprocess is not None
    assert (preprocess.mode, preprocess.interpolation) == ("squash", "bilinear")


def test_full_precision_is_preferred_and_others_accepted(tmp_path: Path) -> None:
    folder = tiny.transformers_folder(tmp_path, suffix="_quantized")
    assert OnnxEncoder(folder)._images.path.name == "vision_model_quantized.onnx"
    tiny.transformers_folder(tmp_path)
    assert OnnxEncoder(folder)._images.path.name == "vision_model.onnx"


def test_open_clip_layout(tmp_path: Path) -> None:
    encoder = OnnxEncoder(tiny.open_clip_folder(tmp_path))
    np.testing.assert_allclose(
        encoder.encode_images(PIXELS), tiny.expected_images(PIXELS), atol=1e-5
    )
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), expect_texts(), atol=1e-5)
    assert encoder.info.licence == "MIT License"
    assert encoder.info.preprocess is not None
    assert encoder.info.preprocess.mode == "squash"


def test_open_clip_canonical_text(tmp_path: Path) -> None:
    folder = tiny.open_clip_folder(tmp_path, tokenizer_kwargs={"clean": "canonicalize"})
    got = OnnxEncoder(folder).encode_texts(["A_Dog!", "a dog"])
    np.testing.assert_array_equal(got[0], got[1])


def test_output_by_width_when_no_name_tells(tmp_path: Path) -> None:
    model = tiny.visual(output="anything", free_width=True)
    encoder = OnnxEncoder(tiny.byname_folder(tmp_path, model))
    assert encoder.info.dim == tiny.DIM


def test_hash_follows_the_weights(tmp_path: Path) -> None:
    hashes = {
        OnnxEncoder(tiny.byname_folder(tmp_path / str(i), tiny.visual(scale=s))).info.weights_sha256
        for i, s in enumerate((1.0, 1.0, 2.0))
    }
    assert len(hashes) == 2


def test_hash_follows_weights_in_files_of_any_name(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    hashes = []
    for scale in (1.0, 2.0):
        folder = tiny.byname_folder(tmp_path / str(scale), tiny.visual(scale=scale))
        model = onnx.load(folder / "visual.onnx")
        onnx.save_model(
            model,
            folder / "visual.onnx",
            save_as_external_data=True,
            location="weights.bin",
            size_threshold=0,
        )
        hashes.append(OnnxEncoder(folder).info.weights_sha256)
        (folder / "visual.int8.onnx").write_bytes(b"not the model's")
        assert OnnxEncoder(folder).info.weights_sha256 == hashes[-1]
    assert hashes[0] != hashes[1]


def test_load_encoder_takes_folders(tmp_path: Path) -> None:
    folder = tiny.byname_folder(tmp_path / "enc")
    for spec in (folder, str(folder), f"onnx:{folder}"):
        encoder = load_encoder(spec)
        assert encoder.info.id == "onnx:enc"
    assert load_encoder(encoder) is encoder


@pytest.mark.parametrize(
    ("make", "missing", "layout"),
    [
        (tiny.byname_folder, "tokenizer.json", "byname"),
        (tiny.transformers_folder, "onnx/text_model.onnx", "transformers"),
        (tiny.open_clip_folder, "visual/preprocess_cfg.json", "open_clip"),
    ],
)
def test_missing_file_is_named(tmp_path: Path, make: Any, missing: str, layout: str) -> None:
    folder = make(tmp_path)
    (folder / missing).unlink()
    with pytest.raises(EncoderError) as caught:
        OnnxEncoder(folder)
    message = str(caught.value)
    assert f"{missing} is missing from what looks like the {layout} layout" in message
    assert "it holds" in message


def test_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(EncoderError, match=r"no layout fits; it holds notes\.txt"):
        OnnxEncoder(tmp_path)
    with pytest.raises(EncoderError, match="there is no such folder"):
        OnnxEncoder(tmp_path / "absent")
    for i in range(10):
        (tmp_path / f"{i}.txt").write_text("x")
    with pytest.raises(EncoderError, match=r"6\.txt, 7\.txt, and 3 more\. Known"):
        OnnxEncoder(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not a model", "half"])
def test_truncated_or_foreign_onnx(tmp_path: Path, content: bytes | str) -> None:
    data = tiny.visual()
    model = content if isinstance(content, bytes) else data[: len(data) // 2]
    folder = tiny.byname_folder(tmp_path)
    (folder / "visual.onnx").write_bytes(model)
    with pytest.raises(EncoderError, match=r"cannot load '.*visual\.onnx': onnxruntime refused it"):
        OnnxEncoder(folder)


def test_towers_of_different_width(tmp_path: Path) -> None:
    folder = tiny.byname_folder(tmp_path, tiny.visual(dim=6))
    with pytest.raises(EncoderError, match="image vectors have width 6, its text vectors 4"):
        OnnxEncoder(folder)


@pytest.mark.parametrize(
    ("scale", "seen"), [(float("nan"), "NaN or infinite numbers"), (0.0, "only zeros")]
)
def test_useless_vectors_are_named(tmp_path: Path, scale: float, seen: str) -> None:
    folder = tiny.byname_folder(tmp_path, tiny.visual(scale=scale), tiny.textual(scale=scale))
    encoder = OnnxEncoder(folder)
    with pytest.raises(EncoderError, match=rf"{seen} for row 0, 5 of 5 rows are unusable"):
        encoder.encode_images(PIXELS)
    with pytest.raises(EncoderError, match=rf"{seen} for row 0 \('dog'\)"):
        encoder.encode_texts(["dog"])


def test_wrong_pixels_and_texts(tmp_path: Path) -> None:
    encoder = OnnxEncoder(tiny.byname_folder(tmp_path))
    with pytest.raises(EncoderError, match=r"got float64 pixels of shape \(1, 8, 8, 3\)"):
        encoder.encode_images(np.zeros((1, 8, 8, 3)))  # type: ignore[arg-type]
    with pytest.raises(EncoderError, match=r"shape \(8, 8, 3\).*\(B, 8, 8, 3\)"):
        encoder.encode_images(np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(EncoderError, match="got a single string"):
        encoder.encode_texts("dog")
    with pytest.raises(EncoderError, match="not a string"):
        encoder.encode_texts([1])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("changes", "seen"),
    [
        ({"size": "big"}, "a description in it does not fit"),
        ({"interpolation": "magic"}, "interpolation is 'magic'"),
        ({"resize_mode": "longest"}, "mode is 'longest'"),
        ({"std": [1, 1, 0]}, "std is"),
        ({"activation": "tanh"}, r"preprocess\.json': its activation is 'tanh'. It is softmax or"),
        ({"logit_scale": "NaN"}, r"preprocess\.json': its logit_scale is nan. It is a finite num"),
        ({"logit_scale": 0}, "its logit_scale is 0.0. It is a finite number above 0"),
        ({"logit_scale": -1}, "its logit_scale is -1.0"),
        ({"logit_bias": "inf"}, "its logit_bias is inf. It is a finite number"),
        ({"context_length": 0}, "its context_length is 0. It is None or a whole number from 2"),
        ({"context_length": 10**12}, "its context_length is 1000000000000"),
        ({"context_length": 1e999}, "a description in it does not fit"),
        ({"pad_id": 2**63}, "its pad_id is 9223372036854775808"),
        ({"pad_id": -1}, "its pad_id is -1"),
        ({"size": 16, "resize": 16}, "its description says 16 x 16"),
    ],
)
def test_bad_descriptions(tmp_path: Path, changes: dict[str, Any], seen: str) -> None:
    folder = tiny.byname_folder(tmp_path, **changes)
    with pytest.raises(EncoderError, match=seen):
        OnnxEncoder(folder)


def test_missing_fields_are_named(tmp_path: Path) -> None:
    folder = tiny.byname_folder(tmp_path)
    (folder / "preprocess.json").write_text('{"size": 32}')
    with pytest.raises(EncoderError) as caught:
        OnnxEncoder(folder)
    assert str(caught.value) == (
        f"cannot read '{folder / 'preprocess.json'}': it lacks mean and std. "
        "Add what the model was trained with."
    )
    other = tiny.transformers_folder(tmp_path / "b")
    (other / "preprocessor_config.json").write_text('{"size": {"height": 8, "width": 8}}')
    with pytest.raises(EncoderError, match="it lacks image_mean and image_std"):
        OnnxEncoder(other)


def test_damaged_json_and_tokenizer(tmp_path: Path) -> None:
    folder = tiny.byname_folder(tmp_path)
    (folder / "tokenizer.json").write_bytes(b'{"a": "caf\xe9"}')
    with pytest.raises(
        EncoderError, match=r"tokenizer\.json': byte 0xe9 at offset 10 is not UTF-8"
    ):
        OnnxEncoder(folder)
    for deep in ("[" * 200_000, '{"version": ' + "[" * 200_000):
        (folder / "tokenizer.json").write_text(deep)
        with pytest.raises(EncoderError, match=r"tokenizer\.json': it is not a tokenizer"):
            OnnxEncoder(folder)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(EncoderError, match=r"tokenizer\.json': it is not a tokenizer"):
        OnnxEncoder(folder)
    (folder / "preprocess.json").write_text("{")
    with pytest.raises(EncoderError, match=r"preprocess\.json': it is not JSON"):
        OnnxEncoder(folder)
    (folder / "preprocess.json").write_text("[" * 200_000)
    with pytest.raises(EncoderError, match=r"json': it is not JSON \(it is nested too deeply\)"):
        OnnxEncoder(folder)


def test_graphs_that_ask_for_something_else(tmp_path: Path) -> None:
    folder = tiny.byname_folder(tmp_path, None, tiny.textual(extra="position_ids"))
    with pytest.raises(EncoderError, match="it wants the input position_ids"):
        OnnxEncoder(folder)
    model = tiny.visual(output="x", second_output=True)
    with pytest.raises(EncoderError, match=r"its outputs are p .*, x "):
        OnnxEncoder(tiny.byname_folder(tmp_path / "b", model))


def test_device_that_is_not_there(tmp_path: Path) -> None:
    import onnxruntime

    folder = tiny.byname_folder(tmp_path)
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        with pytest.raises(EncoderError, match="on device 'cuda': onnxruntime offers"):
            OnnxEncoder(folder, device="cuda")
    with pytest.raises(EncoderError, match="on device 'tpu'"):
        OnnxEncoder(folder, device="tpu")


@pytest.mark.parametrize(
    ("changes", "seen"),
    [
        ({"size": {"shortest_edge": 18.9}}, "size is 18.9, not a whole number"),
        ({"size": {"longest_edge": 8}, "crop_size": 8}, "'height'"),
        ({"crop_size": "8"}, "size is '8', not a whole number"),
        ({"resample": 2.7}, "resample is 2.7, not a whole number"),
        ({"do_resize": "false"}, "do_resize is 'false', neither true nor false"),
        ({"do_normalize": 0}, "do_normalize is 0, neither true nor false"),
        ({"do_flip_channel_order": True}, "do_flip_channel_order is not supported"),
        ({"do_pad": True}, "do_pad is not supported"),
        ({"image_std": [127.5] * 3}, "std is .*, as if pixels went to 255"),
        ({"size": 10**7}, "resize is 10000000. It is a whole number of pixels, 1 to 4096"),
    ],
)
def test_recipes_of_pixels_that_do_not_fit(
    tmp_path: Path, changes: dict[str, Any], seen: str
) -> None:
    place = tiny.transformers_folder(tmp_path) / "preprocessor_config.json"
    place.write_text(json.dumps(json.loads(place.read_text()) | changes))
    with pytest.raises(EncoderError, match=f"does not fit.*{seen}"):
        OnnxEncoder(tmp_path)


def test_switches_that_are_off_do_not_matter(tmp_path: Path) -> None:
    place = tiny.transformers_folder(tmp_path) / "preprocessor_config.json"
    off = {"do_pad": None, "do_flip_channel_order": False, "do_convert_rgb": True, "resample": 3.0}
    place.write_text(json.dumps(json.loads(place.read_text()) | off))
    assert OnnxEncoder(tmp_path).info.preprocess.interpolation == "bicubic"


def test_an_open_clip_folder_that_contradicts_itself(tmp_path: Path) -> None:
    place = tiny.open_clip_folder(tmp_path) / "config.json"
    config = json.loads(place.read_text())
    place.write_text(json.dumps(config | {"vision_cfg": {"image_size": 32}}))
    with pytest.raises(EncoderError, match=r"has size 8, config\.json image_size 32"):
        OnnxEncoder(tmp_path)
    place.write_text(json.dumps(config | {"vision_cfg": {"image_size": [8, 8]}}))
    assert OnnxEncoder(tmp_path).info.dim == tiny.DIM
