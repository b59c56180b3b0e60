"""Calibration and coverage against plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from byname import calibration as cal
from byname.errors import UsageError
from tests.reference import metrics as reference
from tests.trees import random_case

seeds = st.integers(0, 10_000)


@given(seed=seeds, K=st.integers(1, 7), N=st.integers(1, 30), bins=st.integers(1, 20))
def test_probabilities_agree_with_loops(seed: int, K: int, N: int, bins: int) -> None:
    case = random_case(seed, N, K)
    labels = case.labels.tolist()
    P = np.array([reference.probabilities(row) for row in case.S.tolist()])
    confidence, right = P.max(axis=1), P.argmax(axis=1) == case.labels
    assert cal.nll(case.S, case.labels) == pytest.approx(reference.nll(case.S.tolist(), labels))
    assert cal.brier(P, case.labels) == pytest.approx(reference.brier(case.S.tolist(), labels))
    assert cal.ece(confidence, right, bins) == pytest.approx(
        reference.ece(confidence.tolist(), right.tolist(), bins)
    )


@given(seed=seeds, N=st.integers(1, 30))
def test_coverage_and_risk_agree_with_loops(seed: int, N: int) -> None:
    rng = np.random.default_rng(seed)
    confidence, right = rng.random(N).round(1), rng.random(N) < 0.6
    depth, often = rng.integers(1, 4, N), rng.integers(0, 3, N)
    curve = cal.coverage_risk(confidence, right, depth)
    assert curve.coverage[-1] == 1
    assert curve.risk[-1] == pytest.approx(1 - right.mean())
    assert curve.depth is not None
    for threshold, coverage, risk, mean in zip(
        curve.threshold, curve.coverage, curve.risk, curve.depth, strict=True
    ):
        kept = confidence >= threshold
        assert coverage == pytest.approx(kept.mean())
        assert risk == pytest.approx(1 - right[kept].mean())
        assert mean == pytest.approx(depth[kept].mean())
    expected = reference.aurc(confidence.tolist(), right.tolist())
    assert cal.aurc(curve) == pytest.approx(expected)
    again = np.repeat(np.arange(N), often)
    weighted = cal.aurc(cal.coverage_risk(confidence, right, weights=often.astype(float)))
    repeated = cal.aurc(cal.coverage_risk(confidence[again], right[again]))
    assert weighted == pytest.approx(repeated, nan_ok=True)


def test_edges_of_bins() -> None:
    assert cal.ece_bins(np.array([0.0, 1 / 15, 0.07, 1.0])).tolist() == [0, 0, 1, 14]


def test_calibrated_answers_have_no_error() -> None:
    confidence = np.full(1000, 0.8)
    assert cal.ece(confidence, np.arange(1000) < 800) == pytest.approx(0)
    assert cal.ece(confidence, np.ones(1000)) == pytest.approx(0.2)


def test_impossible_and_certain() -> None:
    S = np.array([[0.0, -np.inf], [0.0, -np.inf]])
    assert cal.nll_each(S, np.array([0, 1])).tolist() == [0.0, math.inf]
    assert cal.brier(np.array([[1.0, 0.0]]), np.array([1])) == 2


def test_no_images_give_no_number() -> None:
    none, empty = np.zeros(0, np.intp), np.zeros((0, 2))
    for number in (
        cal.nll(empty, none),
        cal.brier(empty, none),
        cal.ece(np.zeros(0), none),
        cal.aurc(cal.coverage_risk(np.zeros(0), none)),
    ):
        assert math.isnan(number)


def test_no_bins() -> None:
    with pytest.raises(UsageError, match="0 bins were asked for"):
        cal.ece(np.ones(1), np.ones(1), 0)
