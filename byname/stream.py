"""Many images against many texts, a tile at a time: no (N, M) array is ever made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from byname import ops

__all__ = ["Segments", "reduce_texts"]

Array = Any
How = Literal["max", "sum", "logsumexp"]
ROOM = 60
ROWS, COLUMNS = 1024, 4096  # a tile of 16 MB in float32, measured fastest on two cores


@dataclass(frozen=True)
class Segments:
    """Texts sorted by what they belong to.

    Parameters
    ----------
    order : array of int, shape (M',)
        Rows of the texts that count, segment by segment, in the order given within each.
    starts : array of int, shape (G,)
        Where each segment that has texts begins in ``order``.
    ids : array of int, shape (G,)
        Which segments these are, ascending.
    """

    order: NDArray[np.intp]
    starts: NDArray[np.intp]
    ids: NDArray[np.intp]

    @classmethod
    def of(cls, index: Array) -> Segments:
        """From the segment of each text, shape (M,); -1 for texts that count nowhere.

        Examples
        --------
        >>> Segments.of([1, -1, 0, 1]).order.tolist()
        [2, 0, 3]
        """
        index = ops.to_numpy(index)
        order = np.argsort(index, kind="stable")
        order = order[index[order] >= 0]
        ids, starts = np.unique(index[order], return_index=True)
        return cls(order, starts, ids)

    def tiles(self, width: int) -> Iterator[tuple[slice, slice]]:
        """Whole segments and their places in ``order``, about ``width`` texts at a time."""
        ends = np.append(self.starts[1:], len(self.order))
        first = 0
        while first < len(self.ids):
            last = int(np.searchsorted(ends, self.starts[first] + width, side="right"))
            last = max(last, first + 1)
            yield slice(first, last), slice(int(self.starts[first]), int(ends[last - 1]))
            first = last


def reduce_texts(
    X: Array,
    vectors: Array,
    index: Array,
    K: int,
    how: How,
    *,
    scale: float = 1.0,
    offset: Array | None = None,
) -> Array:
    """Reduce ``scale * <x, t_m> + offset_m`` over the texts m of each segment.

    Parameters
    ----------
    X : array, shape (N, D)
    vectors : array, shape (M, D)
    index : array of int, shape (M,)
        Segment of each text, below K; -1 for texts that count nowhere.
    K : int
    how : {"max", "sum", "logsumexp"}
        A plain sum is a product with the summed vectors and takes no tiles; a negative infinite
        offset takes a text out of "max" and "logsumexp".
    scale : float
    offset : array, shape (M,), optional

    Returns
    -------
    array, shape (N, K)
        float32 (float64 where X and the vectors are); for a segment without texts 0 under "sum",
        else -inf. Time N*M*D, memory of the result and one tile.

    Examples
    --------
    >>> X, T = np.array([[1.0, 0.0]]), np.array([[0.2, 1.0], [0.6, 0.0], [0.5, 0.5]])
    >>> reduce_texts(X, T, [0, 0, 1], 3, "max", scale=10.0).tolist()
    [[6.0, 5.0, -inf]]
    """
    if how == "sum":
        return _summed(X, vectors, index, K, scale, offset)
    X = ops.as_float(X)
    segments, n = Segments.of(index), int(X.shape[0])
    vectors = ops.like(ops.as_float(vectors), X)
    out = ops.matmul_t(X[:0], vectors[:0])  # of the kind, device and type of the products
    out = ops.full(out, (n, K), -np.inf)
    for held, texts in segments.tiles(COLUMNS):
        rows = segments.order[texts]
        T = ops.take_rows(vectors, rows) * scale
        starts = segments.starts[held] - texts.start
        add = None if offset is None else ops.like(ops.to_numpy(offset)[rows], out)
        for part in ops.blocks(n, max(1, ROWS * COLUMNS // max(len(rows), COLUMNS))):
            S = ops.matmul_t(X[part], T)
            S = S if add is None else ops.as_float(S + ops.cast(add, S))
            out[part, ops.like(segments.ids[held], out)] = _columns(S, starts, how)
    return out


def _summed(
    X: Array, vectors: Array, index: Array, K: int, scale: float, offset: Array | None
) -> Array:
    S = scale * ops.matmul_t(X, ops.segment_sum(vectors, index, K))
    if offset is None:
        return S
    added = ops.segment_sum(ops.to_numpy(offset).astype(np.float64)[:, None], index, K)[:, 0]
    return S + ops.cast(ops.like(added, S), S)


def _columns(S: Array, starts: NDArray[np.intp], how: How) -> Array:
    """Reduce neighbouring columns of S (N, M), which begin at ``starts`` (G,), to (N, G)."""
    counts = np.diff(np.append(starts, S.shape[1]))
    if ops.is_torch(S):
        index = ops.like(np.repeat(np.arange(len(starts)), counts), S)[None].expand(S.shape)
        out = S.new_full((S.shape[0], len(starts)), -np.inf)
        top = out.scatter_reduce(1, index, S, "amax")
        if how == "max":
            return top
        safe = top.masked_fill(top == -np.inf, 0)
        sums = S.new_zeros(out.shape).scatter_add(1, index, (S - safe.gather(1, index)).exp())
        return sums.log() + safe
    if how == "max":
        return np.maximum.reduceat(S, starts, axis=1)
    if not S.size:
        return np.full((len(S), len(starts)), -np.inf, S.dtype)
    # The largest of a row serves all its segments, which saves the slow pass for each segment's
    # own; where a segment lies so far below that little is left of it, its own is taken after all.
    top = S.max(axis=1, keepdims=True)
    top[top == -np.inf] = 0
    top -= ROOM  # float32 holds exp(60) times many, and so much more of what lies below
    shifted = S - top
    sums = np.add.reduceat(np.exp(shifted, out=shifted), starts, axis=1)
    with np.errstate(divide="ignore"):
        found = np.log(sums) + top
    poor = np.flatnonzero((sums < 1e-30).any(axis=1))
    if len(poor):
        own = np.maximum.reduceat(S[poor], starts, axis=1)
        own[own == -np.inf] = 0
        rest = np.exp(S[poor] - np.repeat(own, counts, axis=1))
        with np.errstate(divide="ignore"):
            found[poor] = np.log(np.add.reduceat(rest, starts, axis=1)) + own
    return found
