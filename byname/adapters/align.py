"""Text-to-Concept: any vision model's features in the image space of a CLIP-like encoder."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from byname import ops
from byname.adapters.ridge import Affine, check_ridge, fit_ridge
from byname.adapters.rows import (
    Adapter,
    as_rows,
    by_content,
    check_rules,
    is_number,
    is_whole,
    numbered,
    paired,
)
from byname.adapters.store import (
    check_shapes,
    fingerprint,
    fitting,
    load_arrays,
    save_arrays,
    told_number,
)
from byname.adapters.towers import TwoTowers, check_width
from byname.encoders.base import Encoder
from byname.errors import UsageError

__all__ = [
    "ConceptDrift",
    "LinearAligner",
    "aligned_encoder",
    "concept_logic",
    "concept_similarity",
    "drift",
]

Array = Any
_BLOCK = 8192
_KIND = "LinearAligner"


class LinearAligner(Adapter):
    """An affine map from one feature space to another, learned from unlabeled images.

    Formula, with c1, c2 the factors that bring F and G to one variance::

        W, b = argmin ||c1 F W + b - c2 G||^2 / n + ridge ||W||^2
        g(f) = unit(f W c1/c2 + b/c2)

    Complexity: one eigenvalue problem of size min(n, a), twice: the first is fitted without the
    held-out pairs, on which R^2 is measured, the second with all of them and the same ridge.

    Parameters
    ----------
    ridge : float or "auto"
        Strength, in units of the common variance 4.5. Default "auto": of 10^-6 .. 10^4 the one of
        least leave-one-out error, which needs no label and is strong where n < a. The paper ran
        SGD with weight decay 5e-4; ours is the same optimum without a step size.
    holdout : float
        Share of the images on which R^2 is measured, with all their pairs; at least one image.
        Rows of F that are the same are one image. Default 0.1, ours.
    seed : int
        Draws the held-out images, by what their rows hold: the order of the pairs does not matter.

    Attributes
    ----------
    weight_ : array, shape (a, d)
    bias_ : array, shape (d,)
    ridge_ : float
    r2_ : float
        1 - squared error / squared distance from the mean, on the held-out pairs: 1 is perfect,
        0 is no better than always answering with the mean. Look at it before you trust a result.
        Where all rows of F are the same none can be held out: 0, or 1 if those of G are too.
    n_features_in_ : int

    Notes
    -----
    Source: Moayeri et al., "Text-To-Concept (and Back) via Cross-Model Alignment", ICML 2023. The
    released code multiplies b by c1/c2, which is right only where c1 = 1; here it is 1/c2.
    The images need no label and need not show the classes, but should look alike.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> F = rng.standard_normal((200, 8))
    >>> aligner = LinearAligner().fit(F, F @ rng.standard_normal((8, 5)) + 3)
    >>> round(aligner.r2_, 6), aligner.transform(F).shape
    (1.0, (200, 5))
    """

    weight_: NDArray[Any]
    bias_: NDArray[Any]
    ridge_: float
    r2_: float
    n_features_in_: int

    def __init__(
        self, ridge: float | Literal["auto"] = "auto", holdout: float = 0.1, seed: int = 0
    ) -> None:
        self.ridge = ridge
        self.holdout = holdout
        self.seed = seed

    def fit(self, F: Array, G: Array) -> Self:
        """Learn the map.

        Parameters
        ----------
        F : array, shape (n, a)
            Features of any vision model, n >= 3.
        G : array, shape (n, d)
            Features of the same images in the space to reach.

        Raises
        ------
        UsageError
            For settings out of range, numbers of rows that differ, and NaN or enormous values.
        """
        asked = "fit the aligner"
        self._check(asked)
        X, Y = paired(F, G, asked, ("features", "target features"), 3)
        order = by_content(X, Y, self.seed)
        X, Y = X[order], Y[order]
        images = numbered(X)
        held = images < _held_out(int(images.max()) + 1, self.holdout)
        fitted = ~held if held.any() else np.ones(len(X), bool)
        held = held if held.any() else fitted
        first = fit_ridge(X[fitted], Y[fitted], self.ridge, self.seed)
        r2 = _r2(X[held], Y[held], first, Y[fitted].mean(axis=0, dtype=np.float64))
        whole = fit_ridge(X, Y, first.ridge, self.seed)
        kind = np.result_type(X, Y)
        self._learn(
            weight_=whole.weight.astype(kind),
            bias_=whole.bias.astype(kind),
            ridge_=whole.ridge,
            r2_=r2,
            n_features_in_=X.shape[1],
        )
        return self

    def _check(self, asked: str) -> None:
        check_ridge(self.ridge, asked)
        share = is_number(self.holdout) and 0 < self.holdout < 1
        rules = {
            "holdout": (share, "a share between 0 and 1"),
            "seed": (is_whole(self.seed, 0), "a whole number, 0 or more"),
        }
        check_rules(self, asked, rules)

    def transform(self, F: Array) -> Array:
        """Unit rows (n, d) in the target's space; an all-zero row, which knows nothing, stays zero.

        Raises
        ------
        UsageError
            Before ``fit``, for another width, and for NaN or infinite values.
        """
        asked = "align these features"
        self._need_fit("weight_", asked)
        rows = as_rows(F, asked, "features", self.n_features_in_)
        out = np.empty((len(rows), len(self.bias_)), rows.dtype)
        weight, bias = (a.astype(rows.dtype, copy=False) for a in (self.weight_, self.bias_))
        for part in ops.blocks(len(rows), _BLOCK):
            known = np.abs(rows[part]).max(axis=1, keepdims=True) > 0
            out[part] = ops.unit(rows[part] @ weight + bias) * known
        return ops.like(out, F)

    def fit_transform(self, F: Array, G: Array) -> Array:
        """Learn the map, and apply it to the same features."""
        return self.fit(F, G).transform(F)

    def save(self, path: str | Path) -> None:
        """Write one safetensors file; :meth:`load` reads it."""
        self._need_fit("weight_", f"save '{path}'")
        about = {**self.get_params(), "ridge_": self.ridge_, "r2_": self.r2_}
        save_arrays(path, _KIND, {"weight": self.weight_, "bias": self.bias_}, about)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what :meth:`save` wrote; nothing in it is executed.

        Raises
        ------
        EncoderError
            For a file that is missing, damaged, or something else.
        """
        arrays, about = load_arrays(path, _KIND, frozenset({"weight", "bias"}))
        weight, bias = arrays["weight"], arrays["bias"]
        with fitting(path):
            check_shapes(arrays, {"weight": (len(weight), bias.size), "bias": (bias.size,)})
            made = cls(**{name: about[name] for name in cls._parameter_names()})
            made._check("use its settings")
            made._learn(
                weight_=weight,
                bias_=bias,
                ridge_=told_number(about, "ridge_", positive=True),
                r2_=told_number(about, "r2_"),
                n_features_in_=len(weight),
            )
        return made


