"""Random trees and answers for tests of metrics."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from byname.stage import Answer
from byname.taxonomy import Node, Taxonomy

__all__ = ["Case", "random_case", "random_tree"]


class Case(NamedTuple):
    """A tree, true classes, logits, and an answer that may hold any node."""

    taxonomy: Taxonomy
    labels: NDArray[np.intp]
    S: NDArray[np.float64]
    answer: Answer


def random_tree(rng: np.random.Generator, K: int) -> Taxonomy:
    """K classes at uneven depths, with groups of one child now and then."""
    nodes = [Node(f"g{i}", f"g{i}", f"g{rng.integers(i)}" if i else None) for i in range(K // 2)]
    parents = [f"g{rng.integers(len(nodes))}" if nodes else None for _ in range(K)]
    leaves = [Node(f"c{k}", f"c{k}", parents[k]) for k in range(K)]
    used = set(parents)
    for node in reversed(nodes):
        if node.id in used and node.parent:
            used.add(node.parent)
    return Taxonomy([*(n for n in nodes if n.id in used), *leaves])


def random_case(seed: int, N: int = 40, K: int = 6, *, inner: bool = False) -> Case:
    """With ``inner``, some first answers are groups, or the root."""
    rng = np.random.default_rng(seed)
    taxonomy = random_tree(rng, K)
    labels = rng.integers(0, K, N)
    S = rng.normal(size=(N, K)) * 2
    S[np.arange(N), labels] += rng.random(N) * 3
    P = np.exp(S) / np.exp(S).sum(axis=1, keepdims=True)
    order = np.argsort(-S, axis=1, kind="stable")
    node = taxonomy.leaf_index[order]
    probability = np.take_along_axis(P, order, axis=1).astype(np.float32)
    decision = np.full(N, "accept", dtype="<U7")
    if inner:
        up = rng.random(N) < 0.4
        node[up, 0] = taxonomy.parents[node[up, 0]]
        decision[up] = "backoff"
        decision[rng.random(N) < 0.2] = "reject"
    return Case(taxonomy, labels, S, Answer(node, probability, probability[:, 0], decision))
