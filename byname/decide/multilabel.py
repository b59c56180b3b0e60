"""Every class that is probable enough: none, one or many an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.errors import RecipeError
from byname.stage import Answer, Batch, ClassTexts, Member, StageName, State, register

__all__ = ["Multilabel", "MultilabelParams"]

_COLUMNS = 64  # classes whose quantiles are taken at a time
_ROWS = 4096  # images that are counted at a time
_FEW = 4  # classes from which on most of them in every image are a sign of wrong logits


@dataclass(frozen=True)
class MultilabelParams:
    """Probability that a class must have, or the share of the images that stay below it."""

    threshold: float = 0.5
    quantile: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("threshold", self.threshold), ("quantile", self.quantile)):
            if value is not None and not 0 <= value <= 1:
                raise RecipeError(
                    "use 'multilabel'", f"{name} is {value}", "Give a number from 0 to 1."
                )


@register
class Multilabel(Member):
    """Answer every class whose own probability reaches a threshold, the most probable first.

    Formula, for logits S that are the log odds of each class, as ``two_state`` gives them::

        p[i,k] = sigmoid(S[i,k])                             each class by itself
        answer of i = all k with p[i,k] >= threshold_k
        threshold_k = threshold, or the quantile of p[:,k] over the unlabeled images of ``fit``

    An image that no class passes is one rank: its most probable class, with the decision "reject",
    so that it can be seen. Ranks that an image does not fill are -1, and make no row. ``margin`` is
    p1 - p2 over all classes as elsewhere, though these do not share one unit of probability here;
    with ``quantile`` the first rank need not be the most probable class.

    The quantile is a value that occurs, the next above where it falls between two, so that
    N - ceil(quantile * (N - 1)) images are answered with each class, and all of them where they
    are all the same. Without images, ``threshold`` holds. It needs no calibration and works for any
    S, but it says of every class that this share of the images has it.

    Shapes: S (N, K) to an Answer with as many columns as the image with the most classes has, at
    least one. O(N K).

    Assumes log odds: the logits of ``cosine`` and others are meant for a softmax over classes, and
    a sigmoid of them (100 times a cosine) says yes to every class. With ``--level`` logits are log
    probabilities, of which p / (1 + p) is made: take ``quantile``, or no level. Where the images of
    ``fit`` get more than half of at least four classes on average, ``report`` has a "warning".

    Source: the usual protocol of multi-label zero-shot radiology, a threshold of 0.5 on each
    finding's own probability; the quantile is byname's own.

    Parameters
    ----------
    threshold : float
        0.5: the class is likelier in its state than not. Fixed, not tuned; published studies choose
        it for each finding on labelled validation images.
    quantile : float, optional
        Between 0 and 1, such as 0.9 for the highest tenth of the images in each class.

    Attributes
    ----------
    threshold_ : array, shape (K,)
        After ``fit``, with ``quantile``: the probability that each class must have.

    Raises
    ------
    RecipeError
        For a parameter outside 0 to 1.

    Examples
    --------
    >>> from byname.taxonomy import Taxonomy
    >>> texts = ClassTexts(np.eye(3), np.arange(3), Taxonomy.from_names(["cat", "dog", "cow"]))
    >>> state = State(S=np.array([[1.0, 3.0, -2.0], [-1.0, -2.0, -3.0]]))
    >>> answer = Multilabel().apply(Batch(np.eye(3)[:2]), texts, state)
    >>> [[texts.taxonomy.nodes[n].id for n in row if n >= 0] for row in answer.node]
    [['dog', 'cat'], ['cat']]
    >>> answer.decision.tolist()
    ['accept', 'reject']
    """

    stage: ClassVar[StageName] = "decide"
    name = "multilabel"
    all_ranks: ClassVar[bool] = True
    levels: ClassVar[bool] = False  # each class is a question of its own, and a group none
    Params = MultilabelParams
    params: MultilabelParams
    _floor: NDArray[np.float64] | None = None
    _warning: str | None = None

    @property
    def threshold_(self) -> NDArray[np.float64] | None:
        """None where one threshold holds for all classes."""
        return None if self._floor is None else _sigmoid(self._floor)

    def fit(self, batch: Batch, texts: ClassTexts, state: State) -> Self:
        """Learn the quantile of each class from the unlabeled images, or see if S are log odds."""
        self._floor, self._ids, self._warning = None, texts.taxonomy.class_ids, None
        if state.S is None or not len(state.S):
            return self
        if self.params.quantile is None:
            self._warning = self._doubt(state.S)
            return self
        S = ops.to_numpy(ops.as_float(state.S))
        self._floor = np.empty(S.shape[1])
        for columns in ops.blocks(S.shape[1], _COLUMNS):
            # A value that occurs, so that the image it belongs to passes whatever is rounded.
            self._floor[columns] = np.quantile(
                S[:, columns], self.params.quantile, axis=0, method="higher"
            )
        return self

    def report(self) -> dict[str, Any]:
        """The probability that each class must have, by id, where it is not one for all.

        And a warning where the logits do not look like log odds.
        """
        found = self.threshold_
        told: dict[str, Any] = {"warning": self._warning} if self._warning else {}
        if found is not None:
            told["threshold"] = dict(zip(self._ids, map(float, found), strict=True))
        return told

    def _doubt(self, S: Any) -> str | None:
        """What is wrong where most classes pass in most images; a threshold of 0 asks for that."""
        (n, K), floor = S.shape, _logit(self.params.threshold)
        if K < _FEW or self.params.threshold == 0:
            return None
        blocks = ops.blocks(n, _ROWS)
        passed = sum(int((ops.to_numpy(ops.as_float(S[b])) >= floor).sum()) for b in blocks) / n
        if passed <= K / 2:
            return None
        return (
            f"an image gets {passed:.1f} of {K} classes on average, so the scores are hardly log "
            "odds of each class; use --score two_state with --prompts 'states[set=presence]', or "
            "--decide 'multilabel[quantile=0.9]'"
        )

    def apply(self, batch: Batch, texts: ClassTexts, state: State) -> Answer:
        """Answer with ``decision`` "accept" or "reject"."""
        S = ops.as_float(state.S)
        fits = self._floor is not None and len(self._floor) == S.shape[1]
        floor = self._floor if fits else np.full(S.shape[1], _logit(self.params.threshold))
        assert floor is not None
        # Compared as logits: probabilities near 1 are no longer told apart in float32.
        passed = ops.to_numpy(S) >= floor
        count = passed.sum(axis=1)
        width = max(int(count.max(initial=0)), 1)
        if fits:
            # A class with a high bar may be likelier than one that passes: those first that do.
            ranked = ops.like(np.where(passed, ops.to_numpy(S), -np.inf), S)
            none = ops.like(count == 0, S)
            ranked[none] = S[none]
        else:
            ranked = S
        _, classes = map(ops.to_numpy, ops.topk(ranked, width))
        filled = np.arange(width) < np.maximum(count, 1)[:, None]
        p = _sigmoid(np.take_along_axis(ops.to_numpy(S), classes, axis=1))
        best = _sigmoid(ops.to_numpy(ops.topk(S, 2)[0]))
        second = best[:, 1] if best.shape[1] > 1 else np.zeros(len(best))
        node = np.asarray(texts.taxonomy.leaf_index, dtype=np.intp)[classes]
        return Answer(
            node=np.where(filled, node, -1),
            probability=np.where(filled, p, 0).astype(np.float32),
            margin=(best[:, 0] - second).astype(np.float32),
            decision=np.where(count > 0, "accept", "reject"),
        )


def _logit(p: float) -> float:
    with np.errstate(divide="ignore"):
        return float(np.log(p) - np.log1p(-p))


def _sigmoid(S: NDArray[Any]) -> NDArray[np.float64]:
    small = np.exp(-np.abs(S.astype(np.float64)))
    return np.asarray(np.where(S >= 0, 1, small) / (1 + small))
