"""Tables of vectors: looked up exactly, checked before use; rs19 reproduces its reference."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from byname.encoders import Encoder, load_encoder
from byname.encoders.precomputed import PrecomputedEncoder
from byname.errors import EncoderError, UnsafeFileError

NAMES = ["cat", "dog", "cow"]
VECTORS = np.array([[3, 0], [0, 2], [1, 1]], np.float32)


@given(st.permutations(NAMES), st.floats(0.01, 1000))
def test_lookup_is_exact_and_unit(order: list[str], length: float) -> None:
    encoder = PrecomputedEncoder.from_arrays(NAMES, VECTORS * length)
    got = encoder.encode_texts(order)
    want = VECTORS[[NAMES.index(n) for n in order]]
    want = want / np.linalg.norm(want, axis=1, keepdims=True)
    np.testing.assert_allclose(got, want, atol=1e-6)
    assert got.dtype == np.float32


def test_card() -> None:
    encoder = PrecomputedEncoder.from_arrays(NAMES, VECTORS, logit_scale=50, id="mine")
    assert (encoder.info.id, encoder.info.dim, encoder.info.logit_scale) == ("mine", 2, 50.0)
    assert encoder.info.preprocess is None
    assert encoder.encode_texts([]).shape == (0, 2)
    other = PrecomputedEncoder.from_arrays(NAMES, VECTORS[::-1], id="mine")
    assert encoder.info.text_fingerprint() != other.info.text_fingerprint()


def test_unknown_texts_are_named() -> None:
    encoder = PrecomputedEncoder.from_arrays(NAMES, VECTORS)
    with pytest.raises(EncoderError) as caught:
        encoder.encode_texts(["cat", "Cat", "eel", "ant", "elk", "eel"])
    assert "its table of 3 texts lacks 'Cat', 'eel', 'ant' and 1 more" in str(caught.value)


def test_takes_no_pixels() -> None:
    encoder = PrecomputedEncoder.from_arrays(NAMES, VECTORS)
    with pytest.raises(EncoderError, match="takes no pixels"):
        encoder.encode_images(np.zeros((1, 2, 2, 3), np.uint8))


def test_a_row_of_zeros_stays_zero() -> None:
    encoder = PrecomputedEncoder.from_arrays(["a", "b"], [[0, 0], [2, 0]])
    assert encoder.encode_texts(["a", "b"]).tolist() == [[0, 0], [1, 0]]


@pytest.mark.parametrize(
    ("names", "vectors", "seen"),
    [
        (NAMES, VECTORS[:2], r"shape \(2, 2\) for 3 names"),
        (NAMES, VECTORS[0], r"shape \(2,\) for 3 names"),
        (["a"], [["x", "y"]], "<U1"),
        (["a", "b", "a"], VECTORS, "'a' names row 0 and row 2"),
        (["a", "b"], [[1, 0], [np.nan, 0]], r"row 1 \('b'\) holds NaN or infinite"),
        (["a", "b"], [[np.inf, 0], [1, 0]], r"row 0 \('a'\) holds NaN or infinite"),
    ],
)
def test_bad_tables(names: list[str], vectors: Any, seen: str) -> None:
    with pytest.raises(EncoderError, match=seen):
        PrecomputedEncoder.from_arrays(names, vectors)


def test_objects_are_refused() -> None:
    with pytest.raises(UnsafeFileError, match="Python objects, not numbers"):
        PrecomputedEncoder.from_arrays(["a"], np.array([[None, 1]], object))


def test_widths_of_images_and_texts_must_agree() -> None:
    with pytest.raises(EncoderError, match="image vectors have width 3, the text vectors 2"):
        PrecomputedEncoder((NAMES, VECTORS), (["a.jpg"], np.ones((1, 3))))


def test_another_encoder_for_the_texts() -> None:
    table = PrecomputedEncoder.from_arrays(NAMES, VECTORS, logit_scale=7)
    encoder = PrecomputedEncoder(images=(["a.jpg"], [[0, 2]]), text_encoder=table)
    np.testing.assert_array_equal(encoder.encode_texts(["dog"]), [[0, 1]])
    assert encoder.info.logit_scale == 7
    assert encoder.image_names == ("a.jpg",)
    np.testing.assert_array_equal(encoder.image_vectors, [[0, 1]])
    for arguments in ({}, {"texts": (NAMES, VECTORS), "text_encoder": table}):
        with pytest.raises(EncoderError, match="either text vectors or a text encoder"):
            PrecomputedEncoder(**arguments)  # type: ignore[arg-type]


def folder(path: Path, names: str = "txt", images: str | None = None) -> Path:
    np.save(path / "texts.npy", VECTORS)
    text = "\n".join(NAMES) + "\n" if names == "txt" else json.dumps(NAMES)
    (path / f"texts.{names}").write_text(text, encoding="utf-8")
    if images == "npy":
        np.save(path / "images.npy", VECTORS)
        (path / "images.txt").write_text("a.jpg\nb.jpg\nc.jpg\n")
    if images == "parquet":
        table = {"file_name": ["a.jpg", "b.jpg", "c.jpg"], "vector": VECTORS.tolist()}
        pq.write_table(pa.table(table), path / "images.parquet")
    return path


@pytest.mark.parametrize("names", ["txt", "json"])
@pytest.mark.parametrize("images", [None, "npy", "parquet"])
def test_folders(tmp_path: Path, names: str, images: str | None) -> None:
    path = folder(tmp_path, names, images)
    (path / "encoder.json").write_text('{"id": "mine", "logit_scale": 20, "other": 1}')
    for spec in (f"precomputed:{path}", str(path), path):
        encoder = load_encoder(spec)
        assert isinstance(encoder, PrecomputedEncoder)
        assert (encoder.info.id, encoder.info.logit_scale) == ("mine", 20.0)
        np.testing.assert_array_equal(encoder.encode_texts(["dog"]), [[0, 1]])
        assert encoder.image_names == (("a.jpg", "b.jpg", "c.jpg") if images else ())
    one = load_encoder(f"precomputed:{path / 'texts.npy'}")
    assert one.info.dim == 2


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="there is no such file or folder"):
        load_encoder(f"precomputed:{tmp_path / 'absent'}")
    with pytest.raises(EncoderError, match=r"texts\.npy, texts\.txt or texts\.json is missing"):
        load_encoder(f"precomputed:{tmp_path}")
    np.save(tmp_path / "texts.npy", VECTORS)
    with pytest.raises(EncoderError, match=r": texts\.txt or texts\.json is missing"):
        load_encoder(f"precomputed:{tmp_path}")


class _Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return Path.touch, (self.path,)


def test_hostile_npy_is_refused_and_never_runs(tmp_path: Path) -> None:
    path = folder(tmp_path)
    trap = tmp_path / "executed"
    np.save(path / "texts.npy", np.array([_Trap(trap)] * 3, object), allow_pickle=True)
    with pytest.raises(UnsafeFileError, match=r"texts\.npy': it holds Python objects"):
        load_encoder(path)
    (path / "texts.npy").write_bytes(b"\x80\x04c" + b"posix\nsystem\n")
    with pytest.raises((UnsafeFileError, EncoderError), match=r"texts\.npy'"):
        load_encoder(path)
    assert not trap.exists()


def npy_head(shape: tuple[int, int]) -> bytes:
    """The header of an array of that shape, and nothing of the array."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        head, {"descr": "<f4", "fortran_order": False, "shape": shape}
    )
    return head.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "seen"),
    [
        ("texts.npy", b"", r"texts\.npy': it is not an \.npy array"),
        ("texts.npy", b"\x93NUMPY\x01\x00", r"texts\.npy': it is not an \.npy array"),
        ("texts.npy", npy_head((100_000_000_000, 1000)), r"texts\.npy': it is not an \.npy array"),
        ("texts.npy", npy_head((2**62, 2**62)), r"texts\.npy': it is not an \.npy array"),
        ("texts.npy", npy_head((-1, 2)), r"texts\.npy': it is not an \.npy array"),
        ("texts.txt", b"caf\xe9\n", r"texts\.txt': byte 0xe9 at offset 3 is not UTF-8\. Save it"),
        ("images.parquet", b"PAR1", r"images\.parquet': it is not a table of vectors"),
        ("encoder.json", b'{"logit_scale": "x"}', r"encoder\.json': it does not fit"),
        ("encoder.json", b"{", r"encoder\.json': it is not JSON \(.*\)\. Expected a JSON object"),
        ("encoder.json", b"[" * 200_000, r"encoder\.json': it is not JSON \(it is nested too deep"),
        ("encoder.json", b"\xff", r"encoder\.json': byte 0xff at offset 0 is not UTF-8"),
        ("encoder.json", b'{"logit_scale": "NaN"}', r"encoder\.json': its logit_scale is nan\. It"),
        ("encoder.json", b'{"logit_scale": -1}', "its logit_scale is -1.0. It is a finite number"),
        ("encoder.json", b'{"logit_bias": Infinity}', "its logit_bias is inf. It is a finite num"),
        ("encoder.json", b"[]", r"encoder\.json': it does not fit"),
    ],
)
def test_damaged_files(tmp_path: Path, name: str, content: bytes, seen: str) -> None:
    path = folder(tmp_path)
    (path / name).write_bytes(content)
    with pytest.raises(EncoderError, match=seen):
        load_encoder(path)


