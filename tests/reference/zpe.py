"""ZPE in plain float64 loops, from the formulas alone."""

from __future__ import annotations

import math
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.reference.cpe import softmax

Floats = NDArray[np.float64]


def zpe(
    X: Any, Z: Any, s: float, *, R: Any, mode: str, tau: float | None, temperature: float
) -> tuple[list[float], list[float], Floats]:
    """Scores a_p, weights w_p and W (K, D) for texts Z (P, K, D)."""
    X, Z = np.asarray(X, np.float64), np.asarray(Z, np.float64)
    P, K, D = Z.shape
    scores = []
    for p in range(P):
        L = [[s * float(x @ Z[p, k]) for k in range(K)] for x in X]
        bias = []
        for k in range(K):
            test = sum(row[k] for row in L) / len(L)
            if mode in ("both", "reference"):
                other = sum(s * float(np.asarray(r, float) @ Z[p, k]) for r in R) / len(R)
            if mode == "both":
                bias.append((test + other) / 2)
            else:
                bias.append({"test": test, "none": 0.0}.get(mode) if mode != "reference" else other)
        scores.append(sum(max(row[k] - bias[k] for k in range(K)) for row in L) / len(L))
    kept = list(range(P))
    if tau is not None:
        middle = median(scores)
        mad = median(abs(a - middle) for a in scores)
        # Mean cosines that differ by a millionth are equal.
        kept = [p for p in range(P) if scores[p] > middle + tau * mad + 1e-6 * s] or kept
    w = [0.0] * P
    for p, share in zip(kept, softmax([scores[p] for p in kept], temperature), strict=True):
        w[p] = share
    W = np.zeros((K, D))
    for p in range(P):
        for k in range(K):
            W[k] += w[p] * Z[p, k]
    assert math.isclose(sum(w), 1)
    return scores, w, W
