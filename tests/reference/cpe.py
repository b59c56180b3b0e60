"""CMM and CPE in plain float64 loops, written from the formulas alone."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def unit(v: Floats) -> Floats:
    return np.asarray(v, float) / math.sqrt(sum(float(x) ** 2 for x in v))


def cmm_loops(S: Floats, y: list[int], K: int, variant: str) -> tuple[list[float], list[int]]:
    values, counts = [], []
    for k in range(K):
        mine = [i for i in range(len(S)) if y[i] == k]
        counts.append(len(mine))
        if not mine:
            values.append(-math.inf)
        elif variant == "A":
            margins = [S[i][k] - max(S[i][j] for j in range(K) if j != k) for i in mine]
            values.append(sum(margins) / len(mine))
        else:
            A = [sum(S[i][j] for i in mine) / len(mine) for j in range(K)]
            values.append(A[k] - max(A[j] for j in range(K) if j != k))
    return values, counts


def softmax(s: list[float], t: float) -> list[float]:
    top = max(s)
    e = [math.exp((x - top) / t) for x in s]
    return [x / sum(e) for x in e]


def cpe_loops(
    X: Floats, Z: Floats, *, t: float, q: float, per_class: bool, variant: str
) -> tuple[Floats, Floats]:
    """Weights (P, K) and class vectors (K, D) for texts Z (P, K, D) of length one."""
    P, K, _ = Z.shape
    zbar = np.array([unit(sum(Z[p, k] for p in range(P)) / P) for k in range(K)])
    S = X @ zbar.T
    y = [int(np.argmax(row)) for row in S]
    base, counts = cmm_loops(S, y, K, variant)
    order = sorted(range(K), key=lambda k: (counts[k] > 0, base[k], k))
    Q = [k for k in order[: math.ceil(round(q * K, 9))] if counts[k] > 0]
    Q = Q or [k for k in range(K) if counts[k] > 0]
    C = [cmm_loops(X @ Z[p].T, y, K, variant)[0] for p in range(P)]
    shared = softmax([sum(C[p][k] for k in Q) / len(Q) for p in range(P)], t)
    w = np.array([[shared[p]] * K for p in range(P)])
    if per_class:
        for k in Q:
            w[:, k] = softmax([C[p][k] for p in range(P)], t)
    W = np.array([unit(sum(w[p, k] * Z[p, k] for p in range(P))) for k in range(K)])
    return w, W
