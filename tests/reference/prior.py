"""Prior matching in plain float64 loops, from the formulas alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tests.reference.cpe import softmax


def mean_probability(S: Any, b: Any) -> Any:
    total = [0.0] * len(b)
    for row in np.asarray(S, np.float64).tolist():
        for k, p in enumerate(softmax([s - o for s, o in zip(row, b, strict=True)], 1.0)):
            total[k] += p / len(S)
    return [max(p, 1e-12) for p in total]


def offsets(S: Any, target: Any, steps: int) -> Any:
    """b after a fixed number of steps, of mean 0."""
    K = len(target)
    b = [0.0] * K
    for _ in range(steps):
        mean = mean_probability(S, b)
        b = [b[k] + math.log(mean[k] / target[k]) for k in range(K)]
    return np.array(b) - sum(b) / K


def estimated(X: Any, W: Any, m: int) -> Any:
    """Shares by class vectors half mixed with their m nearest images, with one image added."""
    X, W = np.asarray(X, np.float64), np.asarray(W, np.float64)
    K, counts = len(W), [1.0] * len(W)
    new = []
    for w in W:
        w = w / math.sqrt(float(w @ w))
        order = sorted(range(len(X)), key=lambda i: (-float(X[i] @ w), i))
        v = sum(X[i] for i in order[:m]) / m
        mixed = w / 2 + v / math.sqrt(float(v @ v)) / 2
        new.append(mixed / math.sqrt(float(mixed @ mixed)))
    for x in X:
        near = [float(x @ w) for w in new]
        counts[near.index(max(near))] += 1
    return np.array(counts) / (len(X) + K)
