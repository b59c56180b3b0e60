"""A mixture over the images that the text scores hold back, so that no class is lost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.refine.mixture import anchored, check_settings, given_back, hits_of
from byname.refine.whole import Near, WholeBatch, adjacency
from byname.stage import ClassTexts, State, register

__all__ = ["Anchor", "AnchorParams", "moved_to"]

NEIGHBOURS = 3
Floats = NDArray[Any]


@dataclass(frozen=True)
class AnchorParams:
    """How far images may move an answer, and for how many rounds."""

    bound: float = 3.0
    rounds: int = 8
    present: float = 0.0
    guard: bool = True

    def __post_init__(self) -> None:
        check_settings("anchor", self.bound, self.rounds, self.present)


def moved_to(z: Floats, answer: NDArray[np.intp]) -> Floats:
    """log z (N, K), with the answered class raised to just above the best one of each row."""
    S: Floats = ops.log_probability(z)
    rows = np.arange(len(S))
    top = S.max(axis=1)
    other = S.argmax(axis=1) != answer
    S[rows[other], answer[other]] = top[other] + 1e-3
    return S


@register
class Anchor(WholeBatch):
    """Gaussians seeded by every class's best images, held back by the texts.

    Formula, with t = S, hits the images that S answers with a name, P names with hits::

        rho = P / K,  n0 = 2 / rho,  T = t - (rho / 2) * mean over i of t_i
        g   = T - logsumexp_k(T) / 2
        z_ik = exp((g_ik - max over j of g_jk) / 2) for the 8 best images of column k, else 0
        F   = X with mean 0 and deviation 1 in each feature
        ``rounds`` times:
            m = z^T 1,  s = z^T F,  mu_k = s_k / (m_k + n0)
            omega = 1 - sum over k of |s_k|^2 / (m_k + n0) / |F|^2    (0.5 in the first round)
            twice: E = (F mu_k - |mu_k|^2 / 2) / (50 omega) + (1.5 - rho) log(m'_k + 1/2) + A z / 3
                   z = softmax_k( T + max(E - max over l of E_il, -bound) )
        S'  = log z; a name that kept less than a fifth of its hits gets its clearest ones back

    A = W + W^T for the cosines W to the 3 nearest others; m' is the mass after the last round, and
    its term is 0 in the first.

    By construction an image whose margin in T is above ``bound`` does not move in the rounds, and a
    name with 5 hits or more is never emptied. Assumes clusters; not equal shares, nor that all
    names occur: the fewer do, the less is believed of each. Steps back to S with fewer images than
    two for each name with a hit, and as all members of this stage do (``guard``). With very few
    classes present single cases lose; long lists of names lose badly described classes.

    Shapes: X (N, D), S (N, K) to S' (N, K). Neighbours N^2 D; each round 3 N K D. Two arrays of the
    size of S beside it.

    Source: byname's own, published nowhere; its constants were chosen by hand on three encoders and
    made-up scenarios of one data set of aerial photos, which flatters it there.

    Parameters
    ----------
    bound : float
        Logits that images may add or take; 3.
    rounds : int
        8.
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

    Examples
    --------
    >>> from byname.stage import Batch
    >>> from byname.taxonomy import Taxonomy
    >>> texts = ClassTexts(np.eye(2, 3), np.array([0, 1]), Taxonomy.from_names(["cat", "dog"]))
    >>> X = ops.unit(np.array([[9, 1, 0], [9, 2, 0], [9, 3, 0], [5, 9, 9], [6, 7, 9], [8, 7, 9]]))
    >>> member = Anchor().fit(Batch(X), texts, State(S=5 * X[:, :2]))
    >>> member.scores_.argmax(axis=1).tolist()
    [0, 0, 0, 1, 1, 1]
    """

    name = "anchor"
    Params = AnchorParams
    params: AnchorParams

    def _near(self) -> int:
        return NEIGHBOURS

    def too_little(self, X: Any, S: Any) -> str | None:
        """Also fewer images than two for each name with a hit."""
        reason = super().too_little(X, S)
        if reason is None:
            named = int((hits_of(ops.to_numpy(S))[1] > 0).sum())
            if len(S) < 2 * named:
                return f"there are {len(S)} images for {named} names: too few to learn from"
        return reason

    def _refined(self, X: Any, texts: ClassTexts, state: State, near: Near) -> Floats:
        S = ops.to_numpy(ops.as_float(state.S))
        best, hits = hits_of(S)
        rho = float((hits > 0).mean())
        T = S - ((rho / 2) * S.mean(axis=0, dtype=np.float64)).astype(S.dtype)
        A = adjacency(near, NEIGHBOURS)
        z = anchored(ops.to_numpy(X), T, A, rho, self.params.bound, self.params.rounds)
        return moved_to(z, given_back(z.argmax(axis=1), T, best, hits))
