"""What the image says and what was said of it, each trusted as far as it is sure (X-MoRe)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.errors import EmbeddingsError, RecipeError
from byname.score.textparts import put_last, text_weights, unsaid
from byname.stage import Array, Batch, ClassTexts, Member, StageName, State, register

__all__ = ["Xmore", "XmoreParams"]

Floats = NDArray[np.float64]
ROWS, CELLS = 1024, 1 << 22  # images, and probabilities of captions, at a time


@dataclass(frozen=True)
class XmoreParams:
    """How many captions count, and whose certainty an image's own is compared with."""

    top: int = 16
    parity: bool = False

    def __post_init__(self) -> None:
        if not self.top >= 1:
            raise RecipeError("use 'xmore'", f"top is {self.top}", "Give 1 or more captions.")


class _Part(NamedTuple):
    """Some images: where they lie, both probabilities, both certainties, number of captions."""

    rows: slice
    image: Array
    told: Array
    alpha: Floats
    beta: Floats
    counts: NDArray[np.intp]


@register
class Xmore(Member):
    """Mix the classes of the image with those of its captions by their certainty.

    Formula, with H the entropy and c_1 ... c_n the ``top`` captions nearest to x_i::

        p_img = softmax(scale * W x_i + bias)             alpha_i = 1 - H(p_img) / log K
        p_cap = mean_j softmax(scale * W c_j + bias)      beta_i  = 1 - H(p_cap) / log K
        p     = (alpha_i / a) p_img + (beta_i / b) p_cap, brought to the sum 1
        S     = log(max(p, 1e-30))

    a and b are the means of alpha and beta over the images of ``fit`` that have captions, so that
    the answer for an image depends neither on the order nor on those scored with it. With
    ``parity`` they are the sums over the images up to this one, as published: the first images of
    a run then count most, both their sources have the weight 1, and the member is not inductive.

    An image without captions (zero rows) has p = p_img and counts in neither a nor b; the released
    code leaves such images out, and so out of its accuracy. One class is certain: alpha = beta =
    1. Where a mean or sum is 0, as with identical texts, 1 stands for the quotient; where both
    certainties of an image are 0, its p is the plain mean.

    Shapes: X (N, D), captions (N, J, D), W (K, D) to S (N, K). O(N J D + N top K D); captions are
    read a block of images at a time.

    Source: Eom et al., "Cross-Modal Retrieval Meets Inference: Improving Zero-Shot Classification
    with Cross-Modal Retrieval" (X-MoRe), arXiv 2308.15273, 2023. The published system takes as
    captions the 128 texts of the nearest LAION images, ranked by a stronger CLIP; here they are
    what the batch brings, ranked by the encoder at hand.

    Parameters
    ----------
    top : int
        Captions of an image that count, those of largest cosine; 16 as published. An image with
        fewer uses all.
    parity : bool
        The published running sums in place of the means. Off, since they depend on the order.

    Attributes
    ----------
    alpha_, beta_ : float
        a and b; without ``parity``.

    Raises
    ------
    RecipeError
        For ``top`` below 1.
    EmbeddingsError
        For captions whose shape does not fit the images.

    Examples
    --------
    >>> from byname.taxonomy import Taxonomy
    >>> texts = ClassTexts(np.eye(2), np.arange(2), Taxonomy.from_names(["cat", "dog"]), scale=4.0)
    >>> batch = Batch(np.array([[0.71, 0.7]]), captions=np.array([[[0.0, 1.0]]]))
    >>> state = State(W=texts.vectors)
    >>> ops.softmax(Xmore().fit(batch, texts, state).apply(batch, texts, state)).round(2).tolist()
    [[0.26, 0.74]]
    """

    stage: ClassVar[StageName] = "score"
    name = "xmore"
    needs = frozenset({"X", "captions"})
    Params = XmoreParams
    params: XmoreParams

    def __init__(self, params: Any = None, **kwargs: Any) -> None:
        super().__init__(params, **kwargs)
        self.inductive = not self.params.parity  # type: ignore[misc]  # the class says "can be"

    def fit(self, batch: Batch, texts: ClassTexts, state: State) -> Self:
        """Learn how sure the images and their captions are in the mean."""
        if not self.params.parity:
            sums, count = np.zeros(2), 0
            for part in self._parts(batch, texts, state):
                has = part.counts > 0
                sums += part.alpha[has].sum(), part.beta[has].sum()
                count += int(has.sum())
            self.alpha_, self.beta_ = (float(v) for v in sums / max(count, 1))
        return self

    def report(self) -> dict[str, Any]:
        """Mean certainty of the images and of their captions; empty with ``parity``."""
        if not hasattr(self, "alpha_"):
            return {}
        return {"certainty_of_images": self.alpha_, "certainty_of_captions": self.beta_}

    def apply(self, batch: Batch, texts: ClassTexts, state: State) -> Any:
        """S (N, K)."""
        found, before = [], np.zeros(2)
        for part in self._parts(batch, texts, state):
            has = part.counts > 0
            own = np.stack([part.alpha, part.beta]) * has
            if self.params.parity:
                over = before[:, None] + np.cumsum(own, axis=1)
                before = over[:, -1]
            else:
                over = np.broadcast_to([[self.alpha_], [self.beta_]], own.shape)
            share = np.divide(own, over, out=np.ones(own.shape), where=over > 0)
            share[:, share.sum(axis=0) == 0] = 1
            share[:, ~has] = [[1.0], [0.0]]
            share /= share.sum(axis=0)
            a, b = (ops.cast(s[:, None], part.image) for s in share)
            found.append(ops.log_probability(a * part.image + b * part.told))
        if not found:
            return ops.matmul_t(batch.X, ops.like(state.W, batch.X))
        return ops.concat(found)

    def details(self, batch: Batch, texts: ClassTexts, state: State) -> dict[str, list[Any]]:
        """Captions used, and how sure the image and they are (0 to 1; None without captions)."""
        out: dict[str, list[Any]] = {
            "captions": [],
            "certainty_image": [],
            "certainty_captions": [],
        }
        for part in self._parts(batch, texts, state):
            out["captions"] += part.counts.tolist()
            out["certainty_image"] += part.alpha.tolist()
            pairs = zip(part.beta.tolist(), part.counts, strict=True)
            out["certainty_captions"] += [b if n else None for b, n in pairs]
        return out

    def _parts(self, batch: Batch, texts: ClassTexts, state: State) -> Iterator[_Part]:
        X, W, given = ops.as_float(batch.X), ops.like(state.W, batch.X), batch.captions
        K, N = int(W.shape[0]), len(batch)
        if given is None or given.ndim != 3 or tuple(given.shape[::2]) != tuple(X.shape):
            seen = "none" if given is None else f"the shape {tuple(given.shape)}"
            raise EmbeddingsError(
                "score with 'xmore'",
                f"the captions have {seen}, the images {tuple(X.shape)}",
                "Give vectors (N, J, D), zero rows where an image has fewer captions.",
            )
        n, none = (
            min(self.params.top, int(given.shape[1])),
            unsaid(texts, text_weights(texts, state)),
        )
        for rows in ops.blocks(N, min(ROWS, max(1, CELLS // max(1, K * n)))):
            chosen, has = _nearest(X[rows], ops.as_float(ops.like(given[rows], X)), n)
            counts = has.sum(axis=1)
            image, told = (
                ops.softmax(put_last(texts.scale * ops.matmul_t(V, W), none, -texts.scale))
                for V in (X[rows], chosen)
            )
            told = told.reshape(len(has), n, K)
            told = ops.cast(told, image)
            told = (told * ops.cast(has / np.maximum(counts, 1)[:, None], told)[:, :, None]).sum(1)
            yield _Part(rows, image, told, _certainty(image), _certainty(told), counts)


def _nearest(X: Array, captions: Array, n: int) -> tuple[Array, NDArray[np.bool_]]:
    """The n captions (B * n, D) of largest cosine, and which of them (B, n) are any."""
    B, J, D = captions.shape
    has = ops.to_numpy((captions != 0).any(2))
    if n == J:
        return captions.reshape(B * J, D), has
    near = ops.to_numpy((captions * X[:, None]).sum(2))
    _, best = ops.topk(np.where(has, near, -np.inf), n)
    rows = (np.arange(B)[:, None] * J + best).reshape(-1)
    return ops.take_rows(captions.reshape(B * J, D), rows), np.take_along_axis(has, best, axis=1)


def _certainty(p: Array) -> Floats:
    """1 - H / log K of each row, from 0 to 1; 1 where there is one class."""
    wide = ops.to_numpy(p).astype(np.float64)
    if wide.shape[1] < 2:
        return np.ones(len(wide))
    entropy = -(wide * ops.log_probability(wide)).sum(axis=1)
    found: Floats = np.clip(1 - entropy / math.log(wide.shape[1]), 0, 1)
    return found
