"""Nearest keys in plain float64, key by key, from the formulas alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


def keys(
    X: Any, vectors: Any, index: Any, K: int, *, k: int = 1, scale: float, bias: float = 0.0
) -> NDArray[np.float64]:
    """Votes of the k nearest keys; beside them the nearest key of each class."""
    out = np.full((len(X), K), -np.inf)
    for i, x in enumerate(np.asarray(X, np.float64)):
        found = [
            (float(x @ np.asarray(v, np.float64)), int(c))
            for v, c in zip(vectors, index, strict=True)
            if c >= 0
        ]
        for similarity, c in found:
            out[i, c] = max(out[i, c], scale * similarity + bias)
        nearest = sorted(found, reverse=True)[:k]
        for c in {c for _, c in nearest}:
            own = [scale * s for s, other in nearest if other == c]
            out[i, c] = max(own) + math.log(sum(math.exp(s - max(own)) for s in own)) + bias
    return out


def match(X: Any, texts: Any, support: Any) -> tuple[float, float]:
    """Factor and shift that give the cosines with the support the spread of those with texts."""
    a = [float(np.dot(x, t)) for x in np.asarray(X, np.float64) for t in np.asarray(texts)]
    b = [float(np.dot(x, t)) for x in np.asarray(X, np.float64) for t in np.asarray(support)]
    factor = float(np.std(a) / np.std(b))
    return factor, float(np.mean(a) - factor * np.mean(b))
