"""A vector for every node of the taxonomy, for members that look above the classes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.flow import Array, ClassTexts

__all__ = ["inner_rows", "node_vectors"]


def inner_rows(texts: ClassTexts) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Which texts are about an inner node of the taxonomy, and about which.

    Returns
    -------
    rows, nodes : arrays of int
        Rows of ``texts.vectors`` without a class whose ``node_id`` is that of an inner node, and
        the index of that node. Texts about one node against another do not count.
    """
    tree, rows, nodes = texts.taxonomy, [], []
    ids = texts.node_id or ()
    kinds = texts.kind or ("",) * len(ids)
    for row in np.flatnonzero(ops.to_numpy(texts.class_index) < 0) if ids else ():
        # The id "" says that a text is of no node, though a root may bear it.
        if ids[row] and ids[row] in tree and kinds[row] != "one-to-one":
            node = tree.index(ids[row])
            if tree.heights[node] > 0:
                rows.append(row)
                nodes.append(node)
    return np.array(rows, np.intp), np.array(nodes, np.intp)


def node_vectors(texts: ClassTexts, W: Array) -> Array:
    """Vectors (n_nodes, D) in the order of ``taxonomy.nodes``, from those of the classes (K, D).

    A class has its row of W as it is. An inner node has the weighted mean of its own texts, of
    length one; without texts, or where they cancel out, the mean of the class vectors below it,
    each of length one before and the mean after. What is all zero stays zero.

    Examples
    --------
    >>> from byname.taxonomy import Node, Taxonomy
    >>> tree = Taxonomy([Node("f", "fruit"), Node("a", "apple", "f"), Node("p", "pear", "f")])
    >>> texts = ClassTexts(np.eye(2), np.array([0, 1]), tree)
    >>> node_vectors(texts, np.eye(2)).round(2).tolist()
    [[0.71, 0.71], [1.0, 0.0], [0.0, 1.0]]
    """
    tree, given = texts.taxonomy, ops.to_numpy(ops.as_float(W)).astype(np.float64)
    V = np.zeros((len(tree.nodes), given.shape[1]))
    V[tree.leaf_index] = ops.unit(given)
    for i in range(len(tree.nodes) - 1, 0, -1):  # in preorder children come after their parent
        V[tree.parents[i]] += V[i]
    V = ops.unit(V)
    rows, nodes = inner_rows(texts)
    if len(rows):
        weight = None if texts.weight is None else ops.to_numpy(texts.weight)[rows]
        vectors = ops.to_numpy(ops.as_float(ops.take_rows(texts.vectors, rows)))
        own = ops.unit(ops.segment_mean(vectors.astype(np.float64), nodes, len(V), weight))
        told = own.any(axis=1)
        V[told] = own[told]
    V[tree.leaf_index] = given
    return ops.cast(V, ops.as_float(W))
