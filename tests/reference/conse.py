"""ConSE and HierSE in plain float64, from the formulas alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byname.taxonomy import Taxonomy


def unit(v: Any) -> NDArray[np.float64]:
    v = np.asarray(v, np.float64)
    norm = float(np.sqrt((v * v).sum()))
    return np.asarray(v / norm) if norm > 0 else v


def embed(P: Any, V: Any, top: int) -> NDArray[np.float64]:
    """sum of p_t v_t / sum of p_t over the likeliest labels that have a vector."""
    V = np.asarray(V, np.float64)
    out = np.zeros((len(P), V.shape[1]))
    for i, p in enumerate(np.asarray(P, np.float64)):
        known = [c for c in range(len(V)) if V[c].any()]
        chosen = sorted(known, key=lambda c: -p[c])[:top]
        total = sum(p[c] for c in chosen)
        if total > 0:
            out[i] = sum(p[c] * V[c] for c in chosen) / total
    return out


def conse(
    X: Any, P: Any, V: Any, W: Any, *, top: int = 10, lam: float = 1.0, scale: float, bias: float
) -> NDArray[np.float64]:
    """scale * (lam * cos(e, w) + (1 - lam) * <x, w>) + bias; a class without a vector has -1."""
    W, e = np.asarray(W, np.float64), embed(P, V, top)
    out = np.zeros((len(e), len(W)))
    for i in range(len(e)):
        for k, w in enumerate(W):
            told = float(unit(e[i]) @ unit(w)) if w.any() else -1.0
            plain = float(np.asarray(X[i], np.float64) @ w)
            out[i, k] = scale * (lam * told + (1 - lam) * plain) + bias
    return out


def node_vector(tree: Taxonomy, node_id: str, W: Any, own: dict[str, Any]) -> NDArray[np.float64]:
    """A class's row; an inner node's own vector, else the mean of the classes below it."""
    if node_id in tree.class_ids:
        return unit(W[tree.class_ids.index(node_id)])
    if node_id in own:
        return unit(own[node_id])
    below = [k for k, leaf in enumerate(tree.class_ids)
             if node_id in tree.path(leaf) or node_id == tree.root.id]  # fmt: skip
    return unit(sum(unit(W[k]) for k in below))


def hierse(tree: Taxonomy, W: Any, own: dict[str, Any], chain: int = 7) -> NDArray[np.float64]:
    """sum of exp(-l) v_l / sum of exp(-l) over a class and its ancestors; not of length one."""
    out = np.zeros(np.shape(W))
    for k, leaf in enumerate(tree.class_ids):
        way = [leaf, *tree.ancestors(leaf)]
        if tree.root.name:
            way.append(tree.root.id)
        total = 0.0
        for step, node_id in enumerate(way[:chain]):
            out[k] += math.exp(-step) * node_vector(tree, node_id, W, own)
            total += math.exp(-step)
        out[k] /= total
    return out
