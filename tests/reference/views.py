"""Scores of several views in plain float64, written from the formulas alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


def abs_score(
    views: Any, vectors: Any, index: Any, K: int, temperature: float = 0.03
) -> NDArray[np.float64]:
    """Soft matching (N, K), summed over the views."""
    out = np.zeros((len(views), K))
    used = [m for m, k in enumerate(index) if k >= 0]
    for i, crops in enumerate(np.asarray(views, np.float64)):
        for crop in crops:
            u = {m: float(np.asarray(vectors[m], np.float64) @ crop) / temperature for m in used}
            top = max(u.values())
            total = sum(math.exp(v - top) for v in u.values())
            for m, v in u.items():
                out[i, index[m]] += math.exp(v - top) / total * v
    return out


def as_probability(score: Any) -> NDArray[np.float64]:
    """Shares of the positive scores; NaN where there is none."""
    above = np.maximum(score, 0)
    total = above.sum(axis=1, keepdims=True)
    out: NDArray[np.float64] = above / np.where(total > 0, total, np.nan)
    return out


def mean_of_views(views: Any, W: Any, scale: float) -> NDArray[np.float64]:
    """scale * cosine with the sum of the views."""
    total = np.asarray(views, np.float64).sum(axis=1)
    total /= np.linalg.norm(total, axis=1, keepdims=True)
    return scale * total @ np.asarray(W, np.float64).T


def best_view(views: Any, W: Any, scale: float) -> NDArray[np.float64]:
    """scale * the largest cosine of the views."""
    W = np.asarray(W, np.float64)
    return scale * np.array(
        [[max(float(v @ w) for v in own) for w in W] for own in np.asarray(views, np.float64)]
    )


def votes(X: Any, views: Any, W: Any) -> NDArray[np.float64]:
    """Share (N, K) of the image and its views that are nearest to each class."""
    W, out = np.asarray(W, np.float64), np.zeros((len(X), len(W)))
    for i, (x, own) in enumerate(zip(X, views, strict=True)):
        seen = [v for v in (x, *own) if np.any(v)]
        for v in seen:
            out[i, int(np.argmax(W @ np.asarray(v, np.float64)))] += 1 / len(seen)
    return out


def surest(X: Any, views: Any, W: Any, scale: float, keep: float) -> NDArray[np.float64]:
    """Mean probabilities (N, K) of the views of lowest entropy."""
    out = []
    for x, own in zip(X, views, strict=True):
        seen = []
        for v in (x, *own):
            if np.any(v):
                u = scale * np.asarray(W, np.float64) @ np.asarray(v, np.float64)
                p = np.exp(u - u.max())
                p /= p.sum()
                seen.append((-sum(q * math.log(q) for q in p if q > 0), p))
        seen.sort(key=lambda pair: pair[0])
        n = math.ceil(round(keep * len(seen), 9))
        out.append(np.mean([p for _, p in seen[:n]], axis=0))
    return np.array(out)
