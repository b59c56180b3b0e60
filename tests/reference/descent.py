"""Going down a taxonomy, in plain float64, node by node, from the formulas alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byname.taxonomy import Taxonomy
from tests.reference.conse import node_vector


def fork(tree: Taxonomy, parent: str, x: Any, W: Any, own: Any, scale: float) -> dict[str, float]:
    """log p of each child of a node: a softmax among them alone."""
    scores = {}
    for child in tree.children(parent):
        v = W[tree.class_ids.index(child)] if child in tree.class_ids else None
        v = node_vector(tree, child, W, own) if v is None else np.asarray(v, np.float64)
        scores[child] = scale * float(np.asarray(x, np.float64) @ v)
    top = max(scores.values())
    total = top + math.log(sum(math.exp(s - top) for s in scores.values()))
    return {child: s - total for child, s in scores.items()}


def full(tree: Taxonomy, X: Any, W: Any, own: Any, scale: float) -> NDArray[np.float64]:
    """Sum of log p on the way to each class."""
    out = np.zeros((len(X), len(tree)))
    for i, x in enumerate(X):
        found = {tree.root.id: 0.0}
        open_nodes = [tree.root.id]
        while open_nodes:
            parent = open_nodes.pop()
            if tree.children(parent):
                for child, value in fork(tree, parent, x, W, own, scale).items():
                    found[child] = found[parent] + value
                    open_nodes.append(child)
        out[i] = [found[leaf] for leaf in tree.class_ids]
    return out


def beam(tree: Taxonomy, x: Any, W: Any, own: Any, scale: float, B: int) -> dict[str, float]:
    """Classes that the B likeliest paths arrive at, with their log p."""
    paths = {tree.root.id: 0.0}
    while any(tree.children(node) for node in paths):
        longer: dict[str, float] = {}
        for node, value in paths.items():
            if not tree.children(node):
                longer[node] = value
                continue
            for child, more in fork(tree, node, x, W, own, scale).items():
                longer[child] = value + more
        # A node index settles ties, as the taxonomy lists its nodes.
        best = sorted(longer, key=lambda n: (-longer[n], tree.index(n)))[:B]
        paths = {node: longer[node] for node in best}
    return paths


def descend(tree: Taxonomy, p: Any, tau: float) -> str:
    """Down by summed probabilities, until the best child's lead is below tau."""
    mass = {node.id: 0.0 for node in tree.nodes}
    for leaf, value in zip(tree.class_ids, p, strict=True):
        for node in {*tree.path(leaf), tree.root.id}:
            mass[node] += float(value)
    at = tree.root.id
    while children := tree.children(at):
        shares = sorted((mass[c] for c in children), reverse=True)
        total = sum(shares)
        lead = shares[0] - (shares[1] if len(shares) > 1 else 0.0)
        if lead / total < tau:
            return at
        at = max(children, key=lambda c: mass[c])
    return at
