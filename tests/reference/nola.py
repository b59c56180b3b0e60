"""NoLA's choice of teachers and its head in plain float64 loops, from the formulas alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.reference.cpe import softmax


def teachers(S: Any, k: int) -> dict[int, int]:
    """Class by image."""
    P = [softmax([float(s) for s in row], 1.0) for row in np.asarray(S, np.float64)]
    K = len(P[0])
    order = [sorted(range(K), key=lambda c: (-p[c], c)) for p in P]
    taken: dict[int, list[int]] = {}
    for c in range(K):
        for rank in range(min(3, K)):
            mine = [i for i in range(len(P)) if order[i][rank] == c]
            if mine:
                mine.sort(key=lambda i: (-P[i][c], i))
                for i in mine[:k]:
                    taken.setdefault(i, []).append(c)
                break
    return {i: max(classes, key=lambda c: P[i][c]) for i, classes in taken.items()}


def features(F: Any) -> Any:
    F = np.asarray(F, np.float64)
    moved = F - F.mean(axis=0)
    return moved / np.sqrt((moved**2).mean())


def head(flat: Any, D: int, H: int, K: int, X: Any) -> Any:
    """Logits by one hidden layer whose parameters A, a, B, b lie one behind the other."""
    A, rest = flat[: D * H].reshape(D, H), flat[D * H :]
    a, B, b = rest[:H], rest[H : H + H * K].reshape(H, K), rest[H + H * K :]
    out = []
    for x in X:
        hidden = [max(float(x @ A[:, j]) + a[j], 0.0) for j in range(H)]
        out.append([sum(h * B[j, k] for j, h in enumerate(hidden)) + b[k] for k in range(K)])
    return np.array(out)


def loss(flat: Any, D: int, H: int, K: int, X: Any, y: Any) -> float:
    total = 0.0
    for row, k in zip(head(flat, D, H, K, X).tolist(), y, strict=True):
        total -= float(np.log(softmax(row, 1.0)[k])) / len(X)
    return total
