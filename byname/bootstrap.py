"""Percentile intervals by resampling images, with the same draws for every metric and method."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from byname.errors import UsageError
from byname.progress import tell

__all__ = [
    "Interval",
    "Metric",
    "SumMetric",
    "bootstrap",
    "difference",
    "draw_values",
    "interval",
    "paired_difference",
    "resamples",
]

Floats = NDArray[np.float64]
# A metric of resampled images: how often each counts, (N, B), to one value a draw, (B,).
Metric = Callable[[Floats], Floats]
_CELLS = 1 << 22  # counts held at a time


class Interval(NamedTuple):
    """A value, and the percentile interval around it; NaN where it is not defined."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class SumMetric:
    """A metric that is a function of sums over images, which makes resampling one product.

    Parameters
    ----------
    columns : sparse array or array, shape (N, m)
        What each image adds. Metrics that share this object share the product.
    finish : callable
        Sums (B, m) to values (B,).

    Examples
    --------
    >>> correct = np.array([[1.0], [0.0]])
    >>> SumMetric(correct, lambda sums: sums[:, 0] / 2)(np.array([[2.0], [0.0]])).tolist()
    [1.0]
    """

    columns: Any
    finish: Callable[[Floats], Floats]

    def __call__(self, weights: Floats) -> Floats:
        """Values (B,) for weights (N, B)."""
        return self.finish(self.sums(weights))

    def sums(self, weights: Floats) -> Floats:
        """The sums (B, m)."""
        return np.asarray((self.columns.T @ weights).T)


def resamples(n: int, draws: int, seed: int = 0) -> Iterator[Floats]:
    """Blocks (n, B) of how often each of n images is in each draw; together ``draws`` columns.

    Every draw takes n images with replacement. The same n, draws and seed give the same blocks.

    Examples
    --------
    >>> [block.sum(axis=0).tolist() for block in resamples(3, 2)]
    [[3.0, 3.0]]
    """
    rng = np.random.default_rng(seed)
    size = max(1, _CELLS // max(n, 1))
    for start in range(0, draws, size):
        b = min(size, draws - start)
        # One draw after another, so that the block size does not change the draws.
        cells = np.concatenate([rng.integers(0, n, n) * b + column for column in range(b)])
        yield np.bincount(cells, minlength=n * b).reshape(n, b).astype(np.float64)


def draw_values(
    metrics: Mapping[str, Metric], n: int, *, draws: int = 1000, seed: int = 0
) -> dict[str, tuple[float, Floats]]:
    """Value on all images, and on every draw, of several metrics over the same draws.

    Returns
    -------
    dict of str to (float, array (draws,))

    Raises
    ------
    UsageError
        For no images, or a negative number of draws.
    """
    if n < 1 or draws < 0:
        raise UsageError(
            "compute intervals", f"there are {n} images and {draws} draws", "Give 1 image or more."
        )
    whole = {name: float(metric(np.ones((n, 1)))[0]) for name, metric in metrics.items()}
    parts: dict[str, list[Floats]] = {name: [] for name in metrics}
    done = 0
    for weights in resamples(n, draws, seed):
        tell("draws for the intervals", done, draws)
        done += weights.shape[1]
        sums: dict[int, Floats] = {}
        for name, metric in metrics.items():
            if isinstance(metric, SumMetric):
                key = id(metric.columns)
                if key not in sums:
                    sums[key] = metric.sums(weights)
                parts[name].append(metric.finish(sums[key]))
            else:
                parts[name].append(metric(weights))
    tell("draws for the intervals", done, done)
    none = np.empty(0)
    return {name: (whole[name], np.concatenate([none, *parts[name]])) for name in metrics}


def interval(value: float, drawn: Floats, level: float = 0.95) -> Interval:
    """Percentile interval; draws where the metric is not defined are left out.

    Examples
    --------
    >>> interval(0.5, np.array([0.25, 0.5, 0.75]), 0.5)
    Interval(value=0.5, low=0.375, high=0.625)
    """
    if not 0 < level < 1:
        raise UsageError("compute an interval", f"its level is {level}", "Give one such as 0.95.")
    known = drawn[~np.isnan(drawn)]
    if np.isnan(value) or not len(known):
        return Interval(value, float("nan"), float("nan"))
    # "lower" and "higher" stay defined where draws are infinite.
    tail = (1 - level) / 2
    if np.isinf(known).any():
        low = np.quantile(known, tail, method="lower")
        high = np.quantile(known, 1 - tail, method="higher")
    else:
        low, high = np.quantile(known, [tail, 1 - tail])
    return Interval(value, float(low), float(high))


def bootstrap(
    metric: Metric, n: int, *, seed: int = 0, draws: int = 1000, level: float = 0.95
) -> Interval:
    """Value and percentile interval of one metric over n images.

    Parameters
    ----------
    metric : callable
        Weights (n, B), how often each image counts, to values (B,); see :class:`SumMetric`.
    n : int
    seed, draws : int
    level : float

    Examples
    --------
    >>> correct = np.array([1.0, 1.0, 0.0, 1.0])
    >>> bootstrap(lambda weights: correct @ weights / 4, 4).value
    0.75
    """
    value, drawn = draw_values({"": metric}, n, draws=draws, seed=seed)[""]
    return interval(value, drawn, level)


def paired_difference(
    a: Metric, b: Metric, n: int, *, seed: int = 0, draws: int = 1000, level: float = 0.95
) -> Interval:
    """Interval of a - b over the same draws, narrower than two separate intervals suggest.

    Examples
    --------
    >>> correct = np.array([1.0, 1.0, 0.0, 1.0])
    >>> paired_difference(*[lambda weights: correct @ weights / 4] * 2, n=4)
    Interval(value=0.0, low=0.0, high=0.0)
    """
    found = draw_values({"a": a, "b": b}, n, draws=draws, seed=seed)
    return difference(found["a"], found["b"], level)


def difference(a: tuple[float, Floats], b: tuple[float, Floats], level: float = 0.95) -> Interval:
    """Interval of a - b from two results of :func:`draw_values` over the same draws.

    Examples
    --------
    >>> difference((0.5, np.array([0.5, 0.75])), (0.25, np.array([0.25, 0.5])))
    Interval(value=0.25, low=0.25, high=0.25)
    """
    return interval(a[0] - b[0], a[1] - b[1], level)
