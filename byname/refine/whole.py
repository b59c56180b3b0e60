"""What members share that refine all images of a batch together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from byname import ops
from byname.errors import UsageError
from byname.knn import nearest
from byname.refine.guard import NEIGHBOURS, absent, caution, doubt, told, too_few
from byname.refine.shares import refuse_nan
from byname.stage import Batch, ClassTexts, Member, StageName, State

__all__ = ["Near", "WholeBatch", "adjacency", "barred", "floored", "neighbours", "refuse_others"]

Near = tuple[NDArray[np.intp], NDArray[np.float64]]
_ROWS = 512
_UNFITTED = "nothing was learned yet"


class WholeBatch(Member):
    """A refine member whose ``fit`` sees the whole batch, and whose ``apply`` is for that batch.

    A subclass says in ``_near`` how many neighbours of each image it looks at, and computes in
    ``_refined`` the new scores. What is common: images that are not finite are refused by row;
    too few images or classes leave S as it is; unless ``params.guard`` is false so do answers with
    less than the share ``params.present`` of the names, fewer images than ``_images`` says, and
    neighbours that agree less than before. Where shares look uneven, the report warns. A class that
    S rules out (-inf) for all images takes no part, and none is given to an image it is ruled out
    for.
    """

    stage: ClassVar[StageName] = "refine"
    needs = frozenset({"X"})
    inductive = False
    scores_: Any = None
    reason_: str | None = _UNFITTED
    warning_: str | None = None
    _seen: Any = None
    _drops: ClassVar[bool] = True  # whether ``_refined`` is spared classes that are ruled out

    def _near(self) -> int:
        """Neighbours of each image."""
        return NEIGHBOURS

    def _images(self, K: int) -> int:
        """Images that K classes need at least, for the guard."""
        return 0

    def _refined(self, X: Any, texts: ClassTexts, state: State, near: Any) -> NDArray[Any]:
        """S' (N, K) from finite X (N, D), W (K, D) and S, for N and K of 2 or more.

        It may set ``reason_`` where it found out that S must stay.
        """
        raise TypeError(f"{type(self).__name__} defines no _refined()")

    def fit(self, batch: Batch, texts: ClassTexts, state: State) -> Self:
        """Compute the new scores of these images."""
        X, whole = batch.X, ops.as_float(state.S)
        refuse_nan(self.name, X, logits=whole)
        never, some = _ruled_out(whole)
        if not self._drops:
            never, some = np.zeros_like(never), some or bool(never.any())
        state = _possible(replace(state, S=whole), never, some)
        S: Any = state.S
        self.scores_, self.reason_, self.warning_ = whole, self.too_little(X, S), None
        self._seen = X
        if self.reason_ is not None:
            return self
        wanted = max(self._near(), NEIGHBOURS if self.params.guard else 0)
        near = neighbours(X, wanted) if wanted else None
        found = self._refined(X, texts, state, near)
        if self.reason_ is None and self.params.guard and near is not None:
            self._look(near[0][:, :NEIGHBOURS], S, found)
        if self.reason_ is None:
            self.scores_ = ops.cast(_all_classes(found, whole, never, some), whole)
        return self

    def _look(self, index: NDArray[np.intp], S: Any, found: Any) -> None:
        """Whether the new scores are believed, and what to say of them."""
        self.reason_ = doubt(index, S, found)
        if self.reason_ is None:
            both = (self.warning_, caution(index, S, found))
            self.warning_ = "; ".join(filter(None, both)) or None

    def too_little(self, X: Any, S: Any) -> str | None:
        """Why S should stay as it is, before any work."""
        reason, K = too_few(S), int(S.shape[1])
        if reason is not None or not self.params.guard:
            return reason
        wanted = self._images(K)
        if missing := absent(S, self.params.present):
            return missing
        return f"{len(X)} images are fewer than {wanted} for {K} names" if len(X) < wanted else None

    def apply(self, batch: Batch, texts: ClassTexts, state: State) -> Any:
        """S' (N, K) of the images of ``fit``; S where there is no image."""
        if not len(batch):
            return ops.as_float(state.S)
        refuse_others(self.name, self._seen, batch.X)
        return self.scores_

    def report(self) -> dict[str, Any]:
        """Whether it stepped back to S, and why; empty before ``fit``."""
        return {} if self.reason_ == _UNFITTED else told(self.reason_, self.warning_)


def refuse_others(name: str, seen: Any, X: Any) -> None:
    """Refuse images X (N, D) that are not those that were learned from; None is none at all.

    Examples
    --------
    >>> refuse_others("zlap", np.eye(2), np.eye(2))
    >>> refuse_others("zlap", np.eye(2), np.ones((2, 2)))
    Traceback (most recent call last):
    byname.errors.UsageError: cannot apply 'zlap' to 2 images: it learned from others. Fit it on the images that are to be scored.
    """  # noqa: E501
    if seen is X or (seen is not None and _equal(seen, X)):
        return
    raise UsageError(
        f"apply '{name}' to {len(X)} images",
        "it learned from others" if seen is not None else "it learned from none",
        "Fit it on the images that are to be scored." if seen is not None else "Fit it first.",
    )


