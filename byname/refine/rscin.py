"""Scores smoothed over the most similar images: RsCIN of MuSc."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from byname import ops
from byname.errors import RecipeError
from byname.knn import nearest
from byname.refine.guard import NEIGHBOURS, caution, doubt, told, too_few
from byname.refine.shares import answered_shares, effective, refuse_nan
from byname.refine.whole import barred, floored, refuse_others
from byname.stage import Batch, ClassTexts, Member, StageName, State, register

__all__ = ["Rscin", "RscinParams", "smoothing"]

_COLUMNS = 64
_RISE = 0.3  # of the agreement, for each image that moved: smoothing alone makes neighbours agree


@dataclass(frozen=True)
class RscinParams:
    """Neighbourhoods to average over."""

    k: str | int = "1;8;9"
    guard: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "k", str(self.k))
        parts = str(self.k).split(";")
        if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
            seen = f"k is {self.k!r}"
            raise RecipeError("use 'rscin'", seen, "Give numbers of 1 or more, such as '1;8;9'.")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Images of each neighbourhood, the image itself among them."""
        return tuple(int(part) for part in str(self.k).split(";"))


def smoothing(
    index: NDArray[np.intp], cosine: NDArray[Any], sizes: tuple[int, ...]
) -> sparse.csr_matrix:
    """Mean of the row-normalised graphs (N, N) of the given sizes, each image its own neighbour.

    Parameters
    ----------
    index, cosine : arrays, shape (N, k)
        As :func:`byname.knn.nearest` gives them, k at least the largest size less one; negative
        cosines count as 0.
    sizes : tuple of int

    Examples
    --------
    >>> smoothing(np.array([[1], [0]]), np.array([[0.25], [0.25]]), (1, 2)).toarray().tolist()
    [[0.9, 0.1], [0.1, 0.9]]
    """
    n, k = len(index), max(sizes) - 1
    weight = np.maximum(np.hstack([np.ones((n, 1)), cosine[:, :k].astype(np.float64)]), 0)
    mean = np.zeros_like(weight)
    for size in sizes:
        mean[:, :size] += weight[:, :size] / weight[:, :size].sum(axis=1, keepdims=True)
    columns = np.hstack([np.arange(n)[:, None], index[:, :k]])
    starts = np.arange(0, columns.size + 1, k + 1)
    return sparse.csr_matrix((mean.ravel() / len(sizes), columns.ravel(), starts), shape=(n, n))


