"""Several refine members at once, put together by how each ranks the classes."""

from __future__ import annotations

import copy
import math
import re
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.errors import RecipeError
from byname.refine.whole import Near, WholeBatch
from byname.stage import Batch, ClassTexts, Member, State, create, register

__all__ = ["Fusion", "FusionParams", "ranks"]

By = Literal["rank", "probability"]
Floats = NDArray[Any]
_TIE = 1e-3  # of a vote: what S itself has, so that it settles ties of the members
_ROWS = 1024


@dataclass(frozen=True)
class FusionParams:
    """Which members, and what of them is added."""

    members: str = "transclip+zlap+prior"
    by: By = "rank"
    c: float = 60.0
    present: float = 0.0
    guard: bool = True

    def __post_init__(self) -> None:
        names = self.specs
        once = len(set(names)) == len(names)
        rules = {
            "members": (len(names) > 1 and once and all(names), "two or more, each once, as a+b"),
            "by": (self.by in get_args(By), "'rank' or 'probability'"),
            "c": (0 <= self.c < math.inf, "0 or more"),
            "present": (0 <= self.present <= 1, "from 0 to 1"),
        }
        for name, (fits, rule) in rules.items():
            if not fits:
                seen = f"{name} is {getattr(self, name)!r}"
                raise RecipeError("use 'fusion'", seen, f"It must be {rule}.")
        if any("," in name or name.startswith("fusion") for name in names):
            raise RecipeError(
                "use 'fusion'",
                f"members is {self.members!r}",
                "A member in it takes one parameter at most, and is no fusion itself.",
            )

    @property
    def specs(self) -> tuple[str, ...]:
        """The members, as each would be written by itself."""
        return tuple(part.strip() for part in re.split(r"\+(?![^\[]*\])", self.members))


def ranks(S: Floats) -> NDArray[np.float64]:
    """Place of each class in its row, 1 for the largest; equal ones share their mean place.

    Examples
    --------
    >>> ranks(np.array([[0.1, 0.7, 0.1, 0.1]])).tolist()
    [[3.0, 1.0, 3.0, 3.0]]
    """
    N, K = S.shape
    order = np.argsort(-S, axis=1, kind="stable")
    ordered = np.take_along_axis(S, order, 1)
    place = np.broadcast_to(np.arange(1, K + 1), (N, K))
    change = ordered[:, 1:] != ordered[:, :-1]
    if not change.all():
        edge = np.ones((N, 1), bool)
        # First and last place of the equal ones around each place.
        first = np.maximum.accumulate(np.where(np.hstack([edge, change]), place, 0), axis=1)
        ends = np.where(np.hstack([change, edge]), place, K)
        last = np.minimum.accumulate(ends[:, ::-1], axis=1)[:, ::-1]
        place = (first + last) / 2
    found = np.empty((N, K))
    np.put_along_axis(found, order, place.astype(np.float64), 1)
    return found


