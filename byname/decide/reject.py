"""The most probable classes, rejected where they are not probable enough."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from byname.decide.argmax import most_probable
from byname.errors import RecipeError
from byname.stage import Answer, Batch, ClassTexts, Member, StageName, State, register

__all__ = ["Reject", "RejectParams"]


@dataclass(frozen=True)
class RejectParams:
    """Floors between 0 and 1; 0 switches a floor off."""

    min_probability: float = 0.5
    min_margin: float = 0.0

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if not 0 <= value <= 1:
                raise RecipeError(
                    "use 'reject'", f"{name} is {value}", "Give a number from 0 to 1."
                )


@register
class Reject(Member):
    """Answer as ``argmax`` does, but say "reject" of what lies below a floor.

    Formula::

        decision = "accept" if p1 >= min_probability and p1 - p2 >= min_margin else "reject"

    with p = softmax(S) over the K classes. The ranks of a rejected image stay filled, so that the
    candidate can be seen.

    Shapes: S (N, K) to an Answer with min(k, K) columns.

    Source: the reject option of Chow, "On optimum recognition error and reject tradeoff", IEEE
    Transactions on Information Theory, 1970.

    Parameters
    ----------
    min_probability : float
        Smallest probability of the best class. The default 0.5 accepts a class only where it has
        the majority of the probability mass, so that no other class, nor all others together, can
        be likelier. It is fixed beforehand, not tuned, and as good as the calibration of the
        encoder.
    min_margin : float
        Smallest p1 - p2. The default 0 switches it off.

    Raises
    ------
    RecipeError
        For a floor outside 0 to 1.

    Examples
    --------
    >>> from byname.taxonomy import Taxonomy
    >>> texts = ClassTexts(np.eye(3), np.arange(3), Taxonomy.from_names(["cat", "dog", "cow"]))
    >>> state = State(S=np.array([[9.0, 0.0, 0.0], [1.0, 1.0, 1.0]]))
    >>> Reject().apply(Batch(np.eye(3)), texts, state).decision.tolist()
    ['accept', 'reject']
    """

    stage: ClassVar[StageName] = "decide"
    name = "reject"
    Params = RejectParams
    params: RejectParams

    def apply(self, batch: Batch, texts: ClassTexts, state: State) -> Answer:
        """Answer with ``decision`` "accept" or "reject"."""
        answer = most_probable(texts, state)
        # Written so that a probability that is not a number is rejected.
        sure = (answer.probability[:, 0] >= self.params.min_probability) & (
            answer.margin >= self.params.min_margin
        )
        return dataclasses.replace(answer, decision=np.where(sure, "accept", "reject"))
