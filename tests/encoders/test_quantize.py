"""int8 copies: what they are made of, when they are made, and whether they are kept."""

from __future__ import annotations

import errno
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="quantising needs the package onnx")

from byname.cache import cache_entries, clear_cache
from byname.classifier import Classifier
from byname.embeddings import Embeddings
from byname.encoders import load_encoder, precision, quantize
from byname.encoders.onnx import OnnxEncoder
from byname.encoders.precision import Verdict, settle
from byname.errors import CacheError, EncoderError, EncoderUnavailableError
from byname.inputs import settled
from tests.encoders import tiny
from tests.helpers import make_photos

PIXELS = np.random.default_rng(1).integers(0, 256, (21, 8, 8, 3), dtype=np.uint8)
TEXTS = ["a photo of a dog .", "dog", "a cat", "a photo of a cat"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BYNAME_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def patches(
    *,
    stride: int = 4,
    cast: bool = False,
    shape: bool = False,
    batch: int | str = "batch",
    element: str = "FLOAT",
) -> bytes:
    """An image tower that begins as vision transformers do: a convolution of tiles."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(2)
    make = helper.make_node
    nodes, x = [], "pixel_values"
    if cast:
        nodes.append(make("Cast", [x], ["x"], to=TensorProto.FLOAT))
        x = "x"
    if shape:
        nodes += [
            make("Shape", ["pixel_values"], ["shape"]),
            make("Gather", ["shape", "first"], ["rows"]),
            make("Concat", ["rows", "rest"], ["wanted"], axis=0),
        ]
    nodes += [
        make("Conv", [x, "kernel", "bias"], ["tiles"], strides=[stride, stride]),
        make("GlobalAveragePool", ["tiles"], ["pooled"]),
        make("Reshape", ["pooled", "wanted" if shape else "flat"], ["features"]),
        make("MatMul", ["features", "w"], ["image_embeds"]),
    ]
    constants = {
        "kernel": rng.normal(size=(6, 3, 4, 4)).astype(np.float32),
        "bias": rng.normal(size=6).astype(np.float32),
        "w": rng.normal(size=(6, tiny.DIM)).astype(np.float32),
        "flat": np.array([-1, 6], np.int64),
        "first": np.array([0], np.int64),
        "rest": np.array([6], np.int64),
    }
    used = {name for node in nodes for name in node.input}
    values = [numpy_helper.from_array(a, n) for n, a in constants.items() if n in used]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "patches",
        [info("pixel_values", getattr(TensorProto, element), [batch, 3, 8, 8])],
        [info("image_embeds", TensorProto.FLOAT, [batch, tiny.DIM])],
        values,
    )
    opsets = [helper.make_opsetid("", 17)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


def pair(folder: Path, model: bytes | None = None, **changes: Any) -> tuple[OnnxEncoder, ...]:
    made = tiny.byname_folder(folder, model or patches(), **changes)
    return OnnxEncoder(made), OnnxEncoder(made, precision="int8")


@pytest.mark.parametrize("batch", ["batch", 1, 3])
@pytest.mark.parametrize("options", [{}, {"cast": True}, {"shape": True}])
def test_tiles_become_a_product_of_pixels(
    tmp_path: Path, options: dict[str, bool], batch: int | str
) -> None:
    exact, int8 = pair(tmp_path / "enc", patches(batch=batch, **options))
    assert (int8._images.dtype, int8._images.channels_last) == (np.uint8, True)
    X, X8 = exact.encode_images(PIXELS), int8.encode_images(PIXELS)
    assert np.einsum("nd,nd->n", X, X8).min() > 0.999
    assert not np.array_equal(X, X8)


@pytest.mark.parametrize(
    "model",
    [
        patches(stride=2),
        patches(cast=True, element="UINT8"),
        tiny.visual(),
        tiny.visual(kind="uint8"),
    ],
)
def test_other_graphs_keep_their_input(tmp_path: Path, model: bytes) -> None:
    exact, int8 = pair(tmp_path / "enc", model)
    assert int8._images.name == exact._images.name
    assert int8._images.dtype is exact._images.dtype
    X, X8 = exact.encode_images(PIXELS), int8.encode_images(PIXELS)
    assert np.einsum("nd,nd->n", X, X8).min() > 0.999


def test_an_edge_less_grey_image_keeps_its_offset(tmp_path: Path) -> None:
    """The mean that is folded into the bias, alone: weights times zero pixels."""
    exact, int8 = pair(tmp_path / "enc")
    for grey in (0, 114, 255):
        flat = np.full((1, 8, 8, 3), grey, np.uint8)
        assert exact.encode_images(flat)[0] @ int8.encode_images(flat)[0] > 0.999


def test_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny.byname_folder(tmp_path / "enc", patches())
    first = OnnxEncoder(folder, precision="int8").encode_images(PIXELS)
    monkeypatch.setattr(quantize, "_quantise", None)
    monkeypatch.setitem(sys.modules, "onnx", None)
    again = OnnxEncoder(folder, precision="int8")
    np.testing.assert_array_equal(again.encode_images(PIXELS), first)


@pytest.mark.parametrize("damage", ["cut", "no card", "bad card", "gone"])
def test_a_damaged_copy_is_made_again(tmp_path: Path, damage: str) -> None:
    folder = tiny.byname_folder(tmp_path / "enc", patches())
    first = OnnxEncoder(folder, precision="int8")
    place, wanted = first.int8_folder, first.encode_images(PIXELS)
    assert place is not None
    if damage == "cut":
        (place / "visual.onnx").write_bytes((place / "visual.onnx").read_bytes()[:50])
    elif damage == "gone":
        assert clear_cache("int8") > 0
    else:
        (place / "int8.json").write_text("[" if damage == "bad card" else "")
    again = OnnxEncoder(folder, precision="int8")
    np.testing.assert_array_equal(again.encode_images(PIXELS), wanted)


def test_caches_never_mix(tmp_path: Path) -> None:
    exact, int8 = pair(tmp_path / "enc", id="mine")
    assert exact.info.image_fingerprint() != int8.info.image_fingerprint()
    assert exact.info.text_fingerprint() != int8.info.text_fingerprint()
    assert exact.info.id == int8.info.id == "mine"
    back = int8.exact()
    assert back.info == exact.info
    np.testing.assert_array_equal(back.encode_images(PIXELS), exact.encode_images(PIXELS))
    assert [e.kind for e in cache_entries()] == ["int8"]


@pytest.mark.parametrize("kind", ["causal", "all"])
def test_texts_are_cut_as_in_fp32(tmp_path: Path, kind: str) -> None:
    """Rounding would make every padding look harmful."""
    folder = tiny.byname_folder(tmp_path, patches(), tiny.textual(kind=kind))
    exact, int8 = OnnxEncoder(folder), OnnxEncoder(folder, precision="int8")
    assert int8._texts.cut is exact._texts.cut is (kind == "causal")
    cosines = (exact.encode_texts(TEXTS) * int8.encode_texts(TEXTS)).sum(1)
    assert cosines.min() > 0.999


def test_without_onnx_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny.byname_folder(tmp_path)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(EncoderUnavailableError) as caught:
        load_encoder(folder, precision="int8")
    assert "the package 'onnx' is missing" in str(caught.value)
    assert 'pip install "byname[export]"' in str(caught.value)


def test_no_such_precision(tmp_path: Path) -> None:
    with pytest.raises(EncoderError) as caught:
        OnnxEncoder(tmp_path, precision="int4")
    assert caught.value.seen == "there is no precision 'int4'"
    assert caught.value.do == "It is fp32, int8, int8-unchecked."


def test_a_graph_that_cannot_be_quantised(tmp_path: Path) -> None:
    folder = tiny.write(tiny.byname_folder(tmp_path), {"visual.onnx": b"no graph"})
    with pytest.raises(EncoderError) as caught:
        OnnxEncoder(folder, precision="int8")
    assert "'visual.onnx' cannot be quantised (" in caught.value.seen
    assert not list(tmp_path.rglob("int8.json"))


@pytest.mark.parametrize("broken", ["file", "lock", "graph", "card"])
def test_a_cache_that_cannot_be_written(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    folder = tiny.byname_folder(tmp_path / "enc", patches())

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if broken == "file":
        cache.mkdir()
        (cache / "int8").write_text("")
    elif broken == "lock":
        monkeypatch.setattr(quantize, "FileLock", full)
    elif broken == "graph":
        monkeypatch.setattr("onnxruntime.quantization.quantize_dynamic", full)
    else:
        monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(CacheError) as caught:
        OnnxEncoder(folder, precision="int8")
    assert caught.value.asked == f"keep the int8 graphs in '{cache / 'int8'}'"
    assert broken == "file" or caught.value.seen == "No space left on device"
    assert caught.value.do == "Make room there, or set BYNAME_CACHE to another folder."


def test_a_graph_that_cannot_be_read(tmp_path: Path) -> None:
    """Which is not the cache's fault."""
    with pytest.raises(EncoderError) as caught:
        quantize._quantise(tmp_path / "gone.onnx", tmp_path / "made.onnx", None)
    assert caught.value.asked == f"read '{tmp_path / 'gone.onnx'}'"


# The check


def never(most: int) -> np.ndarray:
    raise AssertionError("the images were read again")


def test_a_good_copy_is_kept_and_remembered(tmp_path: Path) -> None:
    int8 = pair(tmp_path / "enc")[1]
    names = ["dog", "cat", "dog"]
    found, verdict = settle(int8, lambda most: PIXELS[:most], names, "these")
    assert found is int8
    assert verdict.kept
    assert (verdict.images, verdict.top1) == (len(PIXELS), 1.0)
    assert verdict.cosine is not None
    assert 0.999 < verdict.cosine < 1.0
    assert verdict.text_cosine == pytest.approx(1.0, abs=1e-5)
    assert settle(int8, never, names, "these") == (int8, verdict)
    for other in (("these", ["dog"]), ("those", names), ("", names)):
        with pytest.raises(AssertionError, match="read again"):
            settle(int8, never, other[1], other[0])


def test_without_classes_only_the_cosine_counts(tmp_path: Path) -> None:
    int8 = pair(tmp_path / "enc")[1]
    verdict = settle(int8, lambda most: PIXELS[:most])[1]
    assert (verdict.kept, verdict.top1, verdict.text_cosine) == (True, None, None)
    assert "top-1" not in verdict.in_words()


@pytest.mark.parametrize(("limit", "value"), [("MIN_COSINE", 1.1), ("MIN_TOP1", 1.1)])
def test_a_bad_copy_gives_way_to_fp32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: float
) -> None:
    monkeypatch.setattr(precision, limit, value)
    exact, int8 = pair(tmp_path / "enc")
    for sample in (lambda most: PIXELS[:most], never):
        with pytest.warns(UserWarning, match="so fp32 is used"):
            found, verdict = settle(int8, sample, ["dog", "cat"], "these")
        assert not verdict.kept
        assert found.precision == "fp32"
        assert found.info == exact.info


