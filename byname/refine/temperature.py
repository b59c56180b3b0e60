"""Probabilities softened, or sharpened, to a label-free estimate of the accuracy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from byname import ops
from byname.errors import RecipeError
from byname.margins import pseudo_labels
from byname.refine.guard import told
from byname.refine.shares import refuse_nan
from byname.stage import Batch, ClassTexts, Member, StageName, State, register

__all__ = ["Temperature", "TemperatureParams", "halves_agreement", "text_halves"]

_BLOCK = 4096
_LIMITS = (0.05, 20.0)  # what T is looked for between


@dataclass(frozen=True)
class TemperatureParams:
    """How the accuracy is estimated, and whether T may be below 1."""

    sharpen: bool = False
    splits: int = 5
    min_images: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        for name, lowest in (("splits", 1), ("min_images", 1), ("seed", 0)):
            if getattr(self, name) < lowest:
                seen = f"{name} is {getattr(self, name)}"
                raise RecipeError("use 'temperature'", seen, f"Give {lowest} or more.")


def text_halves(texts: ClassTexts, weight: Any, seed: int) -> NDArray[np.intp]:
    """Half, 0 or 1, of each text (M,); -1 for texts of no class or of the weight 0.

    Each class's texts are dealt out in turn after a seeded shuffle that is the same for all
    classes: a template lands in one half everywhere where all classes have the same templates.

    Examples
    --------
    >>> from byname.taxonomy import Taxonomy
    >>> texts = ClassTexts(np.eye(4), np.array([0, 0, 1, 1]), Taxonomy.from_names(["a", "b"]))
    >>> text_halves(texts, np.ones(4), 0).reshape(2, 2).sum(axis=1).tolist()
    [1, 1]
    """
    index = np.where(ops.to_numpy(weight) > 0, ops.to_numpy(texts.class_index), -1)
    shared = np.full(len(index), -1)
    if texts.prompt_index is not None:
        shared = ops.to_numpy(texts.prompt_index)
    numbers = int(shared.max(initial=-1)) + 1
    # A text of one class only goes by its place among those of its class, after the templates.
    place = np.where(shared >= 0, shared, numbers + _rank(np.where(shared >= 0, -1, index)))
    order = np.random.default_rng(seed).permutation(int(place.max(initial=-1)) + 1)
    half = _rank(index, order[place]) % 2
    return np.where(index >= 0, half, -1).astype(np.intp)


def _rank(index: NDArray[np.intp], key: NDArray[np.intp] | None = None) -> NDArray[np.intp]:
    """Place (M,) of each text among those of its class, by key and then as listed."""
    order = np.lexsort((np.arange(len(index)) if key is None else key, index))
    starts = np.searchsorted(index[order], index[order])
    rank = np.empty(len(index), np.intp)
    rank[order] = np.arange(len(index)) - starts
    return rank


def halves_agreement(X: Any, texts: ClassTexts, weight: Any, half: NDArray[np.intp]) -> float:
    """Share of the images (N, D) of which both halves of the texts predict the same class.

    Examples
    --------
    >>> from byname.taxonomy import Taxonomy
    >>> texts = ClassTexts(np.array([[1, 0], [1, 0], [0, 1], [0.6, 0.8]]),
    ...                    np.array([0, 0, 1, 1]), Taxonomy.from_names(["cat", "dog"]))
    >>> X = np.array([[0.8, 0.6], [0.7, 0.72]])
    >>> halves_agreement(X, texts, np.ones(4), np.array([0, 1, 0, 1]))
    0.5
    """
    K = texts.n_classes
    index = np.where(half < 0, -1, ops.to_numpy(texts.class_index) + K * half)
    W = ops.unit(ops.segment_sum(texts.vectors, index, 2 * K, weight))
    first, second = (pseudo_labels(X, side, block=_BLOCK) for side in (W[:K], W[K:]))
    return float((first == second).mean())


@register
class Temperature(Member):
    """Temperature scaling without labels, by the agreement of two halves of the texts.

    Formula::

        agreement = mean over splits and images of [ argmax_k <x_i, A_k> = argmax_k <x_i, B_k> ]
        T with  mean over i of max_k softmax(S_i / T)_k = agreement;  T = max(1, T)
                unless ``sharpen``
        S' = (S - max_k S) / T

    A and B are the class vectors, of length one, of two halves of each class's texts, weighed as
    the weigh stage says; every split is a seeded shuffle. The answers never change, nor ties
    between the best; by T = 1 the logits stay as they are. T is found on a logarithmic scale
    between 0.05 and 20, and is the limit where the agreement lies beyond it.

    Assumes that two halves of the texts disagree as often as either is wrong, which Jiang et al.
    show for networks that are trained twice and are calibrated as an ensemble. It does not hold for
    texts that all meet the same image vector: they may be wrong together. So the agreement is
    rather an upper bound of the accuracy: halves that agree less often than the probabilities are
    sure show that these are too sure, halves that agree more often show nothing. Therefore T only
    softens by default. The accuracy is that of ``mean``-like class vectors: after another refine
    or score member it may be another.

    T stays 1, and the report says why, where there is one class, where a class has fewer than two
    texts that count, with fewer than ``min_images`` images, and where agreement proves nothing.

    Shapes: S (N, K) to S' (N, K). ``fit`` takes 2 * splits * N K D and about ten passes over S, in
    blocks; ``apply`` treats each image by itself.

    Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, with the estimate of
    Jiang et al., "Assessing Generalization of SGD via Disagreement", ICLR 2022, in place of their
    labelled validation images. The use of halves of texts is ours.

    Parameters
    ----------
    sharpen : bool
        Whether T may be below 1. The default False is ours: halves of templates agree on far more
        images than are answered rightly.
    splits : int
        Seeded splits of the texts; 5 is ours.
    min_images : int
        100, so that the standard error of the agreement is at most 0.05.
    seed : int
        Of the first split.

    Attributes
    ----------
    temperature_, agreement_, confidence_ : float
        T, the agreement, and the mean of the largest probability by T = 1; NaN where not known.
    reason_ : str or None
        Why T is 1, or a limit.

    Raises
    ------
    RecipeError
        For a parameter that does not fit.

    Examples
    --------
    >>> from byname.taxonomy import Taxonomy
    >>> texts = ClassTexts(np.array([[1, 0], [1, 0], [0, 1], [0.6, 0.8]]),
    ...                    np.array([0, 0, 1, 1]), Taxonomy.from_names(["cat", "dog"]))
    >>> batch = Batch(np.array([[0.8, 0.6], [0.7, 0.72], [0.6, 0.8]]))
    >>> state = State(S=np.array([[9.0, 0.0], [0.0, 9.0], [0.0, 9.0]]))
    >>> member = Temperature(min_images=1).fit(batch, texts, state)
    >>> round(member.agreement_, 2), round(member.temperature_, 2)
    (0.67, 12.98)
    """

    stage: ClassVar[StageName] = "refine"
    name = "temperature"
    needs = frozenset({"X"})
    Params = TemperatureParams
    params: TemperatureParams
    temperature_: float = 1.0
    agreement_: float = float("nan")
    confidence_: float = float("nan")
    reason_: str | None = "nothing was learned yet"

    def fit(self, batch: Batch, texts: ClassTexts, state: State) -> Self:
        """Learn T from the unlabeled images."""
        self.temperature_, self.agreement_, self.confidence_ = 1.0, float("nan"), float("nan")
        refuse_nan(self.name, logits=state.S)
        given = state.weight if state.weight is not None else texts.weight
        weight = np.ones(len(texts.class_index)) if given is None else ops.to_numpy(given)
        if reason := self._missing(batch, texts, weight):
            self.reason_ = reason
            return self
        seeds = range(self.params.seed, self.params.seed + self.params.splits)
        found = [
            halves_agreement(batch.X, texts, weight, text_halves(texts, weight, seed))
            for seed in seeds
        ]
        self.agreement_, self.confidence_ = float(np.mean(found)), _confidence(state.S, 1.0)
        self.reason_ = None
        if self.agreement_ < self.confidence_ or self.params.sharpen:
            self.temperature_ = _temperature(state.S, self.agreement_)
            if self.temperature_ in _LIMITS:
                self.reason_ = (
                    f"the agreement of {self.agreement_:.1%} is out of reach: T is the limit"
                )
        else:
            self.reason_ = (
                f"the halves agree on {self.agreement_:.1%} of the images, and the probabilities "
                f"are {self.confidence_:.1%} sure, which is no sign that they are too sure"
            )
        return self

    def report(self) -> dict[str, Any]:
        """T, what it comes from, and whether and why it is 1, or a limit; None where not known."""
        known, same = np.isfinite(self.agreement_), self.temperature_ == 1
        return {
            "temperature": self.temperature_,
            "agreement": self.agreement_ if known else None,
            "confidence": self.confidence_ if known else None,
            **told(self.reason_ if same else None, None if same else self.reason_),
        }

    def apply(self, batch: Batch, texts: ClassTexts, state: State) -> Any:
        """S' (N, K)."""
        S = ops.as_float(state.S)
        # Less the largest first: what differs from it still differs after the division.
        return S if self.temperature_ == 1 else (S - _top(S)) / self.temperature_

    def _missing(self, batch: Batch, texts: ClassTexts, weight: NDArray[Any]) -> str | None:
        """What the estimate lacks."""
        index = ops.to_numpy(texts.class_index)
        counts = np.bincount(index[(index >= 0) & (weight > 0)], minlength=texts.n_classes)
        short = np.flatnonzero(counts < 2)
        if texts.n_classes < 2:
            return "there is one class"
        if len(short):
            name = texts.taxonomy.class_ids[short[0]]
            return f"{len(short)} classes have fewer than two texts that count, such as '{name}'"
        if len(batch) < self.params.min_images:
            return f"{len(batch)} images are fewer than {self.params.min_images}"
        return None


