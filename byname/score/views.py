"""Several crops of an image scored together (ABS, and plain means and maxima)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.errors import EmbeddingsError, RecipeError
from byname.score.textparts import put_last, shown_unsaid, text_weights, unsaid
from byname.stage import Array, Batch, ClassTexts, Member, StageName, State, register
from byname.stream import Segments, reduce_texts

__all__ = ["Views", "ViewsParams", "present_views"]

Method = Literal["abs", "mean", "max"]
ROWS, COLUMNS = 1024, 4096


@dataclass(frozen=True)
class ViewsParams:
    """How the views count together."""

    method: Method = "abs"
    temperature: float = 0.03

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            seen, rule = f"method is {self.method!r}", "It must be 'abs', 'mean' or 'max'."
            raise RecipeError("use 'views'", seen, rule)
        if not 0.001 <= self.temperature < math.inf:
            seen = f"temperature is {self.temperature}"
            raise RecipeError("use 'views'", seen, "It must be 0.001 or more.")


@register
class Views(Member):
    """Match every crop of an image with every sentence of every class, softly.

    Formula of "abs", with v_1 ... v_V the views of an image and t_m the sentences of all classes::

        u_vm    = <v, t_m> / temperature
        p_vm    = softmax of u_v over all m, of all classes together
        score_k = mean over v of  sum over the sentences m of class k of  p_vm * u_vm
        share_k = max(score_k, 0) / sum_j max(score_j, 0)
        S_k     = log(max(share_k, 1e-30)) + min(score_k, 0)

    The paper answers the class of the largest score (a sum over v, which is the same). The scores
    are matching chances weighted by similarity, so shares of them are taken as probabilities; the
    last term keeps the order of classes whose score is negative, and does nothing to others. S and
    the score have the same order. The formula expects the cosines of good matches to be positive,
    as those of CLIP are. Formulas of the others::

        "mean"  S = scale * W unit(sum over v of v) + bias
        "max"   S = scale * max over v of W v + bias

    Zero rows are missing views and count nowhere; an image without views counts as its own view.
    The whole image is not added otherwise. "abs" uses the sentences themselves, not W, each once;
    those to which the weigh stage gave the weight 0 are left out.

    Shapes: views (N, V, D), texts (M, D) to S (N, K). O(N V M D) for "abs", a tile of crops and
    texts at a time, of which two sums are kept, O(N V K D) for "max", O(N D (V + K)) for "mean".

    Source: Cai et al., "From Local Details to Global Context: Advancing Vision-Language Models
    with Attention-Based Selection" (ABS), ICML 2025, its soft matching, as the released code does
    it. Its crops around the strongest patches of DINO come with the batch (``views``), its crops
    of features need an open vision transformer and are not made here. Uniform crops are weaker.

    Parameters
    ----------
    method : {"abs", "mean", "max"}
        See above; "mean" and "max" are ours, for comparison.
    temperature : float
        Of "abs", 0.03 as published, for all data; the code states no tuning. Not the encoder's.

    Raises
    ------
    RecipeError
        For a parameter that does not fit.
    EmbeddingsError
        For views whose shape does not fit the images.

    Examples
    --------
    >>> from byname.taxonomy import Taxonomy
    >>> texts = ClassTexts(np.eye(2), np.arange(2), Taxonomy.from_names(["cat", "dog"]), scale=10.0)
    >>> views = np.array([[[1.0, 0.0], [0.6, 0.8]]])
    >>> batch, state = Batch(np.array([[0.8, 0.6]]), views=views), State(W=texts.vectors)
    >>> Views(method="max").apply(batch, texts, state).tolist()
    [[10.0, 8.0]]
    """

    stage: ClassVar[StageName] = "score"
    name = "views"
    needs = frozenset({"views"})
    Params = ViewsParams
    params: ViewsParams

    def apply(self, batch: Batch, texts: ClassTexts, state: State) -> Any:
        """S (N, K)."""
        X, W = ops.as_float(batch.X), ops.like(state.W, batch.X)
        views, has = _filled(batch)
        if not len(batch):
            return ops.matmul_t(X, W)
        if self.params.method == "mean":
            S = ops.scaled(ops.unit(views.sum(1)), W, texts.scale, texts.bias)
            return shown_unsaid(S, texts, text_weights(texts, state))
        B, V, D = views.shape
        if self.params.method == "max":
            found, K = [], int(W.shape[0])
            for rows in ops.blocks(B, max(1, ROWS * COLUMNS // (V * K))):
                owner = np.where(has[rows], np.arange(rows.stop - rows.start)[:, None], -1)
                crops = views[rows].reshape(-1, D)
                best = reduce_texts(W, crops, owner.reshape(-1), len(owner), "max")
                found.append(texts.scale * best.T + texts.bias)
            return shown_unsaid(ops.concat(found), texts, text_weights(texts, state))
        score, none = (
            self._matched(views, has, texts, state),
            unsaid(texts, text_weights(texts, state)),
        )
        return _as_logits(put_last(score, none, -1 / self.params.temperature))

    def _matched(
        self, views: Array, has: NDArray[np.bool_], texts: ClassTexts, state: State
    ) -> Array:
        """score (N, K) of "abs"."""
        index, (B, V, D) = ops.to_numpy(texts.class_index), views.shape
        given = state.weight if state.weight is not None else texts.weight
        if given is not None:
            index = np.where(ops.to_numpy(given) > 0, index, -1)
        segments, K = Segments.of(index), texts.n_classes
        vectors = ops.as_float(ops.like(texts.vectors, views))
        longest = int(np.bincount(index[index >= 0], minlength=1).max(initial=0))
        size = ROWS * COLUMNS // max(COLUMNS, longest)
        found = []
        for rows in ops.blocks(B, max(1, size // V)):
            crops = views[rows].reshape(-1, D)
            sums = self._sums(crops, vectors, segments, index, K).reshape(K, -1, V).sum(2).T
            found.append(sums / ops.cast(has[rows].sum(axis=1)[:, None], sums))
        return ops.concat(found)

    def _sums(
        self, crops: Array, vectors: Array, segments: Segments, index: NDArray[np.intp], K: int
    ) -> Array:
        """Sum of p * u over the sentences of each class, (K, crops).

        Each tile of sentences has a softmax of its own; a softmax over the tiles then says how
        much of all the mass each has.
        """
        kind = ops.matmul_t(vectors[:0], crops[:0])
        out, masses, tiles = ops.full(kind, (K, int(crops.shape[0])), 0.0), [], []
        for held, texts in segments.tiles(COLUMNS):
            rows, ids = segments.order[texts], segments.ids[held]
            u = ops.matmul_t(ops.take_rows(vectors, rows), crops) * (1 / self.params.temperature)
            top = u.amax(0) if hasattr(u, "amax") else u.max(axis=0)
            p = math.e ** (u - top)
            total = p.sum(0)
            p *= u
            at, own = ops.like(ids, out), np.searchsorted(ids, index[rows])
            out[at] = ops.segment_sum(p, own, len(ids)) / total
            mass = top + ops.cast(np.log(ops.to_numpy(total)), top)
            masses.append(mass[None])
            tiles.append(at)
        if len(tiles) > 1:
            for at, share in zip(tiles, ops.softmax(ops.concat(masses), axis=0), strict=True):
                out[at] = out[at] * share
        return out


def _as_logits(score: Array) -> Array:
    """log of the shares of the positive scores, and below them the negative ones in order."""
    above = (score + abs(score)) / 2
    total = above.sum(1)[:, None]
    share = above / (total + (total == 0))
    return ops.log_probability(share) + (score - above)


def present_views(batch: Batch, member: str) -> tuple[Array, NDArray[np.bool_]]:
    """Views (N, V, D) in floating point, and which (N, V) are not zero.

    A view that is not finite is none, and zero.

    Raises
    ------
    EmbeddingsError
        For views whose shape does not fit the images.
    """
    X, views = batch.X, batch.views
    if views is None or views.ndim != 3 or tuple(views.shape[::2]) != tuple(X.shape):
        seen = "none" if views is None else f"the shape {tuple(views.shape)}"
        raise EmbeddingsError(
            f"score with '{member}'",
            f"the views have {seen}, the images {tuple(X.shape)}",
            "Give vectors (N, V, D), zero rows where an image has fewer views.",
        )
    views = ops.as_float(ops.like(views, X))
    spoilt = np.flatnonzero(~np.isfinite(ops.to_numpy(views.sum(2))))
    if len(spoilt):
        views = views * 1
        views.reshape(-1, int(X.shape[1]))[ops.like(spoilt, views)] = 0
    return views, ops.to_numpy((views != 0).any(2))


def _filled(batch: Batch) -> tuple[Array, NDArray[np.bool_]]:
    """The same, but an image without any view has its own vector in the first place."""
    views, has = present_views(batch, "views")
    X = ops.cast(ops.as_float(batch.X), views)
    if not has.shape[1]:
        return X[:, None], np.ones((len(batch), 1), bool)
    lacking = np.flatnonzero(~has.any(axis=1))
    if len(lacking):
        views, has = views * 1, has.copy()
        views[ops.like(lacking, views), 0] = ops.take_rows(X, lacking)
        has[lacking, 0] = True
    return views, has
