"""Small trainings in NumPy: Adam with decoupled weight decay, a falling rate, a fixed order."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byname.kmeans import content_key

__all__ = ["AdamW", "cosine_rate", "fixed_order"]

Floats = NDArray[np.float64]


class AdamW:
    """Adam (Kingma and Ba, ICLR 2015) with the decay of Loshchilov and Hutter, ICLR 2019.

    Examples
    --------
    >>> x = np.array([1.0])
    >>> AdamW(x).step(np.array([4.0]), 0.1)
    >>> x.round(6).tolist()
    [0.9]
    """

    def __init__(self, x: Floats, *, weight_decay: float = 0.0) -> None:
        self.x, self.weight_decay, self.steps = x, weight_decay, 0
        self.first, self.second = np.zeros_like(x), np.zeros_like(x)

    def step(self, gradient: Floats, rate: float) -> None:
        """Change ``x`` in place; betas 0.9 and 0.999, epsilon 1e-8, as everywhere."""
        self.steps += 1
        self.first += 0.1 * (gradient - self.first)
        self.second += 0.001 * (gradient * gradient - self.second)
        mean = self.first / (1 - 0.9**self.steps)
        spread = np.sqrt(self.second / (1 - 0.999**self.steps)) + 1e-8
        self.x *= 1 - rate * self.weight_decay
        self.x -= rate * mean / spread


def cosine_rate(rate: float, step: int, steps: int) -> float:
    """``rate`` at step 0, falling to 0 after ``steps`` as half a cosine.

    Examples
    --------
    >>> cosine_rate(1.0, 0, 10), round(cosine_rate(1.0, 5, 10), 6)
    (1.0, 0.5)
    """
    return rate * (1 + math.cos(math.pi * step / steps)) / 2


def fixed_order(X: NDArray[Any]) -> NDArray[np.intp]:
    """An order of rows (N, D) that their own order does not change.

    By their first eight columns, and where these are equal by a seeded direction of all.

    Examples
    --------
    >>> X = np.array([[2, 1], [1, 5], [1, 4]])
    >>> X[fixed_order(X)].tolist()
    [[1, 4], [1, 5], [2, 1]]
    """
    return np.lexsort((content_key(X), *X[:, :8].T[::-1]))
