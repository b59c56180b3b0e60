"""k-means steps, silhouettes and the vote of clusters in plain float64 loops."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tests.reference.cpe import softmax


def lloyd(X: Any, centres: Any, steps: int) -> tuple[Any, list[int]]:
    """Centres and members after so many steps, or where nothing changes; empty ones are kept."""
    X, centres = np.asarray(X, np.float64), np.array(centres, np.float64)
    member = nearest(X, centres)
    for _ in range(steps):
        for t in range(len(centres)):
            own = [X[i] for i in range(len(X)) if member[i] == t]
            if own:
                centres[t] = sum(own) / len(own)
        before, member = member, nearest(X, centres)
        if member == before:
            break
    return centres, member


def nearest(X: Any, centres: Any) -> list[int]:
    found = []
    for x in X:
        distances = [float(((x - c) ** 2).sum()) for c in centres]
        found.append(distances.index(min(distances)))
    return found


def silhouette(X: Any, member: Any) -> float:
    """By cosine distance, pair by pair."""
    total = 0.0
    for i, x in enumerate(X):
        means = {}
        for t in sorted(set(member)):
            far = [1 - float(x @ X[j]) for j in range(len(X)) if member[j] == t and j != i]
            if far:
                means[t] = sum(far) / len(far)
        if member[i] not in means:
            continue  # alone in its cluster
        a = means.pop(member[i])
        b = min(means.values())
        total += (b - a) / max(a, b) if max(a, b) > 0 else 0.0
    return total / len(X)


def vote(X: Any, S: Any, member: Any, sharpness: float) -> Any:
    """S' (N, K) of clusters that are given by their members."""
    X, S = np.asarray(X, np.float64), np.asarray(S, np.float64)
    names = sorted(set(member))
    centres, answers, spread = [], [], 0.0
    for t in names:
        own = [i for i in range(len(X)) if member[i] == t]
        m = sum(X[i] for i in own) / len(own)
        length = math.sqrt(float((m**2).sum()))
        centres.append(m)
        answers.append(softmax([float(s) / length for s in sum(S[i] for i in own) / len(own)], 1))
        spread += sum(float(((X[i] - m) ** 2).sum()) for i in own)
    spread /= len(X)
    out = []
    for x in X:
        near = softmax([-sharpness * float(((x - m) ** 2).sum()) / spread for m in centres], 1)
        p = sum(a * np.array(q) for a, q in zip(near, answers, strict=True))
        out.append(np.log(np.maximum(p, 1e-30)))
    return np.array(out)
