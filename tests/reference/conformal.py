"""Split conformal sets in plain loops, from the formulas alone."""

from __future__ import annotations

import math
from typing import Any


def alpha(p: Any, c: int, variant: str) -> float:
    if variant == "split":
        return 1 - float(p[c])
    return sum(sorted((float(x) for x in p if x >= p[c]), reverse=True))


def threshold(values: list[float], eps: float) -> float:
    rank = math.ceil(round((len(values) + 1) * (1 - eps), 9))
    return sorted(values)[rank - 1] if rank <= len(values) else math.inf


def sets(
    P: Any, calibration: Any, y: Any, eps: float, variant: str = "split", per_class: bool = False
) -> list[list[int]]:
    """Kept classes of each row of P, in the order of the classes."""
    K = len(calibration[0])
    given = [(alpha(p, int(c), variant), int(c)) for p, c in zip(calibration, y, strict=True)]
    q = [threshold([a for a, c in given if not per_class or c == k], eps) for k in range(K)]
    found = []
    for p in P:
        kept = [c for c in range(K) if alpha(p, c, variant) <= q[c] + 1e-12]
        found.append(kept or [max(range(K), key=lambda c: (p[c], -c))])
    return found
