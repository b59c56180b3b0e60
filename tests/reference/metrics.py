"""Metrics in plain loops over float64 numbers, written from their definitions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from byname.taxonomy import Taxonomy


def class_accuracy(correct: Sequence[bool], labels: Sequence[int], K: int) -> dict[int, float]:
    """Accuracy of each class that has images."""
    found = {}
    for k in range(K):
        hits = [bool(c) for c, y in zip(correct, labels, strict=True) if y == k]
        if hits:
            found[k] = sum(hits) / len(hits)
    return found


def worst_m(a: dict[int, float], m: int) -> float:
    chosen = sorted(a.values())[:m]
    return sum(chosen) / len(chosen)


def harmonic_mean(values: Sequence[float]) -> float:
    return 0.0 if min(values) == 0 else len(values) / sum(1 / v for v in values)


def geometric_mean(values: Sequence[float]) -> float:
    return 0.0 if min(values) == 0 else math.exp(sum(map(math.log, values)) / len(values))


def worst_two_class(S: Any, labels: Sequence[int], K: int) -> float:
    pairs = []
    for i in range(K):
        for j in range(i):
            of_i = [row for row, y in zip(S, labels, strict=True) if y == i]
            of_j = [row for row, y in zip(S, labels, strict=True) if y == j]
            if of_i and of_j:
                right_i = sum(row[i] > row[j] for row in of_i) / len(of_i)
                right_j = sum(row[j] > row[i] for row in of_j) / len(of_j)
                pairs.append((right_i + right_j) / 2)
    return min(pairs) if pairs else math.nan


def ancestors(taxonomy: Taxonomy, node: int) -> list[int]:
    """The node and everything above it, the root too."""
    chain = [node]
    while taxonomy.parents[chain[-1]] >= 0:
        chain.append(int(taxonomy.parents[chain[-1]]))
    return chain


def distance(taxonomy: Taxonomy, a: int, b: int) -> int:
    """Height of the lowest common ancestor of two nodes."""
    above = set(ancestors(taxonomy, a))
    return int(taxonomy.heights[next(n for n in ancestors(taxonomy, b) if n in above)])


def severity(distances: Sequence[float]) -> float:
    wrong = [d for d in distances if d != 0]
    return sum(wrong) / len(wrong) if wrong else math.nan


def hd_at_k(taxonomy: Taxonomy, true: Sequence[int], ranked: Any, k: int) -> float:
    total = 0.0
    for t, row in zip(true, ranked, strict=True):
        first = [n for n in row[:k] if n >= 0]
        total += sum(distance(taxonomy, t, n) for n in first) / len(first)
    return total / len(true)


def hierarchical(
    taxonomy: Taxonomy, true: Sequence[int], nodes: Sequence[int]
) -> tuple[float, float, float]:
    both = said = right = 0
    for t, n in zip(true, nodes, strict=True):
        a, b = ({*ancestors(taxonomy, x)} - {0} for x in (t, n))
        both, right, said = both + len(a & b), right + len(a), said + len(b)
    p, r = both / said if said else math.nan, both / right
    return p, r, 2 * both / (said + right)


def ece(confidence: Sequence[float], right: Sequence[bool], bins: int = 15) -> float:
    total, N = 0.0, len(confidence)
    for b in range(bins):
        low, high = b / bins, (b + 1) / bins
        inside = [i for i, p in enumerate(confidence) if low < p <= high or (b == 0 and p <= 0)]
        if inside:
            mean = sum(confidence[i] for i in inside) / len(inside)
            share = sum(bool(right[i]) for i in inside) / len(inside)
            total += len(inside) / N * abs(mean - share)
    return total


def probabilities(row: Sequence[float]) -> list[float]:
    top = max(row)
    weights = [math.exp(v - top) for v in row]
    return [w / sum(weights) for w in weights]


def nll(S: Any, labels: Sequence[int]) -> float:
    return -sum(math.log(probabilities(row)[y]) for row, y in zip(S, labels, strict=True)) / len(
        labels
    )


def brier(S: Any, labels: Sequence[int]) -> float:
    total = 0.0
    for row, y in zip(S, labels, strict=True):
        total += sum((p - (k == y)) ** 2 for k, p in enumerate(probabilities(row)))
    return total / len(labels)


def aurc(confidence: Sequence[float], right: Sequence[bool]) -> float:
    """Mean over images of the risk among those at least as confident."""
    total = 0.0
    for own in confidence:
        kept = [bool(r) for c, r in zip(confidence, right, strict=True) if c >= own]
        total += 1 - sum(kept) / len(kept)
    return total / len(confidence)
