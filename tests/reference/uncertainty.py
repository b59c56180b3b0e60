"""The filter by variances, in plain loops."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


def uncertainty(
    T: Any, log_var: Any, index: Any, K: int, mode: str, value: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights (M,) and W (K, D); ``value`` is the share, the k or the a of the mode."""
    T = np.asarray(T, float)
    u = [sum(math.exp(float(v)) for v in row) for row in log_var]
    overall = sorted(range(len(u)), key=lambda m: u[m])
    weight, W = np.zeros(len(u)), np.zeros((K, T.shape[1]))
    for k in range(K):
        rows = sorted((m for m in range(len(u)) if index[m] == k), key=lambda m: u[m])
        if mode == "share":
            kept = rows[: math.ceil(round(value * len(rows), 9))]
        elif mode == "k":
            kept = rows[: int(value)]
        elif mode == "global":
            kept = [m for m in rows if m in overall[: int(value)]]
        else:
            mean = sum(u[m] for m in rows) / len(rows)
            std = math.sqrt(sum((u[m] - mean) ** 2 for m in rows) / len(rows))
            kept = [m for m in rows if u[m] <= mean + value * std]
        kept = kept or rows[:1]
        for m in kept:
            weight[m] = 1 / len(kept)
            W[k] += T[m] / len(kept)
        W[k] /= math.sqrt(float((W[k] ** 2).sum()))
    return weight, W
