"""Similarity minus a share of the class's own uncertainty, for encoders that give variances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.errors import RecipeError
from byname.score.textparts import put_last, text_weights, unsaid
from byname.stage import Batch, ClassTexts, Member, StageName, State, register

__all__ = ["Prolip", "ProlipParams"]

ROWS = 4096  # texts at a time in float64


@dataclass(frozen=True)
class ProlipParams:
    """How the variances of a class's texts are joined, and how much they count."""

    pooling: Literal["mean", "sum"] = "mean"
    multiplier: float = 1.0

    def __post_init__(self) -> None:
        if self.pooling not in ("mean", "sum"):
            seen = f"pooling is {self.pooling!r}"
            raise RecipeError("use 'prolip'", seen, "It must be 'mean' or 'sum'.")
        if not 0 <= self.multiplier < np.inf:
            seen = f"multiplier is {self.multiplier!r}"
            raise RecipeError("use 'prolip'", seen, "It must be a finite number, 0 or more.")


@register
class Prolip(Member):
    """Expected squared distance between two Gaussians, as logits.

    Formula, with mu_c = W_c of the weigh stage, and w_m the weight of text m within its class::

        sigma2_c = sum over the texts m of class c of  w_m * sigma2_m         pooling = "mean"
                   sum over the texts m of class c of  w_m^2 * sigma2_m       pooling = "sum"
        S[i,c]   = scale * <x_i, mu_c> - scale / 2 * multiplier * sum_d sigma2_c,d + bias

    S is -scale / 2 times the expected squared distance of draws of image and class, less what is
    the same for all classes of an image (its length and its variance). With ``multiplier=0``, or
    the same variances for all classes, the answers are those of ``cosine``.

    Shapes: X (N, D), W (K, D), ``text_log_var`` (M, D) to S (N, K). N*K*D; the variances are
    summed once, in ``fit``, to one number a class. A class without texts that weigh comes last.

    Source: Chun et al., "Probabilistic Language-Image Pre-Training", ICLR 2025 (ProLIP). Its code
    has 100 and 50 in place of the encoder's scale and half of it, and applies the multiplier twice.

    Parameters
    ----------
    pooling : {"mean", "sum"}
        "mean" is the paper's for averaged texts; "sum", the variance of a weighted sum of
        independent vectors, is its form for texts weighed by ``bprw``.
    multiplier : float
        Factor of the variances: 1, as the formula has it. The paper's code leaves it to the user,
        who would have to choose it by labels.

    Attributes
    ----------
    uncertainty_ : array, shape (K,)
        sum_d sigma2_c,d.

    Raises
    ------
    RecipeError
        For a parameter that does not fit.

    Examples
    --------
    >>> from byname.taxonomy import Taxonomy
    >>> texts = ClassTexts(np.eye(2), np.array([0, 1]), Taxonomy.from_names(["cat", "dog"]),
    ...                    text_log_var=np.log([[0.1, 0.1], [0.3, 0.1]]), scale=10.0)
    >>> batch, state = Batch(np.array([[0.6, 0.8]])), State(W=texts.vectors)
    >>> Prolip().fit(batch, texts, state).apply(batch, texts, state).round(3).tolist()
    [[5.0, 6.0]]
    """

    stage: ClassVar[StageName] = "score"
    name = "prolip"
    needs = frozenset({"text_log_var"})
    Params = ProlipParams
    params: ProlipParams

    def fit(self, batch: Batch, texts: ClassTexts, state: State) -> Self:
        """Sum the variances up to one number a class; the images are not looked at."""
        index, K = ops.to_numpy(texts.class_index), texts.n_classes
        given = state.weight if state.weight is not None else texts.weight
        weight = np.ones(len(index)) if given is None else ops.to_numpy(given).astype(np.float64)
        used = np.flatnonzero((index >= 0) & (weight > 0))
        index, weight = index[used], weight[used]
        total = np.bincount(index, weight, minlength=K)
        share = weight / total[index]
        share = share if self.params.pooling == "mean" else share**2
        u = _total_variance(texts.text_log_var)[used]
        self.uncertainty_ = np.bincount(index, share * u, minlength=K)
        self._ids = texts.taxonomy.class_ids
        return self

    def apply(self, batch: Batch, texts: ClassTexts, state: State) -> Any:
        """S (N, K)."""
        S = texts.scale * ops.matmul_t(batch.X, state.W)
        penalty = 0.5 * texts.scale * self.params.multiplier * self.uncertainty_
        least = texts.bias - texts.scale - float(penalty.max(initial=0))
        none = unsaid(texts, text_weights(texts, state))
        return put_last(S + ops.cast(texts.bias - penalty, S), none, least)

    def report(self) -> dict[str, Any]:
        """The summed variance of each class, the most uncertain first; empty before ``fit``."""
        if not hasattr(self, "uncertainty_"):
            return {}
        order = sorted(range(len(self._ids)), key=lambda k: (-self.uncertainty_[k], self._ids[k]))
        return {
            "classes": [
                {"id": self._ids[k], "uncertainty": float(self.uncertainty_[k])} for k in order
            ]
        }


def _total_variance(log_var: Any) -> NDArray[np.float64]:
    """sum_d exp(log_var) (M,)."""
    log_var = ops.to_numpy(log_var)
    out = np.empty(len(log_var))
    for rows in ops.blocks(len(out), ROWS):
        out[rows] = np.exp(log_var[rows].astype(np.float64)).sum(axis=1)
    return out
