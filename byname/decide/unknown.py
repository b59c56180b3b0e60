"""Rejection of images that match "a photo." better than any class."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.decide.argmax import most_probable
from byname.errors import NeedsError, RecipeError
from byname.stage import Answer, Batch, ClassTexts, Member, StageName, State, register
from byname.stream import reduce_texts

__all__ = ["Unknown", "UnknownParams", "best_cosine", "largest_cosine"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class UnknownParams:
    """By how many logits a class must beat what names no class."""

    min_margin: float = 0.0

    def __post_init__(self) -> None:
        if not np.isfinite(self.min_margin):
            raise RecipeError(
                "use 'unknown'", f"min_margin is {self.min_margin}", "Give a number of logits."
            )


def largest_cosine(X: Any, vectors: Any) -> Floats:
    """Largest inner product of each row of X (N, D) with the unit rows of vectors (J, D).

    Examples
    --------
    >>> largest_cosine(np.array([[0.6, 0.8]]), np.array([[5.0, 0.0], [0.0, 5.0]])).tolist()
    [0.8]
    """
    found = reduce_texts(X, ops.unit(vectors), np.zeros(len(vectors), np.intp), 1, "max")
    return ops.to_numpy(found)[:, 0].astype(np.float64)


def best_cosine(batch: Batch, texts: ClassTexts, state: State, member: str) -> Floats:
    """Cosine (N,) of each image with the class nearest to it.

    The classes are those of the taxonomy's leaves, also where the answer is given on a level above.

    Raises
    ------
    NeedsError
        Where the batch brings no image vectors.
    """
    width = int(texts.vectors.shape[1])
    if batch.X.shape[1] != width:
        raise NeedsError(
            f"run the decide member '{member}'",
            f"it needs the vectors of the images, {width} wide, and got {batch.X.shape[1]} columns",
            "Hand the batch to decide(), beside the logits.",
        )
    return largest_cosine(batch.X, state.W)


@register
class Unknown(Member):
    """Answer as ``argmax`` does, but say "reject" where no class beats the texts of no class.

    Formula, with n_j the null texts ("a photo.", "an object.", ...) and s the logit scale::

        evidence_i = s * ( max over k of cos(x_i, W_k) - max over j of cos(x_i, n_j) )
        decision   = "accept" if evidence >= min_margin else "reject"

    The cosines are those of the class vectors, brought to length one, whatever the score and refine
    stages made of them: refined logits cannot be compared with those of null texts. On a level
    above the classes the nearest class counts all the same. The ranks of a rejected image stay
    filled, so that the candidate can be seen.

    Shapes: S (N, K), X (N, D), null (J, D) to an Answer with min(k, K) columns. O(N (K + J) D), in
    tiles; every image by itself.

    Source: ours, after the null prompts of zero-shot classifiers; the reject option is that of
    Chow, IEEE Transactions on Information Theory, 1970. Assumes that a name says more of an image
    of its class than "a photo." does. The mean of many templates is nearer to all images than one
    sentence is: with an ensemble of templates rather too few images are rejected. An image of a
    class that is like one of the classes passes.

    Parameters
    ----------
    min_margin : float
        Logits by which the best class must beat the best null text. The default 0 is fixed
        beforehand: a class must be at least as near as no class at all.

    Raises
    ------
    NeedsError
        Where there are no null texts, or the images are not handed on.
    RecipeError
        For a margin that is not a finite number.

    Examples
    --------
    >>> from byname.taxonomy import Taxonomy
    >>> texts = ClassTexts(np.eye(3)[:2], np.arange(2), Taxonomy.from_names(["cat", "dog"]),
    ...                    null=np.eye(3)[2:])
    >>> X = np.array([[0.8, 0.0, 0.6], [0.6, 0.0, 0.8]])
    >>> state = State(W=texts.vectors, S=X[:, :2])
    >>> Unknown().apply(Batch(X), texts, state).decision.tolist()
    ['accept', 'reject']
    """

    stage: ClassVar[StageName] = "decide"
    name = "unknown"
    needs = frozenset({"null"})
    Params = UnknownParams
    params: UnknownParams

    def apply(self, batch: Batch, texts: ClassTexts, state: State) -> Answer:
        """Answer with ``decision`` "accept" or "reject"."""
        # Written so that evidence that is not a number is rejected.
        known = self._evidence(batch, texts, state) >= self.params.min_margin
        answer = most_probable(texts, state)
        return dataclasses.replace(answer, decision=np.where(known, "accept", "reject"))

    def details(self, batch: Batch, texts: ClassTexts, state: State) -> dict[str, list[Any]]:
        """``null_margin``: logits by which the best class beats the best null text."""
        return {"null_margin": self._evidence(batch, texts, state).tolist()}

    def _evidence(self, batch: Batch, texts: ClassTexts, state: State) -> Floats:
        own = best_cosine(batch, texts, state, self.name)
        return texts.scale * (own - largest_cosine(batch.X, texts.null))
