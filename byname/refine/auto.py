"""Chooses what to believe of the texts by how far neighbours agree, then refines, or steps back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.knn import agreement
from byname.refine.anchor import moved_to
from byname.refine.mixture import anchored, check_settings, given_back, hits_of
from byname.refine.whole import Near, WholeBatch, adjacency
from byname.stage import Batch, ClassTexts, State, register

__all__ = ["Auto", "AutoParams"]

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
GAIN = 0.003  # agreement by which a stronger correction must beat the best so far
NEAREST = 5  # neighbours whose agreement is looked at
NEIGHBOURS = 3  # neighbours that pull
UNEVEN = 4.0  # times the mean share above which shares are called uneven
Floats = NDArray[Any]


@dataclass(frozen=True)
class AutoParams:
    """How far images may move an answer, and for how many rounds."""

    bound: float = 5.0
    rounds: int = 8
    present: float = 0.0
    guard: bool = True

    def __post_init__(self) -> None:
        check_settings("auto", self.bound, self.rounds)


@register
class Auto(WholeBatch):
    """Corrects the texts' bias as far as neighbours agree more, then pools the images, or neither.

    Formula, with t = S and agreement(y) the chance-corrected share of the 5 nearest neighbours with
    the same answer (:func:`byname.knn.agreement`)::

        b   = the one of 0, 1/4, 1/2, 3/4, 1 for which agreement(argmax(t - b * mean_i t_i)) is
              largest; a larger b must gain 0.003
        T   = t - b * mean over i of t_i
        S'  = the mixture of ``anchor`` on T, with its bound 5 and rho from the hits of T

    A text vector that is near to all images (a hub) wins images of every class, and the longer the
    list of names the more hubs it has; taking the mean of its column off mends that where many
    classes are present, and does harm where few are. No label tells the two apart, but neighbours
    do: images of one class lie together, so a better answer is one on which neighbours agree.

    Assumes that neighbours are of one class more often than not. Steps back to S with fewer images
    than two for each name with a hit in T, and where neighbours agree less than on S afterwards
    (``guard``); ``report`` says so, and which usual assumptions do not hold: names without images,
    uneven shares. Chooses among answers and tunes nothing on labels.

    Shapes: X (N, D), S (N, K) to S' (N, K); cost as ``anchor``, and 5 passes over S.

    Source: byname's own. Strengths, gain and bound were chosen on made-up tasks
    (``benchmarks/refine_synthetic.py``) before any real data was looked at with this member.

    Parameters
    ----------
    bound : float
        Logits that images may add or take; 5.
    rounds : int
        8, as ``anchor``.
    present : float
        Share of the names that must have hits; 0: any.
    guard : bool
        Whether it may go back to S.

    Attributes
    ----------
    scores_ : array, shape (N, K)
        S', or S where it stepped back.
    reason_ : str or None
        Why it stepped back.
    strength_ : float
        b.
    notes_ : list of str
        Usual assumptions that do not seem to hold here.

    Examples
    --------
    >>> from byname.stage import Batch
    >>> from byname.taxonomy import Taxonomy
    >>> texts = ClassTexts(np.eye(2, 3), np.array([0, 1]), Taxonomy.from_names(["cat", "dog"]))
    >>> X = ops.unit(np.repeat(np.array([[9, 1, 0], [8, 7, 9], [5, 8, 9]]), [6, 2, 6], axis=0))
    >>> member = Auto().fit(Batch(X), texts, State(S=5 * X[:, :2]))
    >>> member.scores_.argmax(axis=1)[6:8].tolist()
    [1, 1]
    """

    name = "auto"
    Params = AutoParams
    params: AutoParams
    strength_: float = 0.0

    def __init__(self, params: Any = None, **kwargs: Any) -> None:
        super().__init__(params, **kwargs)
        self.notes_: list[str] = []
        self._few: str | None = None

    def fit(self, batch: Batch, texts: ClassTexts, state: State) -> Self:
        """Compute the new scores of these images."""
        self.strength_, self.notes_, self._few = 0.0, [], None
        super().fit(batch, texts, state)
        self.reason_ = self.reason_ or self._few
        return self

    def _near(self) -> int:
        return NEAREST

    def _refined(self, X: Any, texts: ClassTexts, state: State, near: Near) -> Floats:
        S = ops.to_numpy(ops.as_float(state.S))
        mean = S.mean(axis=0, dtype=np.float64)
        self.strength_ = _strength(S, mean, near[0][:, :NEAREST])
        T = S - (self.strength_ * mean).astype(S.dtype)
        best, hits = hits_of(T)
        named = int((hits > 0).sum())
        self.notes_ = _notes(hits, len(S))
        if len(S) < 2 * named:
            self._few = f"there are {len(S)} images for {named} names: too few to pool"
            return S
        A = adjacency(near, NEIGHBOURS)
        rho = named / S.shape[1]
        z = anchored(ops.to_numpy(X), T, A, rho, self.params.bound, self.params.rounds)
        return moved_to(z, given_back(z.argmax(axis=1), T, best, hits))

    def report(self) -> dict[str, Any]:
        """Whether it stepped back and why, the strength b, and assumptions that do not hold."""
        return {**super().report(), "strength": self.strength_, "notes": self.notes_}


def _strength(S: Floats, mean: NDArray[np.float64], near: NDArray[np.intp]) -> float:
    found, chosen = -np.inf, 0.0
    for b in STRENGTHS:
        offset = (b * mean).astype(S.dtype)
        answer = np.concatenate([(S[r] - offset).argmax(axis=1) for r in ops.blocks(len(S), 4096)])
        now = agreement(near, answer, S.shape[1])
        if now > found + (GAIN if b else 0):
            found, chosen = now, b
    return chosen


def _notes(hits: NDArray[np.intp], N: int) -> list[str]:
    K, named = len(hits), int((hits > 0).sum())
    told = []
    if named < 0.75 * K:
        told.append(f"{K - named} of {K} names have no image: they may not be there")
    if hits.max() * named > UNEVEN * N:
        told.append(f"shares are uneven: one name has {hits.max()} of {N} images")
    return told
