"""Merged sources of texts in plain float64 loops, from the formulas alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.reference.cpe import unit


def merge(
    T: Any, index: Any, kind: Any, omega: Any, K: int, mix: str
) -> tuple[list[float], NDArray[np.float64]]:
    """Weights (M,) and W (K, D)."""
    M = len(T)
    weight = [0.0] * M
    for k in range(K):
        mine = [m for m in range(M) if index[m] == k]
        sources = {kind[m] for m in mine if omega[m] > 0}
        for m in mine:
            pool = mine if mix == "count" else [j for j in mine if kind[j] == kind[m]]
            total = sum(omega[j] for j in pool)
            weight[m] = float(omega[m]) / total if total else 0.0
            weight[m] /= 1 if mix == "count" else len(sources)
    W = []
    for k in range(K):
        total = np.zeros(len(T[0]))
        for m in range(M):
            if index[m] == k:
                total = total + weight[m] * np.asarray(T[m], np.float64)
        W.append(unit(total))
    return weight, np.array(W)
