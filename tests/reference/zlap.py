"""ZLaP in plain float64: dense graph, one class at a time, and the dual solved for each image."""

from __future__ import annotations

from typing import Any

import numpy as np


def conjugate_gradients(L: Any, b: Any, tolerance: float, steps: int) -> Any:
    x, r = np.zeros_like(b), b.copy()
    p, rho = r.copy(), float(r @ r)
    stop = tolerance * np.linalg.norm(b - L @ b)  # of what is left after the trivial step
    for _ in range(steps):
        if np.sqrt(rho) <= stop:
            break
        q = L @ p
        step = rho / float(p @ q)
        x, r = x + step * p, r - step * q
        new = float(r @ r)
        p, rho = r + new / rho * p, new
    return x


def normalise(W: Any) -> Any:
    W = W.copy()
    np.fill_diagonal(W, 0)
    degree = W.sum(axis=1)
    degree[degree == 0] = 1
    return W / np.sqrt(degree[:, None] * degree[None, :])


def edges(x: Any, Y: Any, k: int) -> Any:
    """Values (R,) that are the similarity for the k nearest rows of Y, and 0 elsewhere."""
    similar = Y @ x
    out = np.zeros(len(Y))
    for j in np.argsort(-similar, kind="stable")[:k]:
        out[j] = max(similar[j], 0.0)
    return out


def laplacian(X: Any, W: Any, k: int, gamma: float, alpha: float, itself: bool) -> Any:
    C, N = len(W), len(X)
    G = np.zeros((C + N, C + N))
    for i in range(N):
        similar = X @ X[i]
        similar[i] = -np.inf
        for j in np.argsort(-similar, kind="stable")[: min(k - itself, N - 1)]:
            G[C + i, C + j] = max(similar[j], 0.0)
        G[C + i, :C] = edges(X[i], W, k) ** gamma
    return np.eye(C + N) - alpha * normalise(G + G.T)


def columns(L: Any, C: int, tolerance: float = 1e-6, steps: int = 50) -> Any:
    eye = np.eye(len(L))
    return np.array([conjugate_gradients(L, eye[c], tolerance, steps) for c in range(C)]).T


def logits(Z: Any, S: Any) -> Any:
    out = np.empty_like(Z)
    for i, row in enumerate(np.maximum(Z, 0)):
        if row.sum() > 0:
            out[i] = np.log(np.maximum(row / row.sum(), 1e-6))
        else:
            out[i] = S[i] - S[i].max() - np.log(np.exp(S[i] - S[i].max()).sum())
    return out


def zlap(
    X: Any, W: Any, S: Any, *, k: int = 5, gamma: float = 5.0, alpha: float = 0.3,
    itself: bool = True, tolerance: float = 1e-6, steps: int = 50,
) -> Any:  # fmt: skip
    """S' (N, K) of the images in the graph."""
    X, W, S = (np.asarray(a, np.float64) for a in (X, W, S))
    L = laplacian(X, W, k, gamma, alpha, itself)
    return logits(columns(L, len(W), tolerance, steps)[len(W) :], S)


def later(
    X: Any, reference: Any, W: Any, S: Any, *, sparse: bool, k: int = 5, gamma: float = 5.0,
    alpha: float = 0.3,
) -> Any:  # fmt: skip
    """S' (N, K) of images outside the graph: the dual, or the largest entry of each row."""
    X, R, W, S = (np.asarray(a, np.float64) for a in (X, reference, W, S))
    C = len(W)
    L = laplacian(R, W, k, gamma, alpha, True)
    Z = columns(L, C)
    out = np.zeros((len(X), C))
    for i, x in enumerate(X):
        y = np.concatenate([edges(x, W, k) ** gamma, edges(x, R, k)])
        if not sparse:
            out[i] = np.linalg.solve(L, y)[:C]
            continue
        for node, weight in enumerate(y):
            best = int(np.argmax(Z[node]))
            out[i, best] += weight * max(Z[node, best], 0.0)
    return logits(out, S)
