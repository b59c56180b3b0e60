"""What members share that refine all images of a batch together."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from byname import ops
from byname.errors import UsageError
from byname.knn import nearest
from byname.refine.guard import NEIGHBOURS, absent, caution, doubt, told, too_few
from byname.stage import Batch, ClassTexts, Member, StageName, State

__all__ = ["Near", "WholeBatch", "adjacency", "neighbours"]

Near = tuple[NDArray[np.intp], NDArray[np.float64]]
_ROWS = 512
_UNFITTED = "nothing was learned yet"


class WholeBatch(Member):
    """A refine member whose ``fit`` sees the whole batch, and whose ``apply`` is for that batch.

    A subclass says in ``_near`` how many neighbours of each image it looks at, and computes in
    ``_refined`` the new scores. What is common: images that are not finite are refused by row;
    too few images or classes leave S as it is; unless ``params.guard`` is false so do answers with
    less than the share ``params.present`` of the names, fewer images than ``_images`` says, and
    neighbours that agree less than before. Where shares look uneven, the report warns.
    """

    stage: ClassVar[StageName] = "refine"
    needs = frozenset({"X"})
    inductive = False
    scores_: Any = None
    reason_: str | None = _UNFITTED
    warning_: str | None = None

    def _near(self) -> int:
        """Neighbours of each image."""
        return NEIGHBOURS

    def _images(self, K: int) -> int:
        """Images that K classes need at least, for the guard."""
        return 0

    def _refined(self, X: Any, texts: ClassTexts, state: State, near: Any) -> NDArray[Any]:
        """S' (N, K) from finite X (N, D), for N and K of 2 or more."""
        raise TypeError(f"{type(self).__name__} defines no _refined()")

    def fit(self, batch: Batch, texts: ClassTexts, state: State) -> Self:
        """Compute the new scores of these images."""
        X, S = batch.X, ops.as_float(state.S)
        self.scores_, self.reason_, self.warning_ = S, self.too_little(X, S), None
        if self.reason_ is not None:
            return self
        wanted = max(self._near(), NEIGHBOURS if self.params.guard else 0)
        near = neighbours(X, wanted) if wanted else None
        found = self._refined(X, texts, state, near)
        if self.params.guard and near is not None:
            self._look(near[0][:, :NEIGHBOURS], S, found)
        if self.reason_ is None:
            self.scores_ = ops.cast(found, S)
        return self

    def _look(self, index: NDArray[np.intp], S: Any, found: Any) -> None:
        """Whether the new scores are believed, and what to say of them."""
        self.reason_ = doubt(index, S, found)
        if self.reason_ is None:
            self.warning_ = caution(index, S, found)

    def too_little(self, X: Any, S: Any) -> str | None:
        """Why S should stay as it is, before any work; images that are not finite are refused."""
        if len(X):
            nearest(X, 1, Y=X[:1])  # for its look at rows that are not finite
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
        if self.scores_ is None or len(self.scores_) != len(batch):
            raise UsageError(
                f"apply '{self.name}' to {len(batch)} images",
                "it learned from others",
                "Fit it on the images that are to be scored.",
            )
        return self.scores_

    def report(self) -> dict[str, Any]:
        """Whether it stepped back to S, and why; empty before ``fit``."""
        return {} if self.reason_ == _UNFITTED else told(self.reason_, self.warning_)


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
