"""Files of numbers: Parquet, .npy, .npz, .pth, and parts of runs."""

from __future__ import annotations

import io
import json
import zipfile
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from byname.embeddings import Embeddings, is_embeddings_file
from byname.encoders.legacy_pth import read_legacy_pth
from byname.encoders.precomputed import PrecomputedEncoder
from byname.extrafiles import read_class_probs
from byname.images.lists import read_list
from byname.rows import read_rows
from byname.taskfile import Task
from tests.fuzz.harness import Target, attempt, cards, spoilt

__all__ = ["TARGETS", "npz_of", "with_header"]


# -- Parquet

_COLUMNS = {
    "text": pa.array(["a", "b"]),
    "hole": pa.array(["a", None]),
    "odd text": pa.StringArray.from_buffers(
        2, pa.py_buffer(np.array([0, 1, 2], np.int32)), pa.py_buffer(b"\xff\xfe")
    ),
    "none": pa.array([None, None], pa.string()),
    "vectors": pa.FixedSizeListArray.from_arrays(pa.array([1.0, 0, 0, 1], pa.float16()), 2),
    "no width": pa.array([[], []], pa.list_(pa.float32(), 0)),
    "vector holes": pa.array([[1.0, None], None], pa.list_(pa.float32(), 2)),
    "lists": pa.array([[1.0], [2.0, 3.0]]),
    "numbers": pa.array([1, 2]),
    "floats": pa.array([0.5, float("nan")]),
    "structs": pa.array([{"a": 1}, {"a": 2}]),
    "bytes": pa.array([b"\xff", b"b"]),
    "large": pa.array(["a", "b"], pa.large_string()),
    "dictionary": pa.array(["a", "b"]).dictionary_encode(),
    "times": pa.array([0, 1], pa.timestamp("s")),
}
_NAMES = ("file_name", "vector", "error", "rank", "image", "cat", "dog")
_GOOD = {"file_name": "text", "vector": "vectors", "error": "none"}
_META = (
    b'{"format": "byname-embeddings/1", "encoder": "e"}', b"{}", b"[]", b"\xff",
    b'{"format": "byname-embeddings/1", "encoder": null, "root": [1]}',
)  # fmt: skip


def _parquet_bytes(columns: list[tuple[str, str]], meta: bytes) -> bytes:
    arrays = [_COLUMNS[kind] for _, kind in columns]
    schema = pa.schema(
        [pa.field(name, a.type) for (name, _), a in zip(columns, arrays, strict=True)],
        metadata={"byname": meta},
    )
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), stream)
    return stream.getvalue()


@cache
def _parquet_seeds() -> tuple[bytes, ...]:
    return (_parquet_bytes(list(_GOOD.items()), _META[0]),)


def _parquet(data: bytes) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "images.parquet")
        path.write_bytes(data)
        (path.parent / "texts.npy").write_bytes(_npy(np.eye(2, dtype=np.float32)))
        (path.parent / "texts.txt").write_text("cat\ndog")
        attempt(
            lambda: is_embeddings_file(path),
            lambda: Embeddings.load(path),
            lambda: read_class_probs(path),
            lambda: read_list(str(path)),
            lambda: read_rows(path),
            lambda: PrecomputedEncoder.from_path(path.parent),
        )


# -- .npy and .npz


def _npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def with_header(text: str, body: bytes = b"", version: bytes = b"\x01\0") -> bytes:
    """An .npy file with that header, whatever it says."""
    head = text.encode("latin-1", "replace") + b"\n"
    return (
        b"\x93NUMPY"
        + version
        + len(head).to_bytes(2 + 2 * (version[0] > 1), "little")
        + head
        + body
    )


