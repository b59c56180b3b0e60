"""What fuzzing found, each once: kept so that it does not come back."""

from __future__ import annotations

import json
import pickle
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from byname.embeddings import Embeddings
from byname.encoders.layouts import read_layout
from byname.encoders.legacy_pth import MAX_MEMO, read_legacy_pth
from byname.encoders.onnx import OnnxEncoder
from byname.encoders.precomputed import PrecomputedEncoder
from byname.encoders.tokens import TextTokenizer
from byname.errors import (
    EmbeddingsError,
    EncoderError,
    TaxonomyError,
    UnsafeFileError,
    UsageError,
)
from byname.extrafiles import read_class_probs
from byname.labels import read_labels
from byname.prompts.replies import parse_two_lists
from byname.taskfile import Task
from byname.taxonomy_io import read_taxonomy
from tests.encoders import tiny
from tests.encoders.test_legacy_pth import simple
from tests.fuzz.targets_arrays import npz_of, with_header

ODD = pa.StringArray.from_buffers(
    1, pa.py_buffer(np.array([0, 1], np.int32)), pa.py_buffer(b"\xff")
)
VECTOR = pa.array([[1.0, 0.0]], pa.list_(pa.float16(), 2))
META = {"byname": '{"format": "byname-embeddings/1"}'}


def _parquet(path: Path, arrays: list[pa.Array], names: list[str]) -> Path:
    fields = [pa.field(n, a.type) for n, a in zip(names, arrays, strict=True)]
    pq.write_table(pa.Table.from_arrays(arrays, schema=pa.schema(fields, metadata=META)), path)
    return path


@pytest.mark.parametrize(
    ("arrays", "names"),
    [
        ([ODD, VECTOR, pa.array([None], pa.string())], ["file_name", "vector", "error"]),
        ([pa.array(["a"]), VECTOR, ODD], ["file_name", "vector", "error"]),
        (
            [pa.array(["a"]), pa.array(["b"]), VECTOR, pa.array([None], pa.string())],
            ["file_name", "file_name", "vector", "error"],
        ),
        (
            [pa.array(["a"]), pa.array([[]], pa.list_(pa.float16(), 0)), pa.array([None], "str")],
            ["file_name", "vector", "error"],
        ),
    ],
)
def test_parquet_whose_texts_or_columns_lie(
    tmp_path: Path, arrays: list[pa.Array], names: list[str]
) -> None:
    with pytest.raises(EmbeddingsError, match=r"not (written by byname|a readable Parquet)"):
        Embeddings.load(_parquet(tmp_path / "a.parquet", arrays, names))


def test_class_probabilities_whose_names_are_no_texts(tmp_path: Path) -> None:
    path = _parquet(tmp_path / "a.parquet", [ODD, pa.array([1.0])], ["file_name", "cat"])
    with pytest.raises(UsageError, match="a column cannot be read"):
        read_class_probs(path)


def test_a_column_of_objects_as_vectors(tmp_path: Path) -> None:
    np.save(tmp_path / "texts.npy", np.eye(2, dtype=np.float32))
    (tmp_path / "texts.txt").write_text("cat\ndog")
    _parquet(tmp_path / "images.parquet", [pa.array(["a"]), pa.array([{"a": 1}])],
             ["file_name", "vector"])  # fmt: skip
    with pytest.raises(EncoderError, match="not a table of vectors"):
        PrecomputedEncoder.from_path(tmp_path)


@pytest.mark.parametrize(
    ("header", "error"),
    [
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), [1]: 2}", EmbeddingsError),
        ("{'descr': '<U0', 'fortran_order': False, 'shape': (1000000000000,)}", UnsafeFileError),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000, 0)}", UnsafeFileError),
    ],
)
def test_headers_of_arrays_that_take_no_room(
    tmp_path: Path, header: str, error: type[Exception]
) -> None:
    path = tmp_path / "t.npz"
    path.write_bytes(npz_of({n: with_header(header) for n in ("images", "texts", "classes",
                                                              "templates", "labels")}))  # fmt: skip
    with pytest.raises(error):
        Task.load(path)


