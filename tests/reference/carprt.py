"""CARPRT in plain float64 loops, from the formulas alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.reference.cpe import softmax

Floats = NDArray[np.float64]


def carprt(X: Any, Z: Any, s: float, *, empty: str, temperature: float) -> tuple[Floats, Floats]:
    """Weights w (P, K) and W (K, D) for texts Z (P, K, D)."""
    X, Z = np.asarray(X, np.float64), np.asarray(Z, np.float64)
    P, K, D = Z.shape
    a = np.zeros((P, K))
    for p in range(P):
        held: list[list[float]] = [[] for _ in range(K)]
        for x in X:
            row = [s * float(x @ Z[p, k]) for k in range(K)]
            held[row.index(max(row))].append(max(row))
        everything = [value for own in held for value in own]
        missed = sum(everything) / len(everything) if empty == "prompt" else 0.0
        for k in range(K):
            a[p, k] = sum(held[k]) / len(held[k]) if held[k] else missed
    w = np.array([softmax([a[p, k] for p in range(P)], temperature) for k in range(K)]).T
    W = np.zeros((K, D))
    for p in range(P):
        for k in range(K):
            W[k] += w[p, k] * Z[p, k]
    return w, W
