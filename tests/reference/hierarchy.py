"""Level fusion, least risk, back-off and temperature, in plain float64 loops from the formulas."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byname.taxonomy import Taxonomy


def hie(
    X: Any, vectors: Any, index: Any, level: Any, K: int, *, lam: float, eta: float, scale: float
) -> NDArray[np.float64]:
    """(N, K); every text counts the same."""
    X, vectors = np.asarray(X, np.float64), np.asarray(vectors, np.float64)
    out = np.zeros((len(X), K))
    for i in range(len(X)):
        for k in range(K):
            scores: dict[int, list[float]] = {}
            for m in range(len(vectors)):
                if index[m] == k:
                    scores.setdefault(max(int(level[m]), 0), []).append(float(X[i] @ vectors[m]))
            means = {number: sum(s) / len(s) for number, s in scores.items()}
            fine = [means[number] for number in sorted(means) if number > 0]
            kept = fine[:1]
            for before, now in pairwise(fine):
                if not now - before > eta:
                    break
                kept.append(now)
            if not kept:
                out[i, k] = scale * means[0]
            elif 0 not in means:
                out[i, k] = scale * sum(kept) / len(kept)
            else:
                out[i, k] = scale * (lam * means[0] + (1 - lam) * sum(kept) / len(kept))
    return out


def softmax(row: Any) -> list[float]:
    top = max(float(s) for s in row)
    parts = [math.exp(float(s) - top) for s in row]
    return [p / sum(parts) for p in parts]


def risks(S: Any, C: Any) -> NDArray[np.float64]:
    """(N, K): expected cost of each answer."""
    out = np.zeros(np.shape(S))
    for i, row in enumerate(S):
        p = softmax(row)
        for c in range(len(p)):
            out[i, c] = sum(p[k] * float(C[k][c]) for k in range(len(p)))
    return out


def backoff(S: Any, taxonomy: Taxonomy, threshold: float) -> list[str]:
    """Id of the answered node of each image."""
    answers = []
    for row in S:
        mass = dict.fromkeys((node.id for node in taxonomy.nodes), 0.0)
        for leaf, p in zip(taxonomy.classes, softmax(row), strict=True):
            for node_id in (leaf.id, *taxonomy.ancestors(leaf.id)):
                mass[node_id] += p
        mass[taxonomy.root.id] = 1.0
        best = taxonomy.root.id
        for i, node in enumerate(taxonomy.nodes):
            height, p = taxonomy.heights[i], mass[node.id]
            there = taxonomy.heights[taxonomy.index(best)]
            if p >= threshold and (height < there or (height == there and p > mass[best])):
                best = node.id
        answers.append(best)
    return answers


def agreement(X: Any, T: Any) -> float:
    """How often prompts p < q agree; T (P, K, D)."""
    picks = [[int(np.argmax(np.asarray(t) @ x)) for x in X] for t in T]
    pairs = [(p, q) for p in range(len(T)) for q in range(p)]
    same = [sum(a == b for a, b in zip(picks[p], picks[q], strict=True)) for p, q in pairs]
    return sum(same) / (len(pairs) * len(X))
