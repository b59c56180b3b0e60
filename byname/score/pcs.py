"""How many views of an image agree on its class (perceived confidence)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.errors import RecipeError
from byname.score.textparts import put_last, text_weights, unsaid
from byname.score.views import present_views
from byname.stage import Array, Batch, ClassTexts, Member, StageName, State, register

__all__ = ["Pcs", "PcsParams"]

CELLS = 1 << 22  # logits at a time


@dataclass(frozen=True)
class PcsParams:
    """Votes, or probabilities of the surest views."""

    soft: bool = False
    keep: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.keep <= 1:
            raise RecipeError("use 'pcs'", f"keep is {self.keep}", "Give a share up to 1.")


@register
class Pcs(Member):
    """Agreement under harmless changes: each view votes for a class.

    Formula, with v_0 = x_i the image and v_1 ... v_V its views::

        p_v     = softmax(scale * W v + bias)
        share_k = (number of v with argmax p_v = k) / (V + 1)
        share_k = mean of p_vk over the views of lowest entropy          (``soft``)
        S       = log(max(share, 1e-30))

    of which ``soft`` takes the ceil(keep * (V + 1)) of lowest entropy. softmax(S) is the share, so
    the probability of the answer is the agreement: 1 where all views are alike in their class.
    Classes with equally many votes are equal; ``soft`` hardly has ties.

    Zero rows are missing views and have no vote, nor have rows that are not finite, nor an image
    whose own vector is either; where
    nothing is left to vote, all classes share alike.

    Shapes: X (N, D), views (N, V, D), W (K, D) to S (N, K). O(N V K D), a block of images at a
    time.

    Source: Salimian et al., "PCS: Perceived Confidence Scoring of Black Box LLMs with Metamorphic
    Relations", arXiv 2502.07186, 2025: votes over rewordings of a text. Views of images in place of
    rewordings are ours, as is the soft variant.

    Parameters
    ----------
    soft : bool
        Probabilities of the surest views in place of votes. Off, as published.
    keep : float
        Share of the views that ``soft`` keeps, rounded up. 0.5 is ours, fixed beforehand. The
        votes weigh alike; the paper's other choice learns weights from labelled images.

    Raises
    ------
    RecipeError
        For ``keep`` that is no share.
    EmbeddingsError
        For views whose shape does not fit the images.

    Examples
    --------
    >>> from byname.taxonomy import Taxonomy
    >>> texts = ClassTexts(np.eye(2), np.arange(2), Taxonomy.from_names(["cat", "dog"]))
    >>> views = np.array([[[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]]])
    >>> batch, state = Batch(np.array([[0.8, 0.6]]), views=views), State(W=texts.vectors)
    >>> ops.softmax(Pcs().apply(batch, texts, state)).round(2).tolist()
    [[0.75, 0.25]]
    """

    stage: ClassVar[StageName] = "score"
    name = "pcs"
    needs = frozenset({"views"})
    Params = PcsParams
    params: PcsParams

    def apply(self, batch: Batch, texts: ClassTexts, state: State) -> Any:
        """S (N, K)."""
        return ops.log_probability(self._shares(batch, texts, state))

    def details(self, batch: Batch, texts: ClassTexts, state: State) -> dict[str, list[Any]]:
        """``agreement``: the share of the answered class."""
        shares = ops.to_numpy(self._shares(batch, texts, state))
        return {"agreement": shares.max(axis=1, initial=0).tolist()}

    def _shares(self, batch: Batch, texts: ClassTexts, state: State) -> Array:
        """Share (N, K) of each class."""
        X, W = ops.as_float(batch.X), ops.like(state.W, batch.X)
        views, has = present_views(batch, self.name)
        B, V, D = views.shape
        none = unsaid(texts, text_weights(texts, state))
        size = ops.to_numpy(abs(X).sum(1))
        X = (
            put_last(X.T, np.flatnonzero(~np.isfinite(size)), 0).T
            if not np.isfinite(size).all()
            else X
        )
        has = np.concatenate([((size > 0) & np.isfinite(size))[:, None], has], axis=1)
        found = [ops.matmul_t(X[:0], W)]
        for rows in ops.blocks(B, max(1, CELLS // (int(W.shape[0]) * (V + 1)))):
            own = ops.matmul_t(X[rows], W)
            seen = ops.matmul_t(views[rows].reshape(-1, D), W)
            # One below the other: first all images, then all their views.
            S = texts.scale * ops.concat([own, ops.cast(seen, own)]) + texts.bias
            put_last(S, none, texts.bias - texts.scale)
            found.append(self._soft(S, has[rows]) if self.params.soft else _votes(S, has[rows]))
        return ops.concat(found)

    def _soft(self, S: Array, has: NDArray[np.bool_]) -> Array:
        P = ops.softmax(S)
        n, number = len(has), has.sum(axis=1)
        doubt = -ops.to_numpy((P * ops.log_probability(P)).sum(1)).astype(np.float64)
        doubt = np.where(has, np.hstack([doubt[:n, None], doubt[n:].reshape(n, -1)]), np.inf)
        place = np.argsort(np.argsort(doubt, axis=1, kind="stable"), axis=1, kind="stable")
        # 0.28 * 25 is a little more than 7 in floating point, and must not become 8.
        kept = has & (place < np.ceil(np.round(self.params.keep * number, 9))[:, None])
        share = ops.cast(kept / np.maximum(kept.sum(axis=1), 1)[:, None], P)
        out = P[:n] * share[:, :1]
        views = P[n:].reshape(n, -1, int(P.shape[1]))
        out = out + (views * share[:, 1:, None]).sum(1)
        return _or_alike(out, number)


def _votes(S: Array, has: NDArray[np.bool_]) -> Array:
    (n, width), K = has.shape, int(S.shape[1])
    best = ops.to_numpy(ops.argmax(S))
    best = np.hstack([best[:n, None], best[n:].reshape(n, width - 1)])
    cells = (np.arange(n)[:, None] * K + best)[has]
    counts = np.bincount(cells, minlength=n * K).reshape(n, K)
    number = has.sum(axis=1)
    return _or_alike(ops.cast(counts / np.maximum(number, 1)[:, None], S), number)


def _or_alike(share: Array, number: NDArray[np.intp]) -> Array:
    """The shares, and 1 / K for images of which nothing could vote."""
    none = np.flatnonzero(number == 0)
    if len(none):
        share[ops.like(none, share)] = 1 / int(share.shape[1])
    return share
