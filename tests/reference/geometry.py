"""How vectors lie, and what class vectors say, in plain loops and float64."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any


def geometry(X: Any, W: Any, answers: Any) -> dict[str, Any]:
    """The numbers of ``byname.study.geometry`` over all pairs, W of unit rows."""
    X, W = [[float(v) for v in row] for row in X], [[float(v) for v in row] for row in W]
    y, D = [int(k) for k in answers], len(X[0])
    centre = [[sum(row[d] for row in V) / len(V) for d in range(D)] for V in (X, W)]
    own = [_dot(x, W[k]) for x, k in zip(X, y, strict=True)]
    rival = [max(_dot(x, w) for j, w in enumerate(W) if j != k) for x, k in zip(X, y, strict=True)]
    nearest = [sorted(range(len(W)), key=lambda k: -_dot(x, W[k]))[:5] for x in X]
    covariance = [
        [sum((x[a] - centre[0][a]) * (x[b] - centre[0][b]) for x in X) for b in range(D)]
        for a in range(D)
    ]
    trace = sum(covariance[a][a] for a in range(D))
    return {
        "gap": math.sqrt(_away(*centre)),
        "alignment": sum(_away(x, W[k]) for x, k in zip(X, y, strict=True)) / len(X),
        "relative_alignment": sum(own) / len(X) - sum(rival) / len(X),
        "uniformity_images": _uniformity(X),
        "uniformity_texts": _uniformity(W),
        "spread_images": _spread(X),
        "spread_texts": _spread(W),
        "dimensions": trace**2 / sum(v * v for row in covariance for v in row),
        "separability": _nearer(X, W, centre),
        "neighbour_purity": _purity(X, y, 10),
        "near": [_near(nearest, y, k) for k in range(len(W))],
    }


def specificity(X: Any, W: Any, answers: Any, k: int) -> list[float]:
    """Share of the k neighbours of the k images nearest to each class vector answered so."""
    made = []
    for c, w in enumerate(W):
        tops = sorted(range(len(X)), key=lambda i: -_dot(X[i], w))[:k]
        hits = [answers[j] == c for i in tops for j in _neighbours(X, i, k)]
        made.append(sum(map(bool, hits)) / len(hits))
    return made


def _dot(a: Any, b: Any) -> float:
    return math.fsum(float(u) * float(v) for u, v in zip(a, b, strict=True))


def _away(a: Any, b: Any) -> float:
    return math.fsum((float(u) - float(v)) ** 2 for u, v in zip(a, b, strict=True))


def _uniformity(V: Any) -> float:
    close = [math.exp(-2 * _away(a, b)) for a, b in combinations(V, 2)]
    return math.log(math.fsum(close) / len(close))


def _spread(V: Any) -> float:
    apart = [1 - _dot(a, b) for a, b in combinations(V, 2)]
    return math.fsum(apart) / len(apart)


def _nearer(X: Any, W: Any, centre: Any) -> float:
    right = []
    for V, own, other in ((X, *centre), (W, *reversed(centre))):
        right.append(sum(_away(v, own) < _away(v, other) for v in V) / len(V))
    return sum(right) / 2


def _neighbours(X: Any, i: int, k: int) -> list[int]:
    others = [j for j in range(len(X)) if j != i]
    return sorted(others, key=lambda j: -_dot(X[i], X[j]))[:k]


def _near(nearest: list[list[int]], y: list[int], k: int) -> float:
    each = []
    for c in sorted(set(y)):
        hits = [k in found for found, answer in zip(nearest, y, strict=True) if answer == c]
        each.append(sum(hits) / len(hits))
    return sum(each) / len(each)


def _purity(X: Any, y: list[int], k: int) -> float:
    same = [y[i] == y[j] for i in range(len(X)) for j in _neighbours(X, i, k)]
    chance = sum((y.count(c) / len(y)) ** 2 for c in set(y))
    return (sum(same) / len(same) - chance) / (1 - chance)
