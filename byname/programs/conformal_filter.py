"""A fast scorer leaves few classes for a slow one, and seldom drops what that would answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.decide.conformal import conformal_sets, nonconformity, thresholds
from byname.errors import UsageError, quoted
from byname.estimator import Estimator

__all__ = ["ConformalFilter", "Filtered"]

Slow = Callable[[int, Sequence[str]], str]


@dataclass(frozen=True, eq=False)
class Filtered:
    """Answers, and what they cost.

    Parameters
    ----------
    ids : array of str, shape (N,)
    kept : array of bool, shape (N, K)
    calls : int
        Images that the slow scorer was asked about: those with several classes.
    share : float
        Scores of the slow scorer, as a share of the N * K it would have had to give.
    """

    ids: NDArray[np.str_]
    kept: NDArray[np.bool_]
    calls: int
    share: float


class ConformalFilter(Estimator):
    """Split conformal filter between a fast scorer f and a slow scorer F.

    Formula, for n unlabeled calibration items, answered by F with y_i::

        alpha(x, c) = 1 - f_c(x)                                     variant="split"
                    = sum of the f_j(x) with f_j(x) >= f_c(x)        variant="adaptive"
        q           = the ceil((n + 1)(1 - eps))-th smallest alpha(x_i, y_i); infinite if > n
        kept        = the classes c with alpha(x, c) <= q; the best one of f if there is none
        answer      = what F chooses of the kept classes

    The promise is about F, and not about the truth: what F would choose of all classes is kept with
    probability 1 - eps or more, for items drawn as the calibration items were. Where F is wrong, so
    may the answer be. Below 1 / eps - 1 calibration items everything is kept.

    Complexity: N * K fast and N * (classes kept) slow scores.

    Source: Choubey et al., "Conformal Predictor for Improving Zero-Shot Text Classification
    Efficiency", EMNLP 2022, from its abstract. ``adaptive`` and ``per_class`` are extensions; see
    :class:`byname.decide.conformal.Conformal`, which does the same with two encoders.

    Parameters
    ----------
    classes : sequence of str
        Ids, in the order of the columns of f.
    eps : float
        Rate of misses. 0.01, for 500 to 1,000 calibration items, by our specification.
    variant : {"split", "adaptive"}
    per_class : bool
        A q for each class, from the items that F answers with it.

    Attributes
    ----------
    threshold_ : array, shape (K,)
    n_ : int

    Examples
    --------
    >>> fast = np.array([[0.9, 0.1], [0.4, 0.6], [0.5, 0.5]])
    >>> model = ConformalFilter(["cat", "dog"], eps=0.25).fit(fast, ["cat", "cat", "dog"])
    >>> found = model.predict([[0.95, 0.05], [0.5, 0.5]], lambda i, ids: ids[-1])
    >>> found.ids.tolist(), found.calls, found.share
    (['cat', 'dog'], 1, 0.5)
    """

    threshold_: NDArray[np.float64]
    n_: int

    def __init__(
        self,
        classes: Sequence[str] = (),
        eps: float = 0.01,
        variant: Literal["split", "adaptive"] = "split",
        per_class: bool = False,
    ) -> None:
        self.classes = classes
        self.eps = eps
        self.variant = variant
        self.per_class = per_class

    def fit(self, fast: Any, answers: Sequence[str]) -> Self:
        """Calibrate.

        Parameters
        ----------
        fast : array, shape (n, K)
            Probabilities by f of unlabeled items.
        answers : sequence of str, length n
            What F answers about them; no truth is asked for.

        Raises
        ------
        UsageError
            For settings out of range, probabilities that are none, and unknown answers.
        """
        asked = "calibrate the filter"
        self._forget()
        given = isinstance(self.eps, float | np.floating) and 0 < self.eps < 1
        if not given or self.variant not in ("split", "adaptive"):
            seen = f"eps is {self.eps!r}, variant {self.variant!r}"
            raise UsageError(asked, seen, "eps is above 0 and below 1; known: split, adaptive.")
        P = self._probabilities(asked, fast)
        place = {i: k for k, i in enumerate(self.classes)}
        if isinstance(answers, str):
            raise UsageError(asked, "the answers are one text", "Give one id an item, in a list.")
        odd = sorted({str(a) for a in answers if not isinstance(a, str) or a not in place})
        if odd or len(answers) != len(P):
            seen = f"there are {len(answers)} for {len(P)} items"
            seen = f"{quoted(odd)} is no class" if odd else seen
            raise UsageError(asked, seen, "Give one id an item, as F answers it.")
        y = np.array([place[a] for a in answers], np.intp)
        alpha = nonconformity(P, self.variant)[np.arange(len(y)), y]
        self.threshold_ = thresholds(alpha, y, len(place), self.eps, self.per_class)
        self.n_ = len(y)
        self._remember()
        return self

    def sets(self, fast: Any) -> NDArray[np.bool_]:
        """Which classes are kept, shape (N, K)."""
        self._refresh()
        if not hasattr(self, "threshold_"):
            seen = "nothing was calibrated with these settings"
            raise UsageError("filter classes", seen, "Call fit() first.")
        P = self._probabilities("filter classes", fast)
        return conformal_sets(P, self.threshold_, self.variant)

    def predict(self, fast: Any, slow: Slow) -> Filtered:
        """Answer items; F is asked only where several classes are kept.

        Parameters
        ----------
        fast : array, shape (N, K)
        slow : callable
            The number of an item and the ids of the kept classes to one of these ids.

        Raises
        ------
        UsageError
            Before ``fit``, and where F answers something else.
        """
        kept = self.sets(fast)
        ids, sizes = np.array(list(self.classes)), kept.sum(axis=1)
        found = ids[kept.argmax(axis=1)]
        several = np.flatnonzero(sizes > 1).tolist()
        for i in several:
            candidates = ids[kept[i]].tolist()
            answer = slow(i, candidates)
            if answer not in candidates:
                seen = f"it said {answer!r}, which is none of {quoted(candidates)}"
                raise UsageError(f"use the slow scorer's answer about item {i}", seen)
            found[i] = answer
        scores = int(sizes[several].sum())
        return Filtered(found, kept, len(several), scores / max(kept.size, 1))

    def _heavy(self) -> dict[str, Any]:
        return super()._heavy() | {"classes": tuple(self.classes)}

    def _probabilities(self, asked: str, fast: Any) -> NDArray[np.float64]:
        ids = list(self.classes)
        if isinstance(self.classes, str) or not all(isinstance(i, str) for i in ids):
            raise UsageError(asked, "the classes are not a list of ids", "Give a list of texts.")
        twice = sorted({i for i in ids if ids.count(i) > 1}) if len(set(ids)) < len(ids) else []
        if twice:
            raise UsageError(asked, f"classes twice: {quoted(twice)}", "Give each id once.")
        P = ops.to_numpy(fast).astype(np.float64)
        K = len(self.classes)
        fits = P.ndim == 2 and P.shape[1] == K and np.isfinite(P).all()
        if not K or not fits or (P.size and not 0 <= P.min() <= P.max() <= 1 + 1e-6):
            raise UsageError(
                asked,
                f"the fast scores have the shape {P.shape}, for {K} classes",
                "Give probabilities (N, K), finite and from 0 to 1.",
            )
        return P
