"""Matching margins without labels: how clearly the images of a class belong to it.

The class-wise matching margin (CMM) of Shao et al., arXiv 2310.03324, as reconstructed from its
abstract and reviews. S are cosines, without a logit scale; y_i is the class that image i is
assigned to, a pseudo-label as a rule::

    A, per-image rival:    CMM(k) = mean over i with y_i = k of [ S_ik - max over j != k of S_ij ]
    B, class-level rival:  A_kj = mean over i with y_i = k of S_ij
                           CMM(k) = A_kk - max over j != k of A_kj

A <= B, since the mean of maxima is no less than the maximum of means. With true labels under A,
the accuracy of a class is the share of its images with a positive margin.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.errors import UsageError

__all__ = ["cmm", "cmm_each", "pseudo_labels", "rivals", "top2", "worst_classes"]

Array = Any
Variant = Literal["A", "B"]
BLOCK = 4096
AT_ONCE = 64 * 2**20  # bytes of class vectors that one pass over the images is made for


def cmm(
    scores: Array | tuple[Array, Array],
    labels: Array,
    variant: Variant = "A",
    *,
    shrink: float = 0.0,
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Class-wise matching margin.

    Parameters
    ----------
    scores : array, shape (N, K), or (X, W) of shapes (N, D) and (K, D)
        Cosines, or the unit vectors whose products they are; those are multiplied in blocks of
        rows (A) or not at all (B), so that no (N, K) array is made.
    labels : array of int, shape (N,)
        Class of each image; -1 for images that count nowhere.
    variant : {"A", "B"}
        Rival of each image, or of the class.
    shrink : float
        n0 >= 0 images that lie at the mean of all: a class of few images is drawn towards it,
        ``n/(n+n0) * CMM + n0/(n+n0) * mean``.

    Returns
    -------
    values : array, shape (K,)
        -inf for classes that nobody is assigned to. With one class there is no rival, and the
        margin is the similarity.
    counts : array of int, shape (K,)
        Images of each class.

    Raises
    ------
    UsageError
        For labels, a variant or a shrinkage that do not fit.

    Examples
    --------
    >>> S = np.array([[0.3, 0.1, 0.2], [0.4, 0.1, 0.0]])
    >>> values, counts = cmm(S, np.array([0, 0]))
    >>> values.round(3).tolist(), counts.tolist()
    ([0.2, -inf, -inf], [2, 0, 0])
    """
    given, W = scores if isinstance(scores, tuple) else (scores, None)
    K = int(given.shape[1] if W is None else W.shape[0])
    y = _checked(labels, int(given.shape[0]), K)
    if variant not in ("A", "B"):
        raise UsageError("compute CMM", f"the variant is {variant!r}", "Use 'A' or 'B'.")
    if not shrink >= 0:
        raise UsageError("compute CMM", f"shrink is {shrink}", "Use 0 or more.")
    counts = np.bincount(y[y >= 0], minlength=K)
    sums = _per_image(given, [W], y, K)[0] if variant == "A" else _per_class(scores, y, counts)
    values = np.divide(sums, counts, out=np.full(K, -np.inf), where=counts > 0)
    if shrink and counts.any():
        seen = counts > 0
        share = counts[seen] / (counts[seen] + shrink)
        values[seen] = share * values[seen] + (1 - share) * sums.sum() / counts.sum()
    return values, counts


def cmm_each(
    X: Array, templates: Iterable[Array], labels: Array, variant: Variant = "A"
) -> NDArray[np.float64]:
    """:func:`cmm` of several sets of class vectors on the same images.

    Parameters
    ----------
    X : array, shape (N, D)
        Unit rows; they are gone through once for every 64 MiB of class vectors.
    templates : iterable of arrays, shape (K, D)
        P of them.
    labels, variant
        As for :func:`cmm`.

    Returns
    -------
    array, shape (P, K)
        -inf for classes that nobody is assigned to.

    Examples
    --------
    >>> cmm_each(np.eye(2), [np.eye(2), np.eye(2)[::-1]], np.array([0, 1])).tolist()
    [[1.0, 1.0], [-1.0, -1.0]]
    """
    found, held = [], []
    mean: Any = None
    for Z in templates:
        K = int(Z.shape[0])
        y = _checked(labels, int(X.shape[0]), K)
        counts = np.bincount(y[y >= 0], minlength=K)
        if variant == "B":
            mean = ops.segment_mean(X, y, K) if mean is None else mean
            found.append(_of_means(ops.matmul_t(mean, Z), counts))
            continue
        held.append(Z)
        if 4 * len(held) * K * int(Z.shape[1]) >= AT_ONCE:
            found += _per_image(X, held, y, K)
            held = []
    if held:
        found += _per_image(X, held, y, K)
    sums = np.stack(found)
    values: NDArray[np.float64] = np.full(sums.shape, -np.inf)
    np.divide(sums, counts, out=values, where=np.broadcast_to(counts > 0, sums.shape))
    return values


def pseudo_labels(X: Array, W: Array, *, block: int = BLOCK) -> NDArray[np.intp]:
    """Most similar class of each image, the first on ties.

    Parameters
    ----------
    X : array, shape (N, D)
    W : array, shape (K, D)

    Returns
    -------
    array of int, shape (N,)
        NumPy, whatever X is.

    Examples
    --------
    >>> pseudo_labels(np.eye(2), np.eye(2)[::-1]).tolist()
    [1, 0]
    """
    found = np.zeros(int(X.shape[0]), np.intp)
    for part in ops.blocks(len(found), block):
        found[part] = ops.to_numpy(ops.argmax(ops.matmul_t(X[part], W)))
    return found


