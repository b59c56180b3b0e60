"""The relevance of words to items, in plain loops, for given coefficients."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def unit(v: Floats) -> Floats:
    length = float(np.linalg.norm(v))
    return v / length if length else v


def relevance(u: Floats, v: Floats, coef: Floats, intercept: float) -> float:
    D = len(u)
    z = intercept
    for d in range(D):
        z += coef[d] * u[d] * v[d] + coef[D + d] * abs(u[d] - v[d])
    return 1 / (1 + math.exp(-z))


def words(T: Any, index: Any, K: int, kind: Any) -> list[list[Floats]]:
    """The names and synonyms of each class; the unit mean of its texts where there are none."""
    found = []
    for k in range(K):
        own = [np.asarray(T[m], float) for m in range(len(T)) if index[m] == k]
        named = [
            np.asarray(T[m], float)
            for m in range(len(T))
            if index[m] == k and kind and kind[m] in ("name", "synonym")
        ]
        found.append(named or [unit(np.mean(own, axis=0))])
    return found


def centre(T: Any, index: Any, K: int) -> Floats:
    T = np.asarray(T, float)
    means = [np.mean([T[m] for m in range(len(T)) if index[m] == k], axis=0) for k in range(K)]
    mu = np.mean(means, axis=0)
    return np.array([unit(t - mu) for t in T])


def centre_images(X: Any, K: int) -> Floats:
    X = np.asarray(X, float)
    nu = X.mean(axis=0) * len(X) / (len(X) + 5 * K)
    return np.array([unit(x - nu) for x in X])


def scores(X: Any, named: list[list[Floats]], coef: Floats, intercept: float) -> Floats:
    """S (N, K): log of the mean probability over the words of a class."""
    return np.array(
        [
            [math.log(np.mean([relevance(x, v, coef, intercept) for v in own])) for own in named]
            for x in np.asarray(X, float)
        ]
    )


def loss_slope(F: Floats, y: Any, C: float, coef: Floats, intercept: float) -> Floats:
    """Slope (d + 1,) of 1/2 |w|^2 + C sum of log losses, which is 0 at its least."""
    slope = np.append(np.asarray(coef, float), 0.0)
    for row, label in zip(F, y, strict=True):
        p = 1 / (1 + math.exp(-(float(row @ coef) + intercept)))
        slope += C * (p - float(label)) * np.append(row, 1.0)
    return slope