def test_texts_nested_too_deeply(tmp_path: Path) -> None:
    path = folder(tmp_path, "json")
    (path / "texts.json").write_text("[" * 200_000)
    with pytest.raises(EncoderError) as caught:
        load_encoder(path)
    assert str(caught.value) == (
        f"cannot read '{path / 'texts.json'}': it is not JSON (it is nested too deeply). "
        "Save it again as UTF-8."
    )


def test_an_empty_table(tmp_path: Path) -> None:
    np.save(tmp_path / "texts.npy", np.zeros((0, 5), np.float32))
    (tmp_path / "texts.txt").write_text("")
    assert load_encoder(tmp_path).encode_texts([]).shape == (0, 5)
    np.save(tmp_path / "texts.npy", np.zeros((0, 0), np.float32))
    with pytest.raises(EncoderError, match=r"its dim is 0\. It is a whole number, 1 or more"):
        load_encoder(tmp_path)


def test_an_archive_is_not_an_array(tmp_path: Path) -> None:
    path = folder(tmp_path)
    np.savez(tmp_path / "x.npz", VECTORS)
    (tmp_path / "x.npz").replace(path / "texts.npy")
    with pytest.raises(EncoderError, match="an archive of several arrays"):
        load_encoder(path)


@pytest.mark.parametrize(
    ("name", "want"), [("RN50", 0.7154), ("ViT-B-32", 0.8129), ("ViT-L-14", 0.8547)]
)
def test_rs19_mean_ensemble(shared: Path, name: str, want: float) -> None:
    files = sorted((shared / "rs19").glob("*.npz"))
    path = next((f for f in files if _plain(name) in _plain(f.stem)), None)
    assert path is not None, f"{name} is not among {[f.name for f in files]}"
    with np.load(path, allow_pickle=False) as task:
        data = {key: task[key] for key in ("images", "texts", "labels", "classes", "templates")}
    filled = [str(t).format(str(c)) for t in data["templates"] for c in data["classes"]]
    rows = data["texts"].reshape(len(filled), -1)
    encoder: Encoder = PrecomputedEncoder.from_arrays(filled, rows)
    vectors = encoder.encode_texts(filled).reshape(data["texts"].shape).mean(axis=0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    guess = (data["images"].astype(np.float32) @ vectors.T).argmax(axis=1)
    assert (guess == data["labels"]).mean() == pytest.approx(want, abs=0.001)


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


def test_lookup_by_full_name_else_by_unique_base_name() -> None:
    names = ["a/1.jpg", "b/1.jpg", "b/2.jpg"]
    encoder = PrecomputedEncoder((["x"], [[1.0, 0.0, 0.0]]), (names, np.eye(3)))
    vectors, errors = encoder.lookup(["b/1.jpg", "2.jpg", "1.jpg"])
    assert vectors.tolist() == [[0, 1, 0], [0, 0, 1]]
    assert errors == {"1.jpg": "'precomputed' holds no vector for it"}
    with pytest.raises(EncoderError, match=r"none of them .* 3 image vectors; .* 'z\.jpg'"):
        encoder.lookup(["z.jpg"])
    assert encoder.lookup([])[0].shape == (0, 3)