@register
class Fusion(WholeBatch):
    """Rank fusion: each member votes for the classes by the places that it gives them.

    Formula, with S'_m the scores of member m, run on the same S, and r_m,ic the place of class c
    among S'_m,i, 1 for the best, equal ones at their mean place; r_ic the same of S itself::

        v_ic  = sum over m of 1 / (c + r_m,ic)  +  0.001 / (c + r_ic)          by "rank"
        v_ic  = sum over m of softmax(S'_m,i)_c                                by "probability"
        S'_ic = log( v_ic / sum_l v_il )

    The last term of the first line is ours: two members that swap their two best classes tie, and
    the scores that they started from settle it, in whatever order the classes stand.

    A member that stepped back to S has nothing to say and has no vote; of one that is left alone
    the scores are taken as they are. Places are comparable where probabilities are not: transclip
    is always sure, zlap never. But they say nothing of how sure an answer is: by "rank" all classes
    are nearly equally probable, and thresholds on probabilities mean little. By "probability" the
    surest member wins.

    Assumes what its members assume, of most of them at a time. Goes back to S, and says so in the
    report, with fewer than two images or classes; where all members do; and, unless ``guard`` is
    false, where neighbours agree less than before (:mod:`byname.refine.guard`).

    Shapes: S (N, K) to S' (N, K). Cost of the members, one after the other, neighbours and all; an
    array of the size of S beside theirs, and N K log K to rank.

    Source: Cormack, Clarke and Büttcher, "Reciprocal Rank Fusion outperforms Condorcet and
    individual Rank Learning Methods", SIGIR 2009, there of documents.

    Parameters
    ----------
    members : str
        Refine members joined by "+", each with one parameter at most:
        "transclip[seeds=column]+zlap". The three of the default look at different things: clusters,
        a graph, and shares; ours, chosen before they were measured together.
    by : {"rank", "probability"}
        "rank" is as published; "probability" is ours.
    c : float
        60, as published; the smaller, the more the first place counts.
    present : float
        Share of the names that must be answered; 0: any, as members look at that themselves.
    guard : bool
        Whether it may go back to S. Members have their own.

    Attributes
    ----------
    scores_ : array, shape (N, K)
        S', or S where it stepped back.
    reason_ : str or None
        Why it stepped back.
    members_ : dict of str to (str or None)
        Each member that was run, and why it stepped back, or None.

    Raises
    ------
    RecipeError
        For a parameter that does not fit, and members that are unknown.
    UsageError
        For an image with NaN or infinity, by its row.

    Examples
    --------
    >>> from byname.taxonomy import Taxonomy
    >>> texts = ClassTexts(np.eye(2, 3), np.array([0, 1]), Taxonomy.from_names(["cat", "dog"]))
    >>> X = ops.unit(np.array([[9, 1, 0], [9, 2, 0], [9, 3, 0], [5, 9, 9], [6, 7, 9], [8, 7, 9]]))
    >>> state = State(W=texts.vectors, S=5 * X[:, :2])
    >>> member = Fusion(members="anchor+transclip[neighbours=2]").fit(Batch(X), texts, state)
    >>> state.S.argmax(axis=1).tolist(), member.scores_.argmax(axis=1).tolist()
    ([0, 0, 0, 1, 1, 0], [0, 0, 0, 1, 1, 1])
    >>> member.report()["members"]
    {'anchor': None, 'transclip[neighbours=2]': None}
    """

    name = "fusion"
    Params = FusionParams
    params: FusionParams

    _drops = False

    def __init__(self, params: Any = None, **kwargs: Any) -> None:
        super().__init__(params, **kwargs)
        self._made: dict[str, Member] = {s: create(s, "refine") for s in self.params.specs}
        self.members_: dict[str, str | None] = {}
        self._left: str | None = None
        self._batch, self._given = Batch(np.zeros((0, 1))), State()

    def check_needs(
        self, batch: Batch, texts: ClassTexts, skip: frozenset[str] = frozenset()
    ) -> None:
        """Raise NeedsError for the first unmet need of a member that is not in ``skip``."""
        super().check_needs(batch, texts, skip)
        for member in self._made.values():
            member.check_needs(batch, texts, skip)

    def fit(self, batch: Batch, texts: ClassTexts, state: State) -> Self:
        """Run the members on these images, and put their scores together."""
        self.members_, self._left, self._batch, self._given = {}, None, batch, state
        super().fit(batch, texts, state)
        self.reason_ = self.reason_ or self._left
        self._batch, self._given = Batch(batch.X[:0]), State()
        return self

    def _near(self) -> int:
        return 0

    def _refined(self, X: Any, texts: ClassTexts, state: State, near: Near) -> Floats:
        state = self._given  # as it came: the members see to classes that are ruled out
        S = ops.to_numpy(ops.as_float(state.S))
        alone: Floats | None = None
        votes: Floats | None = None
        for spec, made in self._made.items():
            member = copy.copy(made).fit(self._batch, texts, state)
            told = member.report()
            stepped_back = bool(told.get("stepped_back"))
            self.members_[spec] = str(told["reason"]) if stepped_back else None
            if stepped_back:
                continue
            found = ops.to_numpy(member.apply(self._batch, texts, state))
            if alone is None:
                alone = found
                continue
            if votes is None:
                votes = np.zeros_like(S)
                self._vote(votes, alone)
            self._vote(votes, found)
        if alone is None:
            self._left = "all members did: " + "; ".join(
                f"{spec}: {reason}" for spec, reason in self.members_.items()
            )
            return S
        if votes is None:
            return alone
        if self.params.by == "rank":
            self._vote(votes, S, _TIE)
        for rows in ops.blocks(len(S), _ROWS):
            part = votes[rows]
            part /= part.sum(axis=1, keepdims=True)
            votes[rows] = ops.log_probability(part)
        return votes

    def _vote(self, votes: Floats, S: Floats, weight: float = 1.0) -> None:
        """Add what scores S (N, K) say, in place and in blocks."""
        for rows in ops.blocks(len(S), _ROWS):
            if self.params.by == "rank":
                votes[rows] += weight / (self.params.c + ranks(S[rows]))
            else:
                votes[rows] += ops.softmax(S[rows])

    def report(self) -> dict[str, Any]:
        """Whether it stepped back and why, and the same of each member."""
        told = super().report()
        return {**told, "members": self.members_} if told else {}
