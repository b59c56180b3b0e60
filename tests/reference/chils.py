"""CHiLS in float64 and plain loops, written from its description.

Softmax over the union of all subclasses, softmax over the classes; a subclass counts by the product
of its own probability and its class's, and a class by the best of its subclasses.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["chils", "subclass"]


def unit(v: Any) -> NDArray[np.float64]:
    return np.asarray(v, float) / math.sqrt(sum(float(x) ** 2 for x in v))


def softmax(logits: list[float]) -> list[float]:
    top = max(logits)
    e = [math.exp(f - top) for f in logits]
    return [value / sum(e) for value in e]


def chils(X: Any, sets: list[list[Any]], parents: Any, scale: float, mode: str) -> Any:
    """Probabilities (N, K), for the unit vectors of each class's subclasses and of the classes."""
    out = []
    for x in np.asarray(X, float):
        p_sup = softmax([scale * float(x @ p) for p in parents])
        flat = softmax([scale * float(x @ u) for own in sets for u in own])
        r, at = [], 0
        for c, own in enumerate(sets):
            p_sub = flat[at : at + len(own)]
            at += len(own)
            r.append(
                {
                    "reweight": max(p * p_sup[c] for p in p_sub),
                    "unweighted": max(p_sub),
                    "sum": p_sup[c] * sum(p_sub),
                    "own_total": max(p * sum(p_sub) for p in p_sub),
                    "ensemble": 0.0,
                }[mode]
            )
        if mode == "ensemble":
            r = softmax([scale * float(x @ unit(sum(own) / len(own))) for own in sets])
        out.append([value / sum(r) for value in r])
    return np.array(out)


def subclass(x: Any, sets: list[list[Any]], c: int, scale: float) -> tuple[int, float]:
    """The most probable subclass of class c, and its probability among all subclasses."""
    p = softmax([scale * float(np.asarray(x, float) @ u) for own in sets for u in own])
    at = sum(len(own) for own in sets[:c])
    mine = p[at : at + len(sets[c])]
    return mine.index(max(mine)), max(mine)
