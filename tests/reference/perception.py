"""PerceptionCLIP in float64 and plain loops, written from its description.

First the probability of each context, softened by tau; then that of the classes in each context;
their sum over the contexts is the answer.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["context_posterior", "perception"]


def softmax(logits: list[float]) -> list[float]:
    top = max(logits)
    e = [math.exp(f - top) for f in logits]
    return [value / math.fsum(e) for value in e]


def context_posterior(x: Any, t: Any, scale: float, tau: float, generic: Any = None) -> list[float]:
    """p(z|x) for unit vectors t (K, Z, D); by the generic vectors (Z, D) where they are given."""
    K, Z = t.shape[:2]
    if generic is not None:
        return softmax([scale * float(x @ generic[z]) / tau for z in range(Z)])
    flat = softmax([scale * float(x @ t[c, z]) / tau for z in range(Z) for c in range(K)])
    return [math.fsum(flat[z * K : (z + 1) * K]) for z in range(Z)]


def perception(
    X: Any, t: Any, scale: float, tau: float, generic: Any = None
) -> NDArray[np.float64]:
    """p(c|x) (N, K)."""
    X, t = np.asarray(X, float), np.asarray(t, float)
    K = t.shape[0]
    out = np.zeros((len(X), K))
    for i, x in enumerate(X):
        for z, p in enumerate(context_posterior(x, t, scale, tau, generic)):
            inside = softmax([scale * float(x @ t[c, z]) for c in range(K)])
            for c in range(K):
                out[i, c] += p * inside[c]
    return out
