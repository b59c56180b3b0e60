"""Classification by description in float64 and plain loops, written from its description.

The score of a class is the mean, the largest or the sum of the cosines between the image and each
of its texts; nothing is brought to length one after averaging.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["describe"]


def describe(
    X: Any, T: Any, index: Any, K: int, aggregate: str, weight: Any = None
) -> NDArray[np.float64]:
    """phi (N, K), without scale and bias; every class has a text of positive weight."""
    X, T = np.asarray(X, float), np.asarray(T, float)
    weight = np.ones(len(T)) if weight is None else weight
    out = np.zeros((len(X), K))
    for i, x in enumerate(X):
        for k in range(K):
            mine = [m for m in range(len(T)) if index[m] == k and weight[m] > 0]
            cosines = [float(x @ T[m]) for m in mine]
            total = sum(float(weight[m]) for m in mine)
            mean = sum(float(weight[m]) * c for m, c in zip(mine, cosines, strict=True)) / total
            out[i, k] = {"mean": mean, "max": max(cosines), "sum": len(mine) * mean}[aggregate]
    return out
