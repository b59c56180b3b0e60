"""Shared templates, weighed by how clearly they let the hard classes win."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.errors import NeedsError, RecipeError
from byname.margins import cmm, cmm_each, pseudo_labels, worst_classes
from byname.stage import Batch, ClassTexts, Member, StageName, State, register
from byname.weigh.mean import class_weights

__all__ = ["Cpe", "CpeParams"]

Floats = NDArray[np.float64]
AUTO = 2.0  # temperature "auto", in median absolute deviations of the scores
SETTLED = 0.001  # share of pseudo-labels whose change ends the rounds


@dataclass(frozen=True)
class CpeParams:
    """How prompts are scored, and how scores become weights."""

    temperature: float | Literal["auto"] = 0.01
    per_class: bool = False
    q: float | Literal["all"] = 0.1
    variant: Literal["A", "B"] = "A"
    prune: bool = False
    rounds: int = 1
    mode: Literal["add", "replace"] = "add"

    def __post_init__(self) -> None:
        t, q = self.temperature, self.q
        rules = {
            "temperature": (t == "auto" or _least(t, 0), "0 or more, or 'auto'"),
            "q": (q == "all" or (_least(q, 1e-9) and q <= 1), "a share up to 1, or 'all'"),
            "variant": (self.variant in ("A", "B"), "'A' or 'B'"),
            "rounds": (_least(self.rounds, 1), "1 or more"),
            "mode": (self.mode in ("add", "replace"), "'add' or 'replace'"),
        }
        for name, (fits, rule) in rules.items():
            if not fits:
                seen = f"{name} is {getattr(self, name)!r}"
                raise RecipeError("use 'cpe'", seen, f"It must be {rule}.")


def _least(value: object, lowest: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= lowest


@register
class Cpe(Member):
    """CMM-weighted prompt ensemble: templates count by the margins of the worst classes.

    Formula, for P shared templates with class vectors Z[p,k] (the texts of class k in template p,
    of length one) and omega_m the given weight of text m within its class::

        y_i    = argmax_k <x_i, zbar_k>          zbar = W of ``mean``; y stays fixed in a round
        Q      = the q * K classes of lowest CMM(k), from X and zbar; n_k = 0 first
        s_p    = mean over k in Q with n_k > 0 of CMM_p(k), from X and Z[p]
        w_p    = softmax_p(s_p / temperature)
        w_pk   = softmax_p(CMM_p(k) / temperature) for k in Q, n_k > 0, if ``per_class``; else w_p
        weight = omega_m * w_pk for a text m of class k in template p, brought back to the sum that
                 the omega of the class's shared texts have
        W_k    = unit(sum of weight_m * t_m)

    CMM is :func:`byname.margins.cmm`. Equal scores, or an infinite temperature, give ``mean``
    exactly; temperature 0 takes the best template (ties share).

    Texts of one class only (``prompt_index`` -1, such as an LLM's descriptors) are not scored:
    with ``mode="add"`` they keep their share of the class, next to every template; with
    ``"replace"`` they take the place of the templates in their class. A class that lacks a
    template is scored with zbar in its place.

    Falls back, without a warning: to equal weights, where all images are predicted as one class
    or there is no image, since there is no contrast to learn from; to all predicted classes, where
    no class of Q is ever predicted, as with a list of names much longer than what the images show.

    Shapes: X (N, D), texts (M, D) to ``weight_`` (M,), W (K, D) with unit rows. Time T*N*K*D over
    the images of scored classes; templates are streamed, 4096 images at a time, so that no
    (N, K) array is made.

    Source: Shao et al., arXiv 2310.03324 ("Examining the Achilles' Heel of CLIP Models"),
    reconstructed: the formulas of the paper, its q, temperature and number of rounds could not be
    read. Transductive: the weights hold for these images and their mixture of classes.

    Parameters
    ----------
    temperature : float or "auto"
        0.01, the margins at CLIP's logit scale of 100; it hardly selects, since scores differ by
        less. "auto" takes twice the median absolute deviation (MAD) of the scores, takes s_p over
        all predicted classes, since few say too little to select by, and with ``per_class`` adds
        both kinds of evidence: softmax_p((z(s_p) + z(CMM_p(k))) / 2), z = (. - median) / MAD.
        Not of the paper; the 2 was chosen on made-up data (``benchmarks/cpe_synthetic.py``).
    per_class : bool
        Whether each class of Q gets its own weights.
    q : float or "all"
        Share of the classes whose margins count, rounded up.
    variant : {"A", "B"}
        Rival of each image, or of the class.
    prune : bool
        Whether to drop templates whose score is not above median + 0.5 MAD (the rule of ZPE,
        Allingham et al., ICML 2023); none is dropped where no score is.
    rounds : int
        How often at most y is computed anew from W; ends when less than 0.1 % of y change, which
        it may never do where Q alternates.
    mode : {"add", "replace"}
        What texts of one class only do.

    Attributes
    ----------
    weight_ : array, shape (M,)
        Summing to 1 over each class.
    prompts_, score_, prompt_weight_ : arrays, shape (P,)
        Prompt indices, their scores s_p, and shared weights w_p.
    effective_prompts_ : float
        exp(entropy) of the weights, between 1 and P; the mean over the classes.
    worst_ : array of int
        Q, worst first.
    cmm_, cmm_after_ : arrays, shape (K,)
        CMM of the classes before and after weighing, for the same y; -inf where n_k = 0.
    rounds_ : int
        Rounds made.

    Raises
    ------
    NeedsError
        Where no text is shared by the classes.
    RecipeError
        For a parameter that does not fit.

    Examples
    --------
    >>> from byname.taxonomy import Taxonomy
    >>> good, swapped = np.array([[1.0, 0.3], [0.3, 1.0]]), np.array([[0.0, 1.0], [1.0, 0.0]])
    >>> texts = ClassTexts(ops.unit(np.vstack([good, good, swapped])), np.tile([0, 1], 3),
    ...                    Taxonomy.from_names(["cat", "dog"]), np.repeat([0, 1, 2], 2))
    >>> batch = Batch(np.eye(2))
    >>> Cpe(temperature=0.01).fit(batch, texts, State()).weight_.round(2).tolist()
    [0.5, 0.5, 0.5, 0.5, 0.0, 0.0]
    """

    stage: ClassVar[StageName] = "weigh"
    name = "cpe"
    needs = frozenset({"X", "prompt_index"})
    Params = CpeParams
    params: CpeParams
    weight_: Floats

    def fit(self, batch: Batch, texts: ClassTexts, state: State) -> Self:
        """Score the templates on the unlabeled images, and weigh the texts."""
        grid, variant = _Grid(texts, self.params), self.params.variant
        self.prompts_, self.score_ = grid.prompts, np.zeros(grid.P)
        self.prompt_weight_ = np.full(grid.P, 1 / grid.P)
        w = np.full((grid.P, grid.K), 1 / grid.P)
        self.weight_, self.rounds_ = grid.base, 0
        y = pseudo_labels(batch.X, self._vectors(texts))
        self.cmm_, counts = cmm((batch.X, self._vectors(texts)), y, variant)
        self.worst_ = worst_classes(self.cmm_, counts, self._q)
        self.cmm_after_ = self.cmm_
        while self.rounds_ < self.params.rounds and (counts > 0).sum() > 1:
            w = self._weigh(batch.X, grid, y, counts)
            self.weight_, before = grid.weights(w), y
            self.rounds_ += 1
            self.cmm_after_, _ = cmm((batch.X, self._vectors(texts)), y, variant)
            if self.rounds_ < self.params.rounds:
                y = pseudo_labels(batch.X, self._vectors(texts))
                if (y != before).mean() < SETTLED:
                    break
                base, counts = cmm((batch.X, self._vectors(texts)), y, variant)
                self.worst_ = worst_classes(base, counts, self._q)
        plogp = np.where(w > 0, w * np.log(np.where(w > 0, w, 1)), 0)
        self.effective_prompts_ = float(np.exp(-plogp.sum(axis=0)).mean())
        self._ids = texts.taxonomy.class_ids
        return self

    def report(self) -> dict[str, Any]:
        """How many templates count, of how many, and the margins of Q before and after, by id.

        A margin is None where no image is predicted as the class. Empty before ``fit``.
        """
        if not hasattr(self, "effective_prompts_"):
            return {}
        before, after = (
            [float(v) if np.isfinite(v) else None for v in values[self.worst_]]
            for values in (self.cmm_, self.cmm_after_)
        )
        worst = zip((self._ids[k] for k in self.worst_), before, after, strict=True)
        return {
            "effective_prompts": self.effective_prompts_,
            "prompts": len(self.prompts_),
            "worst": [{"id": i, "cmm": b, "cmm_after": a} for i, b, a in worst],
        }

    def apply(self, batch: Batch, texts: ClassTexts, state: State) -> Any:
        """W (K, D), unit rows."""
        return self._vectors(texts)

    @property
    def _q(self) -> float | Literal["all"]:
        return "all" if self.params.q == "all" else float(self.params.q)

    def _vectors(self, texts: ClassTexts) -> Any:
        index, K = texts.class_index, texts.n_classes
        return ops.unit(ops.segment_sum(texts.vectors, index, K, self.weight_))

    def _weigh(self, X: Any, grid: _Grid, y: NDArray[np.intp], counts: NDArray[np.intp]) -> Floats:
        """w_pk (P, K): the weight of each template for each class."""
        predicted = np.flatnonzero(counts > 0)
        hard = self.worst_[counts[self.worst_] > 0]
        hard = hard if len(hard) else predicted
        scored = predicted if self.params.temperature == "auto" else np.sort(hard)
        # Margins are about images of the scored classes only; the others need not be compared.
        y = np.where(np.isin(y, scored), y, -1)
        margins = cmm_each(X, grid.templates(), y, self.params.variant)
        self.score_ = margins[:, scored].mean(axis=1)
        shared, own = self._logits(self.score_[:, None]), self._logits(margins[:, hard])
        self.prompt_weight_ = self._select(self.score_[:, None], shared)[:, 0]
        w = np.repeat(self.prompt_weight_[:, None], grid.K, axis=1)
        if self.params.per_class:
            w[:, hard] = self._select(
                margins[:, hard], own + shared if self.params.temperature == "auto" else own
            )
        return w

    def _logits(self, scores: Floats) -> Floats:
        """What softmax turns into weights, from scores (P, C)."""
        t = self.params.temperature
        if t == "auto":
            apart = scores - np.median(scores, axis=0)
            spread = np.median(np.abs(apart), axis=0)
            # Where most templates score the same, the few others make up the spread.
            spread = np.where(spread > 0, spread, np.abs(apart).mean(axis=0))
            return apart / (AUTO * np.where(spread > 0, spread, 1))
        return scores / t if t else np.where(scores == scores.max(axis=0), 0.0, -np.inf)

    def _select(self, scores: Floats, logits: Floats) -> Floats:
        """Weights (P, C), each column summing to 1."""
        if self.params.prune:
            middle = np.median(scores, axis=0)
            kept = scores > middle + 0.5 * np.median(np.abs(scores - middle), axis=0)
            logits = np.where(kept | ~kept.any(axis=0), logits, -np.inf)
        weights: Floats = ops.softmax(logits, axis=0)
        return weights


class _Grid:
    """The shared texts as P templates of K classes, with the classes' own texts beside them."""

    def __init__(self, texts: ClassTexts, params: CpeParams) -> None:
        self.vectors, self.K = texts.vectors, texts.n_classes
        self.index, prompt = ops.to_numpy(texts.class_index), ops.to_numpy(texts.prompt_index)
        self.base = class_weights(texts)
        shared = (prompt >= 0) & (self.index >= 0)
        if not shared.any():
            raise NeedsError(
                "run the weigh member 'cpe'",
                "no text is a template that classes share (all have prompt_index -1)",
                "Use prompts with templates, or choose another member, such as 'mean'.",
            )
        if params.mode == "replace":
            own = np.bincount(self.index[~shared & (self.base > 0)], minlength=self.K) > 0
            self.base = np.where(shared & own[self.index], 0.0, self.base)
            total = np.bincount(self.index[self.index >= 0], self._used(self.base), self.K)
            self.base = np.where(self.index >= 0, self.base / total[self.index], 0.0)
        self.rows = np.flatnonzero(shared)
        self.prompts, self.column = np.unique(prompt[self.rows], return_inverse=True)
        self.P = len(self.prompts)
        self.share = np.bincount(self.index[shared], self.base[shared], self.K)
        beside = np.where(shared, -1, self.index)
        self.own = ops.segment_sum(texts.vectors, beside, self.K, self.base)
        self.zbar = ops.unit(ops.segment_sum(texts.vectors, self.index, self.K, self.base))

    def _used(self, weight: Floats) -> Floats:
        return weight[self.index >= 0]

    def templates(self) -> Iterator[Any]:
        """Class vectors (K, D) of each template, unit rows."""
        for p in range(self.P):
            rows = self.rows[self.column == p]
            index, weight = self.index[rows], self.base[rows]
            Z = ops.unit(ops.segment_sum(ops.take_rows(self.vectors, rows), index, self.K, weight))
            Z = ops.unit(Z * ops.like(self.share.astype(np.float32)[:, None], Z) + self.own)
            absent = np.flatnonzero(np.bincount(index, weight, self.K) == 0)
            Z[ops.like(absent, Z)] = ops.take_rows(self.zbar, absent)
            yield Z

    def weights(self, w: Floats) -> Floats:
        """Weight of each text (M,), given w_pk (P, K)."""
        weight, index = self.base.copy(), self.index[self.rows]
        # Divided by the largest first: equal weights then change nothing at all.
        factor = w / w.max(axis=0)
        weight[self.rows] *= factor[self.column, index]
        total = np.bincount(index, weight[self.rows], self.K)
        # A class that has none of the chosen templates keeps those that it has.
        lost = (total == 0)[index]
        weight[self.rows[lost]] = self.base[self.rows[lost]]
        total = np.where(total == 0, self.share, total)
        scale = np.divide(self.share, total, out=np.ones(self.K), where=total > 0)
        weight[self.rows] *= scale[index]
        return weight
