"""AdamW on a loss that is only a function: gradients by central differences, updates in loops."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np


def gradient(loss: Callable[[Any], float], x: Any, h: float = 1e-6) -> Any:
    x = np.asarray(x, np.float64)
    out = np.zeros_like(x)
    for place in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[place] += h
        down[place] -= h
        out[place] = (loss(up) - loss(down)) / (2 * h)
    return out


def adamw(losses: list[Callable[[Any], float]], x: Any, rates: list[float], decay: float) -> Any:
    """One step for each loss."""
    x = np.array(x, np.float64)
    m, v = np.zeros_like(x), np.zeros_like(x)
    for t, (loss, rate) in enumerate(zip(losses, rates, strict=True), 1):
        g = gradient(loss, x)
        for place in np.ndindex(x.shape):
            m[place] = 0.9 * m[place] + 0.1 * g[place]
            v[place] = 0.999 * v[place] + 0.001 * g[place] ** 2
            mean, spread = m[place] / (1 - 0.9**t), v[place] / (1 - 0.999**t)
            x[place] -= rate * decay * x[place]
            x[place] -= rate * mean / (math.sqrt(spread) + 1e-8)
    return x