def _top(S: Any) -> Any:
    """Largest of each row (N, 1); 0 where that is infinite."""
    if not len(S):
        return S[:, :1]
    rows = ops.like(np.arange(len(S)), S)
    top = ops.to_numpy(S[rows, ops.argmax(S)])[:, None]
    return ops.cast(np.where(np.isfinite(top), top, 0), S)


def _confidence(S: Any, T: float) -> float:
    """Mean over images of the largest softmax(S / T)."""
    total = 0.0
    for part in ops.blocks(len(S), _BLOCK):
        rows = ops.as_float(S[part])
        sure = ops.to_numpy(ops.logsumexp((rows - _top(rows)) / T)).astype(np.float64)
        total += float(np.exp(-sure[np.isfinite(sure)]).sum())
    return total / len(S)


def _temperature(S: Any, confidence: float) -> float:
    """The T for which the mean of the largest probability is ``confidence``."""
    low, high = np.log(_LIMITS)
    if _confidence(S, _LIMITS[0]) <= confidence:
        return _LIMITS[0]
    if _confidence(S, _LIMITS[1]) >= confidence:
        return _LIMITS[1]
    # Brent's method is bisection that takes a shortcut where it is safe.
    found = optimize.brentq(
        lambda t: _confidence(S, float(np.exp(t))) - confidence, low, high, xtol=1e-7
    )
    return float(np.exp(found))
