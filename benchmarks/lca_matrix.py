"""LCA heights of all pairs of leaves of a tree: byname against one walk a pair.

    python benchmarks/lca_matrix.py [TREE.json]

The plain version climbs from both leaves for every pair. It keeps parents, depths and heights in
lists, and so is already quicker than comparing subtrees, as the released code is described to do.
The tree is read and built anew before each turn, so that nothing is remembered; reading is not
timed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from byname.taxonomy import Taxonomy
from byname.taxonomy_io import read_taxonomy


def plain(taxonomy: Taxonomy) -> NDArray[np.intp]:
    """Heights (K, K) by two climbs a pair."""
    parents, depths = taxonomy.parents.tolist(), taxonomy.depths.tolist()
    heights, leaves = taxonomy.heights.tolist(), taxonomy.leaf_index.tolist()
    found = np.zeros((len(leaves),) * 2, np.intp)
    for a, i in enumerate(leaves):
        for b, j in enumerate(leaves):
            x, y = i, j
            while x != y:
                if depths[x] >= depths[y]:
                    x = parents[x]
                else:
                    y = parents[y]
            found[a, b] = heights[x]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    folder = Path(os.environ.get("BYNAME_SHARED", "../shared")) / "data" / "taxonomies"
    parser.add_argument("tree", type=Path, nargs="?", default=folder / "imagenet-998.json")
    parser.add_argument("--turns", type=int, default=5)
    args = parser.parse_args()
    times: dict[str, list[float]] = {"plain": [], "byname": []}
    for _ in range(args.turns):
        taxonomy = read_taxonomy(args.tree)
        start = time.perf_counter()
        expected = plain(taxonomy)
        times["plain"].append(time.perf_counter() - start)
        start = time.perf_counter()
        found = taxonomy.lca_heights()
        times["byname"].append(time.perf_counter() - start)
        assert (found == expected).all()
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    print(f"{len(taxonomy)} leaves, height {taxonomy.height}, equal matrices")
    print("| version | seconds (median) |\n|---|---|")
    for name, seconds in medians.items():
        print(f"| {name} | {seconds:.4f} |")
    print(f"ratio: {medians['plain'] / medians['byname']:.0f}x")


if __name__ == "__main__":
    main()
