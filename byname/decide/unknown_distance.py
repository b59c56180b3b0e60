"""Rejection of images that lie unusually far from every class."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from byname.decide.argmax import most_probable
from byname.decide.unknown import best_cosine
from byname.errors import RecipeError
from byname.stage import Answer, Batch, ClassTexts, Member, StageName, State, register

__all__ = ["UnknownDistance", "UnknownDistanceParams"]

_NORMAL = 1.4826  # MAD to standard deviation, for normally distributed values
_ROUNDING = 1e-6  # cosines that differ by less are equal


@dataclass(frozen=True)
class UnknownDistanceParams:
    """How far below the usual similarity an image must lie."""

    deviations: float = 2.5

    def __post_init__(self) -> None:
        if not self.deviations >= 0:
            raise RecipeError(
                "use 'unknown_distance'",
                f"deviations is {self.deviations}",
                "Give a number of 0 or more.",
            )


@register
class UnknownDistance(Member):
    """Answer as ``argmax`` does, but say "reject" where even the nearest class is far.

    Formula, over the unlabeled images that ``fit`` sees::

        u_i       = max over k of cos(x_i, W_k)
        threshold = median(u) - deviations * 1.4826 * median(|u - median(u)|)
        decision  = "accept" if u_i >= threshold else "reject"

    Median and MAD stay where they are as long as most images show one of the classes. The more
    foreign images the batch holds, the lower the threshold falls: of a batch with nearly as many
    foreign as known images hardly any is rejected. The class vectors are brought to length one; on
    a level above the classes the nearest class counts all the same. The ranks of a rejected image
    stay filled, so that the candidate can be seen.

    Shapes: S (N, K), X (N, D) to an Answer with min(k, K) columns. O(N K D), in tiles; once the
    threshold is learned, every image by itself. Without an image nothing is rejected.

    Source: ours; the rule for outliers is that of Leys et al., "Detecting outliers: Do not use
    standard deviation around the mean, use absolute deviation around the median", Journal of
    Experimental Social Psychology, 2013.

    Parameters
    ----------
    deviations : float
        2.5, the "moderately conservative" of Leys et al., fixed beforehand: of a normally
        distributed batch without foreign images 0.6 % are rejected.

    Attributes
    ----------
    threshold_, median_, mad_ : float
        After ``fit``; mad_ is not rescaled.

    Raises
    ------
    NeedsError
        Where the images are not handed on.
    RecipeError
        For a negative number of deviations.

    Examples
    --------
    >>> from byname.taxonomy import Taxonomy
    >>> texts = ClassTexts(np.eye(3)[:2], np.arange(2), Taxonomy.from_names(["cat", "dog"]))
    >>> X = np.array([[1, 0, 0], [0.99, 0, 0.1], [0.98, 0, 0.2], [0, 0.97, 0.2], [0.5, 0, 0.9]])
    >>> state = State(W=texts.vectors, S=X[:, :2])
    >>> member = UnknownDistance().fit(Batch(X), texts, state)
    >>> member.apply(Batch(X), texts, state).decision.tolist()
    ['accept', 'accept', 'accept', 'accept', 'reject']
    """

    stage: ClassVar[StageName] = "decide"
    name = "unknown_distance"
    needs = frozenset({"X"})
    Params = UnknownDistanceParams
    of_classes: ClassVar[bool] = True
    params: UnknownDistanceParams
    threshold_: float = -np.inf
    median_: float = float("nan")
    mad_: float = float("nan")

    def fit(self, batch: Batch, texts: ClassTexts, state: State) -> Self:
        """Learn the threshold from the unlabeled images."""
        self.threshold_, self.median_, self.mad_ = -np.inf, float("nan"), float("nan")
        if len(batch):
            near = best_cosine(batch, texts, state, self.name)
            self.median_ = float(np.median(near))
            self.mad_ = float(np.median(np.abs(near - self.median_)))
            spread = self.params.deviations * _NORMAL * self.mad_
            self.threshold_ = self.median_ - spread - _ROUNDING
        return self

    def report(self) -> dict[str, Any]:
        """Threshold, median and MAD of the cosine with the nearest class; None without images."""
        learned = {"threshold": self.threshold_, "median": self.median_, "mad": self.mad_}
        return {name: x if np.isfinite(x) else None for name, x in learned.items()}

    def apply(self, batch: Batch, texts: ClassTexts, state: State) -> Answer:
        """Answer with ``decision`` "accept" or "reject"."""
        # Written so that a similarity that is not a number is rejected.
        known = best_cosine(batch, texts, state, self.name) >= self.threshold_
        answer = most_probable(texts, state)
        return dataclasses.replace(answer, decision=np.where(known, "accept", "reject"))

    def details(self, batch: Batch, texts: ClassTexts, state: State) -> dict[str, list[Any]]:
        """``nearest_cosine``: the cosine with the nearest class."""
        return {"nearest_cosine": best_cosine(batch, texts, state, self.name).tolist()}
