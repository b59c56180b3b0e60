"""The losses and closed forms of the adapters in plain float64, written from the formulas."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def ridge(F: Floats, G: Floats, strength: float) -> tuple[Floats, Floats]:
    """argmin ||c1 F W + b - c2 G||^2 / n + strength ||W||^2 as one system with b unpenalised."""
    n, a = F.shape
    c1 = math.sqrt(4.5 / np.mean((F - F.mean(axis=0)) ** 2))
    c2 = math.sqrt(4.5 / np.mean((G - G.mean(axis=0)) ** 2))
    X = np.column_stack([c1 * F, np.ones(n)])
    penalty = strength * np.eye(a + 1)
    penalty[a, a] = 0
    both = np.linalg.solve(X.T @ X / n + penalty, X.T @ (c2 * G) / n)
    return both[:a] * c1 / c2, both[a] / c2


def leave_one_out(F: Floats, G: Floats, strength: float) -> float:
    """Sum of squared errors of each row by the ridge of all others, at the scale of all."""
    n, a = F.shape
    c1 = math.sqrt(4.5 / np.mean((F - F.mean(axis=0)) ** 2))
    c2 = math.sqrt(4.5 / np.mean((G - G.mean(axis=0)) ** 2))
    total = 0.0
    for i in range(n):
        rest = np.arange(n) != i
        X = np.column_stack([c1 * F[rest], np.ones(n - 1)])
        penalty = n * strength * np.eye(a + 1)
        penalty[a, a] = 0
        both = np.linalg.solve(X.T @ X + penalty, X.T @ (c2 * G[rest]))
        total += float(np.sum((np.append(c1 * F[i], 1) @ both - c2 * G[i]) ** 2))
    return total


def cka(V: Floats, L: Floats) -> float:
    V, L = V - V.mean(axis=0), L - L.mean(axis=0)
    norm = np.linalg.norm
    return float(norm(L.T @ V) ** 2 / (norm(L.T @ L) * norm(V.T @ V)))


def infonce(U: Floats, V: Floats, scale: float, same: Any) -> float:
    """Symmetric, over the pairs; entries that are the same are no negatives."""
    n, total = len(U), 0.0
    for i in range(n):
        for left, right in ((U, V), (V, U)):
            logit = [scale * float(left[i] @ right[j]) for j in range(n)]
            kept = [logit[j] for j in range(n) if j == i or not same[i][j]]
            total += math.log(sum(math.exp(x) for x in kept)) - logit[i]
    return total / (2 * n)


def gelu(x: Floats) -> Floats:
    return np.array([[v * (1 + math.erf(v / math.sqrt(2))) / 2 for v in row] for row in x])


def image_head(Z: Floats, p: dict[str, Floats]) -> Floats:
    made = Z @ p["A"] + p["a"] + gelu(Z @ p["B"] + p["b"]) @ p["C"] + p["c"]
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def text_head(Z: Floats, p: dict[str, Floats]) -> Floats:
    h = Z @ p["A"] + p["a"]
    r = h + gelu(h) @ p["B"] + p["b"]
    normed = (r - r.mean(axis=1, keepdims=True)) / np.sqrt(r.var(axis=1, keepdims=True) + 1e-5)
    made = normed * p["gain"] + p["shift"]
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def icis(p: dict[str, Floats], x: Floats, y: Floats, z: Floats) -> float:
    """The four cosine losses: a -> a on z, w -> w, a -> w and w -> a on the seen pairs."""

    def encode(rows: Floats, E: str) -> Floats:
        return np.maximum(rows @ p[E] + p[E.lower()], 0)

    def off(hidden: Floats, D: str, wanted: Floats) -> float:
        made = hidden @ p[D] + p[D.lower()]
        cos = [
            m @ t / (np.linalg.norm(m) * np.linalg.norm(t))
            for m, t in zip(made, wanted, strict=True)
        ]
        return 1 - float(np.mean(cos))

    return (
        off(encode(z, "Ea"), "Da", z)
        + off(encode(y, "Ew"), "Dw", y)
        + off(encode(x, "Ea"), "Dw", y)
        + off(encode(y, "Ew"), "Da", x)
    )
