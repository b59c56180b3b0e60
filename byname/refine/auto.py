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
from byname.refine.shares import answered_shares, effective
from byname.refine.whole import Near, WholeBatch, adjacency
from byname.stage import Batch, ClassTexts, State, register

__all__ = ["Auto", "AutoParams"]

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
GAIN = 0.003  # agreement by which a stronger correction must beat the best so far
CERTAIN = 30.0  # squared t value of the slope that counts as nothing
RHO = 0.5  # least share of the names that the mixture takes to be there
ALONE = 2.0  # names; answers less mixed than these may be of one class only
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
        check_settings("auto", self.bound, self.rounds, self.present)


@register
class Auto(WholeBatch):
    """Corrects the texts' bias as far as neighbours agree, then pools the images, or neither.

    Formula, with t = S, c_k the median of column k of t, u_k = cos(w_k, mean over l of w_l), and
    agreement(y) the chance-corrected share of the 5 nearest neighbours with the same answer
    (:func:`byname.knn.agreement`)::

        s   = slope of c on u over the names, where positive, times max(0, 1 - 30 / its t value^2)
        e_k = c_k - s (u_k - mean u) if s > 0, else the mean of column k
        b   = the one of 0, 1/4, 1/2, 3/4, 1 for which agreement(argmax(t - b e)) is largest; a
              larger b must gain 0.003
        T   = t - b e
        S'  = the mixture of ``anchor`` on T, with its bound 5 and rho = max(1/2, share of the names
              with hits in T)

    A text that is near to all images (a hub) wins images of every class, and the longer the list of
    names the more hubs it has; taking the level of its column off mends that where many classes
    are present, and does harm where few are. No label tells the two apart, but neighbours do:
    images of one class lie together, so a good answer is one on which neighbours agree.

    Names that say little, or nothing that photos show, lie far from the mean text, and score low
    with all images for that reason. Taking their low level off would lift them to where the true
    names are; so what u explains of the levels stays in T. On lists of a few dozen names the slope
    is seldom certain and s is 0. The median is the level of the images of other classes, which
    counts on long lists; on short ones the mean, which knows of shares, loses less often.

    Assumes that neighbours are of one class more often than not, and that S are logits of one level
    for all images, as cosines give them: a shift of the row of one image changes its place among
    the others. Steps back to S with fewer images than two for each name with a hit in T, and, with
    ``guard``, where neighbours agree less than on S afterwards, and where s is 0 and the answers of
    S are as mixed as fewer than 2 names (exp of their entropy; of lists of fewer than 4 names half
    of them): a folder of one class would be torn apart. ``report`` says so, then with b and s of 0,
    and which usual assumptions do not hold: names without images, uneven shares. Chooses among
    answers and tunes nothing on labels.

    Shapes: X (N, D), W (K, D), S (N, K) to S' (N, K); cost as ``anchor``, and 6 passes over S.

    Source: byname's own. All its constants, and the median against the mean, were chosen on made-up
    tasks (``benchmarks/refine_synthetic.py``); of two earlier versions real data had been seen.

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
    slope_ : float
        s.
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
    slope_: float = 0.0

    def __init__(self, params: Any = None, **kwargs: Any) -> None:
        super().__init__(params, **kwargs)
        self.notes_: list[str] = []
        self._few: str | None = None

    def fit(self, batch: Batch, texts: ClassTexts, state: State) -> Self:
        """Compute the new scores of these images."""
        self.strength_, self.slope_, self.notes_, self._few = 0.0, 0.0, [], None
        super().fit(batch, texts, state)
        self.reason_ = self.reason_ or self._few
        if self.reason_ is not None:
            self.strength_ = self.slope_ = 0.0
        return self

    def _near(self) -> int:
        return NEAREST

    def _refined(self, X: Any, texts: ClassTexts, state: State, near: Near) -> Floats:
        S = ops.to_numpy(ops.as_float(state.S))
        excess, self.slope_ = _excess(S, state.W)
        if self.params.guard and self.slope_ == 0:
            self._few = _alone(S)
        if self._few is not None:
            return S
        self.strength_ = _strength(S, excess, near[0][:, :NEAREST])
        T = S - (self.strength_ * excess).astype(S.dtype)
        best, hits = hits_of(T)
        named = int((hits > 0).sum())
        if len(S) < 2 * named:
            self.notes_ = _notes(hits, self.slope_)
            self._few = f"there are {len(S)} images for {named} names: too few to pool"
            return S
        A = adjacency(near, NEIGHBOURS)
        rho = max(named / S.shape[1], RHO)
        z = anchored(ops.to_numpy(X), T, A, rho, self.params.bound, self.params.rounds)
        answer = given_back(z.argmax(axis=1), T, best, hits)
        self.notes_ = _notes(np.bincount(answer, minlength=S.shape[1]), self.slope_)
        return moved_to(z, answer)

    def _look(self, index: NDArray[np.intp], S: Any, found: Any) -> None:
        # Of 10 neighbours many are of another class where classes have fewer images.
        super()._look(index[:, :NEAREST], S, found)

    def report(self) -> dict[str, Any]:
        """Whether it stepped back and why, b, s, and assumptions that do not hold."""
        told = {"strength": self.strength_, "slope": self.slope_, "notes": self.notes_}
        return {**super().report(), **told}


def _alone(S: Floats) -> str | None:
    """Why one class may be all there is, or None."""
    mixed = effective(answered_shares(S))
    if mixed >= min(ALONE, S.shape[1] / 2):
        return None
    return f"the answers are as mixed as {mixed:.1f} names: one class may be all that is there"


def _excess(S: Floats, W: Any) -> tuple[NDArray[np.float64], float]:
    """e (K,) and s; see :class:`Auto`."""
    K = S.shape[1]
    mean = S.mean(axis=0, dtype=np.float64)
    if W is None or len(W) != K or K < 3:
        return mean, 0.0
    W = ops.unit(ops.to_numpy(W).astype(np.float64))
    centre = W.mean(axis=0)
    u = W @ centre / max(float(np.linalg.norm(centre)), 1e-12)
    median = np.empty(K)
    for columns in ops.blocks(K, 32):
        median[columns] = np.median(S[:, columns].astype(np.float64), axis=0)
    u, c = u - u.mean(), median - median.mean()
    both, of_u, of_c = float(u @ c), float(u @ u), float(c @ c)
    if both <= 0 or of_u < 1e-12:
        return mean, 0.0
    left = max(1 - both**2 / (of_u * of_c), 1e-12)
    t2 = (1 - left) / left * (K - 2)
    slope = max(0.0, 1 - CERTAIN / max(t2, 1e-12)) * both / of_u
    return (median - slope * u, slope) if slope > 0 else (mean, 0.0)


def _strength(S: Floats, excess: NDArray[np.float64], near: NDArray[np.intp]) -> float:
    found, chosen = -np.inf, 0.0
    for b in STRENGTHS:
        offset = (b * excess).astype(S.dtype)
        answer = np.concatenate([(S[r] - offset).argmax(axis=1) for r in ops.blocks(len(S), 4096)])
        now = agreement(near, answer, S.shape[1])
        if now > found + (GAIN if b else 0):
            found, chosen = now, b
    return chosen


def _notes(counts: NDArray[np.intp], slope: float) -> list[str]:
    """Assumptions that do not seem to hold, from the number of images (K,) of each name."""
    K, N, named = len(counts), int(counts.sum()), int((counts > 0).sum())
    told = []
    if named < 0.75 * K:
        told.append(f"{K - named} of {K} names have no image: they may not be there")
    if counts.max() * named > UNEVEN * N:
        told.append(f"shares are uneven: one name has {counts.max()} of {N} images")
    if slope > 0:
        told.append("names whose texts are unlike the others score low: they were not lifted")
    return told
