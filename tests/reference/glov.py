"""The two label-free fitnesses of a template, in plain float64 loops."""

from __future__ import annotations

import math
from typing import Any


def logits(X: Any, W: Any, scale: float) -> list[list[float]]:
    dot = lambda x, w: sum(float(a) * float(b) for a, b in zip(x, w, strict=True))  # noqa: E731
    return [[scale * dot(x, w) for w in W] for x in X]


def zpe(X: Any, W: Any, scale: float) -> float:
    L = logits(X, W, scale)
    usual = [sum(row[k] for row in L) / len(L) for k in range(len(W))]
    return sum(max(v - u for v, u in zip(row, usual, strict=True)) for row in L) / len(L)


def confidence(X: Any, W: Any, scale: float, penalty: float) -> float:
    rows = []
    for row in logits(X, W, scale):
        e = [math.exp(v - max(row)) for v in row]
        rows.append([v / sum(e) for v in e])
    share = [sum(p[k] for p in rows) / len(rows) for k in range(len(W))]
    entropy = -sum(s * math.log(s) for s in share if s > 0)
    lack = 1 - entropy / math.log(len(W)) if len(W) > 1 else 0.0
    return sum(max(p) for p in rows) / len(rows) - penalty * lack
