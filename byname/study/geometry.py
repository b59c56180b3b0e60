"""How the vectors of images and class texts lie: the gap between them, and how spread they are.

With x_i the N image vectors, w_k the K class vectors brought to unit length, y_i the class answered
for image i, and c(.) the mean of vectors::

    gap                 |c(x) - c(w)|
    alignment           mean over i of |x_i - w_yi|^2                               0 to 4
    relative alignment  mean over i of <x_i, w_yi> - max over k != y_i of <x_i, w_k>
    uniformity          log mean over pairs u, v of exp(-2 |u - v|^2), of x and of w  -8 to 0
    spread              mean over pairs of 1 - <u, v>, of x and of w
    dimensions          (tr C)^2 / tr(C^2), C the covariance of the x_i
    separability        mean, over images and class vectors, of the share nearer to the own c(.)
    neighbour purity    (a - sum q_k^2) / (1 - sum q_k^2), a the share of the 10 nearest neighbours
                        answered the same, q_k the share of answers k
    near_k              share of the images answered c among whose 5 nearest class vectors is w_k,
                        mean over the answered c
    moved               median over k of the deviation of <x_i, w_k> over the images

Sources: gap: Liang et al., Mind the Gap, 2022; alignment and uniformity: Wang and Isola,
Understanding Contrastive Representation Learning, 2020. Separability is by the nearer mean, a
closed form, in place of a trained probe; dimensions are the participation ratio.

Alignment, near_k, moved and the means are over all images, in blocks; pairs are those of 5,000
images, and neighbours are looked up for 2,000 of them, among all. Which are drawn depends on their
vectors, not on their order.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.knn import agreement, nearest

__all__ = ["Geometry", "geometry", "sample", "spread", "uniformity"]

PAIRS = 5_000  # vectors of which every pair is compared
LOOKED = 2_000  # images whose neighbours are looked up
NEIGHBOURS = 10
NEAR = 5  # nearest class vectors of an image
BLOCK = 1024
CELLS = 4_000_000  # cosines held at a time

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Geometry:
    """The numbers of the formula; None where there are too few vectors to tell.

    ``near`` (K,) is near_k; ``moved`` is the part of a score that is about the image.
    """

    gap: float | None
    alignment: float | None
    relative_alignment: float | None
    uniformity_images: float | None
    uniformity_texts: float | None
    spread_images: float | None
    spread_texts: float | None
    dimensions: float | None
    separability: float | None
    neighbour_purity: float | None
    moved: float | None
    near: Floats


def geometry(
    X: NDArray[np.floating], W: NDArray[np.floating], answers: NDArray[np.intp]
) -> Geometry:
    """Measure the vectors.

    Parameters
    ----------
    X : array, shape (N, D)
        Unit rows.
    W : array, shape (K, D)
        Class vectors of any length; those of length 0 count nowhere.
    answers : array of int, shape (N,)

    Examples
    --------
    >>> X = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    >>> found = geometry(X, np.eye(2), np.array([0, 1, 1]))
    >>> round(found.gap, 3), round(found.alignment, 3), round(found.relative_alignment, 3)
    (0.105, 0.133, 0.733)
    """
    X, W = np.asarray(ops.as_float(X)), np.asarray(ops.unit(ops.as_float(W)))
    told = np.asarray(W.any(axis=1))
    n, K = len(X), int(told.sum())
    own, ahead, moved, near = _beside(X, W, told, answers)
    part = X[sample(X, PAIRS)]
    texts = W[told]
    texts = texts[sample(texts, PAIRS)]
    ok = n > 0 and K > 0
    centres = [a.mean(axis=0, dtype=np.float64) for a in (X, W[told])] if ok else None
    return Geometry(
        gap=None if centres is None else float(np.linalg.norm(centres[0] - centres[1])),
        alignment=None if not ok else float(2 - 2 * own),
        relative_alignment=ahead,
        uniformity_images=uniformity(part),
        uniformity_texts=uniformity(texts),
        spread_images=spread(X),
        spread_texts=spread(W[told]),
        dimensions=_dimensions(part),
        separability=None if centres is None else _separability(X, W[told], centres),
        neighbour_purity=_purity(X, answers, len(W)),
        moved=moved,
        near=near,
    )


def sample(X: NDArray[np.floating], most: int) -> Ints:
    """Rows of X, at most as many: those whose content has the lowest digests, in that order.

    Examples
    --------
    >>> X = np.arange(6.0).reshape(3, 2)
    >>> X[sample(X, 2)].tolist() == X[::-1][sample(X[::-1], 2)].tolist()
    True
    """
    X = np.ascontiguousarray(X)
    told = b"".join(hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in X)
    return np.argsort(np.frombuffer(told, np.uint64), kind="stable")[:most]


def spread(X: NDArray[np.floating]) -> float | None:
    """Mean of 1 - cosine over all pairs of unit rows; None of fewer than two.

    Examples
    --------
    >>> spread(np.eye(3))
    1.0
    """
    n = len(X)
    if n < 2:
        return None
    total = X.sum(axis=0, dtype=np.float64)
    squares = float(np.einsum("ij,ij->i", X, X, dtype=np.float64).sum())
    return max(0.0, float(1 - (total @ total - squares) / (n * (n - 1))))


def uniformity(X: NDArray[np.floating]) -> float | None:
    """Log of the mean of exp(-2 |u - v|^2) over all pairs of rows; None of fewer than two.

    Examples
    --------
    >>> uniformity(np.array([[1.0, 0.0], [-1.0, 0.0]]))
    -8.0
    """
    n, total = len(X), 0.0
    if n < 2:
        return None
    squares = np.einsum("ij,ij->i", X, X, dtype=np.float64)
    for part in ops.blocks(n, BLOCK):
        others = slice(part.start, n)  # each pair once: later blocks have met the earlier rows
        away = squares[part, None] + squares[None, others] - 2.0 * (X[part] @ X[others].T)
        close = np.exp(-2 * np.maximum(away, 0))
        rows = len(close)
        total += float(np.triu(close[:, :rows], 1).sum() + close[:, rows:].sum())
    return float(np.log(total / (n * (n - 1) / 2)))


def _beside(
    X: NDArray[np.floating], W: NDArray[np.floating], told: NDArray[np.bool_], answers: Ints
) -> tuple[float, float | None, float | None, Floats]:
    """Mean cosine with the answer, how far it is ahead, how far cosines move, and near_k."""
    n, K = len(X), len(W)
    own = ahead = 0.0
    size = np.bincount(answers, minlength=K)
    each = 1 / (size[answers] * max(1, int((size > 0).sum())))
    count, first, second = np.zeros(K), np.zeros(K), np.zeros(K)
    if not n or not told.any():
        return 0.0, None, None, count
    mean = (X.mean(axis=0, dtype=np.float64)).astype(X.dtype) @ W.T
    for part in ops.blocks(n, max(1, CELLS // K)):
        S = X[part] @ W.T
        apart = (S - mean).astype(np.float64)
        first += apart.sum(axis=0)
        second += (apart**2).sum(axis=0)
        S[:, ~told] = -np.inf
        found = np.asarray(ops.topk(S, min(NEAR, int(told.sum())))[1])
        weight = np.repeat(each[part], found.shape[1])
        count += np.bincount(found.ravel(), weight, minlength=K)
        rows = np.arange(len(S))
        mine = np.where(told[answers[part]], S[rows, answers[part]], 0.0).astype(np.float64)
        own += float(mine.sum())
        S[rows, answers[part]] = -np.inf
        rival = S.max(axis=1)
        ahead += float((mine - np.where(np.isfinite(rival), rival, mine)).sum())
    width = np.sqrt(np.maximum(second / n - (first / n) ** 2, 0))[told]
    return own / n, ahead / n if told.sum() > 1 else None, float(np.median(width)), count


def _dimensions(X: NDArray[np.floating]) -> float | None:
    if len(X) < 3:
        return None
    apart = X - X.mean(axis=0, dtype=np.float64)
    # The smaller of both products has the same traces.
    C = apart.T @ apart if len(apart) > apart.shape[1] else apart @ apart.T
    squares = float((C**2).sum())
    return float(np.trace(C)) ** 2 / squares if squares > 0 else None


def _separability(
    X: NDArray[np.floating], W: NDArray[np.floating], centres: list[Floats]
) -> float | None:
    """Balanced accuracy of the plane half-way between both means; ties count half."""
    normal = centres[0] - centres[1]
    middle = float(normal @ (centres[0] + centres[1])) / 2
    if np.linalg.norm(normal) < 1e-6:
        return None
    right = [np.sign(side * (V @ normal - middle)).mean() for V, side in ((X, 1), (W, -1))]
    return float(0.5 + sum(right) / 4)


def _purity(X: NDArray[np.floating], answers: Ints, K: int) -> float | None:
    """Agreement of neighbours, with the shares of all answers as chance."""
    if len(X) <= NEIGHBOURS or len(np.unique(answers)) < 2:
        return None
    if len(X) <= LOOKED:
        return agreement(nearest(X, NEIGHBOURS)[0], answers, K)
    rows = sample(X, LOOKED)
    index = nearest(X[rows], NEIGHBOURS + 1, Y=X)[0]
    other = index != rows[:, None]
    other[other.all(axis=1), -1] = False  # among many equal images the own row was not met
    same = float((answers[index] == answers[rows][:, None])[other].mean())
    chance = float(((np.bincount(answers, minlength=K) / len(answers)) ** 2).sum())
    return (same - chance) / (1 - chance)