def test_no_image_no_check(tmp_path: Path) -> None:
    int8 = pair(tmp_path / "enc")[1]
    with pytest.warns(UserWarning, match="int8 was not checked, because there were no usable"):
        found, verdict = settle(int8, lambda most: PIXELS[:0], identity="x")
    assert (found.precision, verdict) == ("fp32", Verdict(False, 0))


def test_an_image_that_an_encoder_fails_on_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It becomes a row with an error when it is encoded; the others are compared."""
    int8 = pair(tmp_path / "enc")[1]
    wanted = settle(int8, lambda most: PIXELS[:4], ["dog", "cat"])[1]
    bad, encode = np.full_like(PIXELS[0], 7), OnnxEncoder.encode_images

    def failing(self: OnnxEncoder, pixels: np.ndarray) -> np.ndarray:
        if (pixels == bad).all(axis=(1, 2, 3)).any():
            raise EncoderError("encode images", "the model answered NaN for row 0", "Export it.")
        return encode(self, pixels)

    monkeypatch.setattr(OnnxEncoder, "encode_images", failing)
    found, verdict = settle(int8, lambda most: np.stack([bad, *PIXELS[:4]]), ["dog", "cat"])
    assert found is int8
    assert (verdict.images, verdict.top1) == (4, wanted.top1)
    assert verdict.cosine == pytest.approx(wanted.cosine, abs=1e-3)
    with pytest.warns(UserWarning, match="no usable images"):
        assert settle(int8, lambda most: bad[None])[1] == Verdict(False, 0)


def test_images_of_every_form_are_checked(tmp_path: Path) -> None:
    from PIL import Image

    from byname.images.sources import open_source

    exact, int8 = pair(tmp_path / "enc")
    photos = make_photos(tmp_path / "photos", 5)
    (photos / "0000a.jpg").write_bytes(b"bad")
    forms: list[Any] = [
        open_source(photos),
        PIXELS,
        [Image.fromarray(p) for p in PIXELS],
        list(PIXELS),
    ]
    for form, count in zip(forms, (5, 21, 21, 21), strict=True):
        _, verdict = settled(int8, form, ["dog", "cat"])
        assert verdict is not None
        assert verdict.images == count
    assert settled(exact, PIXELS) == (exact, None)
    unchecked = OnnxEncoder(tmp_path / "enc", precision="int8-unchecked")
    assert settled(unchecked, PIXELS) == (unchecked, None)


def test_the_classifier_checks_on_the_images_it_is_given(tmp_path: Path) -> None:
    folder = tiny.byname_folder(tmp_path / "enc", patches())
    model = Classifier(["dog", "cat"], folder, precision="int8", cache=False).fit(PIXELS)
    assert model.verdict_ is not None
    assert model.verdict_.kept
    assert model.encoder_.precision == "int8"  # type: ignore[attr-defined]
    assert len(model.predict(PIXELS)) == len(PIXELS)
    # vectors that it stored itself need no check
    stored = model.embed(PIXELS)
    assert model.predict(stored).shape == (len(PIXELS),)
    model.set_params(precision=None).fit(PIXELS)
    assert model.verdict_ is None


def test_nothing_to_check_on_is_no_verdict(tmp_path: Path) -> None:
    folder = tiny.byname_folder(tmp_path / "enc", patches())
    model = Classifier(["dog", "cat"], folder, precision="int8", cache=False)
    with pytest.warns(UserWarning, match="int8 was not checked"):
        model.fit()
    assert model.verdict_ is not None
    assert (model.verdict_.images, model.encoder_.precision) == (0, "fp32")  # type: ignore[attr-defined]
    model.fit(PIXELS)
    assert (model.verdict_.images, model.encoder_.precision) == (len(PIXELS), "int8")  # type: ignore[attr-defined]
    made = model.embed(PIXELS)
    stored = Embeddings(made.keys, made.vectors, "mine", model.encoder_.info.image_fingerprint())
    with pytest.warns(UserWarning, match="int8 was not checked with these classes"):
        Classifier(["dog", "cat"], folder, precision="int8", cache=False).predict(stored)


def test_grey_arrays_are_images_to_check_on(tmp_path: Path) -> None:
    folder = tiny.byname_folder(tmp_path / "enc", patches())
    model = Classifier(["dog", "cat"], folder, precision="int8", cache=False)
    model.predict(np.arange(3 * 64 * 64, dtype=np.uint32).astype(np.uint8).reshape(3, 64, 64))
    assert model.verdict_ is not None
    assert model.verdict_.images == 3


def test_the_run_record_tells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from byname import commands

    folder = tiny.byname_folder(tmp_path / "enc", patches())
    photos, out = make_photos(tmp_path / "photos", 5), tmp_path / "out.parquet"
    commands.embed(
        str(photos),
        out,
        encoder=f"onnx:{folder}",
        image_column=None,
        batch_size=32,
        threads=None,
        device="cpu",
        cache=True,
        quiet=False,
        precision="int8",
    )
    record = json.loads(Path(f"{out}.run.json").read_text())
    assert record["int8"]["kept"] is True
    assert record["int8"]["images"] == 5
    assert "int8 checked against fp32 on 5 of these images: cosine" in capsys.readouterr().err
