"""ReGen over image vectors in plain float64 loops, from the formulas alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def softmax(A: Any) -> Any:
    E = np.exp(A - A.max(axis=1, keepdims=True))
    return E / E.sum(axis=1, keepdims=True)


def head(F: Any, labels: Any, *, smoothing: float, weight: float, steps: int) -> Any:
    """Rows for the sorted labels that occur."""
    names = sorted(set(labels))
    T = np.full((len(F), len(names)), smoothing / len(names))
    for i, c in enumerate(labels):
        T[i, names.index(c)] += 1 - smoothing
    L = max(np.linalg.eigvalsh(F.T @ F / len(F))) / 2 + weight
    beta = (1 - math.sqrt(weight / L)) / (1 + math.sqrt(weight / L))
    V = Y = np.zeros((len(names), F.shape[1]))
    for _ in range(steps):
        G = (softmax(F @ Y.T) - T).T @ F / len(F) + weight * Y
        new = Y - G / L
        Y, V = new + beta * (new - V), new
    return names, V


def first(found: dict[int, list[tuple[float, int]]], size: int) -> dict[int, int]:
    """Image to class, of the best images of each class."""
    kept = {}
    for c, rows in found.items():
        for _, i in sorted(rows, key=lambda pair: (-pair[0], pair[1]))[:size]:
            kept[i] = c
    return dict(sorted(kept.items()))


def regen(
    X: Any, S: Any, *, top: int = 100, rounds: int = 3, k: int = 5, smoothing: float = 0.1,
    weight: float = 1e-3, steps: int = 50,
) -> tuple[Any, list[int]]:  # fmt: skip
    X, S = np.asarray(X, np.float64), np.asarray(S, np.float64)
    N = len(S)
    F = X - X.mean(axis=0)
    F = np.array([f / np.linalg.norm(f) if np.linalg.norm(f) else f for f in F])
    size = min(top, math.ceil(N / len(set(S.argmax(axis=1).tolist()))))
    k = max(1, min(k, size - 1))
    how: Any = {"smoothing": smoothing, "weight": weight, "steps": steps}
    found: dict[int, list[tuple[float, int]]] = {}
    for i in range(N):
        c = int(S[i].argmax())
        found.setdefault(c, []).append((S[i, c], i))
    kept, counts = first(found, size), []
    for number in range(rounds):
        if number and len(kept) > 1:
            found = {}
            for i in range(N):
                near = sorted((-float(X[i] @ X[q]), q) for q in kept if q != i)
                near = near[: min(k, len(kept) - 1)]
                classes = {kept[q] for _, q in near}
                if len(classes) == 1:
                    mean = sum(-cosine for cosine, _ in near) / len(near)
                    found.setdefault(classes.pop(), []).append((mean, i))
            kept = first(found, size)
        if len(set(kept.values())) > 1:
            names, V = head(F[list(kept)], list(kept.values()), **how)
            kept = {i: c for i, c in kept.items() if names[int((V @ F[i]).argmax())] == c}
        counts.append(len(kept))
    if len(set(kept.values())) < 2:
        return S, counts
    names, V = head(F[list(kept)], list(kept.values()), **how)
    P = softmax(S)
    share = P[:, names].sum(axis=1, keepdims=True)
    P[:, names] = share * softmax(F @ V.T)
    return np.log(np.maximum(P, 1e-30)), counts
