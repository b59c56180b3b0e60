"""Label vectors in plain float64 loops, from the formulas alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def unit(v: Any) -> Any:
    return v / math.sqrt(float(v @ v))


def vectors(X: Any, W: Any, m: int, mix: float) -> Any:
    X, W = np.asarray(X, np.float64), np.asarray(W, np.float64)
    made = []
    for w in W:
        w = unit(w)
        order = sorted(range(len(X)), key=lambda i: (-float(X[i] @ w), i))
        v = unit(sum(X[i] for i in order[:m]) / m)
        made.append(unit((1 - mix) * w + mix * v))
    return np.array(made)


def logits(X: Any, W: Any, m: int, mix: float, scale: float) -> Any:
    return scale * np.asarray(X, np.float64) @ vectors(X, W, m, mix).T
