"""Nearest neighbours by cosine, exact and in tiles; FAISS beyond what that can do.

Up to ``EXACT`` rows every pair is compared, a tile at a time, so that memory stays that of one tile
and of the result; among the rows of one array each pair's product is computed once and serves both
rows. With more rows, and with ``faiss`` installed, an inverted index is searched instead, which may
miss some neighbours.
"""

from __future__ import annotations

import importlib.util
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from byname import ops
from byname.errors import UsageError
from byname.progress import counted, tell

__all__ = ["EXACT", "agreement", "graph", "nearest"]

Array = Any
Engine = Literal["auto", "exact", "faiss"]
EXACT = 200_000
TILES = "nearest neighbours, blocks"
ROWS, COLUMNS = 2048, 8192
FIRST = 512  # columns that the first k neighbours are chosen from


def nearest(
    X: Array, k: int, *, Y: Array | None = None, engine: Engine = "auto"
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """The k nearest rows of Y for each row of X, or of X without the row itself.

    Parameters
    ----------
    X : array, shape (N, D)
        Unit rows.
    k : int
        Cut to the number of other rows.
    Y : array, shape (R, D), optional
        X itself by default.
    engine : {"auto", "exact", "faiss"}
        "auto" is exact up to 200,000 rows of Y, and beyond where FAISS is not installed.

    Returns
    -------
    index, cosine : arrays, shape (N, min(k, R)) or (N, min(k, N - 1))
        NumPy, most similar first; among equals the lower row comes first.

    Raises
    ------
    UsageError
        For k below 1, rows that are not finite, and an engine that is not there.

    Examples
    --------
    >>> nearest(np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]), 1)[0].tolist()
    [[2], [2], [1]]
    """
    own = Y is None
    other = X if Y is None else Y
    X = ops.as_float(X)
    other = ops.like(ops.as_float(other), X)
    _check(X, other, k, engine)
    n = int(other.shape[0])
    k = max(0, min(k, n - 1 if own else n))
    if not k or not len(X):
        return np.zeros((len(X), k), np.intp), np.zeros((len(X), k), np.float32)
    big = n > EXACT and importlib.util.find_spec("faiss") is not None
    if engine == "faiss" or (engine == "auto" and big):
        return _by_faiss(ops.to_numpy(X), ops.to_numpy(other), k, own)
    return _among(X, k) if own else _beside(X, other, k)


def graph(X: Array, k: int, *, engine: Engine = "auto") -> sparse.csr_matrix:
    """Cosines to the k nearest other rows as a sparse matrix (N, N), negative ones as 0.

    Not symmetric: row i holds the neighbours of i, columns ascending.

    Examples
    --------
    >>> graph(np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]), 1).toarray().tolist()
    [[0.0, 0.5, 0.0], [0.5, 0.0, 0.0], [0.0, 0.5, 0.0]]
    """
    index, cosine = nearest(X, k, engine=engine)
    n, k = index.shape
    starts = np.arange(0, n * k + 1, k) if k else np.zeros(n + 1, np.intp)
    values = np.maximum(cosine, 0).ravel()
    made = sparse.csr_matrix((values, index.ravel(), starts), shape=(n, n))
    made.sort_indices()
    return made


def agreement(neighbours: NDArray[np.intp], answer: NDArray[np.intp], K: int) -> float:
    """How often neighbours have the same answer, beyond what chance would give: 1 is always.

    With a the share of equal neighbours and q_k the share of images answered k::

        (a - sum q_k^2) / (1 - sum q_k^2)

    An answer that says the same of all images has 0, and so has one by lot. No label is needed, so
    it can choose between ways of answering, or notice that one has gone astray.

    Parameters
    ----------
    neighbours : array of int, shape (N, k)
        As :func:`nearest` gives them.
    answer : array of int, shape (N,)
        Class of each image, below K.
    K : int

    Examples
    --------
    >>> agreement(np.array([[1], [0], [3], [2]]), np.array([0, 0, 1, 1]), 2)
    1.0
    """
    if not neighbours.size:
        return 0.0
    share = np.bincount(answer, minlength=K) / len(answer)
    chance = float((share**2).sum())
    same = float((answer[neighbours] == answer[:, None]).mean())
    return (same - chance) / (1 - chance) if chance < 1 - 1e-12 else 0.0


def _check(X: Array, Y: Array, k: int, engine: str) -> None:
    if k < 1:
        raise UsageError("find neighbours", f"k is {k}", "Give 1 or more.")
    if engine not in ("auto", "exact", "faiss"):
        raise UsageError("find neighbours", f"engine is {engine!r}", "auto, exact or faiss.")
    for rows in (X,) if X is Y else (X, Y):
        # A sum is finite only if all its terms are; no array of flags is made.
        sums = ops.to_numpy(rows.sum(axis=1))
        if len(bad := np.flatnonzero(~np.isfinite(sums))):
            raise UsageError(
                "find neighbours",
                f"row {bad[0]} holds NaN or infinity",
                "Leave the image out, or embed it anew.",
            )


def _among(X: Array, k: int) -> tuple[Any, Any]:
    """Nearest other rows of X. Each row meets the tiles in ascending order of the others."""
    size = max(ROWS, k + 1)
    index, cosine = _nothing(X, k)
    done, n = 0, -(-len(X) // size)
    for rows in ops.blocks(len(X), size):
        for start in range(rows.start, len(X), size):
            tell(TILES, done, n * (n + 1) // 2)
            done += 1
            columns = slice(start, min(start + size, len(X)))
            S = ops.matmul_t(X[rows], X[columns])
            if start == rows.start:
                self_ = ops.like(np.arange(len(S)), S)
                S[self_, self_] = -np.inf
            else:
                _take(S.T, index[columns], cosine[columns], rows.start)
            _take(S, index[rows], cosine[rows], start)
    tell(TILES, done, done)
    return index, cosine.astype(np.float32, copy=False)


def _beside(X: Array, Y: Array, k: int) -> tuple[Any, Any]:
    """Rows of Y that are nearest to each row of X."""
    index, cosine = _nothing(X, k)
    parts = -(-len(X) // ROWS)
    for rows in counted(TILES, ops.blocks(len(X), ROWS), parts):
        for columns in ops.blocks(len(Y), max(COLUMNS, k)):
            S = ops.matmul_t(X[rows], Y[columns])
            _take(S, index[rows], cosine[rows], columns.start)
    return index, cosine.astype(np.float32, copy=False)


def _nothing(X: Array, k: int) -> tuple[NDArray[np.intp], NDArray[Any]]:
    kind = ops.to_numpy(X[:0]).dtype
    return np.zeros((len(X), k), np.intp), np.full((len(X), k), -np.inf, kind)


def _take(S: Array, index: NDArray[np.intp], cosine: NDArray[Any], start: int) -> None:
    """Put into the k best so far of each row, in place, what is better in a tile (n, m).

    Columns count from ``start``, of which all lower ones were seen before. Of the very first tile
    some columns are sorted, so that few of the others are better.
    """
    if not start:
        first = max(FIRST, index.shape[1] + 1)
        best = ops.topk(S[:, :first], index.shape[1])
        cosine[:], index[:] = ops.to_numpy(best[0]), ops.to_numpy(best[1])
        S, start = S[:, first:], first
    bound = ops.like(np.ascontiguousarray(cosine[:, -1:]), S)
    better = ops.to_numpy(bound < S)
    if better.flags.f_contiguous:  # of a transposed tile: read in the order of its memory
        column, row = np.divmod(np.flatnonzero(better.T), max(1, len(better)))
    else:
        row, column = np.divmod(np.flatnonzero(better), max(1, better.shape[1]))
    if len(row):
        value = ops.to_numpy(S[ops.like(row, S), ops.like(column, S)])
        _merge(index, cosine, row, column + start, value)


def _merge(index: Any, cosine: Any, row: Any, place: Any, value: Any) -> None:
    """The k best of each row's own and the new ones, given by row in ascending place."""
    k = index.shape[1]
    there = np.bincount(row, minlength=len(index)) > 0
    number, changed = np.cumsum(there) - 1, np.flatnonzero(there)
    row = np.concatenate([np.repeat(np.arange(len(changed)), k), number[row]])
    value = np.concatenate([cosine[changed].ravel(), value])
    place = np.concatenate([index[changed].ravel(), place])
    # The sort is stable: among equals the lower place stays before the higher one.
    order = np.lexsort((-value, row))
    ends = np.cumsum(np.bincount(row))
    chosen = order[np.concatenate([[0], ends[:-1]])[:, None] + np.arange(k)]
    cosine[changed], index[changed] = value[chosen], place[chosen]


def _by_faiss(X: Any, Y: Any, k: int, own: bool) -> tuple[Any, Any]:
    try:
        import faiss
    except ImportError:
        raise UsageError(
            "find neighbours with FAISS", "it is not installed", "pip install 'byname[faiss]'"
        ) from None
    X, Y = (np.ascontiguousarray(a, np.float32) for a in (X, Y))
    # Its k-means wants some 40 rows a cell.
    cells = max(1, min(int(4 * np.sqrt(len(Y))), len(Y) // 40))
    cell_of = faiss.IndexFlatIP(Y.shape[1])
    index = faiss.IndexIVFFlat(cell_of, Y.shape[1], cells, faiss.METRIC_INNER_PRODUCT)
    index.cp.min_points_per_centroid = 1  # no warning on standard error for a handful of rows
    index.train(Y[np.random.default_rng(0).permutation(len(Y))[: 64 * cells]])
    index.add(Y)
    index.nprobe = min(cells, max(8, cells // 32))
    value, place = index.search(X, k + own)
    own_row = np.arange(len(X))[:, None]
    if own:
        # Behind all others where it was found; among many equal images it may not be.
        order = np.argsort(place == own_row, axis=1, kind="stable")[:, :k]
        value, place = (np.take_along_axis(a, order, 1) for a in (value, place))
    place = place.astype(np.intp)
    lacking = np.flatnonzero((place < 0).any(axis=1))  # there were too few in the cells looked at
    for rows in (lacking[part] for part in ops.blocks(len(lacking), ROWS)):
        S = ops.matmul_t(X[rows], Y)
        if own:
            S[np.arange(len(rows)), rows] = -np.inf
        value[rows], place[rows] = ops.topk(S, k)
    return place, value