def rivals(X: Array, W: Array, labels: Array, *, block: int = BLOCK) -> NDArray[np.intp]:
    """Most similar other class of each image; -1 where there is one class or no label.

    Parameters
    ----------
    X : array, shape (N, D)
    W : array, shape (K, D)
    labels : array of int, shape (N,)

    Returns
    -------
    array of int, shape (N,)

    Examples
    --------
    >>> rivals(np.array([[0.9, 0.1, 0.3]]), np.eye(3), [0]).tolist()
    [2]
    """
    y = _checked(labels, int(X.shape[0]), int(W.shape[0]))
    found = np.full(len(y), -1, np.intp)
    used = np.flatnonzero(y >= 0)
    for part in ops.blocks(len(used) if W.shape[0] > 1 else 0, block):
        S = ops.matmul_t(ops.take_rows(X, used[part]), W)
        found[used[part]] = ops.to_numpy(_without_own(S, y[used[part]])[1])
    return found


def top2(S: Array) -> tuple[Array, Array]:
    """The two largest values of each row and where they stand.

    Parameters
    ----------
    S : array, shape (N, K)

    Returns
    -------
    values, indices : arrays, shape (N, 2)
        With one class, the second value is -inf and its index -1.

    Examples
    --------
    >>> values, indices = top2(np.array([[1.0, 3.0, 2.0]]))
    >>> values.tolist(), indices.tolist()
    ([[3.0, 2.0]], [[1, 2]])
    """
    values, indices = ops.topk(S, 2)
    if S.shape[1] > 1:
        return values, indices
    pair = [0, 0]
    values, indices = values[:, pair], indices[:, pair]
    values[:, 1], indices[:, 1] = -np.inf, -1
    return values, indices


def worst_classes(
    values: NDArray[np.float64], counts: NDArray[np.intp], q: int | float | Literal["all"] = "all"
) -> NDArray[np.intp]:
    """Classes in the order in which they are expected to fail.

    Parameters
    ----------
    values, counts : arrays, shape (K,)
        As :func:`cmm` gives them.
    q : int, float or "all"
        How many; a float is a share of the classes, rounded up, at least one.

    Returns
    -------
    array of int
        Classes that nobody is assigned to first, then by ascending value, ties by index.

    Raises
    ------
    UsageError
        For a q that is no such number.

    Examples
    --------
    >>> worst_classes(np.array([0.2, -np.inf, 0.1]), np.array([5, 0, 9]), 2).tolist()
    [1, 2]
    """
    K = len(values)
    order = np.lexsort((np.arange(K), values, np.asarray(counts) > 0))
    if q == "all":
        return order
    number = not isinstance(q, bool | str)
    if number and isinstance(q, float | np.floating) and 0 < q <= 1:
        # 0.1 * 30 is a little more than 3 in floating point, and must not become 4.
        return order[: max(1, math.ceil(round(q * K, 9)))]
    if number and isinstance(q, int | np.integer) and q >= 1:
        return order[:q]
    raise UsageError(
        "list the worst classes", f"q is {q!r}", "Give a number, a share from 0 to 1, or 'all'."
    )


def _checked(labels: Array, n: int, K: int) -> NDArray[np.intp]:
    y = ops.to_numpy(labels)
    if y.shape != (n,) or (n and not (y.dtype.kind in "iu" and y.min() >= -1 and y.max() < K)):
        seen = f"shape {y.shape}, type {y.dtype}"
        if y.size and y.dtype.kind in "iu":
            seen += f", from {y.min()} to {y.max()}"
        raise UsageError(
            "compute margins", f"the classes of the images have {seen}", f"Give {n} below {K}."
        )
    return y.astype(np.intp, copy=False)


def _without_own(S: Array, y: NDArray[np.intp]) -> tuple[Array, Array]:
    """Similarity to the own class, and the best other class; changes S."""
    at, own = ops.like(np.arange(len(y)), S), ops.like(y, S)
    value = S[at, own]
    S[at, own] = -np.inf
    return value, S.argmax(axis=1)


def _per_image(
    given: Array, sets: Sequence[Array | None], y: NDArray[np.intp], K: int
) -> list[NDArray[np.float64]]:
    """Sums (K,) of the margins of each class, variant A, for each set of class vectors.

    ``given`` are images (N, D); or cosines (N, K), where the set is None.
    """
    sums, used = [np.zeros(K) for _ in sets], np.flatnonzero(y >= 0)
    for part in ops.blocks(len(used), BLOCK):
        rows = used[part]
        seen = ops.take_rows(given, rows)  # a copy
        for W, total in zip(sets, sums, strict=True):
            S = ops.as_float(seen) if W is None else ops.matmul_t(seen, W)
            if K == 1:
                margin = S[:, 0]
            else:
                own, rival = _without_own(S, y[rows])
                margin = own - S[ops.like(np.arange(len(rows)), S), rival]
            total += np.bincount(y[rows], ops.to_numpy(margin), minlength=K)
    return sums


def _per_class(scores: Any, y: NDArray[np.intp], counts: NDArray[np.intp]) -> NDArray[np.float64]:
    """Margin of each class times its images, variant B."""
    given = scores[0] if isinstance(scores, tuple) else scores
    A = ops.segment_mean(given, y, len(counts))
    # The mean of products is the product of the mean: N drops out.
    return _of_means(ops.matmul_t(A, scores[1]) if isinstance(scores, tuple) else A, counts)


def _of_means(A: Array, counts: NDArray[np.intp]) -> NDArray[np.float64]:
    A = ops.to_numpy(A).astype(np.float64)
    own = A.diagonal().copy()
    if len(counts) > 1:
        np.fill_diagonal(A, -np.inf)
        own -= A.max(axis=1)
    margins: NDArray[np.float64] = own * counts
    return margins
