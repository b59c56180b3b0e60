"""Label vectors: against loops, the upstream bugs, and when the scores are kept."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byname.errors import RecipeError, UsageError
from byname.ops import unit
from byname.refine.label_vectors import LabelVectors, images_of, mixed, outlying
from byname.stage import create
from tests.reference import label_vectors as plain
from tests.refine import cases
from tests.refine.cases import ENCODERS, fitted, scores, top1

MEASURED = {  # m = 10, m = 50
    "clip-rn50": (82.39, 84.68),
    "clip-vit-b-32": (91.14, 89.95),
    "clip-vit-l-14": (96.02, 96.22),
}


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 9999), st.integers(1, 30), st.sampled_from([0.0, 0.3, 0.5, 1.0]))
def test_loops_agree(seed: int, m: int, mix: float) -> None:
    case = cases.given(seed, counts=(12, 9, 15), noise=0.4)
    batch, texts, state = case
    S = scores(LabelVectors, case, m=m, mix=mix, guard=False)
    expected = plain.logits(batch.X, state.W, m, mix, texts.scale)
    np.testing.assert_allclose(S / 20, expected / 20, atol=1e-5)


def test_one_image_alone_is_the_nearest() -> None:
    batch, _, state = cases.given(0, dtype=np.float64)
    found = mixed(batch.X, state.W, 1, 1.0)
    assert state.S is not None
    np.testing.assert_allclose(found, batch.X[state.S.argmax(axis=0)], atol=1e-12)


def test_no_share_of_the_images_is_the_plain_score() -> None:
    case = cases.given(1, dtype=np.float64)
    W = unit(case[2].W)
    S = scores(LabelVectors, case, mix=0.0)
    np.testing.assert_allclose(S, 20 * case[0].X @ W.T, atol=1e-9)


def test_the_most_similar_count_and_not_the_first() -> None:
    batch, _, state = cases.given(2, dtype=np.float64)
    order = np.random.default_rng(0).permutation(len(batch))
    a = mixed(batch.X, state.W, 10)
    np.testing.assert_allclose(mixed(batch.X[order], state.W, 10), a, atol=1e-12)


def test_outliers_are_left_out_and_a_vector_is_left() -> None:
    rng = np.random.default_rng(0)
    rows = np.vstack([rng.normal(0, 0.1, (40, 8)), np.full((1, 8), 3.0)])
    assert np.flatnonzero(outlying(rows)).tolist() == [40]
    neighbors = pytest.importorskip("sklearn.neighbors")
    for seed in range(5):
        rows = np.random.default_rng(seed).standard_t(3, (50, 4))
        expected = neighbors.LocalOutlierFactor(n_neighbors=20).fit_predict(rows) < 0
        assert (outlying(rows) == expected).all()
        assert expected.any()
    batch, _, state = cases.given(3, noise=0.02)
    a, b = (mixed(batch.X, state.W, 31, outliers=keep) for keep in (True, False))
    assert np.abs(a - b).max() > 1e-3
    np.testing.assert_allclose(b, mixed(batch.X, state.W, 30), atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(b, axis=1), 1, atol=1e-5)
    assert not outlying(np.ones((5, 3))).any()
    assert not outlying(np.ones((1, 3))).any()


def test_the_default_is_a_hundredth_but_no_more_than_a_class_has() -> None:
    assert [images_of(N, K) for N, K in [(1005, 19), (1005, 1019), (3, 2), (10_000, 10)]] == [
        10, 5, 3, 100,
    ]  # fmt: skip
    assert fitted(LabelVectors, cases.given(0, counts=(300, 300))).report()["m"] == 6


def test_a_class_vector_of_zeros_stays() -> None:
    batch, _, state = cases.given(4)
    W = state.W.copy()  # type: ignore[union-attr]
    W[1] = 0
    found = mixed(batch.X, W, 5)
    assert not found[1].any()
    np.testing.assert_allclose(found[[0, 2, 3]], mixed(batch.X, state.W, 5)[[0, 2, 3]], atol=1e-6)


def test_it_steps_back_where_classes_are_absent() -> None:
    case = cases.given(5, counts=(60, 60, 0, 0, 0, 0), bias=0.1)
    told = fitted(LabelVectors, case).report()
    assert told["stepped_back"]
    assert "as mixed as 2.0 of the 6 classes" in told["reason"]
    np.testing.assert_array_equal(scores(LabelVectors, case), case[2].S)
    assert not fitted(LabelVectors, case, guard=False).report()["stepped_back"]


def test_it_steps_back_where_neighbours_agree_less() -> None:
    batch, texts, state, true = cases.clusters(6, bias=0.1)
    assert state.W is not None
    wrong = replace(state, W=np.roll(state.W, 1, axis=0)[:, ::-1].copy())
    member = LabelVectors().fit(batch, texts, wrong)
    assert "neighbours agree less" in member.report()["reason"]
    assert top1(member.apply(batch, texts, wrong), true) == top1(state.S, true)


def test_fewer_images_than_m() -> None:
    told = fitted(LabelVectors, cases.given(0, counts=(2, 2, 2)), m=7).report()
    assert told["reason"] == "there are 6 images, and it looks at 7 together"


@pytest.mark.parametrize("name", cases.BAD)
@pytest.mark.parametrize("params", [{}, {"guard": False, "outliers": False}])
def test_bad_input(name: str, params: dict[str, Any]) -> None:
    cases.survives(LabelVectors, name, **params)


def test_nan_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot run 'label_vectors': row 7 holds NaN"):
        fitted(LabelVectors, cases.poisoned())


@pytest.mark.parametrize(
    ("spec", "seen"),
    [
        ("label_vectors[m=0]", "m is 0. Give 1 or more."),
        ("label_vectors[mix=1.5]", "mix is 1.5. Give a share from 0 to 1."),
    ],
)
def test_wrong_parameters_are_named(spec: str, seen: str) -> None:
    with pytest.raises(RecipeError) as error:
        create(spec, "refine")
    assert str(error.value) == f"cannot use 'label_vectors': {seen}"


@pytest.mark.parametrize("name", ENCODERS)
def test_real_vectors(shared: Path, name: str) -> None:
    batch, texts, state, true = cases.real(shared, name)
    for m, measured in zip((10, 50), MEASURED[name], strict=True):
        member = LabelVectors(m=m).fit(batch, texts, state)
        assert not member.report()["stepped_back"]
        S = member.apply(batch, texts, state)
        assert top1(S, true) == pytest.approx(measured, abs=0.1)
    few = batch.X[::5]
    expected = plain.vectors(few, state.W, 10, 0.5)
    np.testing.assert_allclose(mixed(few, state.W, 10), expected, atol=1e-5)


def test_a_bias_is_added() -> None:
    batch, texts, state = case = cases.given(1, dtype=np.float64)
    biased = batch, replace(texts, bias=-7.0), state
    found = scores(LabelVectors, biased, guard=False)
    np.testing.assert_allclose(found, scores(LabelVectors, case, guard=False) - 7, atol=1e-9)


def test_outliers_among_many_take_little_memory() -> None:
    """Not (m, m, D) numbers, which were 512 MB here."""
    rows = np.random.default_rng(0).standard_normal((1000, 64))
    tracemalloc.start()
    try:
        found = outlying(rows)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 30e6
    assert found.mean() < 0.1
