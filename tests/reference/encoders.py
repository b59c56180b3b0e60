"""Ensembles of encoders and MoDE's gate in plain float64 loops, from the formulas alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def softmax(row: Sequence[float]) -> Floats:
    e = [math.exp(x - max(row)) for x in row]
    return np.array(e) / sum(e)


def class_vectors(T: Any, index: Any, weight: Any, K: int) -> Floats:
    """Unit rows (K, D)."""
    T = np.asarray(T, float)
    W = np.zeros((K, T.shape[1]))
    for m in range(len(T)):
        if index[m] >= 0:
            W[index[m]] += weight[m] * T[m]
    for k in range(K):
        length = math.sqrt(sum(x * x for x in W[k]))
        W[k] = W[k] / length if length else 0
    return W


def spread(S: Any) -> float:
    rows = [sum((x - sum(row) / len(row)) ** 2 for x in row) / len(row) for row in S.tolist()]
    return math.sqrt(sum(rows) / len(rows)) if rows else 0.0


def score(S: NDArray[Any]) -> float:
    """ZPE's score of one prompt, or encoder, with the bias of these images alone."""
    centre = [sum(column) / len(column) for column in S.T.tolist()]
    tops = [max(x - c for x, c in zip(row, centre, strict=True)) for row in S.tolist()]
    return float(sum(tops) / len(tops))


def ensemble(
    logits: Sequence[Any], weights: Any, *, combine: str = "logits", match: bool = False,
    temperature: float = 1.0,
) -> tuple[Floats, Floats]:  # fmt: skip
    """S (N, K) and the weights; ``weights`` may be "zpe"."""
    first = spread(np.asarray(logits[0], float))
    L = [np.asarray(S, float) for S in logits]
    if match:
        L = [S / (spread(S) / first) for S in L]
    if isinstance(weights, str):
        weights = softmax([score(S) / temperature for S in L])
    total = np.zeros(L[0].shape)
    for S, w in zip(L, weights, strict=True):
        for i, row in enumerate(S.tolist()):
            total[i] += w * (np.array(row) if combine == "logits" else softmax(row))
    if combine == "probabilities":
        total = np.log(np.maximum(total, 1e-30))
    return total, np.asarray(weights, float)


def mode_weights(names: Any, centres: Sequence[Any]) -> Floats:
    C = len(names)
    a = 5 * math.log10(max(10, C - 200))
    o = math.exp(0.5 - math.sqrt(C)) if C < 10 else 0.0
    mass = [0.0] * len(centres)
    for name in names:
        best, owner = math.inf, -1
        for e, group in enumerate(centres):
            for centre in group:
                d = math.sqrt(sum((x - y) ** 2 for x, y in zip(name, centre, strict=True)))
                if d < best:
                    best, owner = d, e
        mass[owner] += math.exp((o - best) * a)
    return softmax([m / 8 for m in mass])
