from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logsumexp

from byname import stream
from byname.stream import Segments, reduce_texts

HOWS = ("max", "sum", "logsumexp")


def plain(X: Any, T: Any, index: Any, K: int, how: str, scale: float, offset: Any) -> Any:
    """The definition, in float64."""
    X, T = np.asarray(X, np.float64), np.asarray(T, np.float64)
    S = scale * X @ T.T + (0 if offset is None else offset)
    empty = 0.0 if how == "sum" else -np.inf
    out = np.full((len(X), K), empty)
    for k in range(K):
        own = S[:, np.asarray(index) == k]
        if own.shape[1]:
            f = {"max": lambda a: a.max(1), "sum": lambda a: a.sum(1)}.get(how)
            out[:, k] = f(own) if f else logsumexp(own, axis=1)
    return out


@st.composite
def problems(draw: st.DrawFn) -> Any:
    N, M, K = draw(st.integers(0, 5)), draw(st.integers(0, 12)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 9)))
    X, T = rng.standard_normal((N, 3)), rng.standard_normal((M, 3))
    kind = draw(st.sampled_from([np.float32, np.float64]))
    offset = draw(st.sampled_from([None, rng.standard_normal(M)]))
    return X.astype(kind), T.astype(kind), rng.integers(-1, K, M), K, offset


@given(problems(), st.sampled_from(HOWS), st.sampled_from([1.0, 50.0]))
def test_agrees_with_the_definition(problem: Any, how: Any, scale: float) -> None:
    X, T, index, K, offset = problem
    found = reduce_texts(X, T, index, K, how, scale=scale, offset=offset)
    assert found.dtype == X.dtype
    tolerance = 1e-9 if X.dtype == np.float64 else 1e-4
    np.testing.assert_allclose(
        found, plain(X, T, index, K, how, scale, offset), rtol=tolerance, atol=tolerance
    )


@pytest.mark.parametrize("how", HOWS)
def test_tiles_change_nothing(how: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    X, T = rng.standard_normal((40, 5)), rng.standard_normal((90, 5))
    index = rng.integers(-1, 7, 90)
    whole = reduce_texts(X, T, index, 7, how)
    monkeypatch.setattr(stream, "ROWS", 3)
    monkeypatch.setattr(stream, "COLUMNS", 4)
    np.testing.assert_allclose(reduce_texts(X, T, index, 7, how), whole, rtol=1e-12)


def test_a_segment_far_below_the_best_is_still_exact() -> None:
    X, T = np.ones((1, 1), np.float32), np.array([[1.0], [-1.0], [-1.0]], np.float32)
    found = reduce_texts(X, T, [0, 1, 1], 2, "logsumexp", scale=100.0)
    np.testing.assert_allclose(found, [[100.0, -100.0 + np.log(2)]], rtol=1e-6)


@pytest.mark.parametrize("how", ["max", "logsumexp"])
def test_an_offset_can_take_texts_out(how: Any) -> None:
    X, T = np.ones((2, 1)), np.ones((3, 1))
    found = reduce_texts(X, T, [0, 0, 1], 2, how, offset=np.array([0.0, -np.inf, -np.inf]))
    assert found.tolist() == [[1.0, -np.inf], [1.0, -np.inf]]


def test_segments_keep_the_order_within() -> None:
    held = Segments.of([2, 0, -1, 2, 0])
    assert held.order.tolist() == [1, 4, 0, 3]
    assert (held.ids.tolist(), held.starts.tolist()) == ([0, 2], [0, 2])
    assert [t for _, t in held.tiles(1)] == [slice(0, 2), slice(2, 4)]


@pytest.mark.torch
@pytest.mark.parametrize("how", HOWS)
def test_torch_gives_the_same(how: Any) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    X, T = rng.standard_normal((4, 3)), rng.standard_normal((9, 3))
    index, offset = rng.integers(-1, 3, 9), rng.standard_normal(9)
    offset[0] = -np.inf
    offset = np.zeros(9) if how == "sum" else offset
    found = reduce_texts(torch.from_numpy(X), torch.from_numpy(T), index, 4, how, offset=offset)
    assert torch.is_tensor(found)
    np.testing.assert_allclose(found, reduce_texts(X, T, index, 4, how, offset=offset), rtol=1e-9)
