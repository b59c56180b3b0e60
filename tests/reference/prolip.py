"""The class score with variances, in plain loops."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


def prolip(
    X: Any,
    W: Any,
    log_var: Any,
    index: Any,
    weight: Any,
    *,
    scale: float,
    bias: float = 0.0,
    pooling: str = "mean",
    multiplier: float = 1.0,
) -> NDArray[np.float64]:
    """S (N, K)."""
    X, W = np.asarray(X, float), np.asarray(W, float)
    S = np.zeros((len(X), len(W)))
    for k in range(len(W)):
        rows = [m for m in range(len(log_var)) if index[m] == k]
        total = sum(float(weight[m]) for m in rows)
        variance = np.zeros(X.shape[1])
        for m in rows:
            w = float(weight[m]) / total
            w = w if pooling == "mean" else w * w
            variance += [w * math.exp(float(v)) for v in log_var[m]]
        for i in range(len(X)):
            S[i, k] = scale * float(X[i] @ W[k]) - scale / 2 * multiplier * variance.sum() + bias
    return S
