from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byname.errors import UsageError
from byname.programs.mode_gate import fine_centres, mode_weights
from tests.reference import encoders as ref


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 999), st.integers(1, 12), st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_it_is_the_plain_formula(seed: int, C: int, sizes: list[int]) -> None:
    rng = np.random.default_rng(seed)
    names = rng.standard_normal((C, 3))
    centres = [rng.standard_normal((n, 3)) for n in sizes]
    np.testing.assert_allclose(mode_weights(names, centres), ref.mode_weights(names, centres))


@pytest.mark.parametrize("C", [9, 10, 210, 211, 600])
def test_sharpness_and_offset_at_their_bounds(C: int) -> None:
    rng = np.random.default_rng(C)
    names = 0.1 * rng.standard_normal((C, 2))
    centres = [0.1 * rng.standard_normal((3, 2)) for _ in range(2)]
    found = mode_weights(names, centres)
    np.testing.assert_allclose(found, ref.mode_weights(names, centres), atol=1e-12)
    # One class at a centre: its mass is exp(o * a) / 8 ahead of an expert without a class.
    alone = mode_weights(np.zeros((C, 2)), [np.zeros((1, 2)), np.ones((1, 2))])
    a = 5 * np.log10(max(10, C - 200))
    ahead = C * np.exp((np.exp(0.5 - np.sqrt(C)) if C < 10 else 0) * a) / 8
    np.testing.assert_allclose(alone, [1 / (1 + np.exp(-ahead)), 1 / (1 + np.exp(ahead))])


def test_an_expert_without_a_class_has_no_mass() -> None:
    names = np.zeros((3, 2))
    near, far = np.zeros((1, 2)), np.full((1, 2), 9.0)
    w = mode_weights(names, [near, far, far])
    assert w[1] == w[2] < w[0]
    assert w.sum() == pytest.approx(1)
    one = mode_weights(names, [near])
    assert one.tolist() == [1.0]


def test_many_classes_of_one_expert_saturate() -> None:
    w = mode_weights(np.zeros((1000, 2)), [np.zeros((1, 2)), np.ones((1, 2))])
    assert w[0] > 1 - 1e-12


def test_the_order_of_classes_and_of_experts_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    names, centres = rng.standard_normal((20, 3)), [rng.standard_normal((5, 3)) for _ in range(3)]
    w = mode_weights(names, centres)
    np.testing.assert_allclose(mode_weights(names[::-1], centres), w)
    np.testing.assert_allclose(mode_weights(names, centres[::-1]), w[::-1])


def test_centres_are_the_means_of_clear_clusters() -> None:
    rng = np.random.default_rng(1)
    means = np.array([[0.0, 0.0], [0.0, 9.0], [9.0, 0.0]])
    X = np.repeat(means, 20, axis=0) + 0.1 * rng.standard_normal((60, 2))
    expected = sorted(X[i : i + 20].mean(axis=0).tolist() for i in (0, 20, 40))
    for seed in range(5):
        np.testing.assert_allclose(fine_centres(X, 3, seed=seed), expected)
    shuffled = X[rng.permutation(60)]
    np.testing.assert_array_equal(fine_centres(shuffled, 7, seed=2), fine_centres(X, 7, seed=2))
    assert len(fine_centres(X, 7)) == 7


def test_few_different_texts_are_the_centres() -> None:
    X = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    assert fine_centres(X, 5).tolist() == [[0.0, 1.0], [1.0, 0.0]]


def test_bad_arguments() -> None:
    with pytest.raises(UsageError, match=r"shape \(2, 3\), the centres \[\(1, 2\)\]"):
        mode_weights(np.zeros((2, 3)), [np.zeros((1, 2))])
    with pytest.raises(UsageError, match="one centre or more for each expert"):
        mode_weights(np.zeros((2, 3)), [np.zeros((0, 3))])
    with pytest.raises(UsageError, match="weigh experts"):
        mode_weights(np.zeros((2, 3)), [])
    with pytest.raises(UsageError, match="weigh experts"):
        mode_weights(np.zeros((0, 3)), [np.zeros((1, 3))])
    for texts, k in ((np.zeros((0, 2)), 1), (np.full((1, 2), np.nan), 1), (np.zeros((1, 2)), 0)):
        with pytest.raises(UsageError, match="find the centres of texts"):
            fine_centres(texts, k)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e200])
def test_numbers_that_are_none_or_too_large_are_named(value: float) -> None:
    good, bad = np.eye(3), np.eye(3)
    bad[1, 0] = value
    with pytest.raises(UsageError, match="row 1 of the class vectors"):
        mode_weights(bad, [good, good])
    with pytest.raises(UsageError, match="row 1 of the centres of expert 1"):
        mode_weights(good, [good, bad])
    with pytest.raises(UsageError, match="find the centres of texts"):
        fine_centres(bad, 2)


@pytest.mark.filterwarnings("ignore:One of the clusters")
def test_texts_of_no_measurable_distance() -> None:
    X = np.random.default_rng(0).standard_normal((7, 4)) * 1e-200
    assert fine_centres(X, 2).shape[1] == 4


@pytest.mark.parametrize("k", [2.5, "2", None])
def test_a_number_of_centres_is_whole(k: object) -> None:
    with pytest.raises(UsageError, match="find the centres of texts"):
        fine_centres(np.eye(3), k)  # type: ignore[arg-type]
    assert fine_centres(np.eye(3), np.int64(2)).shape == (2, 3)  # type: ignore[arg-type]
