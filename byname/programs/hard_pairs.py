"""Which pairs of classes deserve texts that tell them apart: found without labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.errors import UsageError
from byname.stage import Array
from byname.taxonomy import Taxonomy

__all__ = ["hard_pairs"]

_BLOCK = 4096


def hard_pairs(
    taxonomy: Taxonomy,
    S: Array | None = None,
    W: Array | None = None,
    *,
    q: int = 100,
    siblings: bool = True,
) -> list[tuple[str, str]]:
    """The q pairs that images and the taxonomy say are easily confused.

    First come the pairs confused by the images. Each image speaks for its two most probable
    classes, with weight 1 - (p1 - p2), p the softmax of S; pairs are ordered by the sum, so a pair
    is hard when many images lie between the two. Then come siblings (classes right below one
    parent), nearest first where W is given, else in the order of the taxonomy. Only the first
    kind can be found in a flat list.

    Parameters
    ----------
    taxonomy : Taxonomy
        With K classes.
    S : array, shape (N, K), optional
        Logits of unlabeled images, as ``Pipeline.scores`` gives them.
    W : array, shape (K, D), optional
        Class vectors.
    q : int
        How many pairs at most.
    siblings : bool
        Whether siblings follow. They are left out for a flat list, where all are siblings.

    Returns
    -------
    list of (id, id)
        Each pair once, the hardest first.

    Raises
    ------
    UsageError
        For S or W of another number of classes, and q below 1.

    Examples
    --------
    >>> taxonomy = Taxonomy.from_names(["cat", "dog", "car"])
    >>> hard_pairs(taxonomy, np.array([[3.0, 2.9, 0.0], [0.0, 1.0, 9.0], [5.0, 5.0, 1.0]]), q=1)
    [('cat', 'dog')]
    """
    K = len(taxonomy)
    _check(K, S, W, q)
    codes = _confused(S, K) if S is not None and K > 1 else np.empty(0, np.int64)
    if siblings and len(codes) < q:
        codes = np.concatenate([codes[:q], _siblings(taxonomy, W)])
    ids = taxonomy.class_ids
    unique = list(dict.fromkeys(codes.tolist()))[:q]
    return [(ids[code // K], ids[code % K]) for code in unique]


def _check(K: int, S: Array | None, W: Array | None, q: int) -> None:
    if q < 1:
        raise UsageError("propose hard pairs", f"q is {q}", "Use 1 or more.")
    for name, wide in (("S", K if S is None else S.shape[1]), ("W", K if W is None else len(W))):
        if wide != K:
            raise UsageError(
                "propose hard pairs",
                f"{name} is for {wide} classes, of which there are {K}",
                "Give what was computed for these classes.",
            )


def _confused(S: Array, K: int) -> NDArray[np.int64]:
    """Codes a * K + b, a < b, of the pairs that images lie between, the hardest first."""
    codes, weights = [np.empty(0, np.int64)], [np.empty(0)]
    for part in ops.blocks(S.shape[0], _BLOCK):
        p, best = map(ops.to_numpy, ops.topk(ops.softmax(S[part]), 2))
        codes.append(best.min(axis=1) * np.int64(K) + best.max(axis=1))
        weights.append(1.0 - (p[:, 0] - p[:, 1]).astype(np.float64))
    found, place = np.unique(np.concatenate(codes), return_inverse=True)
    total = np.bincount(place, np.concatenate(weights), minlength=len(found))
    return found[np.argsort(-total, kind="stable")]


def _siblings(taxonomy: Taxonomy, W: Array | None) -> NDArray[np.int64]:
    """Codes of the pairs of classes with one parent, the nearest first; none in a flat list."""
    K = len(taxonomy)
    parent = taxonomy.parents[taxonomy.leaf_index]
    if taxonomy.height < 2:
        return np.empty(0, np.int64)
    first, second = [np.empty(0, np.intp)], [np.empty(0, np.intp)]
    for above in np.unique(parent):
        own = np.flatnonzero(parent == above)
        i, j = np.triu_indices(len(own), 1)
        first.append(own[i])
        second.append(own[j])
    a, b = np.concatenate(first), np.concatenate(second)
    codes = np.sort(a * np.int64(K) + b)
    if W is None:
        return codes
    unit, near = ops.to_numpy(ops.unit(W)), np.empty(len(codes))
    for part in ops.blocks(len(codes), _BLOCK):
        near[part] = np.einsum("nd,nd->n", unit[codes[part] // K], unit[codes[part] % K])
    return codes[np.argsort(-near, kind="stable")]
