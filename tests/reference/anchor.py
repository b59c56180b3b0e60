"""``anchor`` as its specification states it, in float64, and ``auto`` on top of it."""

from __future__ import annotations

from typing import Any

import numpy as np


def softmax(a: Any) -> Any:
    e = np.exp(a - a.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def neighbours(X: Any, n: int) -> Any:
    """Symmetric cosines (N, N): those to the n nearest others, counted from both sides."""
    S = X @ X.T
    np.fill_diagonal(S, -np.inf)
    W = np.zeros_like(S)
    for i, row in enumerate(S):
        for j in np.argsort(-row, kind="stable")[: min(n, len(S) - 1)]:
            W[i, j] = max(row[j], 0)
    return W + W.T


def mixture(X: Any, T: Any, rho: float, bound: float, rounds: int) -> Any:
    N, K = T.shape
    g = T - 0.5 * np.log(np.exp(T - T.max(1, keepdims=True)).sum(1, keepdims=True))
    g -= 0.5 * T.max(1, keepdims=True)
    z = np.zeros((N, K))
    for k in range(K):
        for i in np.argsort(-g[:, k], kind="stable")[: min(8, N)]:
            z[i, k] = np.exp((g[i, k] - g[:, k].max()) / 2)
    spread = X.std(axis=0)
    F = np.where(spread > 1e-6, (X - X.mean(axis=0)) / np.where(spread > 1e-6, spread, 1), 0)
    A, n0, omega, m = neighbours(X, 3), 2 / rho, 0.5, np.zeros(K)
    for turn in range(rounds):
        S, mass = z.T @ F, z.sum(axis=0)
        mu = np.stack([S[k] / (mass[k] + n0) for k in range(K)])
        if turn:
            inside = sum(S[k] @ S[k] / (mass[k] + n0) for k in range(K))
            omega = max(1 - inside / (F**2).sum(), 1e-3)
        base = (F @ mu.T - 0.5 * (mu**2).sum(axis=1)) / (50 * omega)
        if turn:
            base = base + (1.5 - rho) * np.log(m + 0.5)
        for _ in range(2):
            E = base + A @ z / 3
            z = softmax(T + np.maximum(E - E.max(axis=1, keepdims=True), -bound))
        m = z.sum(axis=0)
    return z


def anchor(X: Any, t: Any, bound: float = 3.0, rounds: int = 8) -> tuple[Any, Any]:
    """z (N, K) and the answers (N,)."""
    X, t = np.asarray(X, np.float64), np.asarray(t, np.float64)
    K = t.shape[1]
    hit = t.argmax(axis=1)
    h = np.bincount(hit, minlength=K)
    rho = (h > 0).mean()
    T = t - rho / 2 * t.mean(axis=0)
    z = mixture(X, T, rho, bound, rounds)
    answer = z.argmax(axis=1)
    margin = np.sort(T, axis=1)[:, -1] - np.sort(T, axis=1)[:, -2]
    for k in range(K):
        own = np.flatnonzero(hit == k)
        least = h[k] // 5
        if (answer[own] == k).sum() < least:
            answer[own[np.argsort(-margin[own], kind="stable")][:least]] = k
    return z, answer


def agreement(X: Any, answer: Any) -> float:
    """How often the 5 nearest have the same answer, beyond chance."""
    S = X @ X.T
    np.fill_diagonal(S, -np.inf)
    same = [
        np.mean(answer[np.argsort(-S[i], kind="stable")[: min(5, len(X) - 1)]] == answer[i])
        for i in range(len(X))
    ]
    chance = sum(np.mean(answer == k) ** 2 for k in np.unique(answer))
    return float((np.mean(same) - chance) / (1 - chance)) if chance < 1 - 1e-12 else 0.0


def excess(t: Any, W: Any) -> Any:
    """Medians of the columns without what nearness to the mean text explains, and the slope.

    Their means where the slope is 0.
    """
    c, W = np.median(t, axis=0), W / np.linalg.norm(W, axis=1, keepdims=True)
    u = np.array([w @ W.mean(axis=0) / np.linalg.norm(W.mean(axis=0)) for w in W])
    slope, start = np.polyfit(u, c, 1)
    left = ((c - start - slope * u) ** 2).sum() / (len(c) - 2)
    t2 = slope**2 * ((u - u.mean()) ** 2).sum() / left
    slope = max(slope, 0) * max(0, 1 - 30 / t2)
    return (c - slope * (u - u.mean()) if slope > 0 else t.mean(axis=0)), slope


def auto(X: Any, t: Any, W: Any, bound: float = 5.0, rounds: int = 8) -> tuple[Any, Any, float]:
    """z (N, K), the answers (N,), and b; for enough images."""
    X, t = np.asarray(X, np.float64), np.asarray(t, np.float64)
    e, _ = excess(t, np.asarray(W, np.float64))
    b, best = 0.0, agreement(X, t.argmax(axis=1))
    for strength in (0.25, 0.5, 0.75, 1):
        now = agreement(X, (t - strength * e).argmax(axis=1))
        if now > best + 0.003:
            b, best = strength, now
    T = t - b * e
    hit = T.argmax(axis=1)
    h = np.bincount(hit, minlength=t.shape[1])
    z = mixture(X, T, max((h > 0).mean(), 0.5), bound, rounds)
    answer = z.argmax(axis=1)
    two = np.sort(T, axis=1)[:, -2:]
    for k in range(len(h)):
        own = np.flatnonzero(hit == k)
        if (answer[own] == k).sum() < h[k] // 5:
            order = np.argsort(-(two[own, 1] - two[own, 0]), kind="stable")
            answer[own[order][: h[k] // 5]] = k
    return z, answer, b
