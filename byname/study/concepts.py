"""What class vectors say about the images, and classes whose texts or images are entangled.

With w_k class vectors of unit length, y_i the class answered for image i, and z_i the runner-up::

    specificity_k   share of the neighbours, of the images nearest to w_k, that are answered k
    near pair       k and j are nearest to each other, and
                    1 - <w_k, w_j> < 0.35 of the median over classes of 1 - <w, nearest other w>
    astray_k        (max over j outside the branch of <w_k, w_j> - the same inside it)
                    / that median
    lift k -> j     share of the images answered k with z_i = j
                    / the same share of all images that are not answered j

As many images and neighbours are taken as an image of an answered class has others of its class on
average, from 3 to 10; with fewer than 3 nothing is said; of very many classes fewer images. The
branch of a class are the classes below the lowest node above it that holds others too, unless that
is the root. An entangled pair is one-sided: at least 20 images of k, half of them with the
runner-up j, a lift of 3 and 5 deviations above chance; and of 20 or more images of j at most a
tenth with the runner-up k.

Sources: specificity and astray are byname's own. One-sided pairs are a light version, from
embeddings alone, of the concept association of Tang et al. (When are Lemons Purple?, 2023), who
compare images of one object with images of two: it can only say where to look. The bounds were
chosen on made-up tasks by ``benchmarks/names_synthetic.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from byname import ops
from byname.knn import nearest
from byname.taxonomy import Taxonomy

__all__ = ["OneSided", "astray", "near_pairs", "nearest_class", "one_sided", "specificity"]

MOST, LEAST = 10, 3  # images of a class vector, and neighbours of each
ROWS = 10_000  # images whose neighbours are looked up, if 3 for each class are fewer
NEAR = 0.35  # of the usual distance to the nearest other class
ENOUGH = 20  # images of a class, for a share
OFTEN, SELDOM = 0.5, 0.1  # share of a class's runners-up
LIFT, SURE = 3.0, 5.0  # times chance, and deviations above it
SAME = 1e-6  # cosines that differ less are the same

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]


def specificity(
    X: NDArray[np.floating], W: NDArray[np.floating], answers: Ints
) -> NDArray[np.float64] | None:
    """How far the images nearest to each class vector lie among images of that class.

    Parameters
    ----------
    X : array, shape (N, D)
        Unit rows.
    W : array, shape (K, D)
    answers : array of int, shape (N,)

    Returns
    -------
    array, shape (K,), or None
        Between 0 and 1; None where there are too few images for each answered class.

    Examples
    --------
    >>> X = np.array([[1.0, 0.0]] * 4 + [[0.0, 1.0]] * 4)
    >>> specificity(X, np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]), X.argmax(axis=1)).tolist()
    [1.0, 1.0, 0.0]
    """
    # An image has one neighbour fewer of its class than there are images of it.
    k = min(MOST, len(X) // max(1, len(np.unique(answers))) - 1)
    if k < LEAST:
        return None
    X, W = np.asarray(ops.as_float(X)), np.asarray(ops.unit(ops.as_float(W)))
    most = min(k, max(LEAST, ROWS // len(W)))
    tops = nearest(W.astype(X.dtype, copy=False), most, Y=X)[0]
    rows, place = np.unique(tops, return_inverse=True)
    index = nearest(X[rows], k + 1, Y=X)[0]
    other = index != rows[:, None]
    other[other.all(axis=1), -1] = False  # among many equal images the own row was not met
    around = answers[index[other].reshape(len(rows), k)]
    near = around[place.reshape(tops.shape)]
    made: Floats = (near == np.arange(len(W))[:, None, None]).mean(axis=(1, 2))
    return made


def nearest_class(W: NDArray[np.floating]) -> tuple[Ints, Floats, float]:
    """The nearest other class vector of each, 1 - their cosine, and its median over classes.

    Examples
    --------
    >>> nearest_class(np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]]))[0].tolist()
    [1, 2, 1]
    """
    W = np.asarray(ops.unit(ops.as_float(W)))
    if len(W) < 2:
        return np.zeros(0, np.intp), np.zeros(0), 0.0
    index, cosine = nearest(W, 1)
    away = np.maximum(0.0, 1 - cosine[:, 0].astype(np.float64))
    return index[:, 0], away, float(np.median(away))


def near_pairs(W: NDArray[np.floating]) -> list[tuple[int, int, float]]:
    """Pairs of class vectors that lie far closer than usual, and 1 - their cosine; closest first.

    Examples
    --------
    >>> [pair[:2] for pair in near_pairs(np.vstack([np.eye(4), [0.99, 0.14, 0, 0]]))]
    [(0, 4)]
    """
    index, away, usual = nearest_class(W)
    found = [
        (k, int(j), float(away[k]))
        for k, j in enumerate(index)
        if k < j and index[j] == k and away[k] < NEAR * usual
    ]
    return sorted(found, key=lambda one: one[2])


def astray(W: NDArray[np.floating], taxonomy: Taxonomy) -> tuple[Floats, Ints]:
    """How much nearer each class vector is to a class of another branch than to its own.

    Returns
    -------
    value : array, shape (K,)
        Above 0 where it is nearer to the other; NaN for classes without a branch.
    other : array of int, shape (K,)
        The nearest class of another branch; -1 where there is none.

    Examples
    --------
    >>> from byname.taxonomy import Node
    >>> tree = Taxonomy([Node("f", "fruit"), Node("a", "apple", "f"), Node("p", "pear", "f"),
    ...                  Node("m", "milk"), Node("w", "whole", "m"), Node("s", "skimmed", "m")])
    >>> W = np.array([[1, 0], [0.9, 0.4], [0, 1], [0.8, 0.6]])
    >>> (astray(W, tree)[0] > 0).tolist(), astray(W, tree)[1].tolist()
    ([False, True, False, True], [3, 3, 1, 1])
    """
    W = np.asarray(ops.unit(ops.as_float(W))).astype(np.float64)
    K, usual = len(W), nearest_class(W)[2]
    value, other = np.full(K, np.nan), np.full(K, -1, np.intp)
    for k, inside in enumerate(_branches(taxonomy)):
        if not len(inside) or len(inside) == K or usual <= SAME:
            continue
        cosine = W @ W[k]
        cosine[k] = -np.inf
        own = float(cosine[inside].max())
        cosine[inside] = -np.inf
        other[k] = cosine.argmax()
        value[k] = (float(cosine[other[k]]) - own) / usual
    return value, other


def _branches(taxonomy: Taxonomy) -> list[Ints]:
    """Of each class, all classes of its branch with itself; none where it has no branch."""
    below: list[list[int]] = [[] for _ in taxonomy.nodes]
    for k, i in enumerate(taxonomy.leaf_index.tolist()):
        while i > 0:
            i = int(taxonomy.parents[i])
            below[i].append(k)
    made = []
    for leaf in taxonomy.leaf_index.tolist():
        i = int(taxonomy.parents[leaf])
        while i > 0 and len(below[i]) < 2:
            i = int(taxonomy.parents[i])
        made.append(np.array(below[i] if i > 0 else [], np.intp))
    return made


@dataclass(frozen=True)
class OneSided:
    """Images of ``of`` have the runner-up ``to``, and not the other way round."""

    of: int
    to: int
    share: float
    lift: float
    back: float


def one_sided(first: Ints, second: Ints, K: int) -> list[OneSided]:
    """Pairs of classes of which one draws the images of the other, the highest lift first.

    Parameters
    ----------
    first, second : arrays of int, shape (N,)
        Answer and runner-up of each image.
    K : int

    Examples
    --------
    >>> first = np.repeat([0, 1, 2, 3, 4], 20)
    >>> second = np.where(first == 0, 1, np.where(first == 4, 2, 4))
    >>> [(pair.of, pair.to, pair.share, pair.back) for pair in one_sided(first, second, 5)]
    [(0, 1, 1.0, 0.0)]
    """
    N = len(first)
    count, seconds = np.bincount(first, minlength=K), np.bincount(second, minlength=K)
    joint = sparse.coo_matrix((np.ones(N), (first, second)), shape=(K, K)).tocsr()
    found = []
    for a, b in zip(*joint.nonzero(), strict=True):
        n, hits = int(count[a]), float(joint[a, b])
        if n < ENOUGH or count[b] < ENOUGH or hits < OFTEN * n:
            continue
        chance = seconds[b] / (N - count[b])
        back = float(joint[b, a] / count[b])
        deviation = np.sqrt(n * chance * (1 - chance))
        sure = hits - n * chance > SURE * deviation
        if hits / n >= LIFT * chance and sure and back <= SELDOM:
            found.append(OneSided(int(a), int(b), hits / n, float(hits / n / chance), back))
    return sorted(found, key=lambda one: (-one.lift, -one.share))
