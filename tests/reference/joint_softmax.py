"""Joint softmax scoring in float64 and plain loops, written from its description.

One softmax over all texts of all classes; a class scores the mean of its texts' probabilities.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["joint_softmax"]


def joint_softmax(
    X: Any, T: Any, index: Any, K: int, scale: float, weight: Any = None
) -> NDArray[np.float64]:
    """Mean probability (N, K) of the texts of each class, weighted; each class has a text."""
    X, T = np.asarray(X, float), np.asarray(T, float)
    weight = np.ones(len(T)) if weight is None else weight
    used = [m for m in range(len(T)) if index[m] >= 0 and weight[m] > 0]
    out = np.zeros((len(X), K))
    for i, x in enumerate(X):
        logits = {m: scale * float(x @ T[m]) for m in used}
        top = max(logits.values())
        p = {m: math.exp(f - top) for m, f in logits.items()}
        total = sum(p.values())
        for k in range(K):
            mine = [m for m in used if index[m] == k]
            norm = sum(float(weight[m]) for m in mine)
            out[i, k] = sum(float(weight[m]) / norm * p[m] / total for m in mine)
    return out
