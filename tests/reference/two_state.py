"""Two states of each class, and every class that passes, in plain float64, from the formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def probabilities(
    X: Any,
    vectors: Any,
    index: Any,
    kinds: Any,
    K: int,
    states: tuple[str, str],
    tau: float,
    *,
    unit_texts: bool = False,
) -> NDArray[np.float64]:
    """softmax([cos(x, first), cos(x, second)] / tau)[0] for every image and class."""
    out = np.zeros((len(X), K))
    for k in range(K):
        groups = []
        for state in states:
            rows = [
                np.asarray(v, np.float64)
                for v, c, kind in zip(vectors, index, kinds, strict=True)
                if c == k and kind == state
            ]
            if unit_texts:
                rows = [v / np.linalg.norm(v) for v in rows]
            groups.append(np.mean(rows, axis=0))
        for i, x in enumerate(np.asarray(X, np.float64)):
            a, b = (float(x @ g) / np.linalg.norm(g) / np.linalg.norm(x) / tau for g in groups)
            top = max(a, b)
            out[i, k] = np.exp(a - top) / (np.exp(a - top) + np.exp(b - top))
    return out


def sigmoid(
    X: Any, vectors: Any, index: Any, K: int, scale: float, bias: float
) -> NDArray[np.float64]:
    """1 / (1 + exp(-(scale <x, t> + bias))), t of length one along the mean of a class's texts."""
    out = np.zeros((len(X), K))
    for k in range(K):
        t = np.mean([np.asarray(v, np.float64) for v, c in zip(vectors, index, strict=True)
                     if c == k], axis=0)  # fmt: skip
        t = t / np.linalg.norm(t)
        for i, x in enumerate(np.asarray(X, np.float64)):
            out[i, k] = 1 / (1 + np.exp(-(scale * float(x @ t) + bias)))
    return out


def multilabel(p: Any, threshold: Any) -> list[tuple[list[int], str]]:
    """Classes whose probability reaches theirs of ``threshold`` (K,), the most probable first."""
    found = []
    for row in np.asarray(p, np.float64):
        chosen = [k for k in range(len(row)) if row[k] >= threshold[k]]
        chosen.sort(key=lambda k: -row[k])
        found.append((chosen, "accept") if chosen else ([int(np.argmax(row))], "reject"))
    return found
