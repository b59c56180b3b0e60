"""CODER in plain float64 loops, written from the formulas alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

NAMES = ("name", "template")


def _unit(v: NDArray[np.float64]) -> NDArray[np.float64]:
    norm = float(np.sqrt(np.sum(v * v)))
    return v if norm == 0 else v / norm


def stage_one(
    X: Any, vectors: Any, class_index: Any, kind: Any, K: int, scale: float, bias: float = 0.0
) -> NDArray[np.float64]:
    """scale * mean{attributes and analogous classes, best of the name and the synonyms} + bias."""
    X, vectors = np.asarray(X, np.float64), np.asarray(vectors, np.float64)
    S = np.zeros((len(X), K))
    for k in range(K):
        mine = [m for m in range(len(vectors)) if class_index[m] == k]
        name = [vectors[m] for m in mine if kind[m] in NAMES]
        entries = [_unit(np.sum(name, axis=0))] if name else []
        entries += [vectors[m] for m in mine if kind[m] == "synonym"]
        others = [vectors[m] for m in mine if kind[m] not in (*NAMES, "synonym")]
        for i, x in enumerate(X):
            items = [float(np.sum(x * t)) for t in others]
            if entries:
                items.append(max(float(np.sum(x * t)) for t in entries))
            S[i, k] = scale * sum(items) / len(items) + bias
    return S


def preference(x: Any, top: list[int], pairs: dict[tuple[int, int], Any]) -> list[float]:
    """r_A of each candidate; ``pairs[a, b]`` holds the texts about a against b."""
    x = np.asarray(x, np.float64)
    r = []
    for a in top:
        total = 0.0
        for b in top:
            if b == a or not (len(pairs.get((a, b), ())) and len(pairs.get((b, a), ()))):
                continue
            for_a = [float(np.sum(x * np.asarray(t, np.float64))) for t in pairs[a, b]]
            for_b = [float(np.sum(x * np.asarray(t, np.float64))) for t in pairs[b, a]]
            total += sum(for_a) / len(for_a) - sum(for_b) / len(for_b)
        r.append(total / (len(top) - 1))
    return r


def rerank(
    S: Any,
    X: Any,
    pairs: dict[tuple[int, int], Any],
    candidates: int,
    gap: float,
    missing: str = "linked",
) -> NDArray[np.float64]:
    """The logits, largest first, handed out in the order of r among those that change places."""
    S = np.array(S, np.float64)
    for i in range(len(S)):
        row = S[i].copy()
        top = sorted(range(len(row)), key=lambda k: (-row[k], k))[:candidates]
        if len(top) < 2:
            continue
        p = np.exp(row - row.max())
        p /= p.sum()
        if not p[top[0]] - p[top[1]] < gap:
            continue
        r = preference(X[i], top, pairs)
        places = list(range(len(top))) if missing == "zero" else linked(top, pairs)
        order = sorted(places, key=lambda j: (-r[j], j))
        for place, j in zip(places, order, strict=True):
            S[i, top[j]] = row[top[place]]
    return S


def linked(top: list[int], pairs: dict[tuple[int, int], Any]) -> list[int]:
    """Places of the candidates that can be reached from the first over pairs with texts."""
    found = {0}
    while True:
        more = {
            j
            for j, b in enumerate(top)
            for a in (top[i] for i in found)
            if len(pairs.get((a, b), ())) and len(pairs.get((b, a), ()))
        }
        if more <= found:
            return sorted(found)
        found |= more


def explicit_coder(X: Any, G: Any) -> NDArray[np.float64]:
    """unit(G x): the M cosines of each image, as a vector of length one."""
    out = []
    for x in np.asarray(X, np.float64):
        out.append(_unit(np.array([float(np.sum(g * x)) for g in np.asarray(G, np.float64)])))
    return np.array(out).reshape(len(out), len(G))


def few_shot(
    X: Any,
    support: Any,
    support_class: Any,
    W: Any,
    *,
    scale: float,
    alpha: float,
    beta: float,
    G: Any = None,
    minmax: bool = False,
) -> NDArray[np.float64]:
    """scale * x W + alpha * exp(-beta (1 - A)) V; affinities of CODERs where G is given."""
    X, support = np.asarray(X, np.float64), np.asarray(support, np.float64)
    W = np.asarray(W, np.float64)
    f, F = (X, support) if G is None else (explicit_coder(X, G), explicit_coder(support, G))
    S = np.zeros((len(X), len(W)))
    for i in range(len(X)):
        for k in range(len(W)):
            S[i, k] = scale * float(np.sum(X[i] * W[k]))
        A = [float(np.sum(f[i] * key)) for key in F]
        if minmax:
            low, high = min(A), max(A)
            A = [(a - low) / (high - low) if high > low else 1.0 for a in A]
        for a, k in zip(A, support_class, strict=True):
            S[i, k] += alpha * np.exp(-beta * (1 - a))
    return S