def _held_out(images: int, share: float) -> int:
    return min(max(1, round(share * images)), max(images - 2, images // 2))


def _r2(X: NDArray[Any], Y: NDArray[Any], found: Affine, mean: NDArray[Any]) -> float:
    off, spread = Y - (X @ found.weight + found.bias), Y - mean
    total = float(np.einsum("ij,ij->", spread, spread))
    error = float(np.einsum("ij,ij->", off, off))
    # Targets that are all the same can be met or missed, but not explained.
    return 1 - error / total if total > 1e-20 * Y.size else float(error <= 1e-12 * Y.size)


def aligned_encoder(encoder: Encoder, aligner: LinearAligner, text_encoder: Encoder) -> Encoder:
    """An encoder whose images go through a vision model and the aligner.

    Parameters
    ----------
    encoder : Encoder
        The vision model, with the rows that the aligner was fitted with; its texts are not used.
    aligner : LinearAligner
        From its vectors to those of the images of ``text_encoder``.
    text_encoder : Encoder
        Its texts, scale, bias and context length are taken over; its images are not used.

    Raises
    ------
    EncoderError
        For widths that do not fit.
    """
    aligner._need_fit("weight_", "use the aligner")
    aligner = copy.deepcopy(aligner)  # fitted again, it would not be what the fingerprint says
    dim = len(aligner.bias_)
    check_width(encoder, aligner.n_features_in_, "features")
    check_width(text_encoder, dim, "target")
    return TwoTowers(
        encoder,
        text_encoder,
        dim=dim,
        fingerprint=fingerprint({"weight": aligner.weight_, "bias": aligner.bias_}, _KIND),
        image_map=aligner.transform,
    )


def concept_similarity(X: Array, concepts: Array) -> Array:
    """Cosine (N, C) of each image with each concept's text.

    Examples
    --------
    >>> concept_similarity(np.array([[3.0, 4.0]]), np.eye(2)).tolist()
    [[0.6, 0.8]]
    """
    return ops.matmul_t(ops.unit(X), ops.unit(concepts))


def _similarity(X: Array, concepts: Array, asked: str) -> NDArray[np.float64]:
    texts = as_rows(concepts, asked, "concepts")
    images = as_rows(X, asked, "images", texts.shape[1])
    found: NDArray[np.float64] = concept_similarity(images, texts).astype(float)
    return found


def concept_logic(
    X: Array, concepts: Array, names: Sequence[str], rules: Mapping[str, tuple[str, float]]
) -> NDArray[np.intp]:
    """The images that every rule holds for, best first: search by several concepts at once.

    Formula, with S the cosines of the images with a concept: the rule (">", a) holds where
    S > mean(S) + a * std(S), the rule ("<", a) where S < mean(S) + a * std(S). An image is as good
    as the rule that it meets by the fewest standard deviations; equal ones keep their order. No
    image is above or below the mean in a concept that all images are equally like.

    Parameters
    ----------
    X : array, shape (N, D)
        Images; mean and standard deviation are over them.
    concepts : array, shape (C, D)
        Text vectors.
    names : sequence of str, length C
    rules : dict of (str, float)
        By the name of a concept: ">" or "<", and a, which may be negative.

    Returns
    -------
    array of int
        Row numbers of X.

    Raises
    ------
    UsageError
        For no rule or an unknown one, another number of names, and NaN or infinite values.

    Examples
    --------
    >>> X = np.array([[1.0, 0.0, 1.0], [1.0, 1.0, 0.0], [0.0, 1.0, 1.0], [1.0, 0.1, 0.0]])
    >>> concept_logic(X, np.eye(3), ["dog", "snow", "sea"], {"dog": (">", 0), "snow": ("<", 0)})
    array([3, 0])
    """
    asked = "search images by concepts"
    S = _similarity(X, concepts, asked)
    good = bool(rules) and all(r[0] in (">", "<") and is_number(r[1]) for r in rules.values())
    if not good or not set(rules) <= set(names) or not len(set(names)) == len(names) == S.shape[1]:
        seen = f"the rules are {dict(rules)!r:.160}, for {S.shape[1]} concepts, {len(names)} names"
        raise UsageError(asked, seen, "Give a rule such as {'snow': ('>', 1)} for a name or more.")
    worst = np.full(len(S), np.inf)
    for name, (sign, a) in rules.items():
        s = S[:, list(names).index(name)]
        flat = len(s) < 2 or np.ptp(s) <= 1e-6  # what is less is rounding
        margin = np.zeros(len(s)) if flat else (s - s.mean()) / s.std() - a
        worst = np.minimum(worst, margin if sign == ">" else -margin)
    order = np.argsort(-worst, kind="stable")
    return order[worst[order] > 0]


@dataclass(frozen=True)
class ConceptDrift:
    """One concept in two sets of images: mean cosines, Welch's t (after minus before) and its p."""

    concept: str
    before: float
    after: float
    t: float
    p: float


def drift(before: Array, after: Array, concepts: Array, names: Sequence[str]) -> list[ConceptDrift]:
    """Which concepts two sets of images differ in: a t-test each, the strongest first.

    Welch's two-sample test, which lets the variances differ. The p are not corrected for the
    number of concepts. Concepts that are constant in both sets come last where their means agree
    (t = 0, p = 1) and first where they do not (t infinite, p = 0).

    Parameters
    ----------
    before, after : arrays, shapes (N, D) and (N', D)
        Two or more images each.
    concepts : array, shape (C, D)
        Text vectors.
    names : sequence of str, length C

    Raises
    ------
    UsageError
        For fewer than two images, another number of names, and NaN or infinite values.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> sunny, snowy = rng.normal([1, 0], 0.1, (9, 2)), rng.normal([1, 1], 0.1, (9, 2))
    >>> [d.concept for d in drift(sunny, snowy, np.array([[0.6, 0.8], [0, 1]]), ["sky", "snow"])]
    ['snow', 'sky']
    """
    asked = "compare two sets of images"
    A, B = (_similarity(x, concepts, asked) for x in (before, after))
    if min(len(A), len(B)) < 2 or len(names) != A.shape[1]:
        seen = f"{len(A)} and {len(B)} images, {A.shape[1]} concepts and {len(names)} names"
        raise UsageError(asked, seen, "Give two images a set or more.")
    a, b = A.mean(axis=0), B.mean(axis=0)
    with np.errstate(all="ignore"):
        error = np.sqrt(A.var(axis=0, ddof=1) / len(A) + B.var(axis=0, ddof=1) / len(B))
        flat = error <= 1e-12
        gap = np.where(flat & (np.abs(b - a) <= 1e-12), 0.0, b - a)
        t = np.where(flat, np.where(gap == 0, 0.0, np.sign(gap) * np.inf), gap / error)
        va, vb = A.var(axis=0, ddof=1) / len(A), B.var(axis=0, ddof=1) / len(B)
        freedom = (va + vb) ** 2 / (va**2 / (len(A) - 1) + vb**2 / (len(B) - 1))
        p = np.where(flat, (gap == 0).astype(float), 2 * stats.t.sf(np.abs(t), freedom))
    rows = zip(names, a.tolist(), b.tolist(), t.tolist(), p.tolist(), strict=True)
    return sorted((ConceptDrift(*row) for row in rows), key=lambda d: -abs(d.t))
