"""How much each of several experts counts, by where their training texts lie: MoDE's gate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2
from scipy.spatial.distance import cdist

from byname import ops
from byname.errors import UsageError

__all__ = ["fine_centres", "mode_weights"]

Floats = NDArray[np.float64]
_BLOCK = 256
_ROUNDS = 100
_LARGEST = 1e100  # squares of what is larger overflow


def mode_weights(class_vectors: Any, centres: Sequence[Any]) -> Floats:
    """Weights of experts from the distances of class names to the centres of their clusters.

    Formula, for C classes, with d_c the Euclidean distance of class c to the nearest of all
    centres, and e(c) the expert that this centre belongs to::

        a   = 5 log10(max(10, C - 200))
        o   = exp(0.5 - sqrt(C)) if C < 10, else 0
        m_e = sum over the classes c with e(c) = e of  exp((o - d_c) a);   0 without a class
        w   = softmax(m / 8)

    The images play no part. Where one expert owns most of many classes, w comes close to taking it
    alone. Of centres that are equally near, the one of the expert named first counts.

    Complexity: C times the number of centres, 256 classes at a time.

    Source: Ma et al., "MoDE: CLIP Data Experts via Clustering", CVPR 2024.

    Parameters
    ----------
    class_vectors : array, shape (C, d)
        Class names in the text space in which the centres are.
    centres : sequence of arrays, shapes (F_e, d)
        Fine cluster centres of each expert, one or more.

    Returns
    -------
    array, shape (E,)
        Summing to 1.

    Raises
    ------
    UsageError
        For shapes that do not fit, an expert without a centre, no class, or values that are not
        finite.

    Examples
    --------
    >>> mode_weights(np.eye(2), [np.eye(2), -np.eye(2)]).round(3).tolist()
    [0.865, 0.135]
    """
    names, groups = _checked(class_vectors, centres)
    every = np.concatenate(groups)
    owner = np.repeat(np.arange(len(groups)), [len(c) for c in groups])
    C = len(names)
    a = 5 * np.log10(max(10, C - 200))
    o = np.exp(0.5 - np.sqrt(C)) if C < 10 else 0.0
    mass = np.zeros(len(groups))
    for rows in ops.blocks(C, _BLOCK):
        distance = cdist(names[rows], every)
        nearest = distance.argmin(axis=1)
        d = distance[np.arange(len(nearest)), nearest]
        np.add.at(mass, owner[nearest], np.exp((o - d) * a))
    weights: Floats = ops.softmax(mass / 8)
    return weights


def _checked(class_vectors: Any, centres: Sequence[Any]) -> tuple[Floats, list[Floats]]:
    names = np.asarray(ops.to_numpy(class_vectors), np.float64)
    groups = [np.asarray(ops.to_numpy(c), np.float64) for c in centres]
    shapes = [x.shape for x in (names, *groups)]
    if not groups or not all(len(s) == 2 and s[0] and s[1] == names.shape[-1] for s in shapes):
        raise UsageError(
            "weigh experts by their clusters",
            f"the class vectors have the shape {shapes[0]}, the centres {shapes[1:]}",
            "Give one class or more, and one centre or more for each expert, all of one width.",
        )
    said = ["the class vectors", *(f"the centres of expert {e}" for e in range(len(groups)))]
    for name, x in zip(said, (names, *groups), strict=True):
        odd = np.flatnonzero(~(np.abs(x) <= _LARGEST).all(axis=1))
        if len(odd):
            seen = f"row {odd[0]} of {name} holds a number that is not finite, or above {_LARGEST}"
            raise UsageError("weigh experts by their clusters", seen, "Give other vectors.")
    return names, groups


def fine_centres(texts: Any, k: int, *, seed: int = 0) -> Floats:
    """Centres of an expert's texts by k-means, for :func:`mode_weights`.

    Parameters
    ----------
    texts : array, shape (n, d)
        Vectors of captions that the expert was trained on, or of texts that say what it is for.
    k : int
        Centres; where there are fewer different texts, these are the centres.
    seed : int
        Of the first centres. The order of the texts does not matter.

    Returns
    -------
    array, shape (k or fewer, d)

    Raises
    ------
    UsageError
        For no text, values that are not finite, or a k that is not a whole number from 1.

    Examples
    --------
    >>> fine_centres([[0.0, 0.0], [0.0, 1.0], [9.0, 9.0]], 2).round(1).tolist()
    [[0.0, 0.5], [9.0, 9.0]]
    """
    X = np.asarray(ops.to_numpy(texts), np.float64)
    whole = isinstance(k, int | np.integer) and k >= 1
    if X.ndim != 2 or not len(X) or not (np.abs(X) <= _LARGEST).all() or not whole:
        raise UsageError(
            "find the centres of texts",
            f"they have the shape {X.shape}, and k is {k!r}",
            f"Give (n, d) finite numbers up to {_LARGEST}, one text or more, and a whole k from 1.",
        )
    distinct, counts = np.unique(X, axis=0, return_counts=True)
    if len(distinct) <= k:
        return distinct
    # Sorted, and begun from different rows, the outcome depends on the seed alone.
    begin = distinct[_spread_out(distinct, k, np.random.default_rng(seed))]
    centres, _ = kmeans2(np.repeat(distinct, counts, axis=0), begin, iter=_ROUNDS, minit="matrix")
    found: Floats = np.unique(centres, axis=0)
    return found


def _spread_out(X: Floats, k: int, rng: np.random.Generator) -> list[int]:
    """Rows to begin with, each far from those before (k-means++)."""
    chosen = [int(rng.integers(len(X)))]
    nearest = ((X - X[chosen[0]]) ** 2).sum(axis=1)
    while len(chosen) < k:
        if not nearest.any():  # rows so near that the square of their distance is 0
            nearest[[i for i in range(len(X)) if i not in chosen]] = 1.0
        chosen.append(int(rng.choice(len(X), p=nearest / nearest.sum())))
        nearest = np.minimum(nearest, ((X - X[chosen[-1]]) ** 2).sum(axis=1))
    return chosen
