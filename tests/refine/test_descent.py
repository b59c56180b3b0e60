"""Small trainings: the steps, the rate, and an order that no order of the rows changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byname.refine.descent import AdamW, cosine_rate, fixed_order
from tests.reference import adamw


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 9999), st.integers(1, 6), st.sampled_from([0.0, 0.1]))
def test_steps_are_those_of_the_loops(seed: int, steps: int, decay: float) -> None:
    rng = np.random.default_rng(seed)
    x, A = rng.standard_normal(3), rng.standard_normal((steps, 3))
    rates = rng.uniform(0.01, 0.1, steps).tolist()
    losses: list[Any] = [lambda v, a=a: float(a @ v + v @ v) for a in A]
    moved = x.copy()
    optimiser = AdamW(moved, weight_decay=decay)
    for a, rate in zip(A, rates, strict=True):
        optimiser.step(a + 2 * moved, rate)
    np.testing.assert_allclose(moved, adamw.adamw(losses, x, rates, decay), atol=1e-6)


def test_the_rate_falls_to_nothing() -> None:
    rates = [cosine_rate(0.4, step, 8) for step in range(9)]
    assert rates[0] == 0.4
    assert rates[4] == pytest.approx(0.2)
    assert rates[8] == pytest.approx(0, abs=1e-12)
    assert sorted(rates, reverse=True) == rates


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 9999), st.booleans())
def test_the_order_of_the_rows_makes_no_difference(seed: int, alike: bool) -> None:
    """Also where the first eight columns, such as a border of every image, are equal."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((20, 12)).astype(np.float32)
    if alike:
        X[:, :8] = 0.5
    rows = rng.permutation(20)
    np.testing.assert_array_equal(X[rows][fixed_order(X[rows])], X[fixed_order(X)])
    assert sorted(fixed_order(X).tolist()) == list(range(20))
