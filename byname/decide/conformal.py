"""All classes that a slower encoder might answer, with a stated rate of misses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.errors import EmbeddingsError, NeedsError, RecipeError, UsageError
from byname.stage import Answer, Array, Batch, ClassTexts, Member, StageName, State, register

__all__ = [
    "Conformal",
    "ConformalParams",
    "conformal_sets",
    "conformal_threshold",
    "nonconformity",
    "thresholds",
]

Floats = NDArray[np.float64]
_BLOCK = 4096
_ROUNDING = 1e-12  # sums of probabilities are that exact


@dataclass(frozen=True)
class ConformalParams:
    """Rate of misses, and how a class is measured against an image."""

    eps: float = 0.01
    variant: Literal["split", "adaptive"] = "split"
    per_class: bool = False

    def __post_init__(self) -> None:
        rules = {
            "eps": (0 < self.eps < 1, "above 0 and below 1"),
            "variant": (self.variant in ("split", "adaptive"), "'split' or 'adaptive'"),
        }
        for name, (fits, rule) in rules.items():
            if not fits:
                seen = f"{name} is {getattr(self, name)!r}"
                raise RecipeError("use 'conformal'", seen, f"It must be {rule}.")


def nonconformity(P: Array, variant: Literal["split", "adaptive"] = "split") -> Floats:
    """How little each class fits each image.

    Parameters
    ----------
    P : array, shape (N, K)
        Probabilities.
    variant : {"split", "adaptive"}
        1 - p, or the sum of the probabilities that are not below p.

    Returns
    -------
    array, shape (N, K), float64

    Examples
    --------
    >>> nonconformity(np.array([[0.25, 0.75]]), "adaptive").tolist()
    [[1.0, 0.75]]
    """
    P = ops.to_numpy(P).astype(np.float64)
    if variant == "split":
        return np.asarray(1 - P)
    order = np.argsort(-P, axis=1, kind="stable")
    ranked = np.take_along_axis(P, order, axis=1)
    total = np.cumsum(ranked, axis=1)
    # Classes of one probability are not told apart: each counts all of them.
    total[:, :-1][ranked[:, :-1] == ranked[:, 1:]] = np.inf
    total = np.minimum.accumulate(total[:, ::-1], axis=1)[:, ::-1]
    found: Floats = np.empty_like(P)
    np.put_along_axis(found, order, total, axis=1)
    return found


def conformal_threshold(alpha: Any, eps: float) -> float:
    """The ceil((n + 1)(1 - eps))-th smallest of n values; infinite where that is more than n.

    Raises
    ------
    UsageError
        For a value that is not a number, which would pass for the largest.

    Examples
    --------
    >>> conformal_threshold([0.3, 0.1, 0.2], 0.25), conformal_threshold([0.1], 0.25)
    (0.3, inf)
    """
    alpha = np.asarray(alpha, np.float64)
    if np.isnan(alpha).any():
        raise UsageError(
            "calibrate on these images", "a score is NaN", "Leave the image out, or score it anew."
        )
    rank = max(1, math.ceil(round((len(alpha) + 1) * (1 - eps), 9)))
    return float(np.partition(alpha, rank - 1)[rank - 1]) if rank <= len(alpha) else math.inf


def thresholds(alpha: Any, y: Any, K: int, eps: float, per_class: bool = False) -> Floats:
    """One threshold for each of K classes, from the values of calibration images of classes y.

    Without ``per_class`` they are all the same. With it, a class of few images, fewer than about
    1 / eps, gets an infinite one: nothing can be promised of it but by keeping it always.
    """
    alpha, y = np.asarray(alpha, np.float64), np.asarray(y)
    if not per_class:
        return np.full(K, conformal_threshold(alpha, eps))
    return np.array([conformal_threshold(alpha[y == k], eps) for k in range(K)])


def conformal_sets(
    P: Array, q: Any, variant: Literal["split", "adaptive"] = "split"
) -> NDArray[np.bool_]:
    """Which classes are kept, shape (N, K); the most probable one where none would be.

    Parameters
    ----------
    P : array, shape (N, K)
    q : float or array, shape (K,)
        Threshold.
    variant : {"split", "adaptive"}

    Examples
    --------
    >>> conformal_sets(np.array([[0.6, 0.3, 0.1], [0.4, 0.35, 0.25]]), 0.5).tolist()
    [[True, False, False], [True, False, False]]
    """
    kept = nonconformity(P, variant) <= np.asarray(q) + _ROUNDING
    empty = np.flatnonzero(~kept.any(axis=1))
    kept[empty, ops.argmax(ops.to_numpy(P)[empty])] = True
    return np.asarray(kept)


@register
class Conformal(Member):
    """Answer every class that a slower scorer might choose: split conformal prediction.

    Formula, for n unlabeled calibration images, with p = softmax(S), and y_i the answer of the
    slow scorer, the second encoder::

        y_i     = argmax_k <x2_i, W2_k>,  W2_k = unit(sum of weight_m * t2_m over texts of class k)
        alpha(x, c) = 1 - p_c                                      variant="split"
                    = sum of the p_j with p_j >= p_c               variant="adaptive"
        q       = the ceil((n + 1)(1 - eps))-th smallest alpha(x_i, y_i); infinite if that is > n
        answer  = the classes c with alpha(x, c) <= q; the most probable class if there is none

    With ``per_class``, each class c has its own q from the images with y_i = c.

    What is promised is about the second encoder and not about the truth: for an image drawn as the
    calibration images were, its answer is among the classes with probability 1 - eps or more (with
    ``per_class``, for each class it answers). Where it errs, the set may miss the true class. A few
    images promise nothing, and every class is kept: below 1 / eps - 1 of them, in each class with
    ``per_class``.

    Ranks are the kept classes, the most probable first; ``decision`` is "accept". With a level,
    the calibration is made anew for the groups and on the images that are answered; the second
    encoder's group is the one of largest probability, summed over its classes.

    Shapes: S (N, K), X2 (N, D2), second texts (M, D2) to an Answer with as many columns as the
    largest set has classes. Time N*K*D2 to calibrate and N*K*log K to answer.

    Source: Choubey et al., "Conformal Predictor for Improving Zero-Shot Text Classification
    Efficiency", EMNLP 2022, from its abstract: a fast filter before a slow scorer, calibrated on
    what that answers; with the usual split conformal prediction of Papadopoulos et al., "Inductive
    Confidence Machines for Regression", ECML 2002. The adaptive score, here without its random
    part, is that of Romano et al., "Classification with Valid and Adaptive Coverage", NeurIPS 2020;
    q by class that of Vovk, "Conditional Validity of Inductive Conformal Predictors", ACML 2012.

    Parameters
    ----------
    eps : float
        Rate of misses. 0.01, for 500 to 1,000 calibration images (our specification of the paper).
    variant : {"split", "adaptive"}
        "split", as in the paper; "adaptive" makes larger sets for hard images (ours).
    per_class : bool
        False, as in the paper; by class is our extension.

    Attributes
    ----------
    threshold_ : array, shape (K,)
        q of each class.
    n_ : int
        Calibration images.
    agreement_ : float
        Share of them that both answer alike; NaN without any.

    Raises
    ------
    EmbeddingsError
        Where the second vectors do not fit to the images or texts.
    NeedsError
        With a level, for texts without ``node_id``.
    RecipeError
        For a parameter that does not fit.
    UsageError
        For images whose scores are not numbers.

    Examples
    --------
    >>> from byname.stage import SecondTexts
    >>> from byname.taxonomy import Taxonomy
    >>> texts = ClassTexts(np.eye(2), np.array([0, 1]), Taxonomy.from_names(["cat", "dog"]),
    ...                    second_texts=SecondTexts(np.eye(2)))
    >>> batch = Batch(np.eye(2), second=np.eye(2))
    >>> state = State(S=np.log([[0.9, 0.1], [0.6, 0.4]]))
    >>> member = Conformal(eps=0.5).fit(batch, texts, state)
    >>> member.threshold_.round(1).tolist(), member.apply(batch, texts, state).node.tolist()
    ([0.6, 0.6], [[1, -1], [1, 2]])
    """

    stage: ClassVar[StageName] = "decide"
    name = "conformal"
    needs: ClassVar[frozenset[str]] = frozenset({"X", "second", "second_texts"})
    all_ranks: ClassVar[bool] = True
    Params = ConformalParams
    params: ConformalParams
    threshold_: Floats

    def fit(self, batch: Batch, texts: ClassTexts, state: State) -> Self:
        """Calibrate on unlabeled images, with the second encoder's answers."""
        y, n, S = _slow_answers(batch, texts, state), len(batch), state.S
        assert S is not None, "the stages before have scored"
        alpha, same = np.empty(n), np.empty(n, bool)
        for rows in ops.blocks(n, _BLOCK):
            P = _probabilities(S[rows])
            at = np.arange(len(P))
            alpha[rows] = nonconformity(P, self.params.variant)[at, y[rows]]
            same[rows] = P.argmax(axis=1) == y[rows]
        p = self.params
        self.threshold_ = thresholds(alpha, y, texts.n_classes, p.eps, p.per_class)
        self.n_, self.agreement_ = n, float(same.mean()) if n else math.nan
        return self

    def apply(self, batch: Batch, texts: ClassTexts, state: State) -> Answer:
        """Answer with the kept classes as ranks."""
        S = ops.to_numpy(ops.as_float(state.S))
        made = [
            _ranked(S[rows], self.threshold_, self.params.variant)
            for rows in ops.blocks(len(S), _BLOCK)
        ]
        r = max([1, *(columns.shape[1] for columns, _, _ in made)])
        node = np.full((len(S), r), -1, np.intp)
        probability, margin = np.zeros((len(S), r), np.float32), np.zeros(len(S), np.float32)
        leaves = np.append(np.asarray(texts.taxonomy.leaf_index, np.intp), -1)
        for rows, (columns, p, lead) in zip(ops.blocks(len(S), _BLOCK), made, strict=True):
            node[rows, : columns.shape[1]] = leaves[columns]
            probability[rows, : columns.shape[1]], margin[rows] = p, lead
        return Answer(node, probability, margin, np.full(len(S), "accept"))

    def report(self) -> dict[str, Any]:
        """The rate of misses, what it is about, and how the calibration went."""
        if not hasattr(self, "threshold_"):
            return {}
        finite = self.threshold_[np.isfinite(self.threshold_)]
        return {
            "eps": self.params.eps,
            "covers": "the answer of the second encoder",
            "calibration_images": self.n_,
            "agreement": None if math.isnan(self.agreement_) else self.agreement_,
            "threshold": float(np.median(finite)) if len(finite) else None,
            "always_kept": int(np.isinf(self.threshold_).sum()),
        }

    def details(self, batch: Batch, texts: ClassTexts, state: State) -> dict[str, list[Any]]:
        """How many classes each image is answered with."""
        S, sizes = ops.to_numpy(ops.as_float(state.S)), list[int]()
        for rows in ops.blocks(len(S), _BLOCK):
            P = _probabilities(S[rows])
            kept = conformal_sets(P, self.threshold_, self.params.variant)
            sizes += kept.sum(axis=1).tolist()
        return {"set_size": sizes}


