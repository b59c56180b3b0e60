"""Late interaction in plain float64, written from the formulas alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def _rows(tokens: Any, own: Any) -> list[NDArray[np.float64]]:
    kept = [np.asarray(t, np.float64) for t in tokens if np.any(t)]
    kept = kept or [np.asarray(own, np.float64)]
    return [t / (np.linalg.norm(t) or 1) for t in kept]


def filip(
    X: Any, tokens: Any, vectors: Any, words: Any, index: Any, weight: Any, K: int, direction: str
) -> NDArray[np.float64]:
    """Weighted mean similarity (N, K) of the texts of each class, without the scale."""
    out = np.zeros((len(tokens), K))
    for i in range(len(tokens)):
        Z = _rows(tokens[i], X[i])
        for k in range(K):
            mine = [m for m in range(len(words)) if index[m] == k and weight[m] > 0]
            total = sum(weight[m] for m in mine)
            for m in mine:
                E = _rows(words[m], vectors[m])
                i2t = np.mean([max(float(z @ e) for e in E) for z in Z])
                t2i = np.mean([max(float(z @ e) for z in Z) for e in E])
                value = {"i2t": i2t, "t2i": t2i, "both": (i2t + t2i) / 2}[direction]
                out[i, k] += weight[m] / total * value
    return out
