"""Images that lie alone or upon each other: those of no class, and near-duplicates.

Images of no class. With u_i the cosine of image i with the class nearest to it
(:mod:`byname.decide.unknown`), d_i its mean cosine to its 10 nearest neighbours, and z(v)_i how far
v_i lies above the median of the images answered the same, in robust deviations::

    no class   z(u)_i < -1   and   z(u)_i + z(d)_i < -5  where 3 or more of 10 neighbours are
                                                         answered otherwise
                                                   < -10 elsewhere

Median m_k and deviation s_k (1.4826 MAD) of the n_k images answered k are drawn towards those of
all images, with the weight of 10 images. Two deviations of -2.5 each are what Leys et al. (Journal
of Experimental Social Psychology, 2013) call moderately conservative. Nothing is said of fewer than
30 images; where as many images lie as far on the other side, so that the tail is no sign; and where
fewer than 1 % of the images are marked, which is how many are where every image has its class. The
mark is weak: it finds few of the images that fit no class, and more of them where they are unlike
each other. ``benchmarks/no_class.py`` prints the rates on made-up tasks, on which the constants
were chosen.

Near-duplicates. With D the mean of 1 - cosine over all pairs of images::

    copies     1 - cos(x_i, x_j) <= max(0.02 D, 0.001)

and groups are what such pairs connect. An encoder that puts all images into a narrow cone so gets a
narrower bound. Different images of made-up tasks without copies hardly ever come so near; a copy
that was cropped or saved again with a loss may be further away: groups are surely alike, not all.

Up to 20,000 images every pair is compared; of more, a sample with all others. Which images are in
the sample depends on their vectors only, not on their order.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from byname import ops
from byname.knn import nearest

__all__ = ["COPY", "COPY_LEAST", "LEAST", "MOST", "Neighbours", "copies", "neighbours", "no_class"]

NEIGHBOURS = 10
MOST = 20_000  # images of which every pair is compared
FAR = 5.0  # robust deviations, of two signs together
ALONE = 10.0  # the same, where the neighbours are answered alike
TEXT_FAR = 1.0  # of them, of the cosine with the nearest class alone
OTHERS = 0.3  # of the neighbours, answered otherwise
DRAWN = 10.0  # images, as which the median of all counts in that of a class
ROUNDING = 1e-6  # deviations of cosines below it are none
LEAST = 30  # images, below which a median and a deviation say little
COMMON = 0.01  # of all images, below which marks are what chance gives
COPY = 0.02  # of the mean distance of two images
COPY_LEAST = 0.001  # of a cosine from 1

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Nearest neighbours of images that were looked at.

    ``rows`` (n,) are their places among N images, ``index`` (n, k) those of their neighbours, and
    ``cosine`` (n, k) goes with it; ``spread`` is the mean of 1 - cosine over all pairs of N.
    """

    rows: Ints
    index: Ints
    cosine: NDArray[np.float32]
    spread: float


