"""Heads on texts in plain float64: the ridge by normal equations, left-out texts by refitting."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def unit(v: Floats) -> Floats:
    length = float(np.linalg.norm(v))
    return v / length if length else v


def prepared(T: Any, index: Any, K: int) -> tuple[Floats, Floats, Floats, Floats]:
    """z (M, D), v (M,), class means (K, D) and their mean; all texts weigh the same in a class."""
    T = np.asarray(T, float)
    counts = [sum(1 for c in index if c == k) for k in range(K)]
    v = np.array([1 / (K * counts[c]) for c in index])
    means = np.array(
        [sum(T[m] for m in range(len(T)) if index[m] == k) / counts[k] for k in range(K)]
    )
    mu = means.mean(axis=0)
    z = T - mu
    z = z / np.sqrt(sum(v[m] * float(z[m] @ z[m]) for m in range(len(T))))
    return z, v, means, mu


def ridge(z: Floats, v: Floats, index: Any, K: int, strength: float) -> tuple[Floats, Floats]:
    """B (K, D) and the intercept b (K,), which is not held back, as one system of equations."""
    D = z.shape[1]
    A, R = np.zeros((D + 1, D + 1)), np.zeros((D + 1, K))
    for m in range(len(z)):
        row = np.append(z[m], 1.0)
        A += v[m] * np.outer(row, row)
        R[:, index[m]] += v[m] * row
    A[:D, :D] += strength * np.eye(D)
    found = np.linalg.solve(A, R)
    return found[:D].T, found[D]


def loo(z: Floats, v: Floats, index: Any, K: int, strength: float) -> float:
    """Error of texts that were left out, each by a fit of its own."""
    error = 0.0
    for m in range(len(z)):
        if sum(1 for c in index if c == index[m]) < 2:
            continue
        rest = [j for j in range(len(z)) if j != m]
        B, b = ridge(z[rest], v[rest], [index[j] for j in rest], K, strength)
        y = np.eye(K)[index[m]]
        error += v[m] * float(((y - b - B @ z[m]) ** 2).sum())
    return error


def vectors(B: Floats, means: Floats, mu: Floats, index: Any, X: Any) -> Floats:
    """W (K, D) of a trained head B: brought to a common length, and the images centred."""
    K = len(B)
    several = [k for k in range(K) if sum(1 for c in index if c == k) > 1]
    c = np.sqrt(np.mean([float(B[k] @ B[k]) for k in several]))
    A = np.array([B[k] / c if k in several else unit(means[k] - mu) for k in range(K)])
    return centred(A, X)


def centred(A: Floats, X: Any) -> Floats:
    X = np.asarray(X, float)
    N, K = len(X), len(A)
    if not N:
        return A
    nu = X.mean(axis=0)
    s = N / (N + 5 * K)
    return np.array([a - s * float(nu @ a) * nu / float(nu @ nu) for a in A])
