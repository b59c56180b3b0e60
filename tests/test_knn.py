from __future__ import annotations

import importlib.util
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from byname import knn
from byname.errors import UsageError
from byname.knn import agreement, graph, nearest
from byname.ops import unit


def rows(seed: int, n: int, d: int = 4, kind: Any = np.float32) -> NDArray[Any]:
    return np.asarray(unit(np.random.default_rng(seed).standard_normal((n, d)).astype(kind)))


def plain(X: NDArray[Any], Y: NDArray[Any], k: int, own: bool) -> tuple[Any, Any]:
    S = X.astype(np.float64) @ Y.astype(np.float64).T
    if own:
        np.fill_diagonal(S, -np.inf)
    k = min(k, len(Y) - own)
    index = np.argsort(-S, axis=1, kind="stable")[:, :k]
    return index, np.take_along_axis(S, index, 1)


@given(st.integers(0, 5), st.integers(1, 30), st.integers(1, 9), st.sampled_from([(2, 3), (5, 64)]))
def test_agrees_with_all_pairs(seed: int, n: int, k: int, tile: tuple[int, int]) -> None:
    X = rows(seed, n, kind=np.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(knn, "ROWS", tile[0])
        patch.setattr(knn, "COLUMNS", tile[1])
        patch.setattr(knn, "FIRST", 2)
        index, cosine = nearest(X, k)
    expected = plain(X, X, k, own=True)
    np.testing.assert_array_equal(index, expected[0])
    np.testing.assert_allclose(cosine, expected[1], atol=1e-6)


@given(st.integers(0, 5), st.integers(0, 9), st.integers(1, 20), st.integers(1, 9))
def test_other_rows(seed: int, n: int, r: int, k: int) -> None:
    X, Y = rows(seed, n, kind=np.float64), rows(seed + 99, r, kind=np.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(knn, "COLUMNS", 4)
        patch.setattr(knn, "FIRST", 2)
        index, cosine = nearest(X, k, Y=Y)
    expected = plain(X, Y, k, own=False)
    np.testing.assert_array_equal(index, expected[0])
    np.testing.assert_allclose(cosine, expected[1], atol=1e-6)


def test_equal_images_name_each_other_and_never_themselves(monkeypatch: Any) -> None:
    X = np.repeat(rows(0, 2), 5, axis=0)
    monkeypatch.setattr(knn, "FIRST", 2)
    for tile in (3, 64):
        monkeypatch.setattr(knn, "ROWS", tile)
        index, _ = nearest(X, 4)
        assert (index != np.arange(10)[:, None]).all()
        assert index[0].tolist() == [1, 2, 3, 4]
        assert index[7].tolist() == [5, 6, 8, 9]


def test_the_graph() -> None:
    X = rows(3, 12)
    A = graph(X, 3)
    index, cosine = nearest(X, 3)
    assert A.shape == (12, 12)
    assert A.diagonal().max() == 0
    dense = np.zeros((12, 12), np.float32)
    np.put_along_axis(dense, index, np.maximum(cosine, 0), 1)
    np.testing.assert_array_equal(A.toarray(), dense)


@pytest.mark.parametrize("n", [0, 1])
def test_nobody_to_be_near_to(n: int) -> None:
    index, cosine = nearest(rows(0, n), 5)
    assert index.shape == cosine.shape == (n, 0)
    assert graph(rows(0, n), 5).nnz == 0


def test_what_cannot_be_searched() -> None:
    X = rows(0, 3)
    with pytest.raises(UsageError, match="k is 0"):
        nearest(X, 0)
    with pytest.raises(UsageError, match="engine is 'annoy'"):
        nearest(X, 1, engine="annoy")  # type: ignore[arg-type]
    X[1, 2] = np.nan
    with pytest.raises(UsageError, match="row 1 holds NaN or infinity"):
        nearest(X, 1)


def test_agreement_beyond_chance() -> None:
    index = np.array([[1, 2], [0, 2], [0, 1], [4, 5], [3, 5], [3, 4]])
    assert agreement(index, np.array([0, 0, 0, 1, 1, 1]), 2) == 1
    assert agreement(index, np.zeros(6, np.intp), 2) == 0
    assert agreement(index, np.array([0, 1, 0, 1, 0, 1]), 2) < 0
    assert agreement(np.zeros((1, 0), np.intp), np.array([0]), 2) == 0


def need_faiss() -> None:
    pytest.importorskip("faiss", reason="FAISS is not installed: pip install 'byname[faiss]'")


def test_faiss_finds_nearly_all() -> None:
    need_faiss()
    X = unit(rows(1, 40, 16)[np.arange(3000) % 40] + 0.2 * rows(2, 3000, 16))
    index, cosine = nearest(X, 5, engine="faiss")
    exact, _ = nearest(X, 5, engine="exact")
    assert (index != np.arange(len(X))[:, None]).all()
    found = np.mean([len(set(a) & set(b)) / 5 for a, b in zip(index, exact, strict=True)])
    assert found > 0.8
    assert (np.diff(cosine, axis=1) <= 1e-6).all()


@pytest.mark.parametrize("n", [2, 10, 60])
def test_faiss_with_a_handful_of_rows(n: int) -> None:
    need_faiss()
    X, Y = rows(0, n), rows(1, n)
    np.testing.assert_array_equal(nearest(X, 3, engine="faiss")[0], nearest(X, 3)[0])
    np.testing.assert_array_equal(nearest(X, 3, Y=Y, engine="faiss")[0], nearest(X, 3, Y=Y)[0])


def test_faiss_gives_as_many_as_asked_for() -> None:
    need_faiss()
    X = rows(2, 600)  # 400 neighbours are more than the cells that it looks at hold
    index, cosine = nearest(X, 400, engine="faiss")
    assert {len(set(row)) for row in index.tolist()} == {400}
    assert (index != np.arange(600)[:, None]).all()
    np.testing.assert_allclose(cosine[:, -1], nearest(X, 400)[1][:, -1], atol=1e-5)


def test_faiss_among_equal_images() -> None:
    need_faiss()
    X = np.repeat(rows(3, 3), 200, axis=0)
    index, cosine = nearest(X, 5, engine="faiss")
    assert (index != np.arange(600)[:, None]).all()
    assert (index // 200 == np.arange(600)[:, None] // 200).all()
    np.testing.assert_allclose(cosine, 1, atol=1e-6)


def test_auto_asks_faiss_beyond_what_is_exact(monkeypatch: Any) -> None:
    asked, there = [], {"faiss"}

    def search(X: Any, Y: Any, k: int, own: bool) -> tuple[Any, Any]:
        asked.append(len(Y))
        return plain(X, Y, k, own)

    monkeypatch.setattr(knn, "EXACT", 10)
    monkeypatch.setattr(knn, "_by_faiss", search)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name in there or None)
    for n in (11, 10):
        nearest(rows(0, n), 2)
    assert asked == [11]
    there.clear()
    X = rows(0, 11)
    np.testing.assert_array_equal(nearest(X, 2)[0], plain(X, X, 2, own=True)[0])
    assert asked == [11]


def test_faiss_that_is_not_there(monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(UsageError, match=r"pip install 'byname\[faiss\]'"):
        nearest(rows(0, 3), 1, engine="faiss")


@pytest.mark.torch
def test_torch_gives_the_same() -> None:
    torch = pytest.importorskip("torch")
    X = rows(4, 30)
    index, _ = nearest(torch.from_numpy(X), 3)
    np.testing.assert_array_equal(index, nearest(X, 3)[0])
