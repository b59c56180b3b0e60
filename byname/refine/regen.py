"""A classifier learned from images that were retrieved for each class, over several rounds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.errors import RecipeError
from byname.refine.whole import Near, WholeBatch, neighbours
from byname.stage import Batch, ClassTexts, State, register

__all__ = ["Regen", "RegenParams", "smoothed_head"]

Floats = NDArray[Any]
Ints = NDArray[np.intp]
_ROWS = 2048


@dataclass(frozen=True)
class RegenParams:
    """How many images, in how many rounds, and how the classifier is learned."""

    top: int = 100
    rounds: int = 3
    k: int = 5
    smoothing: float = 0.1
    weight: float = 1e-3
    steps: int = 50
    present: float = 0.0
    guard: bool = True

    def __post_init__(self) -> None:
        rules = {
            **{n: (getattr(self, n) >= 1, "1 or more") for n in ("top", "rounds", "k", "steps")},
            "smoothing": (0 <= self.smoothing < 1, "0 or more, below 1"),
            "weight": (0 < self.weight < math.inf, "above 0"),
            "present": (0 <= self.present <= 1, "from 0 to 1"),
        }
        for name, (fits, rule) in rules.items():
            if not fits:
                seen = f"{name} is {getattr(self, name)!r}"
                raise RecipeError("use 'regen'", seen, f"It must be {rule}.")


def smoothed_head(
    F: Floats, index: Ints, K: int, *, smoothing: float, weight: float, steps: int
) -> NDArray[np.float64]:
    """Linear classifier (K, D) without offsets.

    Formula, by ``steps`` steps of Nesterov's method from zero, of length 1 / (l / 2 + weight) with
    l the largest eigenvalue of F^T F / n::

        minimise over V   mean_i of cross-entropy(V f_i, (1 - smoothing) e_index_i + smoothing / K)
                          + weight / 2 * ||V||^2

    Parameters
    ----------
    F : array, shape (n, D)
    index : array of int, shape (n,)
    K : int
    smoothing, weight : float
    steps : int

    Examples
    --------
    >>> V = smoothed_head(np.eye(2), np.array([1, 0]), 2, smoothing=0.1, weight=0.01, steps=50)
    >>> (np.eye(2) @ V.T).argmax(axis=1).tolist()
    [1, 0]
    """
    wide = np.zeros((F.shape[1], F.shape[1]))
    for rows in ops.blocks(len(F), _ROWS):
        wide += F[rows].T @ F[rows] / len(F)
    reach = float(np.linalg.eigvalsh(wide)[-1]) / 2 + weight
    root = math.sqrt(weight / reach)
    carry = (1 - root) / (1 + root)
    V = Y = np.zeros((K, F.shape[1]))
    for _ in range(steps):
        G = weight * Y
        for rows in ops.blocks(len(F), _ROWS):
            f = F[rows]
            P = np.asarray(ops.softmax(f @ Y.T.astype(f.dtype))) - f.dtype.type(smoothing / K)
            P[np.arange(len(f)), index[rows]] -= 1 - smoothing
            G += P.T @ f / len(F)
        moved = Y - G / reach
        Y = moved + carry * (moved - V)
        V = moved
    return V


@register
class Regen(WholeBatch):
    """ReGen: images retrieved for each class teach a classifier, and are queries of the next round.

    Formula, with n = min(top, N / names that S answers, rounded up) and f = unit(x - mean of x)::

        round 0   class k retrieves, of the images that S answers k, the n with the largest S_ik
        round r   queries are the images kept so far, with their classes; an image whose
                  min(k, n - 1) nearest queries, itself left out, are all of one class is retrieved
                  for it; of each class the n with the largest mean cosine to those stay
        each      a linear classifier V is learned from what was retrieved (``smoothed_head``), and
                  what it answers otherwise is dropped
        at last   V is learned once more, from what is left, whose classes are R
        S'_ik     = log( p_ik )                          of classes outside R, p = softmax(S_i)
        S'_ik     = log( (1 - sum of those p) softmax(V f_i)_k )                   of classes in R

    Round 0 compares images with texts; later ones compare images with images only, as the two lie
    apart. In round 0 the one query of a class is its text, and the filter of the later rounds, that
    the nearest queries agree, is that S answers the class. A class of which nothing is left keeps
    the probability that the texts give it. The published form retrieves texts by texts, and a query
    there is the name of the class and the text retrieved.

    Assumes that the images that look most like the text of a class are mostly of it: what is wrong
    in round 0 teaches, and finds its like. Assumes logits of one level for all images, as cosines
    are: round 0 compares the logits S_ik of one class between images, so that adding a number to
    all logits of one image, which leaves its answer as it is, changes what is retrieved. Not that
    all names occur, nor equal shares. Goes back to S, and says so in the report, with fewer than
    two images or classes, where fewer than two classes have images left, and, unless ``guard`` is
    false, with fewer images than two for each name that S answers and where neighbours agree less
    than before (:mod:`byname.refine.guard`).

    Shapes: X (N, D), S (N, K) to S' (N, K). Of m images kept, N at most, each round takes 2 N m D
    for the queries, in tiles, and 4 m K D ``steps`` for the classifier; one array of the size of S.

    Source: Yu et al., "ReGen: Zero-Shot Text Classification via Training Data Generation with
    Progressive Dense Retrieval", Findings of ACL 2023, there of texts, with a tuned model for
    retrieval and a tuned model as the classifier; on images and with fixed vectors here.

    Parameters
    ----------
    top : int
        100, as released; the mean share bounds it, which is ours, for folders are small.
    rounds : int
        3; 2 or 3 as released.
    k : int
        Nearest queries that have to agree; 5, as released.
    smoothing : float
        0.1 is ours.
    weight : float
        Of the penalty; 0.001 is ours.
    steps : int
        50 is ours: the classifier moves little after.
    present : float
        Share of the names that must be answered; 0: any.
    guard : bool
        Whether it may go back to S.

    Attributes
    ----------
    scores_ : array, shape (N, K)
        S', or S where it stepped back.
    reason_ : str or None
        Why it stepped back.
    kept_ : list of int
        Images that taught, round by round.
    missing_ : int
        Classes of which nothing is left.

    Raises
    ------
    RecipeError
        For a parameter that does not fit.
    UsageError
        For an image with NaN or infinity, by its row.

    Examples
    --------
    >>> from byname.taxonomy import Taxonomy
    >>> texts = ClassTexts(np.eye(2, 3), np.array([0, 1]), Taxonomy.from_names(["cat", "dog"]))
    >>> X = ops.unit(np.array([[9, 1, 0], [9, 2, 0], [9, 3, 0], [5, 9, 9], [6, 7, 9], [8, 7, 9]]))
    >>> state = State(W=texts.vectors, S=5 * X[:, :2])
    >>> member = Regen(k=1).fit(Batch(X), texts, state)
    >>> state.S.argmax(axis=1).tolist(), member.scores_.argmax(axis=1).tolist()
    ([0, 0, 0, 1, 1, 0], [0, 0, 0, 1, 1, 1])
    """

    name = "regen"
    Params = RegenParams
    params: RegenParams

    def __init__(self, params: Any = None, **kwargs: Any) -> None:
        super().__init__(params, **kwargs)
        self.kept_: list[int] = []
        self.missing_ = 0
        self._few: str | None = None
        self._last: tuple[Ints, Ints, NDArray[np.float64]] | None = None

    def fit(self, batch: Batch, texts: ClassTexts, state: State) -> Self:
        """Retrieve, learn, and score these images."""
        self.kept_, self.missing_, self._few, self._last = [], 0, None, None
        super().fit(batch, texts, state)
        self._last = None
        self.reason_ = self.reason_ or self._few
        return self

    def _near(self) -> int:
        return 0

    def too_little(self, X: Any, S: Any) -> str | None:
        """Also fewer images than two for each name that is answered."""
        reason = super().too_little(X, S)
        if reason is None and self.params.guard:
            named = len(np.unique(ops.to_numpy(S).argmax(axis=1)))
            if len(S) < 2 * named:
                return f"there are {len(S)} images for {named} names: too few to learn from"
        return reason

    def _refined(self, X: Any, texts: ClassTexts, state: State, near: Near) -> Floats:
        S = ops.to_numpy(ops.as_float(state.S))
        rows = ops.to_numpy(ops.as_float(X))
        F = np.asarray(ops.unit(rows - rows.mean(axis=0, dtype=np.float64).astype(rows.dtype)))
        answer = S.argmax(axis=1)
        size = min(self.params.top, math.ceil(len(S) / len(np.unique(answer))))
        kept = _best(np.arange(len(S)), answer, S[np.arange(len(S)), answer], size)
        for number in range(self.params.rounds):
            if number:
                kept = self._retrieved(rows, *kept, size)
            kept = self._consistent(F, *kept)
            self.kept_.append(len(kept[0]))
        return self._scores(F, S, *kept)

    def _retrieved(self, X: Floats, chosen: Ints, of: Ints, size: int) -> tuple[Ints, Ints]:
        """Images, and their classes, whose nearest queries are of one class."""
        if len(chosen) < 2:
            return chosen, of
        k = max(1, min(self.params.k, size - 1, len(chosen) - 1))
        index, cosine = neighbours(X, k + 1, Y=X[chosen])
        own = chosen[index] == np.arange(len(X))[:, None]
        own[~own.any(axis=1), -1] = True  # of an image that is no query the last is too many
        index, cosine = (a[~own].reshape(len(X), k) for a in (index, cosine))
        found = of[index]
        same = np.flatnonzero((found == found[:, :1]).all(axis=1))
        return _best(same, found[same, 0], cosine[same].mean(axis=1), size)

    def _consistent(self, F: Floats, chosen: Ints, of: Ints) -> tuple[Ints, Ints]:
        """Those that the classifier learned from them answers alike."""
        if (of == of[:1]).all():
            return chosen, of
        known, V = self._learned(F, chosen, of)
        right = known[_answers(F[chosen], V)] == of
        return chosen[right], of[right]

    def _learned(self, F: Floats, chosen: Ints, of: Ints) -> tuple[Ints, NDArray[np.float64]]:
        """Classes that occur, and the classifier of these; of the same images it is the same."""
        known, place = np.unique(of, return_inverse=True)
        last, p = self._last, self.params
        if last is None or not (np.array_equal(last[0], chosen) and np.array_equal(last[1], of)):
            how = {"smoothing": p.smoothing, "weight": p.weight}
            V = smoothed_head(F[chosen], place, len(known), steps=p.steps, **how)
            last = self._last = (chosen, of, V)
        return known, last[2]

    def _scores(self, F: Floats, S: Floats, chosen: Ints, of: Ints) -> Floats:
        left = len(np.unique(of))
        self.missing_ = S.shape[1] - left
        if left < 2:
            self._few = f"images are left of {left} of {S.shape[1]} classes"
            return S
        known, V = self._learned(F, chosen, of)
        out = np.empty_like(S)
        for rows in ops.blocks(len(S), _ROWS):
            p = np.asarray(ops.softmax(S[rows].astype(np.float64)))
            share = p[:, known].sum(axis=1, keepdims=True)
            p[:, known] = share * np.asarray(ops.softmax(F[rows] @ V.T))
            out[rows] = ops.log_probability(p)
        return out

    def report(self) -> dict[str, Any]:
        """Whether it stepped back and why, images kept in each round, classes without any."""
        told = super().report()
        return {**told, "kept": self.kept_, "missing": self.missing_} if told else {}


def _answers(F: Floats, V: NDArray[np.float64]) -> Ints:
    """Best row of V for each row of F, in blocks."""
    found = [(F[rows] @ V.T).argmax(axis=1) for rows in ops.blocks(len(F), _ROWS)]
    return np.concatenate(found)


def _best(rows: Ints, of: Ints, score: Floats, size: int) -> tuple[Ints, Ints]:
    """Of each class the ``size`` rows with the largest scores, with their classes; rows ascend."""
    order = np.lexsort((rows, -score, of))
    sorted_of = of[order]
    chosen = order[np.arange(len(order)) - np.searchsorted(sorted_of, sorted_of) < size]
    chosen = chosen[np.argsort(rows[chosen], kind="stable")]
    return rows[chosen], of[chosen]
