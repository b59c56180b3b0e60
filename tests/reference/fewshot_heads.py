"""The Gaussian head, and the loss of the linear one, in plain float64 loops."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tests.reference.cpe import softmax


def gaussian(X: Any, index: Any, K: int, rows: Any) -> Any:
    """g (N, K) of ``rows``; 0 for classes without images."""
    X, D = np.asarray(X, np.float64), len(X[0])
    means = {k: np.mean([x for x, i in zip(X, index, strict=True) if i == k], axis=0)
             for k in sorted(set(index))}  # fmt: skip
    C = np.zeros((D, D))
    for x, i in zip(X, index, strict=True):
        C += np.outer(x - means[i], x - means[i]) / max(len(X) - 1, 1)
    P = np.eye(D)
    if np.trace(C) > 1e-12:
        P = D * np.linalg.inv((len(X) - 1) * C + np.trace(C) * np.eye(D))
    out = np.zeros((len(rows), K))
    for n, x in enumerate(rows):
        g = {k: float(x @ P @ m - m @ P @ m / 2) for k, m in means.items()}
        mean = sum(g.values()) / len(g)
        for k, value in g.items():
            out[n, k] = value - mean
    return out


def loss(V: Any, X: Any, text: Any, index: Any, weight: float) -> float:
    total = 0.0
    for x, t, i in zip(X, text, index, strict=True):
        p = softmax([float(a + v @ x) for a, v in zip(t, V, strict=True)], 1)
        total -= math.log(p[i])
    return total / len(X) + weight / 2 * float((np.asarray(V) ** 2).sum())