def neighbours(X: NDArray[np.floating], most: int = MOST) -> Neighbours:
    """The 10 nearest neighbours of each image, or of a sample where there are more than ``most``.

    Parameters
    ----------
    X : array, shape (N, D)
        Unit rows.
    most : int
        N at which a sample begins, of ``most`` squared / N images.

    Examples
    --------
    >>> near = neighbours(np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]))
    >>> near.index[near.rows.argsort(), 0].tolist()
    [2, 2, 1]
    """
    n = len(X)
    # In an order that the vectors decide, so that ties and the sample do not depend on the given.
    order = np.argsort(_hashes(X), kind="stable")
    X = np.asarray(ops.as_float(X))[order]
    total = X.sum(axis=0, dtype=np.float64)
    pairs = n * (n - 1)
    spread = float(1 - (total @ total - _squares(X)) / pairs) if pairs else 0.0
    if n <= most:
        index, cosine = nearest(X, NEIGHBOURS) if n else (np.zeros((0, 0), np.intp), np.zeros(0))
        return Neighbours(order, order[index], np.asarray(cosine, np.float32), max(0.0, spread))
    m = max(1, most * most // n)
    index, cosine = nearest(X[:m], NEIGHBOURS + 1, Y=X, engine="exact")
    own = index == np.arange(m)[:, None]
    # Among many equal images the own row may not have been met: then the last one goes.
    own[~own.any(axis=1), -1] = True
    index, cosine = (a[~own].reshape(m, NEIGHBOURS) for a in (index, cosine))
    return Neighbours(order[:m], order[index], cosine, max(0.0, spread))


def no_class(top: Floats, near: Neighbours, answer: Ints) -> tuple[Flags, Floats]:
    """Which of the images that were looked at fit no class, and how far they are off.

    Parameters
    ----------
    top : array, shape (N,)
        Cosine of each image with the class nearest to it.
    near : Neighbours
        Of n images.
    answer : array of int, shape (N,)

    Returns
    -------
    marked : array of bool, shape (n,)
        None where the evidence is weak.
    score : array, shape (n,)
        The sum of both robust deviations; the lower, the less it fits.

    Examples
    --------
    >>> found = no_class(np.ones(1), neighbours(np.eye(1)), np.zeros(1, np.intp))
    >>> found[0].tolist(), found[1].tolist()
    ([False], [0.0])
    """
    rows = near.rows
    if len(rows) < LEAST:
        return np.zeros(len(rows), bool), np.zeros(len(rows))
    text = _deviations(top, answer)[rows]
    score = text + _deviations(near.cosine.mean(axis=1, dtype=np.float64), answer[rows])
    astray = (answer[near.index] != answer[rows][:, None]).mean(axis=1) >= OTHERS - 1e-9
    marked = (text < -TEXT_FAR) & (score < np.where(astray, -FAR, -ALONE))
    # As far, on the side where nothing is foreign.
    beyond = int((score > np.where(astray, FAR, ALONE)).sum())
    if marked.sum() < max(COMMON * len(rows), 2 * (1 + beyond)):
        marked[:] = False
    return marked, score


def copies(near: Neighbours, n: int) -> tuple[Ints, float]:
    """The group of near-identical images that each of n images is in, and the bound on cosines.

    Returns
    -------
    group : array of int, shape (n,)
        -1 for images without a copy.
    bound : float
        Least cosine of two copies.

    Examples
    --------
    >>> group, bound = copies(neighbours(np.array([[1.0, 0], [0, 1.0], [1.0, 0]])), 3)
    >>> group.tolist(), round(bound, 3)
    ([0, -1, 0], 0.987)
    """
    bound = 1 - max(COPY * near.spread, COPY_LEAST)
    place, column = np.nonzero(near.cosine >= bound)
    pairs = (near.rows[place], near.index[place, column])
    joined = sparse.coo_matrix((np.ones(len(place), bool), pairs), shape=(n, n))
    _, group = sparse.csgraph.connected_components(joined, directed=False)
    size = np.bincount(group, minlength=1)
    group = np.where(size[group] > 1, group, -1).astype(np.intp) if n else np.zeros(0, np.intp)
    known = np.unique(group[group >= 0])
    return np.where(group >= 0, np.searchsorted(known, group), -1), bound


def _hashes(X: NDArray[np.floating]) -> NDArray[np.uint64]:
    X = np.ascontiguousarray(X)
    told = b"".join(hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in X)
    return np.frombuffer(told, np.uint64)


def _squares(X: NDArray[np.floating]) -> float:
    return float(np.einsum("ij,ij->i", X, X, dtype=np.float64).sum())


def _deviations(values: Floats, answer: Ints) -> Floats:
    """How far each value lies above the median of those answered the same, in deviations."""
    middle = float(np.median(values))
    usual = _width(values, middle)
    order = np.argsort(answer, kind="stable")
    ends = np.flatnonzero(np.diff(answer[order])) + 1
    made = np.zeros(len(values))
    for own in np.split(order, ends):
        share = len(own) / (len(own) + DRAWN)
        m = share * float(np.median(values[own])) + (1 - share) * middle
        width = np.sqrt(share * _width(values[own], m) ** 2 + (1 - share) * usual**2)
        made[own] = (values[own] - m) / max(width, ROUNDING)
    return made


def _width(values: Floats, middle: float) -> float:
    return 1.4826 * float(np.median(np.abs(values - middle)))
