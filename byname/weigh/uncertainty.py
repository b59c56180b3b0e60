"""Keep the texts that an encoder with variances is most certain about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.errors import PromptError, RecipeError
from byname.stage import Batch, ClassTexts, Member, StageName, State, register
from byname.weigh.mean import class_weights

__all__ = ["Uncertainty", "UncertaintyParams", "total_variance"]

Mode = Literal["share", "k", "global", "std"]
Floats = NDArray[np.float64]
ROWS = 4096  # texts at a time in float64
HIGHEST = 300.0  # log variances above it count as this: sums and their squares stay finite


@dataclass(frozen=True)
class UncertaintyParams:
    """Which texts are kept."""

    mode: Mode = "share"
    share: float = 0.5
    k: int = 1
    a: float = 0.0

    def __post_init__(self) -> None:
        rules = {
            "mode": (self.mode in get_args(Mode), "'share', 'k', 'global' or 'std'"),
            "share": (0 < self.share <= 1, "a share above 0, up to 1"),
            "k": (self.k >= 1, "1 or more"),
            "a": (bool(np.isfinite(self.a)), "a finite number of standard deviations"),
        }
        for name, (fits, rule) in rules.items():
            if not fits:
                seen = f"{name} is {getattr(self, name)!r}"
                raise RecipeError("use 'uncertainty'", seen, f"It must be {rule}.")


def total_variance(log_var: Any) -> Floats:
    """u (M,) = sum over d of exp(log_var (M, D)), in float64; finite.

    Raises
    ------
    PromptError
        For a log variance that is not a number.

    Examples
    --------
    >>> total_variance(np.log([[1.0, 2.0]])).round(6).tolist()
    [3.0]
    """
    log_var = ops.to_numpy(log_var)
    out = np.empty(len(log_var))
    for rows in ops.blocks(len(out), ROWS):
        out[rows] = np.exp(np.minimum(log_var[rows].astype(np.float64), HIGHEST)).sum(axis=1)
    if len(bad := np.flatnonzero(np.isnan(out))):
        raise PromptError(
            "weigh the texts by their variances",
            f"row {bad[0]} of 'text_log_var' holds NaN",
            "Leave the text out, or embed it anew.",
        )
    return out


@register
class Uncertainty(Member):
    """Mean of the texts that are most certain, for encoders that give each text a variance.

    A text that could mean many things has a large variance. Formula, for text m of class k with
    the variances sigma2_m (D,), and omega_m its given weight::

        u_m      = sum over d of sigma2_m,d
        kept     = "share":  the ceil(share * n_k) texts of class k of lowest u
                   "k":      the k texts of each class of lowest u
                   "global": the k texts of lowest u, whatever their class
                   "std":    u_m <= mean + a * standard deviation of u over the class
                   and in any case the most certain text of each class
        weight_m = omega_m / sum of omega over the kept texts of the class;  0 if not kept
        W_k      = unit(sum of weight_m * t_m)

    Texts of the same u as the last one kept are kept too, so that no order of rows decides. Texts
    of no class, or of weight 0, are neither kept nor counted. One text a class (``mode=k, k=1``)
    is prompt selection; all of them (``share=1``) are ``mean``. Variances of different encoders
    are on different scales: only their order and, in "std", their ratios matter.

    Shapes: ``text_log_var`` (M, D) to ``weight_`` (M,), W (K, D) with unit rows. O(M D); the
    images are not looked at.

    Source: the filter of PCME++ (Chun, "Improved Probabilistic Image-Text Representations",
    ICLR 2024) for "share", "k" and "global"; "std" is in the code of ProLIP (Chun et al.,
    "Probabilistic Language-Image Pre-Training", ICLR 2025).

    Parameters
    ----------
    mode : {"share", "k", "global", "std"}
        PCME++ keeps the K most certain, of a class or of all, and K cannot be chosen by names
        alone; the default, a share of each class, is ours.
    share : float
        For "share"; 0.5 is ours, fixed beforehand.
    k : int
        For "k" and "global"; 1, prompt selection, is ours.
    a : float
        For "std"; 0, the mean, is ours: like the share, it drops about half.

    Attributes
    ----------
    weight_ : array, shape (M,)
        Summing to 1 over each class.
    u_ : array, shape (M,)
        Total variance of each text.
    kept_ : array of bool, shape (M,)

    Raises
    ------
    RecipeError
        For a parameter that does not fit.
    PromptError
        For classes without a text of positive weight, or log variances that are not a number.

    Examples
    --------
    >>> from byname.taxonomy import Taxonomy
    >>> texts = ClassTexts(np.eye(2), np.array([0, 0]), Taxonomy.from_names(["crane"]),
    ...                    text_log_var=np.log([[0.1, 0.1], [0.3, 0.5]]))
    >>> Uncertainty().fit(Batch(np.empty((0, 2))), texts, State()).weight_.tolist()
    [1.0, 0.0]
    """

    stage: ClassVar[StageName] = "weigh"
    name = "uncertainty"
    needs = frozenset({"text_log_var"})
    Params = UncertaintyParams
    params: UncertaintyParams
    weight_: Floats

    def fit(self, batch: Batch, texts: ClassTexts, state: State) -> Self:
        """Rank the texts by their variances, and weigh those that are kept."""
        omega, K = class_weights(texts), texts.n_classes
        index = ops.to_numpy(texts.class_index)
        self.u_ = total_variance(texts.text_log_var)
        used = np.flatnonzero(omega > 0)  # of a class, and of positive weight
        self.kept_ = np.zeros(len(omega), bool)
        self.kept_[used] = self.u_[used] <= self._limits(self.u_[used], index[used], K)[index[used]]
        weight = np.where(self.kept_, omega, 0.0)
        total = np.bincount(index[used], weight[used], minlength=K)
        weight[used] /= total[index[used]]
        self.weight_ = weight
        self._used = (used, index[used], texts.taxonomy.class_ids)
        return self

    def apply(self, batch: Batch, texts: ClassTexts, state: State) -> Any:
        """W (K, D), unit rows."""
        index, K = texts.class_index, texts.n_classes
        return ops.unit(ops.segment_sum(texts.vectors, index, K, self.weight_))

    def report(self) -> dict[str, Any]:
        """How ambiguous each class is, the most ambiguous first; empty before ``fit``.

        ``uncertainty`` is the mean u of its texts that count, ``lowest`` that of the most certain.
        """
        if not hasattr(self, "u_"):
            return {}
        rows, index, ids = self._used
        u, K = self.u_[rows], len(ids)
        count = np.bincount(index, minlength=K)
        mean = np.bincount(index, u, minlength=K) / np.maximum(count, 1)
        kept = np.bincount(index, self.kept_[rows], minlength=K)
        lowest = np.full(K, np.inf)
        np.minimum.at(lowest, index, u)
        order = sorted(np.flatnonzero(count), key=lambda k: (-mean[k], ids[k]))
        return {
            "classes": [
                {
                    "id": ids[k],
                    "uncertainty": float(mean[k]),
                    "lowest": float(lowest[k]),
                    "kept": int(kept[k]),
                    "texts": int(count[k]),
                }
                for k in order
            ]
        }

    def _limits(self, u: Floats, index: NDArray[np.intp], K: int) -> Floats:
        """Largest u (K,) that is kept in each class."""
        p = self.params
        order = np.lexsort((u, index))
        ranked = u[order]
        count = np.bincount(index, minlength=K)
        first = np.cumsum(count) - count
        lowest = ranked[first]
        if p.mode == "global":
            return np.asarray(np.maximum(lowest, np.sort(u)[min(p.k, len(u)) - 1]))
        if p.mode == "std":
            mean = np.bincount(index, u, minlength=K) / count
            squares = np.bincount(index, (u - mean[index]) ** 2, minlength=K) / count
            # One part in 10^12 more: texts of equal u are at their mean, but for rounding.
            limit = mean + p.a * np.sqrt(squares)
            return np.asarray(np.maximum(lowest, limit + 1e-12 * np.abs(limit)))
        wanted = np.ceil(np.round(p.share * count, 9)) if p.mode == "share" else p.k
        return np.asarray(ranked[first + np.clip(wanted, 1, count).astype(np.intp) - 1])
