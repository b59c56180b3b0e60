"""DPA in plain float64 loops, from the formulas alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tests.reference.cpe import softmax


def unit(v: Any) -> Any:
    return v / math.sqrt(float(v @ v))


def image_prototypes(X: Any, answer: list[int], W: Any) -> Any:
    rows = []
    for k in range(len(W)):
        mine = [X[i] for i in range(len(X)) if answer[i] == k]
        rows.append(unit(sum(mine)) if mine else unit(W[k]))
    return np.array(rows)


def debiased(P: Any, prior: Any) -> Any:
    """Answers over the mean of all, times the prior, rescaled; the answers for no prior."""
    if prior is None:
        return P
    mean = [sum(p[k] for p in P) / len(P) for k in range(len(P[0]))]
    out = []
    for p in P:
        q = [p[k] / max(mean[k], 1e-12) * prior[k] for k in range(len(p))]
        out.append([x / sum(q) for x in q])
    return out


def core(X: Any, W: Any, S: Any, scale: float, a: float, prior: Any, rounds: int) -> Any:
    """p after at most so many rounds, and how many there were."""
    X, W = np.asarray(X, np.float64), np.asarray(W, np.float64)
    text = [softmax([float(s) for s in row], 1.0) for row in np.asarray(S, np.float64)]
    q = debiased(text, prior)
    answer = [p.index(max(p)) for p in text]
    both: list[list[float]] = []
    for done in range(1, rounds + 1):  # noqa: B007
        V = image_prototypes(X, answer, W)
        both = []
        for x, own in zip(X, q, strict=True):
            image = softmax([scale * float(x @ v) for v in V], 1.0)
            both.append([a * i + (1 - a) * t for i, t in zip(image, own, strict=True)])
        new = [p.index(max(p)) for p in both]
        if new == answer:
            break
        answer = new
    return np.array(both), done


def targets(X: Any, W: Any, scale: float, a: float, prior: Any) -> Any:
    """Pseudo-labels, confidence weights and image prototypes with text prototypes W."""
    text = [softmax([scale * float(x @ w) for w in W], 1.0) for x in X]
    V = image_prototypes(X, [p.index(max(p)) for p in text], W)
    image = [softmax([scale * float(x @ v) for v in V], 1.0) for x in X]
    y, weight = [], []
    for q, pt, pv in zip(debiased(text, prior), text, image, strict=True):
        both = [a * i + (1 - a) * t for i, t in zip(pv, q, strict=True)]
        k = both.index(max(both))
        y.append(k)
        weight.append(pt[k] / max(pt) * pv[k] / max(pv))
    return y, weight, V


def loss(
    W: Any, X: Any, y: Any, weight: Any, V: Any, scale: float, *, reg: float, align: float,
    align_scale: float,
) -> float:  # fmt: skip
    P = [softmax([scale * float(x @ w) for w in W], 1.0) for x in X]
    K, B = len(W), len(X)
    total: float = -sum(u * math.log(p[k]) for u, p, k in zip(weight, P, y, strict=True)) / B
    total -= reg * sum(math.log(sum(p[k] for p in P) / B) for k in range(K)) / K
    for k in range(K):
        A = softmax([align_scale * float(V[k] @ w) for w in W], 1.0)
        total -= align * math.log(A[k]) / K
    return total
