"""Text-to-Concept: any vision model's features in the image space of a CLIP-like encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from byname import ops
from byname.adapters.ridge import Affine, check_ridge, fit_ridge
from byname.adapters.rows import Adapter, as_rows, paired
from byname.adapters.store import fingerprint, load_arrays, save_arrays
from byname.adapters.towers import TwoTowers, check_width
from byname.encoders.base import Encoder
from byname.errors import EncoderError, UsageError

__all__ = ["ConceptDrift", "LinearAligner", "aligned_encoder", "concept_similarity", "drift"]

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
        Share of pairs on which R^2 is measured, at least one pair. Default 0.1, ours.
    seed : int
        Draws the held-out pairs.

    Attributes
    ----------
    weight_ : array, shape (a, d)
    bias_ : array, shape (d,)
    ridge_ : float
    r2_ : float
        1 - squared error / squared distance from the mean, on the held-out pairs: 1 is perfect,
        0 is no better than always answering with the mean. Look at it before you trust a result.
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
            For settings out of range, numbers of rows that differ, and NaN or infinite values.
        """
        asked = "fit the aligner"
        check_ridge(self.ridge, asked)
        if not 0 < self.holdout < 1:
            raise UsageError(asked, f"holdout is {self.holdout!r}", "Use a share between 0 and 1.")
        X, Y = paired(F, G, asked, ("features", "target features"), 3)
        n = len(X)
        held = np.zeros(n, bool)
        count = min(max(1, round(self.holdout * n)), n - 2)
        held[np.random.default_rng(self.seed).permutation(n)[:count]] = True
        first = fit_ridge(X[~held], Y[~held], self.ridge, self.seed)
        self.r2_ = _r2(X[held], Y[held], first, Y[~held].mean(axis=0, dtype=np.float64))
        whole = fit_ridge(X, Y, first.ridge, self.seed)
        self.weight_ = whole.weight.astype(np.result_type(X, Y))
        self.bias_ = whole.bias.astype(self.weight_.dtype)
        self.ridge_ = whole.ridge
        self.n_features_in_ = X.shape[1]
        self._remember()
        return self

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
        if weight.ndim != 2 or bias.shape != weight.shape[1:]:
            seen = f"its weight is {weight.shape}, its bias {bias.shape}"
            raise EncoderError(f"read the adapter '{path}'", seen, "Save it again.")
        made = cls(**{name: about[name] for name in cls._parameter_names() if name in about})
        made.weight_, made.bias_, made.n_features_in_ = weight, bias, len(weight)
        made.ridge_, made.r2_ = float(about.get("ridge_", 0)), float(about.get("r2_", np.nan))
        made._remember()
        return made


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
        For fewer than two images, or another number of names.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> sunny, snowy = rng.normal([1, 0], 0.1, (9, 2)), rng.normal([1, 1], 0.1, (9, 2))
    >>> [d.concept for d in drift(sunny, snowy, np.array([[0.6, 0.8], [0, 1]]), ["sky", "snow"])]
    ['snow', 'sky']
    """
    A, B = (ops.to_numpy(concept_similarity(x, concepts)).astype(float) for x in (before, after))
    if min(len(A), len(B)) < 2 or len(names) != A.shape[1]:
        seen = f"{len(A)} and {len(B)} images, {A.shape[1]} concepts and {len(names)} names"
        raise UsageError("compare two sets of images", seen, "Give two images a set or more.")
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
