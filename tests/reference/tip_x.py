"""TIP-X and CapS in plain float64, written from the formulas alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def _softmax(u: Any) -> NDArray[np.float64]:
    e = np.exp(u - np.max(u))
    out: NDArray[np.float64] = e / e.sum()
    return out


def _rescale(values: Any, low: float, high: float, source: Any) -> NDArray[np.float64]:
    least, most = source.min(), source.max()
    if most == least:
        return np.full(values.shape, low)
    out: NDArray[np.float64] = (values - least) / (most - least) * (high - low) + low
    return out


def tip_x(
    X: Any,
    W: Any,
    F: Any,
    y: Any,
    *,
    fitted: Any = None,
    captions: Any = None,
    alpha: float = 1.0,
    beta: float = 5.5,
    gamma: float = 1.0,
    temperature: float = 0.5,
    order: str = "rescale-negate",
    balance: bool = False,
    delta: float = 0.3,
    scale: float = 100.0,
    bias: float = 0.0,
) -> NDArray[np.float64]:
    """Logits (N, K); ``fitted`` are the images whose ranges count, X itself where absent."""
    X, W, F = (np.asarray(a, np.float64) for a in (X, W, F))
    seen = X if fitted is None else np.asarray(fitted, np.float64)
    K = len(W)

    def affinity(images: Any) -> Any:
        out = np.zeros((len(images), len(F)))
        for i, x in enumerate(images):
            for m, f in enumerate(F):
                told = None if captions is None else np.asarray(captions[m], np.float64)
                if told is None or not told.any():
                    out[i, m] = x @ f
                else:
                    out[i, m] = (1 - delta) * (x @ f) + delta * (x @ told)
        return out

    def divergence(images: Any) -> Any:
        q = [_softmax(W @ x / temperature) for x in images]
        r = [_softmax(W @ f / temperature) for f in F]
        return np.array([[np.sum(a * np.log(a / b)) for b in r] for a in q])

    A, D, A0, D0 = affinity(X), divergence(X), affinity(seen), divergence(seen)
    if order == "rescale-negate":
        worth = -_rescale(D, A0.min(), A0.max(), D0)
    else:
        worth = _rescale(-D, A0.min(), A0.max(), -D0)
    S = scale * X @ W.T + bias
    extra = np.full(S.shape, np.nan)
    for k in range(K):
        mine = [m for m in range(len(F)) if y[m] == k]
        if not mine:
            continue
        K1 = sum(np.exp(-beta * (1 - A[:, m])) for m in mine)
        K2 = sum(worth[:, m] for m in mine)
        extra[:, k] = (alpha * K1 + gamma * K2) / (len(mine) if balance else 1)
    empty = np.isnan(extra).all(axis=0)
    extra[:, empty] = extra[:, ~empty].mean(axis=1, keepdims=True)
    return S + extra


def confident(S: Any, n: int) -> list[list[int]]:
    """Per class the rows of its n surest images: first choices, then second ones, ..."""
    S = np.asarray(S, np.float64)
    out = []
    for k in range(S.shape[1]):
        keys = []
        for i, row in enumerate(S):
            choice = int((row > row[k]).sum())
            others = np.delete(row, k)
            odds = row[k] - np.logaddexp.reduce(others) if len(others) else row[k]
            keys.append((choice, -odds, i))
        out.append([i for _, _, i in sorted(keys)[:n]])
    return out