def test_a_pickle_cannot_ask_for_a_long_memo() -> None:
    data = simple()
    head = pickle.dumps(0x1950A86A20F9469CFC6C, 2)
    assert data.startswith(head)
    greedy = head[:-1] + b"r" + (2**28).to_bytes(4, "little") + b"."
    with pytest.raises(UnsafeFileError, match="remembers a thing number 268435456"):
        read_legacy_pth(greedy + data[len(head) :])
    few = head[:-1] + b"r" + (MAX_MEMO - 1).to_bytes(4, "little") + b"."
    assert read_legacy_pth(few + data[len(head) :]).keys() == read_legacy_pth(data).keys()


def test_a_folder_of_licences_is_no_licence(tmp_path: Path) -> None:
    folder = tiny.byname_folder(tmp_path / "e")
    (folder / "LICENSES").mkdir()
    assert read_layout(folder).licence == "unknown"
    (folder / "LICENSE.txt").write_text("\nMIT License\n")
    assert read_layout(folder).licence == "MIT License"


@pytest.mark.parametrize("token", [7, ["<pad>"], {"content": {}}])
def test_a_padding_token_that_is_no_text(tmp_path: Path, token: object) -> None:
    folder = tiny.transformers_folder(tmp_path / "e")
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": token}))
    with pytest.raises(EncoderError, match="not a text"):
        read_layout(folder)


def test_a_graph_whose_names_are_no_text(tmp_path: Path) -> None:
    graph = tiny.visual().replace(b"pixel_values", b"\x80ixel_values")
    with pytest.raises(EncoderError, match=r"not UTF-8|onnxruntime refused it"):
        OnnxEncoder(tiny.byname_folder(tmp_path / "e", graph), threads=1)


def test_panics_of_the_tokenizer_library() -> None:
    card = json.loads(tiny.tokenizer())
    card["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": "AAAA"}
    with pytest.raises(EncoderError, match="it is not a tokenizer"):
        TextTokenizer(json.dumps(card), 7)
    card["normalizer"] = None
    card["model"] = {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "<none>"}
    with pytest.raises(EncoderError, match="cannot cut the texts"):
        TextTokenizer(json.dumps(card), 7).rows(["dog"])


def _quick(seconds: float = 3.0) -> object:
    """Fails where its block takes the processor for longer."""

    class Clock:
        def __enter__(self) -> None:
            self.start = time.process_time()

        def __exit__(self, *_: object) -> None:
            assert time.process_time() - self.start < seconds

    return Clock()


@pytest.mark.parametrize(
    ("name", "text", "seen"),
    [
        ("a.csv", ",".join(f"c{i}" for i in range(100_000)), "no column 'name'"),
        ("a.json", "{" + ",".join(f'"k{i}":1' for i in range(50_000)) + ',"k1":1}', "stands twice"),
        ("a.nwk", "(" * 50_000 + "a" + ")" * 50_000 + ";", "levels deep"),
        (
            "b.csv",
            "name,parent\n" + "".join(f"n{i},n{(i + 1) % 20_000}\n" for i in range(20_000)),
            "levels deep",
        ),
    ],
)
def test_classes_that_would_take_the_square_of_their_size(
    tmp_path: Path, name: str, text: str, seen: str
) -> None:
    (tmp_path / name).write_text(text)
    with _quick(5.0), pytest.raises(TaxonomyError, match=seen):  # type: ignore[attr-defined]
        read_taxonomy(tmp_path / name)


def test_a_long_header_over_short_rows(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("file,label" + "," * 100_000 + "\n" + "a,b\n" * 2_000)
    with pytest.raises(UsageError, match="lack most of the header's 100,002 cells"):
        read_labels(tmp_path / "l.csv")


@pytest.mark.parametrize("text", ["(" * 20_000 + "b:", "{" + " " * 30_000 + "b:"])
def test_headings_in_a_reply_that_never_close(text: str) -> None:
    with _quick(1.0):  # type: ignore[attr-defined]
        assert parse_two_lists(text, "cat", "dog") == ([], [])
    assert parse_two_lists("the lake (B): still", "river", "lake") == ([], ["still"])
