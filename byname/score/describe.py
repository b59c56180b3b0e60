"""Classification by description: every text of a class is compared by itself, and can be shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from byname import ops, stream
from byname.errors import RecipeError, UsageError
from byname.score.textparts import by_class, shown_unsaid, text_weights
from byname.stage import Batch, ClassTexts, Member, StageName, State, register

__all__ = ["Describe", "DescribeParams", "Explanation", "TextShare", "contributions"]

Aggregate = Literal["mean", "max", "sum"]
_TILE = 1 << 22  # cosines at a time


@dataclass(frozen=True)
class DescribeParams:
    """How the cosines of a class's texts become one."""

    aggregate: Aggregate = "mean"

    def __post_init__(self) -> None:
        if self.aggregate not in get_args(Aggregate):
            raise RecipeError(
                "use 'describe'", f"aggregate is {self.aggregate!r}", "Give mean, max or sum."
            )


@register
class Describe(Member):
    """Score a class by the cosines between the image and each of its texts.

    Formula, with w_m the weights of the texts, which sum to 1 over a class, and n_k the number of
    its texts of positive weight::

        mean  phi_k = sum over the texts m of class k of  w_m * <x, t_m>
        max   phi_k = largest <x, t_m> of its texts of positive weight
        sum   phi_k = n_k * (the mean above)
        S     = scale * phi + bias

    "mean" is what ``mean_similarity`` with ``cosine`` gives: no class vector is brought to length
    one, so that texts which disagree with each other cost their class. "sum" favours classes with
    many texts, and its logits are n_k times as large, so that probabilities are close to 0 or 1.
    A class of which no text counts has phi = -1.

    :func:`contributions` says what each text adds, for the answered class and for a rival. Scores
    need the vectors of the images only: an edited text is encoded, the images are not.

    Shapes: X (N, D), texts (M, D) to S (N, K). O(N K D + M D) for "mean" and "sum", O(N M D) for
    "max", a tile at a time; no (N, M) array is made.

    Source: Menon & Vondrick, "Visual Classification via Description from Large Language Models",
    ICLR 2023, arXiv 2210.07183.

    Parameters
    ----------
    aggregate : {"mean", "max", "sum"}
        "mean" is the paper's, which reports no choice of it on labels; "max" and "sum" are options
        of its released code.

    Attributes
    ----------
    None: nothing is learned from images.

    Raises
    ------
    RecipeError
        For another ``aggregate``.

    Examples
    --------
    >>> from byname.taxonomy import Taxonomy
    >>> texts = ClassTexts(np.eye(2), np.array([0, 0]), Taxonomy.from_names(["cat"]), scale=10.0)
    >>> batch = Batch(np.array([[0.6, 0.8]]))
    >>> [Describe(aggregate=how).apply(batch, texts, State()).item() for how in ("mean", "max")]
    [7.0, 8.0]
    """

    stage: ClassVar[StageName] = "score"
    name = "describe"
    Params = DescribeParams
    params: DescribeParams
    uses: ClassVar[frozenset[str]] = frozenset({"weight"})

    def apply(self, batch: Batch, texts: ClassTexts, state: State) -> Any:
        """S (N, K)."""
        weight, W = self.once(texts, state, lambda: self._sums(texts, state))
        index, K = ops.to_numpy(texts.class_index), texts.n_classes
        if self.params.aggregate == "max":
            counted = np.where(weight > 0, index, -1)
            S = stream.reduce_texts(batch.X, texts.vectors, counted, K, "max", scale=texts.scale)
            return shown_unsaid(S + texts.bias, texts, weight)
        return shown_unsaid(ops.scaled(batch.X, W, texts.scale, texts.bias), texts, weight)

    def _sums(self, texts: ClassTexts, state: State) -> tuple[NDArray[np.float64], Any]:
        """Weights (M,), and the weighted sums of the texts (K, D)."""
        weight, index = text_weights(texts, state), ops.to_numpy(texts.class_index)
        K = texts.n_classes
        if self.params.aggregate == "sum":
            count = np.bincount(index[weight > 0], minlength=K)
            weight = weight * count[index]  # those of no class weigh 0 anyway
        return weight, ops.segment_sum(texts.vectors, index, K, weight)

    def details(self, batch: Batch, texts: ClassTexts, state: State) -> dict[str, list[Any]]:
        """``best_text_row``: the most similar text of the class with the largest S, by its row.

        ``best_text_cosine`` is its cosine. The class is that of ``state.S`` where it is given, so
        that it is the answered one. None where no text of the class counts.
        """
        S = state.S if state.S is not None else self.apply(batch, texts, state)
        told = contributions(batch, texts, state, ops.to_numpy(ops.argmax(S)), 1)
        best = [image.texts[0] if image.texts else None for image in told]
        return {
            "best_text_row": [text and text.row for text in best],
            "best_text_cosine": [text and text.cosine for text in best],
        }


