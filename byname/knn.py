"""Nearest neighbours by cosine, exact and in tiles; FAISS beyond what that can do.

Up to ``EXACT`` rows every pair is compared, a tile at a time, so that memory stays that of one tile
and of the result. With more rows, and with ``faiss`` installed, an inverted index is searched
instead, which may miss some neighbours.
"""

from __future__ import annotations

import importlib.util
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from byname import ops
from byname.errors import UsageError

__all__ = ["EXACT", "agreement", "graph", "nearest"]

Array = Any
Engine = Literal["auto", "exact", "faiss"]
EXACT = 200_000
ROWS, COLUMNS = 2048, 8192


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
    index = np.empty((len(X), k), np.intp)
    cosine = np.empty((len(X), k), np.float32)
    for rows in ops.blocks(len(X), ROWS):
        index[rows], cosine[rows] = _exact(X, other, rows, k, own)
    return index, cosine


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


def _exact(X: Array, Y: Array, rows: slice, k: int, own: bool) -> tuple[Any, Any]:
    """Best k of each row of a block: of the first tile all, then what beats the k-th so far."""
    x, start = X[rows], rows.start
    n = int(x.shape[0])
    best: Any = None
    for columns in ops.blocks(int(Y.shape[0]), max(COLUMNS, k + 1)):
        S = ops.to_numpy(ops.matmul_t(x, Y[columns]))
        if own:
            self_ = np.arange(max(start, columns.start), min(start + n, columns.stop))
            S[self_ - start, self_ - columns.start] = -np.inf
        if best is None:
            width = min(k, S.shape[1])
            values, index = ops.topk(S, width)
            if width < k:  # one tile holds all: more rows are wanted than there are
                return index, values
            best = (values, index + columns.start)
            continue
        better = best[0][:, -1:] < S
        if better.any():
            best = _merged(best, better, S, columns.start, k)
    return best[1], best[0]


def _merged(best: Any, better: NDArray[np.bool_], S: Any, start: int, k: int) -> Any:
    changed = np.flatnonzero(better.any(axis=1))
    row, column = np.nonzero(better[changed])
    row = np.concatenate([np.repeat(np.arange(len(changed)), k), row])
    value = np.concatenate([best[0][changed].ravel(), S[changed][better[changed]]])
    place = np.concatenate([best[1][changed].ravel(), column + start])
    order = np.lexsort((place, -value, row))
    row, value, place = row[order], value[order], place[order]
    first = np.searchsorted(row, np.arange(len(changed)))
    chosen = first[:, None] + np.arange(k)
    values, index = best[0].copy(), best[1].copy()
    values[changed], index[changed] = value[chosen], place[chosen]
    return values, index


def _by_faiss(X: Any, Y: Any, k: int, own: bool) -> tuple[Any, Any]:
    try:
        import faiss
    except ImportError:
        raise UsageError(
            "find neighbours with FAISS", "it is not installed", "pip install 'byname[faiss]'"
        ) from None
    X, Y = (np.ascontiguousarray(a, np.float32) for a in (X, Y))
    cells = max(1, int(4 * np.sqrt(len(Y))))
    index = faiss.IndexIVFFlat(
        faiss.IndexFlatIP(Y.shape[1]), Y.shape[1], cells, faiss.METRIC_INNER_PRODUCT
    )
    index.train(Y[np.random.default_rng(0).permutation(len(Y))[: 64 * cells]])
    index.add(Y)
    index.nprobe = max(8, cells // 32)
    value, place = index.search(X, k + own)
    if own:
        value = np.where(place == np.arange(len(X))[:, None], -np.inf, value)
        order = np.argsort(-value, axis=1, kind="stable")[:, :k]
        value, place = (np.take_along_axis(a, order, 1) for a in (value, place))
    missing = place < 0
    return np.where(missing, 0, place).astype(np.intp), np.where(missing, 0, value)