def _equal(a: Any, b: Any) -> bool:
    if tuple(a.shape) != tuple(b.shape):
        return False
    parts = ops.blocks(len(a), _ROWS)
    return all(np.array_equal(ops.to_numpy(a[rows]), ops.to_numpy(b[rows])) for rows in parts)


def _ruled_out(S: Any) -> tuple[NDArray[np.bool_], bool]:
    """Classes (K,) whose logit is -inf for all images, and whether another one is for some."""
    never, total = np.full(int(S.shape[1]), len(S) > 0), 0
    for rows in ops.blocks(len(S), _ROWS):
        out = ops.to_numpy(S[rows]) == -np.inf
        never &= out.all(axis=0)
        total += int(out.sum())
    return never, total > int(never.sum()) * len(S)


def _possible(state: State, never: NDArray[np.bool_], some: bool) -> State:
    """W and S of the other classes, with the least logit of each image in place of -inf."""
    S: Any = state.S
    if never.any():
        left = np.flatnonzero(~never)
        W = state.W if state.W is None else ops.take_rows(state.W, left)
        S = S[:, ops.like(left, S)]
        state = replace(state, W=W, S=S)
    return replace(state, S=floored(S)) if some else state


def floored(S: Any) -> Any:
    """S (N, K) with the least finite logit of each image in place of -inf; 0 where there is none.

    Examples
    --------
    >>> floored(np.array([[3.0, 1.0, -np.inf]])).tolist()
    [[3.0, 1.0, 1.0]]
    """
    rows = ops.to_numpy(S)
    out = np.isneginf(rows)
    if not out.any():
        return S
    least = np.where(out, np.inf, rows).min(axis=1, keepdims=True)
    return ops.cast(np.maximum(rows, np.where(least == np.inf, 0, least)), S)


def _all_classes(found: Any, S: Any, never: NDArray[np.bool_], some: bool) -> Any:
    """S' (N, K) of all classes, -inf for those that S rules out."""
    if never.any():
        full = np.full(tuple(S.shape), -np.inf, found.dtype)
        full[:, ~never] = found
        found = full
    return barred(found, S) if some else found


def barred(S2: Any, S: Any) -> Any:
    """S2 (N, K), changed in place: -inf where S is.

    Examples
    --------
    >>> barred(np.zeros((1, 2)), np.array([[3.0, -np.inf]])).tolist()
    [[0.0, -inf]]
    """
    for rows in ops.blocks(len(S), _ROWS):
        out = ops.to_numpy(S[rows]) == -np.inf
        if out.any():
            S2[rows][ops.like(out, S2)] = -np.inf
    return S2


def neighbours(X: Any, k: int, *, Y: Any = None) -> Near:
    """As :func:`byname.knn.nearest`, with cosines in float64.

    What is computed with them then does not depend on how float32 products happened to be summed.

    Examples
    --------
    >>> neighbours(np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]), 1)[1].tolist()
    [[0.6], [0.8], [0.8]]
    """
    index, _ = nearest(X, k, Y=Y)
    cosine = np.empty(index.shape)
    other = X if Y is None else Y
    for rows in ops.blocks(len(X), _ROWS):
        found = ops.to_numpy(ops.take_rows(other, index[rows].ravel())).astype(np.float64)
        found = found.reshape(*index[rows].shape, -1)
        x = ops.to_numpy(X[rows]).astype(np.float64)
        cosine[rows] = np.einsum("id,ikd->ik", x, found)
    return index, cosine


def adjacency(near: Near, k: int, *, itself: bool = False) -> sparse.csr_matrix:
    """W + W^T (N, N) for the cosines W to the k nearest others, negative ones as 0.

    With ``itself`` the image counts among the k, so that k - 1 others are left.

    Examples
    --------
    >>> near = np.array([[1], [0], [1]]), np.array([[0.5], [0.5], [0.25]], np.float32)
    >>> adjacency(near, 1).toarray().tolist()
    [[0.0, 1.0, 0.0], [1.0, 0.0, 0.25], [0.0, 0.25, 0.0]]
    """
    n = len(near[0])
    index, cosine = (a[:, : max(k - itself, 0)] for a in near)
    starts = np.arange(n + 1) * index.shape[1]
    values = np.maximum(cosine, 0).ravel()
    W = sparse.csr_matrix((values, index.ravel(), starts), shape=(n, n))
    both = (W + W.T).tocsr()
    both.sort_indices()
    return both
