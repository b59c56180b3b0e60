"""Embeddings in memory and in Parquet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from byname.embeddings import Embeddings, is_embeddings_file, vector_array, vectors_of
from byname.errors import EmbeddingsError, OutputError


def some(n: int = 5, dim: int = 8) -> Embeddings:
    vectors = np.random.default_rng(0).normal(size=(n, dim))
    made = Embeddings.from_arrays(vectors, keys=[f"{i}.jpg" for i in range(n)])
    return Embeddings(
        made.keys, made.vectors, "fake", "f" * 32, {"bad.jpg": "empty file (0 bytes)"}, "/photos"
    )


def test_round_trip_keeps_everything(tmp_path: Path) -> None:
    before = some()
    before.save(tmp_path / "e.parquet")
    after = Embeddings.load(tmp_path / "e.parquet")
    assert after.keys == before.keys
    assert after.errors == before.errors
    assert (after.encoder, after.fingerprint, after.root) == ("fake", "f" * 32, "/photos")
    assert after.vectors.dtype == np.float32
    assert np.allclose(after.vectors, before.vectors, atol=1e-3)
    assert np.allclose(np.linalg.norm(after.vectors, axis=1), 1, atol=1e-6)
    table = pq.read_table(tmp_path / "e.parquet")
    assert table.column_names == ["file_name", "vector", "error"]
    assert table.schema.field("vector").type == pa.list_(pa.float16(), 8)
    assert len(table) == 6


@pytest.mark.parametrize("errors", [{}, {"a": "gone"}])
def test_round_trip_without_rows(tmp_path: Path, errors: dict[str, str]) -> None:
    before = Embeddings((), np.zeros((0, 4), np.float32), errors=errors)
    before.save(tmp_path / "e.parquet")
    after = Embeddings.load(tmp_path / "e.parquet")
    assert after.vectors.shape == (0, 4)
    assert (after.keys, after.errors) == ((), errors)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    hnp.arrays(
        st.sampled_from([np.float16, np.float32, np.float64, np.int32]),
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=6),
        elements=st.integers(-1000, 1000),
    ),
    st.data(),
)
def test_round_trip_of_any(tmp_path: Path, array: Any, data: st.DataObject) -> None:
    keys = data.draw(
        st.lists(
            st.text(st.characters(exclude_categories=["Cs"])),
            min_size=len(array),
            max_size=len(array),
            unique=True,
        )
    )
    before = Embeddings.from_arrays(array, keys)
    norms = np.linalg.norm(before.vectors, axis=1)
    zero = ~array.any(axis=1)
    assert np.allclose(norms, np.where(zero, 0, 1), atol=1e-6)
    before.save(tmp_path / "e.parquet")
    after = Embeddings.load(tmp_path / "e.parquet")
    assert after.keys == before.keys
    assert np.allclose(after.vectors, before.vectors, atol=2e-3)
    assert np.array_equal(after.vectors.any(axis=1), ~zero)


@pytest.mark.parametrize("scale", [1e-40, 1e-25, 1e25, 1e38])
def test_rows_of_any_length_become_unit_rows(scale: float) -> None:
    found = Embeddings.from_arrays(np.array([[1.0, 1.0], [0.0, 0.0]], np.float32) * scale)
    assert np.allclose(found.vectors, [[0.5**0.5] * 2, [0, 0]], atol=1e-4)
    assert found.keys == ("00000000", "00000001")


def test_the_callers_array_is_left_alone() -> None:
    array = np.array([[3.0, 4.0]], np.float32)
    found = Embeddings.from_arrays(array)
    assert array.tolist() == [[3.0, 4.0]]
    assert not np.shares_memory(found.vectors, array)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_row_with_nan_is_named(bad: float) -> None:
    array = np.ones((4, 3), np.float32)
    array[2, 1] = array[3, 0] = bad
    with pytest.raises(EmbeddingsError) as caught:
        Embeddings.from_arrays(array, keys=["a", "b", "c.jpg", "d"])
    assert str(caught.value) == (
        "cannot use these vectors: 2 rows hold NaN or infinite values, the first is 'c.jpg'. "
        "Leave those images out, or embed them again."
    )


@pytest.mark.parametrize(
    ("array", "seen"),
    [
        ([1.0, 2.0], "shape (2,) and type float64"),
        (np.zeros((2, 2, 2)), "shape (2, 2, 2) and type float64"),
        (np.zeros((3, 0)), "shape (3, 0) and type float64"),
        ([["a"]], "shape (1, 1) and type <U1"),
        (np.zeros((1, 1), complex), "shape (1, 1) and type complex128"),
        (np.array([[None]]), "shape (1, 1) and type object"),
    ],
)
def test_wrong_arrays(array: Any, seen: str) -> None:
    with pytest.raises(EmbeddingsError) as caught:
        Embeddings.from_arrays(array)
    assert str(caught.value) == (
        f"cannot use these vectors: {seen}. Give an (N, D) array of numbers."
    )


def test_keys_that_do_not_fit() -> None:
    with pytest.raises(EmbeddingsError, match=r"1 keys, but vectors of shape \(2, 3\)"):
        Embeddings.from_arrays(np.full((2, 3), np.nan), keys=["a"])
    with pytest.raises(EmbeddingsError, match="the key 'b' occurs twice"):
        Embeddings.from_arrays(np.ones((3, 2)), keys=["a", "b", "b"])
    assert Embeddings.from_arrays(np.ones((2, 2)), keys=[Path("a"), 1]).keys == ("a", "1")  # type: ignore[list-item]


# Files that are not ours


def refused(path: Path) -> str:
    with pytest.raises(EmbeddingsError) as caught:
        Embeddings.load(path)
    text = str(caught.value)
    assert text.startswith(f"cannot read the embeddings in '{path}': ")
    assert "None" not in text
    assert "\n" not in text
    return text


def test_a_missing_file(tmp_path: Path) -> None:
    assert "there is no such file. Make it with 'byname embed'." in refused(tmp_path / "e.parquet")
    assert "there is no such file" in refused(tmp_path)


def test_numpy_files_and_texts_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "e.npy", np.ones((2, 2)))
    (tmp_path / "e.parquet").write_text("hello")
    (tmp_path / "empty.parquet").touch()
    for name in ("e.npy", "e.parquet", "empty.parquet"):
        assert "it is not a readable Parquet file" in refused(tmp_path / name)
        assert not is_embeddings_file(tmp_path / name)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "e.parquet"
    some(200).save(path)
    data = path.read_bytes()
    for end in range(0, len(data), 500):
        path.write_bytes(data[:end])
        assert "it is not a readable Parquet file" in refused(path)


@pytest.mark.parametrize("kind", ["no metadata", "other", "list", "null", "text", "garbage"])
def test_foreign_parquet_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "e.parquet"
    some().save(path)
    table = pq.read_table(path)
    meta = table.schema.metadata
    vectors: pa.Array = table["vector"].combine_chunks()
    if kind == "no metadata":
        table = table.replace_schema_metadata(None)
    elif kind == "other":
        table = pa.table({"file_name": ["a.jpg"], "label": ["x"]}).replace_schema_metadata(meta)
    elif kind == "list":
        table = table.set_column(1, "vector", vectors.cast(pa.list_(pa.float16())))
    elif kind == "null":
        holes = pa.array([None, *vectors.to_pylist()[1:]], vectors.type)
        table = table.set_column(1, "vector", holes)
    elif kind == "text":
        table = table.set_column(1, "vector", pa.array(["x"] * len(table)))
    else:
        table = table.replace_schema_metadata({"byname": b"\xff{"})
    pq.write_table(table, path)
    names = ", ".join(table.column_names)
    assert f"it was not written by byname (columns: {names})" in refused(path)


def test_duplicate_keys_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "e.parquet"
    some().save(path)
    table = pq.read_table(path)
    pq.write_table(pa.concat_tables([table, table]), path)
    with pytest.raises(EmbeddingsError, match=r"the key '0\.jpg' occurs twice"):
        Embeddings.load(path)


def test_is_embeddings_file(tmp_path: Path) -> None:
    some().save(tmp_path / "e.PARQUET")
    some().save(tmp_path / "e.bin")
    pq.write_table(pa.table({"file_name": ["a.jpg"]}), tmp_path / "list.parquet")
    (tmp_path / "folder.parquet").mkdir()
    assert is_embeddings_file(tmp_path / "e.PARQUET")
    for name in ("e.bin", "list.parquet", "folder.parquet", "missing.parquet"):
        assert not is_embeddings_file(tmp_path / name)


def test_saving_to_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OutputError) as caught:
        some().save(tmp_path / "no" / "e.parquet")
    assert str(caught.value) == (
        f"cannot write '{tmp_path / 'no' / 'e.parquet'}': No such file or directory. "
        "Choose another place."
    )


def test_columns_of_vectors_with_an_offset_or_several_chunks() -> None:
    rows = np.arange(24, dtype=np.float16).reshape(6, 4)
    column = pa.chunked_array([vector_array(rows[:2]), vector_array(rows[2:])])
    assert np.array_equal(vectors_of(column), rows)
    assert np.array_equal(vectors_of(column.slice(1, 4)), rows[1:5])
    assert vectors_of(column.slice(0, 0)).shape == (0, 4)