@dataclass(frozen=True)
class TextShare:
    """Row of a text in ``ClassTexts``, its cosine and weight, and ``share`` = weight * cosine."""

    row: int
    cosine: float
    weight: float
    share: float


@dataclass(frozen=True)
class Explanation:
    """What the texts of a class say of one image.

    ``score`` is the weighted mean of all cosines, and the sum of the shares of all texts. ``texts``
    are those of positive weight, the most similar first; ``rival`` is the same for another class.
    """

    class_index: int
    score: float
    texts: tuple[TextShare, ...]
    rival: Explanation | None = None


def contributions(
    batch: Batch,
    texts: ClassTexts,
    state: State,
    class_index: Any,
    top: int | None = None,
    *,
    rival: Any = None,
) -> list[Explanation]:
    """What each text of a class adds to its score, for every image.

    Parameters
    ----------
    batch : Batch
        Of N images.
    texts : ClassTexts
    state : State
        Its ``weight`` is used where it is given.
    class_index : array of int, shape (N,)
        The class that is explained, such as the predicted one; -1 for none.
    top : int, optional
        How many texts to keep, the most similar ones; the score is that of all.
    rival : array of int, shape (N,), optional
        A class to compare with, such as the second best.

    Returns
    -------
    list of Explanation, length N
        ``dataclasses.asdict`` makes them ready for JSON.

    Raises
    ------
    UsageError
        For classes that do not fit the images or the texts, and ``top`` below 1.

    Examples
    --------
    >>> from byname.taxonomy import Taxonomy
    >>> texts = ClassTexts(np.eye(2), np.array([0, 0]), Taxonomy.from_names(["cat"]))
    >>> told = contributions(Batch(np.array([[0.6, 0.8]])), texts, State(), [0])
    >>> [(text.row, text.share) for text in told[0].texts], told[0].score
    ([(1, 0.4), (0, 0.3)], 0.7)
    """
    N = len(batch)
    if top is not None and top < 1:
        raise UsageError(f"explain {N} images", f"top is {top}", "Give 1 or more, or none for all.")
    told = _told(batch, texts, state, _classes(class_index, N, texts, "class_index"), top)
    if rival is None:
        return told
    against = _told(batch, texts, state, _classes(rival, N, texts, "rival"), top)
    return [
        Explanation(own.class_index, own.score, own.texts, other)
        for own, other in zip(told, against, strict=True)
    ]


def _classes(given: Any, N: int, texts: ClassTexts, name: str) -> NDArray[np.intp]:
    index, K = ops.to_numpy(given), texts.n_classes
    if index.shape == (0,) == (N,):
        return index.astype(np.intp)
    if index.shape != (N,) or index.dtype.kind not in "iu":
        seen = f"{name} has the shape {index.shape} and the type {index.dtype}"
        raise UsageError(f"explain {N} images", seen, "Give one class index for each image.")
    if index.min() < -1 or index.max() >= K:
        seen = f"{name} goes from {index.min()} to {index.max()}"
        do = f"Count the {K} classes from 0; -1 is for an image without an answer."
        raise UsageError(f"explain {N} images", seen, do)
    return index.astype(np.intp)


def _told(
    batch: Batch, texts: ClassTexts, state: State, answered: NDArray[np.intp], top: int | None
) -> list[Explanation]:
    weight = text_weights(texts, state)
    held = stream.Segments.of(np.where(weight > 0, ops.to_numpy(texts.class_index), -1))
    ends = np.append(held.starts[1:], len(held.order))
    rows_of = {k: held.order[a:b] for k, a, b in zip(held.ids, held.starts, ends, strict=True)}
    out = [Explanation(int(k), 0.0, ()) for k in answered]
    for k, images in by_class(answered):
        if k not in rows_of:
            continue
        rows = rows_of[k]
        own, T = weight[rows], ops.take_rows(texts.vectors, rows)
        for part in ops.blocks(len(images), max(1, _TILE // len(rows))):
            X = ops.take_rows(batch.X, images[part])
            cosines = ops.to_numpy(ops.matmul_t(X, T)).astype(np.float64)
            order = np.argsort(-cosines, axis=1, kind="stable")[:, :top]
            for i, row, chosen, score in zip(
                images[part], cosines, order, cosines @ own, strict=True
            ):
                shares = zip(rows[chosen], row[chosen], own[chosen], strict=True)
                out[i] = Explanation(
                    k,
                    float(score),
                    tuple(
                        TextShare(int(m), float(c), float(w), float(c * w)) for m, c, w in shares
                    ),
                )
    return out
