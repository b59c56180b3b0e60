"""The names themselves, out of a large vocabulary: clusters vote for words (S3A, without LLM).

Formula::

    1. K clusters of the images by k-means
    2. each image votes for its nearest word; M[c, v] = share of cluster c that votes for v
    3. one word a cluster, all different: the assignment with the largest sum of M
    4. each image goes to the nearest of the chosen words; these groups are the clusters of the
       next round; 2 to 4 are done ``rounds`` times

Among assignments with equal sums the one whose words are nearest to the means of their clusters is
taken, and among words alike with equal votes one by what its vector holds: the order of the
vocabulary decides nothing.

A cluster stays without a name where there are fewer voted words than clusters, or where the
assignment would leave it a word for which none of its images voted; its images go to the names of
the others in step 4. A name without images is dropped. An image whose vector is all zeros is left
out, since it is as near to every word. Deterministic; N L D for the votes on L
words, in tiles, and N K D for each step of k-means.

Source: Zhang et al., "Towards Realistic Zero-Shot Classification via Self Structural Semantic
Alignment" (S3A), arXiv 2308.12960, without the phrases of a language model and without
self-training: their published gains are those of the whole.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csgraph

from byname import ops
from byname.errors import UsageError
from byname.kmeans import content_key, kmeans, silhouette, tiles
from byname.programs.shots import check_whole
from byname.stage import Array

__all__ = [
    "Discovery",
    "check_settings",
    "discover",
    "estimate_clusters",
    "nearest_words",
    "same_words",
]

_SAMPLE = 30_000  # images, or half of them, with which the number of clusters is estimated
_RUNS = 3  # of k-means for each number that is tried
_TIE = 1e-9  # of a share of votes: decides only where sums of shares are equal


@dataclass(frozen=True)
class Discovery:
    """What was found.

    Parameters
    ----------
    words : array of int, shape (F,)
        Rows of the vocabulary that are the names, most images first.
    member : array of int, shape (N,)
        Which of these names each image is nearest to; -1 for an image of zeros.
    clusters : int
        K: the clusters that k-means made.
    unnamed : int
        Of those, the clusters that got no word in the first round.
    silhouettes : mapping of int to float
        The numbers of clusters that were tried; empty where K was given.
    alike : mapping of int to tuple of int
        Words that counted as the name, by the name's row.
    """

    words: NDArray[np.intp]
    member: NDArray[np.intp]
    clusters: int
    unnamed: int
    silhouettes: Mapping[int, float] = field(default_factory=dict)
    alike: Mapping[int, tuple[int, ...]] = field(default_factory=dict)

    @property
    def sizes(self) -> NDArray[np.intp]:
        """Images of each name (F,)."""
        return np.bincount(self.member[self.member >= 0], minlength=len(self.words))


def discover(
    X: Array,
    V: Array,
    k: int | None = None,
    *,
    bounds: tuple[int, int] | None = None,
    rounds: int = 3,
    restarts: int = 17,
    merge: float | None = None,
    seed: int = 0,
) -> Discovery:
    """Names for unlabeled images, one a cluster, from a vocabulary; of images of zeros it warns.

    Parameters
    ----------
    X : array, shape (N, D)
        Unit rows.
    V : array, shape (L, D)
        Unit vectors of the words, from the encoder of the images.
    k : int, optional
        Clusters, in place of ``bounds``; otherwise estimated by :func:`estimate_clusters`.
    bounds : (int, int), optional
        2 and the smallest of N / 2, L and 500 by default.
    rounds : int
        3, as published.
    restarts : int
        Runs of k-means; 17, as published.
    merge : float, optional
        Words whose vectors have at least this cosine count as one word, named as the one of them
        with the most votes; 0.95 is a start. By default words are not merged.
    seed : int

    Raises
    ------
    UsageError
        For settings out of range, no image or word, and rows that are not finite.

    Examples
    --------
    >>> X = np.array([[1.0, 0.0], [0.96, 0.28], [0.0, 1.0], [0.28, 0.96]])
    >>> found = discover(X, np.array([[0.8, 0.6], [0.98, 0.199], [0.1, 0.995]]), 2)
    >>> found.words.tolist(), found.member.tolist()
    ([1, 2], [0, 0, 1, 1])
    """
    X, V = _checked(X, V)
    check_settings(k, bounds, rounds, merge, restarts=restarts, seed=seed, images=len(X))
    used = _not_zero(X)
    member = np.full(len(X), -1, np.intp)
    X = ops.take_rows(X, used) if len(used) < len(X) else X
    check_settings(k, bounds, rounds, merge, images=len(X))
    limits = bounds or (2, max(2, min(len(X) // 2, len(V), 500)))
    k, silhouettes = estimate_clusters(X, limits, seed=seed) if k is None else (k, {})
    votes = nearest_words(X, V)
    alike: dict[int, tuple[int, ...]] = {}
    if merge is not None:
        votes, alike = same_words(V, votes, merge)
    first = kmeans(X, k, seed=seed, restarts=restarts)
    names, member[used], unnamed = _voted(X, V, votes, first.member, rounds)
    told = {int(w): alike[int(w)] for w in names if int(w) in alike}
    return Discovery(names, member, len(first), unnamed, silhouettes, told)


def nearest_words(X: Array, V: Array) -> NDArray[np.intp]:
    """Row of V nearest to each image, shape (N,); the first on ties.

    Examples
    --------
    >>> nearest_words(np.eye(2), np.eye(2)[::-1]).tolist()
    [1, 0]
    """
    found = np.zeros(len(X), np.intp)
    for part in tiles(len(X), len(V)):
        found[part] = ops.to_numpy(ops.argmax(ops.matmul_t(X[part], V)))
    return found


def estimate_clusters(
    X: Array, bounds: tuple[int, int], *, seed: int = 0
) -> tuple[int, dict[int, float]]:
    """How many clusters there seem to be, by bisection on the silhouette.

    Of the two halves of the range, the one whose end has the larger silhouette is kept, until it
    is one number wide; the answer is the number with the largest silhouette of all that were tried.
    With more than 30,000 images half of them are looked at, and at least 30,000; which ones follows
    from what their vectors hold and not from their order.

    Parameters
    ----------
    X : array, shape (N, D)
        Unit rows.
    bounds : (int, int)
    seed : int

    Returns
    -------
    k, silhouettes : int, dict
        The numbers that were tried, each with the mean silhouette by cosine distance.

    Examples
    --------
    >>> X = np.repeat(np.eye(4), 5, axis=0)
    >>> estimate_clusters(X, (2, 9))[0]
    4
    """
    if len(X) > _SAMPLE:
        rows = np.random.default_rng(seed).permutation(len(X))[: max(_SAMPLE, len(X) // 2)]
        order = np.argsort(content_key(X), kind="stable")
        X = ops.take_rows(X, order[np.sort(rows)])
    tried: dict[int, float] = {}
    made: dict[int, int] = {}  # fewer where images are alike

    def at(k: int) -> float:
        if k not in tried:
            found = kmeans(X, k, seed=seed, restarts=_RUNS)
            tried[k], made[k] = silhouette(X, found), len(found)
        return tried[k]

    low, high = bounds
    while high - low > 1:
        middle = (low + high) // 2
        at(middle)
        low, high = (low, middle) if at(low) > at(high) else (middle, high)
    best = max((low, high, *tried), key=lambda k: (at(k), -k))
    return made[best], dict(sorted(tried.items()))


def same_words(
    V: Array, votes: NDArray[np.intp], least: float
) -> tuple[NDArray[np.intp], dict[int, tuple[int, ...]]]:
    """Votes in which words with a cosine of at least ``least`` count as one, and which those are.

    Only words with a vote are compared; words count as one also through others between them. The
    name is that of the word with the most votes, on ties one by what the vectors hold.

    Examples
    --------
    >>> V = np.array([[1.0, 0.0], [0.999, 0.04], [0.0, 1.0]])
    >>> same_words(V, np.array([0, 1, 1, 2]), 0.95)
    (array([1, 1, 1, 2]), {1: (0,)})
    """
    words, counts = np.unique(votes, return_counts=True)
    W = V[ops.like(words, V)]
    row, column = [], []
    for part in tiles(len(W), len(W)):
        near = np.nonzero(ops.to_numpy(ops.matmul_t(W[part], W)) >= least)
        row.append(near[0] + part.start)
        column.append(near[1])
    at = (np.concatenate(row), np.concatenate(column))
    edges = sparse.csr_matrix((np.ones(len(at[0]), bool), at), shape=(len(W), len(W)))
    _, group = csgraph.connected_components(edges, directed=False)
    order = np.lexsort((content_key(W), -counts, group))
    best = order[np.searchsorted(group[order], np.arange(group.max() + 1))]
    heads = words[best][group]
    alike: dict[int, list[int]] = {}
    for word, head in zip(words.tolist(), heads.tolist(), strict=True):
        if word != head:
            alike.setdefault(head, []).append(word)
    return heads[np.searchsorted(words, votes)], {h: tuple(w) for h, w in alike.items()}


def _voted(
    X: Array, V: Array, votes: NDArray[np.intp], member: NDArray[np.intp], rounds: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], int]:
    """Names, most images first, which of them each image has, and clusters without a name."""
    unnamed: list[int] = []
    chosen = np.zeros(0, np.intp)
    for _ in range(rounds):
        chosen, without = _named(X, V, member, votes)
        unnamed.append(without)
        member = nearest_words(X, V[ops.like(chosen, V)])
    sizes = np.bincount(member, minlength=len(chosen))
    order = np.lexsort((chosen, -sizes))[: int((sizes > 0).sum())]
    place = np.full(len(chosen), -1)
    place[order] = np.arange(len(order))
    return chosen[order], place[member], unnamed[0]


def _named(
    X: Array, V: Array, member: NDArray[np.intp], votes: NDArray[np.intp]
) -> tuple[NDArray[np.intp], int]:
    """Words chosen, ascending, and how many clusters got none."""
    words, at = np.unique(votes, return_inverse=True)
    clusters, own = np.unique(member, return_inverse=True)
    M = np.zeros((len(clusters), len(words)))
    np.add.at(M, (own, at), 1)
    M /= M.sum(axis=1, keepdims=True)
    means = ops.to_numpy(ops.segment_mean(X, own, len(clusters))).astype(np.float64)
    near = means @ ops.to_numpy(V[ops.like(words, V)]).astype(np.float64).T
    rows, columns = linear_sum_assignment(M + _TIE * near, maximize=True)
    voted = M[rows, columns] > 0
    return np.sort(words[columns[voted]]), int(len(clusters) - voted.sum())


def _checked(X: Array, V: Array) -> tuple[Any, Any]:
    X, V = ops.as_float(X), ops.as_float(V)
    for what, rows in (("the images", X), ("the vocabulary", V)):
        if len(rows.shape) != 2 or not len(rows) or rows.shape[1] != X.shape[1]:
            seen = f"the vectors have the shapes {tuple(X.shape)} and {tuple(V.shape)}"
            do = "Give one row or more of each, from one encoder."
            raise UsageError("discover names", seen, do)
        sums = ops.to_numpy(rows.sum(axis=1))
        if len(bad := np.flatnonzero(~np.isfinite(sums))):
            seen = f"row {bad[0]} of {what} holds NaN or infinity"
            raise UsageError("discover names", seen, "Leave it out, or embed it anew.")
    return X, ops.cast(V, X)


def _not_zero(X: Array) -> NDArray[np.intp]:
    """Rows that are not all zeros."""
    used = np.flatnonzero(ops.to_numpy((X != 0).any(axis=1)))
    if not len(used):
        seen = "the vectors of all images are zeros"
        raise UsageError("discover names", seen, "Check the images, or embed them anew.")
    if lost := len(X) - len(used):
        each = "1 image is" if lost == 1 else f"{lost} images are"
        warnings.warn(f"{each} left out: a vector of zeros is as near to every word", stacklevel=3)
    return used


def check_settings(
    k: int | None,
    bounds: tuple[int, int] | None,
    rounds: int,
    merge: float | None,
    *,
    restarts: int = 1,
    seed: int = 0,
    images: int | None = None,
) -> None:
    """Refuse what :func:`discover` would, before any work; ``images`` is their number, if known.

    Raises
    ------
    UsageError
    """
    asked, most = "discover names", np.inf if images is None else images
    for name, value, least in (("rounds", rounds, 1), ("restarts", restarts, 1), ("seed", seed, 0)):
        check_whole(asked, name, value, least)
    to = "" if images is None else f" to {images}, the number of images"
    if k is not None and not (_whole(k) and 1 <= k <= most):
        raise UsageError(asked, f"k is {k!r}", f"Give 1{to or ' or more, a whole number'}.")
    if bounds is not None:
        if not isinstance(bounds, tuple | list) or len(bounds) != 2:
            raise UsageError(
                asked, f"bounds is {bounds!r}", "Give the least and the largest number."
            )
        if not (all(map(_whole, bounds)) and 2 <= bounds[0] <= bounds[1] <= most):
            seen = f"the bounds are {bounds[0]!r} and {bounds[1]!r}"
            upto = " on" if images is None else f" to {images}"
            do = f"Give two numbers of clusters, from 2{upto}, the smaller first."
            raise UsageError(asked, seen, do)
        if k is not None:
            raise UsageError(asked, "both k and bounds are given", "Give one of them.")
    if merge is not None:
        number = isinstance(merge, int | float | np.integer | np.floating)
        if not number or isinstance(merge, bool) or not 0 < merge <= 1:
            raise UsageError(asked, f"merge is {merge!r}", "Give a cosine above 0, up to 1.")


def _whole(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
