"""Margins: against loops, and what always holds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byname.errors import UsageError
from byname.margins import cmm, pseudo_labels, rivals, top2, worst_classes
from byname.ops import unit
from tests.reference.cpe import cmm_loops

seeds = st.integers(0, 10_000)


def vectors(seed: int, n: int = 40, K: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return (
        unit(rng.standard_normal((n, 6))),
        unit(rng.standard_normal((K, 6))),
        rng.integers(-1, K, n),
    )


@settings(max_examples=30, deadline=None)
@given(seeds, st.sampled_from("AB"), st.integers(2, 7))
def test_loops_agree_and_both_forms_do(seed: int, variant: str, K: int) -> None:
    X, W, y = vectors(seed, K=K)
    S = X @ W.T
    expected, n = cmm_loops(S, y.tolist(), K, variant)
    for form in (S, (X, W)):
        values, counts = cmm(form, y, variant)  # type: ignore[arg-type]
        np.testing.assert_allclose(values, expected, atol=1e-12)
        assert counts.tolist() == n
    low, _ = cmm((X.astype("f"), W.astype("f")), y, variant)  # type: ignore[arg-type]
    np.testing.assert_allclose(low, expected, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_a_is_at_most_b(seed: int) -> None:
    X, W, y = vectors(seed)
    assert (cmm((X, W), y, "A")[0] <= cmm((X, W), y, "B")[0] + 1e-12).all()


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_accuracy_is_the_share_of_positive_margins(seed: int) -> None:
    X, W, y = vectors(seed)
    right = pseudo_labels(X, W) == y
    for i in np.flatnonzero(y >= 0):
        one = np.where(np.arange(len(y)) == i, y, -1)
        values, _ = cmm((X, W), one)
        assert (values[y[i]] > 0) == right[i]


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_own_labels_have_no_negative_margin(seed: int) -> None:
    X, W, _ = vectors(seed)
    values, counts = cmm((X, W), pseudo_labels(X, W))
    assert (values[counts > 0] >= 0).all()


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    X, W, y = vectors(3)
    S = X @ W.T
    before = S.copy()
    expected = cmm(S, y)[0]
    monkeypatch.setattr("byname.margins.BLOCK", 7)
    np.testing.assert_allclose(cmm(S, y)[0], expected, atol=1e-12)
    np.testing.assert_allclose(cmm((X, W), y)[0], expected, atol=1e-12)
    np.testing.assert_array_equal(pseudo_labels(X, W, block=3), pseudo_labels(X, W))
    np.testing.assert_array_equal(rivals(X, W, y, block=3), rivals(X, W, y))
    np.testing.assert_array_equal(S, before)


def test_nobody_assigned_is_minus_infinity_and_first() -> None:
    S = np.array([[0.3, 0.1, 0.2, 0.0], [0.1, 0.15, 0.1, 0.0]])
    for variant in "AB":
        values, counts = cmm(S, [0, 1], variant)  # type: ignore[arg-type]
        assert np.isneginf(values[[2, 3]]).all()
        assert worst_classes(values, counts).tolist() == [2, 3, 1, 0]
    none, counts = cmm(S, [-1, -1])
    assert np.isneginf(none).all()
    assert counts.tolist() == [0] * 4
    assert cmm(np.zeros((0, 3)), np.zeros(0, int))[0].tolist() == [-np.inf] * 3


def test_one_class_has_no_rival() -> None:
    S = np.array([[0.25], [0.75]])
    for variant in "AB":
        assert cmm(S, [0, 0], variant)[0].tolist() == [0.5]  # type: ignore[arg-type]
    assert rivals(np.eye(2), np.eye(2)[:1], [0, 0]).tolist() == [-1, -1]
    values, indices = top2(S)
    assert values.tolist() == [[0.25, -np.inf], [0.75, -np.inf]]
    assert indices.tolist() == [[0, -1], [0, -1]]


def test_shrinkage_draws_small_classes_to_the_mean() -> None:
    S = np.array([[0.9, 0.0]] * 3 + [[0.0, 0.1]])
    plain, n = cmm(S, [0, 0, 0, 1])
    shrunk, _ = cmm(S, [0, 0, 0, 1], shrink=5)
    mean = (plain * n).sum() / n.sum()
    np.testing.assert_allclose(shrunk, n / (n + 5) * plain + 5 / (n + 5) * mean)
    missing, _ = cmm(np.array([[0.9, 0.0, 0.0]]), [0], shrink=5)
    assert np.isneginf(missing[1:]).all()


def test_worst_classes_ties_and_shares() -> None:
    values, counts = np.array([0.2, 0.1, 0.2, 0.1]), np.ones(4, int)
    assert worst_classes(values, counts).tolist() == [1, 3, 0, 2]
    assert worst_classes(values, counts, 3).tolist() == [1, 3, 0]
    assert worst_classes(values, counts, 0.1).tolist() == [1]
    assert len(worst_classes(np.arange(30.0), np.ones(30, int), 0.1)) == 3
    assert worst_classes(values, counts, 1.0).tolist() == [1, 3, 0, 2]


@pytest.mark.parametrize("q", [0, -1, 0.0, 1.5, "some", True])
def test_a_wrong_q_is_named(q: object) -> None:
    with pytest.raises(UsageError, match=r"q is .*\. Give a number, a share from 0 to 1, or 'all'"):
        worst_classes(np.zeros(2), np.ones(2, int), q)  # type: ignore[arg-type]


def test_wrong_arguments_are_named() -> None:
    S = np.zeros((2, 3))
    for y in ([0], [0, 3], [0, -2], [0.0, 1.0]):
        with pytest.raises(UsageError, match="the classes of the images have"):
            cmm(S, np.array(y))
    with pytest.raises(UsageError, match="the variant is 'C'"):
        cmm(S, [0, 0], "C")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="shrink is -1"):
        cmm(S, [0, 0], shrink=-1)


@pytest.mark.torch
def test_tensors_give_the_same() -> None:
    torch = pytest.importorskip("torch")
    X, W, y = vectors(1)
    for variant in "AB":
        found = cmm((torch.from_numpy(X), torch.from_numpy(W)), y, variant)  # type: ignore[arg-type]
        np.testing.assert_allclose(found[0], cmm((X, W), y, variant)[0], atol=1e-12)  # type: ignore[arg-type]
    np.testing.assert_array_equal(
        pseudo_labels(torch.from_numpy(X), torch.from_numpy(W)), pseudo_labels(X, W)
    )
