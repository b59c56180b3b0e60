"""How alpha and beta of the cached features are searched, on images whose class is known."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byname.errors import UsageError
from byname.programs.alpha_sweep import right_by_alpha
from byname.programs.shots import check_whole

__all__ = ["ALPHAS", "BETAS", "Asked", "SearchResult", "search"]

BETAS = tuple(np.linspace(0.1, 200, 500).tolist())
ALPHAS = tuple(np.linspace(0.1, 20, 50).tolist())


@dataclass(frozen=True)
class SearchResult:
    """What :meth:`FewShot.search` found: the best setting, and how many settings were tried.

    ``on`` is the part that they were tried on; where there was none, ``tried`` is 0, ``accuracy``
    is NaN, the setting is as it was, and ``reason`` says why.
    """

    alpha: float
    beta: float
    accuracy: float
    tried: int
    on: str = "validation"
    reason: str | None = None


@dataclass(frozen=True, eq=False)
class Asked:
    """Images of known class: their text logits (n, K), their classes, and votes (n, K) by beta."""

    text: NDArray[np.float64]
    index: NDArray[np.intp]
    votes: Callable[[float], NDArray[Any]]


def search(
    parts: Sequence[Asked], betas: Sequence[float], alphas: Sequence[float], rounds: int
) -> SearchResult:
    """The alpha and beta with the most right answers over all parts together.

    Among equals the smallest beta, then the smallest alpha. Every further round searches as many
    values between half and one and a half times the best so far; a grid of one value stays.
    """
    grid_b, grid_a = _grid("betas", betas), _grid("alphas", alphas)
    check_whole("search", "rounds", rounds, 1)
    n = sum(len(part.index) for part in parts)
    best = SearchResult(float(grid_a[0]), float(grid_b[0]), -1.0, 0)
    for _ in range(rounds):
        for beta in grid_b.tolist():
            right = np.zeros(len(grid_a), np.intp)
            for part in parts:
                right += right_by_alpha(part.text, part.votes(beta), part.index, grid_a)
            at = int(np.argmax(right))
            found = float(right[at]) / n
            if found > best.accuracy:
                best = replace(best, alpha=float(grid_a[at]), beta=beta, accuracy=found)
        best = replace(best, tried=best.tried + len(grid_a) * len(grid_b))
        grid_b, grid_a = _around(best.beta, grid_b), _around(best.alpha, grid_a)
    return best


def _around(best: float, grid: NDArray[np.float64]) -> NDArray[np.float64]:
    """As many values around the best one; a grid of one value is held fixed."""
    return np.linspace(0.5 * best, 1.5 * best, len(grid)) if len(grid) > 1 else grid


def _grid(name: str, values: Sequence[float]) -> NDArray[np.float64]:
    try:
        grid = np.unique(np.asarray([1.0 * value for value in values]))
    except (TypeError, ValueError):
        grid = np.zeros(0)
    if not len(grid) or not np.isfinite(grid).all() or grid[0] < 0:
        seen = f"{name} are {reprlib.repr(values)}"
        raise UsageError("search", seen, "Give a list of numbers of 0 or more.")
    return grid