@register
class Rscin(Member):
    """Scores averaged over the most similar images.

    Formula::

        P_k = cosines of each image to its k most similar images, itself among them with 1, negative
              ones as 0, each row divided by its sum
        S'  = mean over k of P_k S

    The published form scales the scores to 0-1 by their minimum and maximum first. Over the whole
    matrix that is one shift and one factor, which pass through P_k, whose rows sum to 1; with both
    undone, as is needed for logits, they cancel. Scaling each class by itself would be another
    method. k = 1 is S.

    Assumes that the most similar images are of the same class, for which a class must have at least
    as many images as the largest k. It keeps S, and says why, with fewer than 2 images, or than the
    largest k, and with one class; and, unless ``guard`` is false, where the N images are fewer than
    the largest k times exp of the entropy of the answers, the number of classes that seem to be
    there, and where the agreement of neighbours does not rise by 0.3 times the share of the images
    that moved (chosen on made-up tasks), since smoothing always makes some of it. A small class
    beside large ones can be smoothed away: of uneven shares it warns.

    Shapes: X (N, D), S (N, K) to S' (N, K). N^2 D for the neighbours, in tiles, and N K k for the
    average, beside two (N, K) arrays.

    Source: Li et al., "MuSc: Zero-Shot Industrial Anomaly Classification and Segmentation with
    Mutual Scoring of the Unlabeled Images", ICLR 2024 (RsCIN, "re-scoring with constrained
    image-level neighborhood"); there for one anomaly score an image.

    Parameters
    ----------
    k : str or int
        Sizes, separated by ";". "1;8;9" is what the code takes for VisA, "1;2;3" for other sets.
    guard : bool
        Whether classes must seem large enough, and neighbours agree more by what it takes.

    Attributes
    ----------
    scores_ : array, shape (N, K), or None
        S'; None where S was kept.
    classes_ : float
        Number of classes that seem to be there; NaN where not looked at.
    reason_ : str or None
        Why S was kept.
    warning_ : str or None
        What to know where shares look uneven (:func:`byname.refine.guard.caution`).

    Raises
    ------
    RecipeError
        For a parameter that does not fit.
    UsageError
        For an image that holds NaN or infinity.

    Examples
    --------
    >>> from byname.taxonomy import Taxonomy
    >>> texts = ClassTexts(np.eye(2), np.array([0, 1]), Taxonomy.from_names(["cat", "dog"]))
    >>> X = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    >>> state = State(S=np.array([[3.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]]))
    >>> member = Rscin(k="1;2", guard=False).fit(Batch(X), texts, state)
    >>> member.apply(Batch(X), texts, state).tolist()
    [[2.25, 0.25], [0.75, 0.75], [0.0, 1.0], [0.0, 1.0]]
    """

    stage: ClassVar[StageName] = "refine"
    name = "rscin"
    needs = frozenset({"X"})
    inductive = False
    Params = RscinParams
    params: RscinParams
    scores_: Any = None
    classes_: float = float("nan")
    reason_: str | None = "nothing was learned yet"
    warning_: str | None = None
    _seen: Any = None

    def fit(self, batch: Batch, texts: ClassTexts, state: State) -> Self:
        """Smooth the scores of this batch."""
        refuse_nan(self.name, batch.X, logits=state.S)
        self.scores_, self.warning_, self.classes_ = None, None, float("nan")
        self._seen = batch.X
        largest = max(self.params.sizes)
        self.reason_ = too_few(state.S, largest)
        if self.reason_ is None and self.params.guard:
            self.reason_ = self._small(state.S, largest)
        if self.reason_ is not None:
            return self
        k = max(NEIGHBOURS, largest - 1) if self.params.guard else max(1, largest - 1)
        index, cosine = nearest(batch.X, k)
        S2 = _smooth(smoothing(index, cosine, self.params.sizes), state.S)
        if self.params.guard:
            near = index[:, :NEIGHBOURS]
            self.reason_ = doubt(near, state.S, S2, rise=_RISE)
            self.warning_ = caution(near, state.S, S2)
        self.scores_ = None if self.reason_ else S2
        return self

    def apply(self, batch: Batch, texts: ClassTexts, state: State) -> Any:
        """S' (N, K) of the batch of ``fit``; S for no images."""
        if len(batch):
            refuse_others(self.name, self._seen, batch.X)
        if self.scores_ is None or not len(batch):
            return ops.as_float(state.S)
        return self.scores_

    def report(self) -> dict[str, Any]:
        """How many classes seem to be there, and whether and why S was kept."""
        classes = round(self.classes_, 2) if np.isfinite(self.classes_) else None
        return {"classes": classes, **told(self.reason_, self.warning_)}

    def _small(self, S: Any, largest: int) -> str | None:
        self.classes_ = effective(answered_shares(S))
        if len(S) >= largest * self.classes_:
            return None
        return (
            f"{len(S)} images over some {self.classes_:.1f} classes are fewer than {largest} each, "
            f"and it averages over {largest}"
        )


def _smooth(P: sparse.csr_matrix, S: Any) -> Any:
    """P S, some columns at a time; as the kind of array that S is."""
    rows = ops.to_numpy(floored(ops.as_float(S)))
    out = np.empty_like(rows)
    for part in ops.blocks(rows.shape[1], _COLUMNS):
        out[:, part] = P @ rows[:, part].astype(np.float64)
    return ops.cast(barred(out, S), ops.as_float(S[:0]))
