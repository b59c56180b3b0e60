"""EM over the shares of a class's texts, in plain float64 loops with log-sum-exp."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def logsumexp(values: list[float]) -> float:
    top = max(values)
    return top + math.log(sum(math.exp(v - top) for v in values))


def log(share: float) -> float:
    """-inf for a share that has gone to nothing."""
    return math.log(share) if share > 0 else -math.inf


def log_normal(x: Floats, mean: Floats, var: Floats) -> float:
    return float(-0.5 * (((x - mean) ** 2 / var) + np.log(2 * math.pi * var)).sum())


def em(
    L: Floats, omega: Floats, *, alpha: float, copies: float, tol: float, max_iter: int
) -> tuple[Floats, list[float]]:
    """Shares (P,) for log densities L (n, P), and the log posterior before each step and after."""
    n, P = L.shape
    pi = omega.copy()
    pseudo = (alpha - 1) * P * omega
    history = [objective(L, pi, pseudo, copies)]
    for _ in range(max_iter):
        N = np.zeros(P)
        for i in range(n):
            joint = [log(pi[p]) + L[i, p] for p in range(P)]
            whole = logsumexp(joint)
            N += [copies * math.exp(j - whole) for j in joint]
        new = (N + pseudo) / (copies * n + pseudo.sum())
        moved = math.sqrt(float(((new - pi) ** 2).sum()))
        pi = new
        history.append(objective(L, pi, pseudo, copies))
        if moved < tol:
            break
    return pi, history


def objective(L: Floats, pi: Floats, pseudo: Floats, copies: float) -> float:
    data = sum(logsumexp([log(pi[p]) + L[i, p] for p in range(len(pi))]) for i in range(len(L)))
    return copies * data + sum(pseudo[p] * log(pi[p]) for p in range(len(pi)) if pseudo[p] > 0)


def bprw(
    X: Any,
    T: Any,
    index: Any,
    K: int,
    *,
    tau2: float,
    top: int = 100,
    alpha: float = 100.0,
    samples: int = 10,
    tol: float = 1e-12,
    max_iter: int = 1000,
    omega: Any = None,
    log_var: Any = None,
    text_log_var: Any = None,
    noise: Any = None,
) -> tuple[Floats, Floats]:
    """Shares (M,) and W (K, D); with variances and noise (n, samples, D) the published form."""
    X, T = np.asarray(X, float), np.asarray(T, float)
    weight, W = np.zeros(len(T)), np.zeros((K, T.shape[1]))
    for k in range(K):
        rows = [m for m in range(len(T)) if index[m] == k]
        given = np.ones(len(rows)) if omega is None else np.array([omega[m] for m in rows], float)
        given = given / given.sum()
        mean = sum(g * T[m] for g, m in zip(given, rows, strict=True))
        near = sorted(range(len(X)), key=lambda i: (-float(X[i] @ mean), i))[:top]
        if noise is None:
            items, copies = [X[i] for i in near], float(samples)
            variances = [np.full(T.shape[1], tau2) for _ in rows]
        else:
            items, copies = [], 1.0
            for rank, i in enumerate(near):
                sd = np.exp(0.5 * np.asarray(log_var[i], float))
                items += [X[i] + sd * noise[rank, j] for j in range(samples)]
            variances = [np.exp(np.asarray(text_log_var[m], float)) for m in rows]
        L = np.array(
            [[log_normal(x, T[m], v) for m, v in zip(rows, variances, strict=True)] for x in items]
        )
        pi, _ = em(L, given, alpha=alpha, copies=copies, tol=tol, max_iter=max_iter)
        for share, m in zip(pi, rows, strict=True):
            weight[m] = share
            W[k] += share * T[m]
    return weight, W
