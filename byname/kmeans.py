"""k-means in tiles, seeded, whose result does not depend on the order of the rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.errors import UsageError

__all__ = ["Clusters", "content_key", "kmeans", "silhouette", "tiles"]

Array = Any
_TILE = 4_000_000  # distances at a time
_ROUNDS = 64  # in which the first centres are drawn
_SAME = 1e-6  # squared distance, in units of the longest row, below which two rows are one


@dataclass(frozen=True)
class Clusters:
    """Centres (T, D), the cluster (N,) of each row, squared distances (N,), and steps taken.

    No cluster is empty; T is below the number that was asked for where rows are alike.
    """

    centres: Array
    member: NDArray[np.intp]
    distance: NDArray[Any]
    steps: int

    def __len__(self) -> int:
        return int(self.centres.shape[0])

    @property
    def sizes(self) -> NDArray[np.intp]:
        """Rows in each cluster (T,)."""
        return np.bincount(self.member, minlength=len(self))


def kmeans(
    X: Array, k: int, *, seed: int = 0, iterations: int = 100, restarts: int = 1
) -> Clusters:
    """Lloyd's k-means from centres drawn as k-means++ does.

    The first centres are drawn in at most 64 rounds, each of k / 64 rows by their squared distance
    to the centres so far: for k up to 64 that is k-means++. A cluster that loses all its rows
    keeps its centre, and is left out of the result if none come back.

    Parameters
    ----------
    X : array, shape (N, D)
        N >= 1, finite.
    k : int
        Cut to N.
    seed : int
    iterations : int
        At most; it ends where no row changes its cluster.
    restarts : int
        Runs with other draws, of which the one of the least squared distances is kept.

    Returns
    -------
    Clusters
        In an order that follows from the draws alone.

    Notes
    -----
    N k D for each step and once for the draws, in tiles of four million distances. The sums of the
    centres are taken in float64.

    Examples
    --------
    >>> found = kmeans(np.array([[0.0], [0.1], [5.0], [5.1]]), 2)
    >>> np.sort(found.centres.ravel()).round(2).tolist()
    [0.05, 5.05]
    """
    for name, value in (("k", k), ("iterations", iterations), ("restarts", restarts)):
        if value < 1:
            raise UsageError("make clusters", f"{name} is {value}", "Give 1 or more.")
    X = ops.as_float(X)
    if not len(X):
        raise UsageError("make clusters", "there are no rows", "Give one or more.")
    order = _canonical(X)
    rng = np.random.default_rng(seed)
    best: tuple[float, Clusters] | None = None
    for _ in range(restarts):
        found = _lloyd(X, _first(X, order, min(k, len(X)), rng), iterations)
        spread = float(found.distance.sum(dtype=np.float64))
        if best is None or spread < best[0]:
            best = (spread, found)
    assert best is not None
    return best[1]


def silhouette(X: Array, clusters: Clusters) -> float:
    """Mean silhouette by cosine distance, exact, between -1 and 1; 0 for one cluster.

    With unit rows the mean cosine distance to a cluster is 1 - <x, its centre>, so that no pairs
    of rows are needed. A row that is alone in its cluster counts as 0.

    Parameters
    ----------
    X : array, shape (N, D)
        Unit rows.
    clusters : Clusters
        Of these rows.

    Examples
    --------
    >>> X = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    >>> silhouette(X, kmeans(X, 2))
    1.0
    """
    if len(clusters) < 2:
        return 0.0
    sizes, total = clusters.sizes, 0.0
    for part in tiles(len(X), len(clusters)):
        own = clusters.member[part]
        D = 1 - ops.to_numpy(ops.matmul_t(X[part], clusters.centres)).astype(np.float64)
        rows = np.arange(len(D))
        n = sizes[own]
        inner = D[rows, own] * n / np.maximum(n - 1, 1)
        D[rows, own] = np.inf
        outer = D.min(axis=1)
        larger = np.maximum(inner, outer)
        counts = (n > 1) & (larger > 0)
        total += float(((outer - inner)[counts] / larger[counts]).sum())
    return total / len(X)


def tiles(N: int, k: int) -> Any:
    """Blocks of rows whose distances to k centres are four million at most."""
    return ops.blocks(N, max(1, _TILE // max(k, 1)))


def content_key(X: Array, seed: int = 0) -> NDArray[np.float64]:
    """A number (N,) for each row that follows from what it holds: along a seeded direction.

    To sort rows by, so that their own order makes no difference.

    Examples
    --------
    >>> key = content_key(np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]))
    >>> bool(key[0] == key[2] != key[1])
    True
    """
    direction = np.random.default_rng(seed).standard_normal(int(X.shape[1]))
    key = np.zeros(len(X))
    for part in ops.blocks(len(X), 4096):
        # Summed row by row: a product of matrices could round a row by its place.
        key[part] = (ops.to_numpy(X[part]).astype(np.float64) * direction).sum(axis=1)
    return key


def _canonical(X: Array) -> NDArray[np.intp]:
    """An order of the rows that follows from what they hold; equal rows may change places."""
    return np.argsort(content_key(X), kind="stable")


def _first(X: Array, order: NDArray[np.intp], k: int, rng: np.random.Generator) -> Array:
    """First centres (k or fewer, D): the rows that were drawn."""
    chosen = [order[[rng.integers(len(order))]]]
    squares = _squares(X)
    distance = np.full(len(X), np.inf)
    a_round = max(1, k // _ROUNDS)
    while True:
        C = X[ops.like(chosen[-1], X)]
        for part in tiles(len(X), len(C)):
            near = _distances(X[part], C).min(axis=1) + squares[part]
            distance[part] = np.minimum(distance[part], near)
        distance[distance <= _SAME * squares.max()] = 0
        missing = k - sum(len(c) for c in chosen)
        summed = np.cumsum(distance[order])
        if missing <= 0 or summed[-1] <= 0:
            break
        at = rng.random(min(a_round, missing)) * summed[-1]
        place = np.minimum(np.searchsorted(summed, at, side="right"), len(order) - 1)
        chosen.append(order[np.unique(place)])
    return X[ops.like(np.concatenate(chosen), X)]


def _lloyd(X: Array, centres: Array, iterations: int) -> Clusters:
    squares = _squares(X)
    T, steps = len(centres), 0
    member, distance = _assigned(X, centres, squares)
    for steps in range(1, iterations + 1):  # noqa: B007 - told at the end
        means = ops.segment_mean(X, member, T)
        empty = np.bincount(member, minlength=T) == 0
        kept = ops.like(empty[:, None], X)
        centres = centres * kept + means * ~kept
        before = member
        member, distance = _assigned(X, centres, squares)
        if (member == before).all():
            break
    used = np.flatnonzero(np.bincount(member, minlength=T))
    place = np.full(T, -1)
    place[used] = np.arange(len(used))
    member = place[member]
    # The means of what is in them at the end, also where the last step changed it.
    return Clusters(ops.segment_mean(X, member, len(used)), member, distance, steps)


def _assigned(
    X: Array, centres: Array, squares: NDArray[Any]
) -> tuple[NDArray[np.intp], NDArray[Any]]:
    """Nearest centre of each row, and its squared distance."""
    member, distance = np.zeros(len(X), np.intp), np.zeros(len(X))
    for part in tiles(len(X), len(centres)):
        near = _distances(X[part], centres)
        member[part] = near.argmin(axis=1)
        distance[part] = near[np.arange(len(near)), member[part]]
    return member, np.maximum(distance + squares, 0)


def _distances(x: Array, C: Array) -> NDArray[Any]:
    """||x - c||^2 - ||x||^2."""
    near = ops.to_numpy(ops.matmul_t(x, C))
    near = near * -2
    near += ops.to_numpy(_squares(C)).astype(near.dtype)
    return near


def _squares(X: Array) -> NDArray[np.float64]:
    """Squared length of each row."""
    found = np.zeros(len(X))
    for part in ops.blocks(len(X), 4096):
        rows = ops.to_numpy(X[part])
        found[part] = np.einsum("nd,nd->n", rows, rows, dtype=np.float64)
    return found
