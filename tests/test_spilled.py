"""Vectors in a file without a name, and some of those on disk."""

from __future__ import annotations

import pickle
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from byname.errors import EmbeddingsError
from byname.spilled import Spill, pick
from byname.stored import StoredVectors
from tests.stored import unit_vectors

N, D = 50, 8
X = unit_vectors(N, D).astype(np.float16)
WANTED = X.astype(np.float32) / np.linalg.norm(X.astype(np.float64), axis=1, keepdims=True)
rows = st.lists(st.integers(-N, N - 1), max_size=80)


def spilled(folder: Path | None = None) -> StoredVectors:
    spill = Spill(folder or Path(tempfile.gettempdir()), D)
    for start in range(0, N, 7):
        part = range(start, min(N, start + 7))
        spill.add([f"{i}.jpg" for i in part], X[part.start : part.stop])
    keys, vectors = spill.done()
    assert list(keys) == [f"{i}.jpg" for i in range(N)]
    return vectors


@given(rows)
def test_rows_in_any_order(places: list[int]) -> None:
    index = np.array(places, np.intp)
    assert np.allclose(spilled()[index], WANTED[index], atol=1e-7)


@given(rows, st.lists(st.integers(0, N - 1), max_size=60))
def test_some_of_some(places: list[int], kept: list[int]) -> None:
    some = pick(spilled(), kept)
    assert isinstance(some, StoredVectors)
    assert some.shape == (len(kept), D)
    assert np.array_equal(some.load(), spilled().load()[kept])
    assert np.array_equal(pick(spilled().load(), kept), some.load())
    if kept:
        index = np.array(places, np.intp) % len(kept)
        assert np.array_equal(some[index], some.load()[index])
        assert np.array_equal(pick(some, index.tolist()).load(), some.load()[index])


def test_it_is_what_stored_vectors_are(tmp_path: Path) -> None:
    vectors = spilled(tmp_path)
    assert not list(tmp_path.iterdir()), "nobody else can see it"
    assert (vectors.shape, len(vectors), vectors.nbytes) == ((N, D), N, 4 * N * D)
    assert np.allclose(np.concatenate(list(vectors.blocks(11))), WANTED, atol=1e-7)
    assert np.allclose(vectors @ WANTED.T, WANTED @ WANTED.T, atol=1e-6)
    for one in (vectors, pick(vectors, [3, 1])):
        assert np.array_equal(pickle.loads(pickle.dumps(one)), one.load())
    assert vectors[:0].shape == (0, D)


def test_none_at_all(tmp_path: Path) -> None:
    spill = Spill(tmp_path, D)
    spill.add([], X[:0])
    keys, vectors = spill.done()
    assert (len(keys), vectors.shape, vectors.load().shape) == (0, (0, D), (0, D))


def test_threads(tmp_path: Path) -> None:
    vectors, rng = spilled(tmp_path), np.random.default_rng(0)
    asked = [rng.integers(0, N, 20) for _ in range(200)]
    with ThreadPoolExecutor(8) as pool:
        for index, found in zip(asked, pool.map(vectors.__getitem__, asked), strict=True):
            assert np.allclose(found, WANTED[index], atol=1e-7)


def test_a_file_that_lost_its_end(tmp_path: Path) -> None:
    vectors = spilled(tmp_path)
    vectors._raw.truncate(100)  # type: ignore[attr-defined]
    with pytest.raises(EmbeddingsError, match="100 of 800 bytes came back"):
        vectors.load()


def test_a_row_of_nan_is_named(tmp_path: Path) -> None:
    spill = Spill(tmp_path, D)
    bad = X[:3].copy()
    bad[1, 2] = np.nan
    spill.add(["a", "b", "c"], bad)
    with pytest.raises(EmbeddingsError, match="the first is 'b'"):
        spill.done()[1].load()
