"""Rejection by null texts and by distance in plain float64 loops, from the formulas alone."""

from __future__ import annotations

from statistics import median
from typing import Any

from tests.reference.cpe import unit


def nearest(x: Any, vectors: Any) -> float:
    return max(sum(float(a) * float(b) for a, b in zip(x, unit(v), strict=True)) for v in vectors)


def null_margins(X: Any, W: Any, null: Any, scale: float) -> list[float]:
    return [scale * (nearest(x, W) - nearest(x, null)) for x in X]


def distance_threshold(X: Any, W: Any, deviations: float) -> float:
    near = [nearest(x, W) for x in X]
    middle = median(near)
    return float(middle - deviations * 1.4826 * median(abs(u - middle) for u in near))