def _probabilities(S: Array) -> Floats:
    return np.asarray(ops.softmax(ops.to_numpy(ops.as_float(S)).astype(np.float64)))


def _ranked(
    S: NDArray[Any], q: Floats, variant: Literal["split", "adaptive"]
) -> tuple[NDArray[np.intp], NDArray[np.float32], NDArray[np.float32]]:
    """Columns (n, r) of the kept classes, -1 where there are fewer, with probability and margin."""
    P = _probabilities(S)
    kept = conformal_sets(P, q, variant)
    sizes = kept.sum(axis=1)
    # Kept classes go before all others, even where no probability is left for them.
    S = np.maximum(np.nan_to_num(S, nan=-np.inf), np.finfo(S.dtype).min)
    columns = ops.topk(np.where(kept, S, -np.inf), int(sizes.max(initial=1)))[1]
    filled = np.arange(columns.shape[1]) < sizes[:, None]
    p = np.where(filled, np.take_along_axis(P, columns, axis=1), 0).astype(np.float32)
    top = np.take_along_axis(P, ops.topk(S, 2)[1], axis=1)
    lead = top[:, 0] - (top[:, 1] if top.shape[1] > 1 else 0)
    return np.where(filled, columns, -1), p, lead.astype(np.float32)


def _slow_answers(batch: Batch, texts: ClassTexts, state: State) -> NDArray[np.intp]:
    """Class (N,) that the second encoder answers."""
    own, second, M = texts.second_texts, batch.second, len(texts.class_index)
    shapes = [
        None if x is None else tuple(x.shape) for x in (second, getattr(own, "vectors", None))
    ]
    if (
        own is None
        or second is None
        or shapes
        != [
            (len(batch), wide := own.vectors.shape[-1]),
            (M, wide),
        ]
    ):
        raise EmbeddingsError(
            "calibrate on the second encoder's answers",
            f"its vectors have the shapes {shapes[0]} and {shapes[1]}, for {len(batch)} images and "
            f"{M} texts",
            "Give one row an image and one row a text, of one encoder.",
        )
    if texts.node_id is None and state.W is not None and len(state.W) != texts.n_classes:
        raise NeedsError(
            "calibrate 'conformal' for a level",
            "the texts do not say of which class they are (no node_id), only of which group",
            "Give ClassTexts.node_id, or no level.",
        )
    index, parent = _finest(texts)
    weight = state.weight if state.weight is not None else texts.weight
    W = ops.unit(ops.segment_sum(own.vectors, index, len(parent), weight))
    y = np.empty(len(batch), np.intp)
    grouped = len(np.unique(parent)) < len(parent)
    for rows in ops.blocks(len(batch), _BLOCK):
        S = ops.to_numpy(own.scale * ops.matmul_t(second[rows], W))
        if grouped:
            mass = ops.segment_sum(ops.softmax(S).T, parent, texts.n_classes).T
            y[rows] = ops.argmax(mass)
        else:
            y[rows] = parent[ops.argmax(S)]
    return y


def _finest(texts: ClassTexts) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Number of the class of each text before classes were summed to groups, and their groups.

    A text of a class below the level that is answered names a node that the taxonomy, which is cut
    there, does not have.
    """
    index = ops.to_numpy(texts.class_index)
    below = [""] * len(index)
    if texts.node_id is not None:
        known = {node.id for node in texts.taxonomy.nodes}
        below = ["" if i in known else i for i in texts.node_id]
    keys = sorted({(int(k), b) for k, b in zip(index, below, strict=True) if k >= 0})
    number = {key: i for i, key in enumerate(keys)}
    own = [number.get((int(k), b), -1) for k, b in zip(index, below, strict=True)]
    return np.array(own, np.intp), np.array([k for k, _ in keys], np.intp)
