"""Heights of lowest common ancestors, pair by pair, from nothing but the parents."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from byname.taxonomy import Taxonomy


def lca_heights(taxonomy: Taxonomy) -> NDArray[np.float64]:
    """(K, K), in the order of the classes."""
    parents = {
        node.id: node.parent if node.parent is not None else taxonomy.root.id
        for node in taxonomy.nodes[1:]
    }

    def up(node_id: str) -> list[str]:
        line = [node_id]
        while line[-1] in parents:
            line.append(parents[line[-1]])
        return line

    height: dict[str, int] = {}
    for leaf in taxonomy.classes:
        for steps, node_id in enumerate(up(leaf.id)):
            height[node_id] = max(height.get(node_id, 0), steps)
    result = np.zeros((len(taxonomy), len(taxonomy)))
    for i, a in enumerate(taxonomy.classes):
        above_a = up(a.id)
        for j, b in enumerate(taxonomy.classes):
            above_b = set(up(b.id))
            result[i, j] = height[next(n for n in above_a if n in above_b)]
    return result