def npz_of(members: dict[str, bytes]) -> bytes:
    """An archive of those .npy files."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return stream.getvalue()


_TASK = {
    "images": _npy(np.eye(3, 2, dtype=np.float32) + 1),
    "texts": _npy(np.ones((1, 2, 2), np.float32)),
    "labels": _npy(np.array([0, 1, 0])),
    "classes": _npy(np.array(["cat", "dog"])),
    "templates": _npy(np.array(["a photo of a {}."])),
    "scale": _npy(np.array(100.0)),
}
_PROBS = {
    "probabilities": _npy(np.array([[0.5, 0.5]])),
    "names": _npy(np.array(["cat", "dog"])),
    "file_names": _npy(np.array(["a.jpg"])),
}
_DESCR = ("'<f4'", "'<f8'", "'<i8'", "'|O'", "'<U3'", "'<U0'", "'|V0'", "'|S0'", "'<m8[s]'",
          "'c16'", "'|b1'", "[('a', '<f4')]", "[]", "'x'", "1", "None", "{}", "'<f4', (2,)",
          "'<f2'", "[('a', [])]", "'2<f4'", "('<f4', 'x')", "b'<f4'")  # fmt: skip
_SHAPES = ("(2,)", "(2, 2)", "()", "(0,)", "(0, 2)", "(-1, 2)", "(1000000000000,)", "(True,)",
           "(1000000000000, 0)", "(4611686018427387904, 4)", "2", "[2]", "(2.0,)", "None",
           "(3, 2)", "(2, 0)", "(" + "1," * 70 + ")")  # fmt: skip
_HEADERS = st.builds(
    lambda d, s, f, more, v, body: with_header(
        f"{{'descr': {d}, 'fortran_order': {f}, 'shape': {s}{more}}}", body, v
    ),
    st.sampled_from(_DESCR),
    st.sampled_from(_SHAPES),
    st.sampled_from(["True", "False", "0", "[]"]),
    st.sampled_from(["", ", 'x': 1", ", [1]: 2", "," + "(" * 60]),
    st.sampled_from([b"\x01\0", b"\x02\0", b"\x03\0"]),
    st.sampled_from([b"", bytes(8), bytes(16), bytes(32), b"\xff" * 24]),
)
_NPY = st.one_of(
    _HEADERS,
    spoilt([*_TASK.values(), *_PROBS.values(), _npy(np.array([{}]))], head=64, words=[b"(", b"'"]),
)


def _archive(changed: dict[str, bytes]) -> bytes:
    base = _PROBS if "names" in changed else _TASK
    return npz_of(base | changed)


_ARCHIVES = st.one_of(
    st.dictionaries(
        st.sampled_from([*_TASK, *_PROBS, "image_log_var", "captions", "kinds"]), _NPY, max_size=2
    ).map(_archive),
    spoilt([npz_of(_TASK), npz_of(_PROBS)], head=128),
)


def _npz(data: bytes) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "t.npz")
        path.write_bytes(data)
        attempt(lambda: Task.load(path), lambda: read_class_probs(path))


def _table(given: tuple[bytes, str, bytes, bytes]) -> None:
    array, suffix, names, card = given
    with TemporaryDirectory() as folder:
        for name in ("texts", "images"):
            Path(folder, f"{name}.npy").write_bytes(array)
            Path(folder, f"{name}{suffix}").write_bytes(names)
        Path(folder, "texts_log_var.npy").write_bytes(array)
        Path(folder, "encoder.json").write_bytes(card)
        made = PrecomputedEncoder.from_path(folder)
        assert np.isfinite(made.image_vectors).all()
        made.info.text_fingerprint()


# -- legacy .pth


@cache
def _pth_seeds() -> tuple[bytes, ...]:
    from tests.encoders.test_legacy_pth import simple

    return (simple(),)


def _pth(data: bytes) -> None:
    for array in read_legacy_pth(data).values():
        assert array.dtype != object


TARGETS = (
    Target(
        "parquet",
        st.one_of(
            spoilt(_parquet_seeds()),
            st.builds(
                _parquet_bytes,
                st.lists(
                    st.tuples(st.sampled_from(_NAMES), st.sampled_from(list(_COLUMNS))), max_size=5
                ),
                st.sampled_from(_META),
            ),
            st.builds(
                lambda kinds, meta: _parquet_bytes(list((_GOOD | kinds).items()), meta),
                st.dictionaries(
                    st.sampled_from(list(_GOOD)), st.sampled_from(list(_COLUMNS)), max_size=2
                ),
                st.sampled_from(_META),
            ),
        ),
        _parquet,
    ),
    Target("npz", _ARCHIVES, _npz),
    Target(
        "npy",
        st.tuples(
            _NPY,
            st.sampled_from([".txt", ".json"]),
            spoilt([b"cat\ndog", json.dumps(["cat", "dog"]).encode(), b"cat\ndog\ncow"]),
            cards({"id": "x", "logit_scale": 10.0}, ["logit_bias", "licence", "source"]),
        ),
        _table,
    ),
    Target("pth", spoilt(_pth_seeds()), _pth),
)
