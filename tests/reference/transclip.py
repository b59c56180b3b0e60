"""TransCLIP in plain float64: the distances one by one, the neighbours by a full sort."""

from __future__ import annotations

from typing import Any

import numpy as np


def affinity(X: Any, n: int) -> Any:
    """W (N, N): the cosine to the n nearest others, at least 0."""
    cosine = X @ X.T
    np.fill_diagonal(cosine, -np.inf)
    W = np.zeros_like(cosine)
    for i, row in enumerate(cosine):
        for j in np.argsort(-row, kind="stable")[: min(n, len(row) - 1)]:
            W[i, j] = max(row[j], 0.0)
    return W


def softmax(S: Any) -> Any:
    e = np.exp(S - S.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def unit(m: Any) -> Any:
    return m / (np.linalg.norm(m) or 1.0)


def seeds(X: Any, S: Any, kind: str, top: int) -> Any:
    log_p = S - np.log(np.exp(S - S.max(axis=1, keepdims=True)).sum(axis=1, keepdims=True))
    log_p = log_p - S.max(axis=1, keepdims=True)
    mu = []
    for c in range(S.shape[1]):
        key = log_p[:, c] if kind == "posterior" else S[:, c]
        best = np.argsort(-key, kind="stable")[:top]
        weight = np.exp(key[best]) if kind == "posterior" else np.ones(len(best))
        mu.append(unit(sum(w * X[i] for w, i in zip(weight, best, strict=True))))
    return np.array(mu)


def transclip(
    X: Any,
    S: Any,
    *,
    kind: str = "posterior",
    top: int = 8,
    n: int = 3,
    temperature: float = 50.0,
    text_weight: float = 1.0,
    rounds: int = 10,
    steps: int = 5,
) -> Any:
    """log z (N, K)."""
    X, S = np.asarray(X, np.float64), np.asarray(S, np.float64)
    D, K = X.shape[1], S.shape[1]
    W = affinity(X, n)
    y = z = softmax(S)
    mu, v = seeds(X, S, kind, top), np.full(D, 1 / D)
    for turn in range(rounds + 1):
        distance = np.array([[((x - mu[c]) ** 2 / v).sum() for c in range(K)] for x in X])
        for _ in range(steps):
            q = -distance / 2 + temperature / (2 * n) * (W.T @ z + W @ z)
            q -= q.max(axis=1, keepdims=True)
            log_z = text_weight * np.log(y) + q / temperature
            z = softmax(log_z)
        if turn < rounds:
            mass = z.sum(axis=0)
            mu = np.array([unit(z[:, c] @ X) if mass[c] > 1e-30 else mu[c] for c in range(K)])
            v = sum(z[:, c] @ (X - mu[c]) ** 2 for c in range(K)) / mass.sum()
            v = np.maximum(v, 1e-6 / D)
    top_ = log_z.max(axis=1, keepdims=True)
    return log_z - top_ - np.log(np.exp(log_z - top_).sum(axis=1, keepdims=True))


def transclip_fs(
    X: Any,
    S: Any,
    L: Any,
    index: Any,
    *,
    gamma: float,
    kind: str = "posterior",
    top: int = 8,
    n: int = 3,
    temperature: float = 50.0,
    text_weight: float = 0.5,
    rounds: int = 10,
    steps: int = 5,
) -> Any:
    """log z (N, K) with labelled images L, of the classes ``index``, whose answers are fixed."""
    X, S, L = (np.asarray(a, np.float64) for a in (X, S, L))
    D, K, N = X.shape[1], S.shape[1], len(X)
    both = np.concatenate([X, L])
    W = affinity(both, n)
    known = np.zeros((len(L), K))
    for j, c in enumerate(index):
        known[j, c] = 1.0
    y = z = softmax(S)
    weight = np.concatenate([np.ones(N), np.full(len(L), gamma * N / len(L))])
    mu, v = seeds(X, S, kind, top), np.full(D, 1 / D)
    for c in set(index):
        mu[c] = unit(sum(L[j] for j in range(len(L)) if index[j] == c))
    for turn in range(rounds + 1):
        distance = np.array([[((x - mu[c]) ** 2 / v).sum() for c in range(K)] for x in X])
        for _ in range(steps):
            every = np.concatenate([z, known])
            pulled = (W.T @ every + W @ every)[:N]
            q = -distance / 2 + temperature / (2 * n) * pulled
            q -= q.max(axis=1, keepdims=True)
            log_z = text_weight * np.log(y) + q / temperature
            z = softmax(log_z)
        if turn < rounds:
            counted = weight[:, None] * np.concatenate([z, known])
            mass = counted.sum(axis=0)
            mu = np.array([unit(counted[:, c] @ both) if mass[c] > 1e-30 else mu[c]
                           for c in range(K)])  # fmt: skip
            v = sum(counted[:, c] @ (both - mu[c]) ** 2 for c in range(K)) / mass.sum()
            v = np.maximum(v, 1e-6 / D)
    top_ = log_z.max(axis=1, keepdims=True)
    return log_z - top_ - np.log(np.exp(log_z - top_).sum(axis=1, keepdims=True))
