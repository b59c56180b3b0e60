"""RsCIN in plain float64 loops, from the formulas alone: scaled to 0-1, smoothed, scaled back."""

from __future__ import annotations

from typing import Any

import numpy as np


def rscin(X: Any, S: Any, sizes: Any) -> Any:
    X, S = np.asarray(X, np.float64), np.asarray(S, np.float64)
    low, high = S.min(), S.max()
    Z = (S - low) / (high - low)
    near = X @ X.T
    out = np.zeros_like(Z)
    for i in range(len(X)):
        near[i, i] = 1.0
        order = sorted((j for j in range(len(X)) if j != i), key=lambda j: (-near[i, j], j))
        for k in sizes:
            chosen = [i, *order[: k - 1]]
            weight = [max(near[i, j], 0.0) for j in chosen]
            row = sum(w * Z[j] for w, j in zip(weight, chosen, strict=True)) / sum(weight)
            out[i] += row / len(sizes)
    return out * (high - low) + low
