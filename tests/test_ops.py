from __future__ import annotations

import sys
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from byname import ops
from tests.reference import ops_reference as ref

FLOATS = st.floats(-100, 100, width=32)
SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=7)
MATRICES = hnp.arrays(np.float32, SHAPES, elements=FLOATS)
# Few distinct values, so that ties are the rule.
TIED = hnp.arrays(np.float32, SHAPES, elements=st.sampled_from([-np.inf, -1.0, 0.0, 1.0, np.nan]))
LOGITS = hnp.arrays(np.float32, SHAPES, elements=st.one_of(FLOATS, st.just(-np.inf)))


@st.composite
def segments(draw: st.DrawFn) -> tuple[Any, Any, int, Any]:
    values = draw(
        hnp.arrays(np.float32, st.tuples(st.integers(0, 9), st.integers(1, 3)), elements=FLOATS)
    )
    K = draw(st.integers(1, 4))
    index = draw(hnp.arrays(np.intp, len(values), elements=st.integers(-1, K - 1)))
    weights = draw(st.none() | hnp.arrays(np.float64, len(values), elements=st.floats(0.125, 8)))
    return values, index, K, weights


def close(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(ops.to_numpy(found), expected, rtol=1e-6, atol=1e-6)


@given(MATRICES)
def test_unit_agrees_with_the_reference(x: NDArray[np.float32]) -> None:
    close(ops.unit(x), ref.unit(x))
    close(ops.unit(x.T, axis=0), ref.unit(x).T)


@pytest.mark.parametrize("size", [1e-42, 1e-30, 1e-10, 1e10, 1e30])
def test_unit_of_very_short_and_very_long_rows(size: float) -> None:
    x = np.array([[3, 4], [0, 0]], np.float32) * np.float32(size)
    close(ops.unit(x), [[0.6, 0.8], [0, 0]])


def test_unit_passes_nan_on_and_leaves_other_rows_alone() -> None:
    found = ops.unit(np.array([[np.nan, 1.0], [0.0, 2.0]]))
    assert np.isnan(found[0]).all()
    assert found[1].tolist() == [0, 1]


@given(
    SHAPES.flatmap(
        lambda s: st.tuples(
            *[hnp.arrays(np.float32, (n, s[1]), elements=st.floats(-1, 1, width=32)) for n in s]
        )
    )
)
def test_matmul_t_agrees_with_the_reference(pair: tuple[Any, Any]) -> None:
    close(ops.matmul_t(*pair), ref.matmul_t(*pair))


@given(LOGITS)
def test_softmax_and_its_logarithm_agree_with_the_reference(S: NDArray[np.float32]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        close(ops.softmax(S), ref.softmax(S))
        # Logits up to 100 carry a rounding of 100 * 2^-24 into float32 whatever is done with them.
        close(ops.log_softmax(S.astype(np.float64)), ref.log_softmax(S))
        close(ops.logsumexp(S.astype(np.float64)), ref.logsumexp(S))
        np.testing.assert_allclose(ops.log_softmax(S), ref.log_softmax(S), rtol=2e-6, atol=2e-5)
        np.testing.assert_allclose(ops.logsumexp(S), ref.logsumexp(S), rtol=2e-6, atol=2e-5)


@given(MATRICES)
def test_softmax_sums_to_one_and_ignores_a_shift(S: NDArray[np.float32]) -> None:
    S = S.astype(np.float64)
    close(ops.softmax(S).sum(axis=1), 1)
    close(ops.softmax(S + 1000), ops.softmax(S))


@given(MATRICES)
def test_log_probability_gives_the_probabilities_back(S: NDArray[np.float32]) -> None:
    p = ops.softmax(S)
    close(ops.log_probability(p), ref.log_probability(p))
    close(ops.softmax(ops.log_probability(p)), p)


@given(segments())
def test_segments_agree_with_the_reference(case: tuple[Any, Any, int, Any]) -> None:
    np.testing.assert_allclose(ops.segment_sum(*case), ref.segment_sum(*case), rtol=1e-6, atol=1e-4)
    close(ops.segment_sum(case[0].astype(np.float64), *case[1:]), ref.segment_sum(*case))
    close(ops.segment_mean(case[0].astype(np.float64), *case[1:]), ref.segment_mean(*case))


def test_segment_sum_of_many_rows_does_not_lose_the_small_ones() -> None:
    values = np.full((200_000, 1), 0.1, np.float32)
    found = ops.segment_sum(values, np.zeros(len(values), int), 1)
    assert found[0, 0] == np.float32(np.float64(np.float32(0.1)) * len(values))


def test_segment_sum_over_more_columns_than_one_block() -> None:
    values = np.arange(400, dtype=np.float32).reshape(2, 200)
    assert (ops.segment_sum(values, np.array([1, 1]), 2)[1] == values.sum(axis=0)).all()


@given(st.one_of(MATRICES, TIED), st.integers(1, 9))
def test_topk_agrees_with_the_reference_ties_and_nan_included(S: Any, k: int) -> None:
    values, index = ops.topk(S, k)
    expected_values, expected_index = ref.topk(S, k)
    np.testing.assert_array_equal(index, expected_index)
    np.testing.assert_array_equal(values, expected_values)


@given(TIED)
def test_argmax_is_the_first_of_topk(S: NDArray[np.float32]) -> None:
    np.testing.assert_array_equal(ops.argmax(S), ref.topk(S, 1)[1][:, 0])


@pytest.mark.parametrize("dtype", [np.float16, np.int8, np.uint8, np.bool_, np.float32])
def test_narrow_types_are_computed_in_float32(dtype: Any) -> None:
    x = np.array([[1, 0], [1, 1]], dtype)
    found = [ops.as_float(x), ops.unit(x), ops.softmax(x), ops.matmul_t(x, x.astype(np.float64))]
    found += [ops.logsumexp(x), ops.log_softmax(x), ops.log_probability(x), ops.topk(x, 1)[0]]
    found += [ops.segment_sum(x, [0, 0], 1), ops.segment_mean(x, [0, 0], 1)]
    assert {a.dtype for a in found} == {np.dtype(np.float32)}


def test_float64_stays_where_both_are_float64() -> None:
    x = np.eye(2)
    assert ops.matmul_t(x, x).dtype == ops.unit(x).dtype == np.float64


def test_nothing_is_changed_in_place_and_float32_is_not_copied() -> None:
    x = np.array([[3.0, 4.0], [0.0, np.nan]], np.float32)
    x.flags.writeable = False
    for function in (ops.unit, ops.softmax, ops.log_softmax, ops.logsumexp, ops.log_probability):
        function(x)
    ops.topk(x, 1)
    ops.segment_mean(x, np.array([0, -1]), 1)
    assert ops.as_float(x) is x


@pytest.mark.parametrize("shape", [(0, 3), (0, 1), (2, 1)])
def test_no_rows_and_one_column(shape: tuple[int, int]) -> None:
    S = np.zeros(shape, np.float32)
    assert ops.softmax(S).shape == ops.unit(S).shape == ops.log_softmax(S).shape == shape
    assert ops.logsumexp(S).shape == ops.argmax(S).shape == shape[:1]
    assert ops.topk(S, 2)[1].shape == (shape[0], min(2, shape[1]))
    assert ops.matmul_t(S, np.zeros((4, shape[1]))).shape == (shape[0], 4)
    assert ops.segment_mean(S, np.zeros(shape[0], int), 2).shape == (2, shape[1])


def test_take_rows_and_concat() -> None:
    x = np.arange(6).reshape(3, 2)
    assert ops.take_rows(x, [2, 0]).tolist() == [[4, 5], [0, 1]]
    assert ops.take_rows(x, []).shape == (0, 2)
    assert ops.concat([x[:1], x[1:]]).tolist() == x.tolist()


@given(st.integers(0, 50), st.integers(1, 60))
def test_blocks_cover_every_row_once(n: int, size: int) -> None:
    parts = list(ops.blocks(n, size))
    assert [i for part in parts for i in range(n)[part]] == list(range(n))
    assert all(part.stop - part.start <= size for part in parts)


def test_a_block_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one row, not 0"):
        list(ops.blocks(3, 0))


def test_without_torch_nothing_is_a_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert not ops.is_torch(np.zeros(1))
    assert "torch" not in sys.modules


# -- the same with torch


@pytest.fixture(scope="module")
def torch() -> Any:
    return pytest.importorskip("torch")


@pytest.mark.torch
@pytest.mark.parametrize("name", ["unit", "softmax", "log_softmax", "logsumexp", "log_probability"])
def test_torch_gives_what_numpy_gives(torch: Any, name: str) -> None:
    S = np.random.default_rng(0).uniform(0.1, 9, (5, 7)).astype(np.float32)
    found = getattr(ops, name)(torch.from_numpy(S))
    assert ops.is_torch(found)
    assert found.dtype == torch.float32
    close(found, getattr(ops, name)(S))


@pytest.mark.torch
def test_torch_rows_of_minus_infinity(torch: Any) -> None:
    S = torch.full((2, 3), -torch.inf)
    assert ops.softmax(S).tolist() == [[0, 0, 0]] * 2
    assert ops.logsumexp(S).tolist() == [-np.inf] * 2
    assert ops.log_softmax(S).tolist() == [[-np.inf] * 3] * 2


@pytest.mark.torch
@given(TIED, st.integers(1, 9))
def test_torch_breaks_ties_as_numpy_does(S: NDArray[np.float32], k: int) -> None:
    torch = pytest.importorskip("torch")
    values, index = ops.topk(torch.from_numpy(S), k)
    np.testing.assert_array_equal(index.numpy(), ref.topk(S, k)[1])
    np.testing.assert_array_equal(values.numpy(), ref.topk(S, k)[0])
    np.testing.assert_array_equal(ops.argmax(torch.from_numpy(S)).numpy(), ref.topk(S, 1)[1][:, 0])


@pytest.mark.torch
@given(segments())
def test_torch_segments_agree_with_the_reference(case: tuple[Any, Any, int, Any]) -> None:
    torch = pytest.importorskip("torch")
    values, index, K, weights = case
    x = torch.from_numpy(values.astype(np.float64))
    close(ops.segment_sum(x, index, K, weights), ref.segment_sum(*case))
    close(ops.segment_mean(x, torch.from_numpy(index), K, weights), ref.segment_mean(*case))


@pytest.mark.torch
@pytest.mark.parametrize("kind", ["float16", "bfloat16", "int32", "bool"])
def test_torch_narrow_types_are_computed_in_float32(torch: Any, kind: str) -> None:
    x = torch.tensor([[1, 0], [1, 1]]).to(getattr(torch, kind))
    found = [ops.as_float(x), ops.unit(x), ops.matmul_t(x, np.eye(2)), ops.topk(x, 1)[0]]
    assert {a.dtype for a in found} == {torch.float32}
    assert ops.to_numpy(x).tolist() == [[1, 0], [1, 1]]


@pytest.mark.torch
def test_torch_and_numpy_meet_on_the_side_of_the_first(torch: Any) -> None:
    x, w = np.eye(2, dtype=np.float32), torch.eye(2, requires_grad=True)
    assert isinstance(ops.matmul_t(x, w), np.ndarray)
    assert ops.is_torch(ops.matmul_t(w, x))
    frozen = x.copy()
    frozen.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ops.is_torch(ops.like(frozen, w))
    assert ops.take_rows(w, [1]).tolist() == [[0, 1]]
    assert ops.concat([w, w]).shape == (4, 2)
    assert ops.topk(torch.zeros(0, 3), 2)[1].shape == (0, 2)
