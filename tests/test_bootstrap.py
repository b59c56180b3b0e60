"""Intervals: what is drawn, what they cover, and that methods share the draws."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse

from byname import bootstrap as boot
from byname.errors import UsageError


def mean_of(values: NDArray[np.float64]) -> boot.Metric:
    return lambda weights: values @ weights / weights.sum(axis=0)


def test_every_draw_takes_n_images() -> None:
    blocks = list(boot.resamples(7, 50))
    together = np.concatenate(blocks, axis=1)
    assert together.shape == (7, 50)
    assert (together.sum(axis=0) == 7).all()
    np.testing.assert_array_equal(np.concatenate(list(boot.resamples(7, 50)), axis=1), together)
    assert (np.concatenate(list(boot.resamples(7, 50, seed=1)), axis=1) != together).any()


def test_the_size_of_the_blocks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = np.concatenate(list(boot.resamples(11, 20)), axis=1)
    monkeypatch.setattr(boot, "_CELLS", 33)
    assert len(list(boot.resamples(11, 20))) == 7
    np.testing.assert_array_equal(np.concatenate(list(boot.resamples(11, 20)), axis=1), whole)


def test_weights_are_the_same_as_taking_images_again() -> None:
    values = np.random.default_rng(0).normal(size=20)
    weights = np.concatenate(list(boot.resamples(20, 5)), axis=1)
    expected = [values[np.repeat(np.arange(20), w.astype(int))].mean() for w in weights.T]
    np.testing.assert_allclose(mean_of(values)(weights), expected)
    columns = sparse.csc_array(np.column_stack([values, np.ones(20)]))
    summed = boot.SumMetric(columns, lambda s: s[:, 0] / s[:, 1])
    np.testing.assert_allclose(summed(weights), expected)


def test_metrics_that_share_columns_share_the_product() -> None:
    class Counting:
        calls = 0

        @property
        def T(self) -> Counting:
            return self

        def __matmul__(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
            Counting.calls += 1
            return weights[:1]

    columns = Counting()
    metrics = {str(i): boot.SumMetric(columns, lambda s: s[:, 0]) for i in range(5)}
    boot.draw_values(metrics, 3, draws=2)
    assert Counting.calls == 5 + 1  # one by one on all images, together on the draws


def test_intervals_cover_what_they_should() -> None:
    """About 95 of 100 intervals of a mean hold the true mean."""
    rng = np.random.default_rng(0)
    held = 0
    for i in range(200):
        found = boot.bootstrap(mean_of(rng.random(100) < 0.7), 100, seed=i, draws=400)
        held += found.low <= 0.7 <= found.high
    assert 180 <= held <= 199


def test_a_paired_difference_is_narrower_than_two_intervals() -> None:
    rng = np.random.default_rng(0)
    a = (rng.random(500) < 0.7).astype(float)
    b = np.where(rng.random(500) < 0.05, 1 - a, a)
    found = boot.paired_difference(mean_of(b), mean_of(a), 500)
    apart = boot.bootstrap(mean_of(a), 500)
    assert found.value == pytest.approx(b.mean() - a.mean())
    assert found.high - found.low < (apart.high - apart.low) / 2
    same = boot.paired_difference(mean_of(a), mean_of(a), 500)
    assert tuple(same) == (0, 0, 0)


def test_what_is_not_defined_is_left_out() -> None:
    found = boot.interval(0.5, np.array([np.nan, 0.25, 0.75]), 0.5)
    assert found == (0.5, 0.375, 0.625)
    for value, drawn in ((math.nan, np.ones(3)), (0.5, np.full(3, np.nan)), (0.5, np.ones(0))):
        assert math.isnan(boot.interval(value, drawn).low)
    endless = boot.interval(0.5, np.array([0.0, 0.5, np.inf]))
    assert endless == (0.5, 0.0, np.inf)


def test_all_draws_count() -> None:
    drawn = np.linspace(0, 1, 1001)  # in order: the first ones alone are all small
    assert boot.interval(0.5, drawn, 0.5) == pytest.approx((0.5, 0.25, 0.75))
    assert boot.interval(0.5, drawn[::-1], 0.5) == pytest.approx((0.5, 0.25, 0.75))


def test_a_difference_is_taken_draw_by_draw() -> None:
    a, b = (0.5, np.array([0.25, 0.75])), (0.25, np.array([0.0, 0.5]))
    assert boot.difference(a, b) == (0.25, 0.25, 0.25)


def test_no_draws_give_the_value_alone() -> None:
    found = boot.bootstrap(mean_of(np.array([0.0, 1.0])), 2, draws=0)
    assert found.value == 0.5
    assert math.isnan(found.low)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: boot.bootstrap(mean_of(np.ones(0)), 0), "there are 0 images and 1000 draws"),
        (lambda: boot.bootstrap(mean_of(np.ones(1)), 1, draws=-1), "1 images and -1 draws"),
        (lambda: boot.interval(0.5, np.ones(2), 95), "its level is 95"),
    ],
)
def test_bad_input(call: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        call()  # type: ignore[operator]


@pytest.mark.slow
def test_fifty_thousand_images_and_a_thousand_draws() -> None:
    n = 50_000
    correct = (np.random.default_rng(0).random(n) < 0.7).astype(float)
    metric = boot.SumMetric(sparse.csc_array(correct[:, None]), lambda s: s[:, 0] / n)
    start = time.perf_counter()
    found = boot.bootstrap(metric, n)
    assert time.perf_counter() - start < 60
    assert found.high - found.low == pytest.approx(2 * 1.96 * np.sqrt(0.21 / n), rel=0.1)
