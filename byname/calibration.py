"""Probabilities against the true labels: calibration, likelihood, and answering only where safe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.errors import UsageError
from byname.metrics import divide

__all__ = [
    "BINS",
    "CoverageRisk",
    "aurc",
    "brier",
    "brier_each",
    "coverage_risk",
    "ece",
    "ece_bins",
    "ece_from_sums",
    "nll",
    "nll_each",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
BINS = 15


def ece_bins(confidence: Floats, bins: int = BINS) -> Ints:
    """Which of the equal-width bins ``(i/bins, (i+1)/bins]`` holds each; 0 is in the first."""
    found = np.ceil(np.asarray(confidence, np.float64) * bins).astype(np.intp) - 1
    return np.clip(found, 0, bins - 1)


def ece_from_sums(confidence: NDArray[Any], right: NDArray[Any], total: Any) -> Any:
    """ECE from the sums of confidence and of right answers in each bin (last axis)."""
    return divide(np.abs(np.asarray(right) - confidence).sum(axis=-1), total)[()]


def ece(confidence: Floats, right: NDArray[Any], bins: int = BINS) -> float:
    """Expected calibration error: sum over bins of n_b/N |mean confidence - share right|.

    Parameters
    ----------
    confidence : array, shape (N,)
        Probability of the answer.
    right : array of bool, shape (N,)
    bins : int, default 15

    Examples
    --------
    >>> round(ece(np.array([0.9, 0.9]), np.array([True, False])), 12)
    0.4
    """
    if bins < 1:
        raise UsageError("compute a calibration error", f"{bins} bins were asked for", "Give 1.")
    index = ece_bins(confidence, bins)
    sums = [np.bincount(index, np.asarray(x, np.float64), bins) for x in (confidence, right)]
    return float(ece_from_sums(sums[0], sums[1], len(index)))


def nll_each(S: NDArray[Any], labels: Ints) -> Floats:
    """-log softmax(S) of the true class of each image; inf where it is impossible."""
    S = np.asarray(S, np.float64)
    return np.asarray(-ops.log_softmax(S)[np.arange(len(S)), labels])


def nll(S: NDArray[Any], labels: Ints) -> float:
    """Negative log-likelihood of the true classes, in nats.

    Examples
    --------
    >>> round(nll(np.log([[0.5, 0.5]]), np.array([0])), 6)
    0.693147
    """
    return float(np.mean(nll_each(S, labels))) if len(S) else float("nan")


def brier_each(P: NDArray[Any], labels: Ints) -> Floats:
    """Squared distance of each row of P (N, K) from the one-hot truth."""
    P = np.asarray(P, np.float64)
    true = P[np.arange(len(P)), labels]
    return np.asarray((P**2).sum(axis=1) - 2 * true + 1)


def brier(P: NDArray[Any], labels: Ints) -> float:
    """Brier score: mean over images of the sum over classes of (p_k - [k = y])^2; from 0 to 2.

    Examples
    --------
    >>> brier(np.array([[0.5, 0.5]]), np.array([0]))
    0.5
    """
    return float(np.mean(brier_each(P, labels))) if len(P) else float("nan")


# -- answering only where it is safe


@dataclass(frozen=True)
class CoverageRisk:
    """A curve with one point for each distinct confidence, highest first.

    ``coverage``: share of images answered at or above ``threshold``; ``risk``: share of those that
    are wrong; ``depth``: mean depth of those answers, where depths were given.
    """

    threshold: Floats
    coverage: Floats
    risk: Floats
    depth: Floats | None = None


def coverage_risk(
    confidence: Floats,
    right: NDArray[Any],
    depth: NDArray[Any] | None = None,
    weights: Floats | None = None,
) -> CoverageRisk:
    """Risk among the images answered, as ever more are answered.

    For ``reject``, ``right`` says whether the class is the true one. For ``backoff`` an answer is
    right if it is the true class or an ancestor of it; ``depth`` then tells what was paid for it.

    Parameters
    ----------
    confidence : array, shape (N,)
    right : array of bool, shape (N,)
    depth : array, shape (N,), optional
    weights : array, shape (N,), optional
        How often each image counts.

    Examples
    --------
    >>> curve = coverage_risk(np.array([0.9, 0.6, 0.6]), np.array([True, False, True]))
    >>> curve.coverage.round(3).tolist(), curve.risk.round(3).tolist()
    ([0.333, 1.0], [0.0, 0.333])
    """
    confidence = np.asarray(confidence, np.float64)
    w = np.ones(len(confidence)) if weights is None else np.asarray(weights, np.float64)
    threshold, index = np.unique(-confidence, return_inverse=True)

    def running(values: NDArray[Any]) -> Floats:
        return np.cumsum(np.bincount(index, w * values, len(threshold)))

    n = running(np.ones(len(w)))
    kept = n > 0
    n = n[kept]
    return CoverageRisk(
        threshold=-threshold[kept],
        coverage=n / n[-1] if len(n) else n,
        risk=running(1.0 - np.asarray(right, np.float64))[kept] / n,
        depth=None if depth is None else running(np.asarray(depth, np.float64))[kept] / n,
    )


def aurc(curve: CoverageRisk) -> float:
    """Area under the risk-coverage curve: mean risk over images, each at its own threshold.

    Examples
    --------
    >>> aurc(coverage_risk(np.array([0.9, 0.6]), np.array([True, False])))
    0.25
    """
    if not len(curve.risk):
        return float("nan")
    return float((np.diff(curve.coverage, prepend=0.0) * curve.risk).sum())
