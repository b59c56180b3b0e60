"""The simplest stages in plain float64, written from the formulas alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def class_weights(class_index: Any, weight: Any, K: int) -> NDArray[np.float64]:
    """Given weight over the sum of the given weights of the class; 0 for texts of no class."""
    out = np.zeros(len(class_index))
    for k in range(K):
        mine = [m for m, c in enumerate(class_index) if c == k]
        total = sum(1.0 if weight is None else float(weight[m]) for m in mine)
        for m in mine:
            out[m] = (1.0 if weight is None else float(weight[m])) / total
    return out


def class_means(vectors: Any, class_index: Any, weight: Any, K: int) -> NDArray[np.float64]:
    """m_k, not of length one."""
    vectors = np.asarray(vectors, np.float64)
    share = class_weights(class_index, weight, K)
    out = np.zeros((K, vectors.shape[1]))
    for m, k in enumerate(class_index):
        if k >= 0:
            out[k] += share[m] * vectors[m]
    return out


def mean(vectors: Any, class_index: Any, weight: Any, K: int) -> NDArray[np.float64]:
    """m_k / ||m_k||."""
    means = class_means(vectors, class_index, weight, K)
    norms = np.linalg.norm(means, axis=1, keepdims=True)
    return means / np.where(norms == 0, 1.0, norms)


def cosine(X: Any, W: Any, scale: float, bias: float) -> NDArray[np.float64]:
    """scale * X W^T + bias."""
    return scale * np.asarray(X, np.float64) @ np.asarray(W, np.float64).T + bias
