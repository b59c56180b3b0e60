"""The cascade item by item, in plain loops, from its description alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def ranks(values: list[float]) -> list[float]:
    """Relative ranks, ties averaged: above 0, up to 1."""
    n = len(values)
    found = []
    for v in values:
        below = sum(x < v for x in values)
        equal = sum(x == v for x in values)
        found.append((below + (equal + 1) / 2) / n)
    return found


def cascade(
    items: list[Any],
    links: list[Callable[[Any], tuple[Any, float]]],
    threshold: float | None = None,
) -> tuple[list[Any], list[int]]:
    """Label of each item, and how many items each link saw."""
    M = len(links)
    left = list(range(len(items)))
    history: list[list[tuple[Any, float]]] = [[] for _ in items]
    seen = []
    for j, link in enumerate(links):
        seen.append(len(left))
        answers = {i: link(items[i]) for i in left}
        r = dict(zip(left, ranks([answers[i][1] for i in left]), strict=True))
        for i in left:
            history[i].append((answers[i][0], r[i]))
        if j < M - 1:
            quota = len(left) // (M - j)
            surest = sorted(left, key=lambda i: (-answers[i][1], i))[:quota]
            stop = {i for i in surest if threshold is None or answers[i][1] >= threshold}
            left = [i for i in left if i not in stop]
    labels = []
    for visits in history:
        top = max(rank for _, rank in visits)
        labels.append([label for label, rank in visits if rank == top][-1])
    return labels, seen
