"""Shared templates, weighed by how strongly the images answer to them, without the bias."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.errors import EmbeddingsError, NeedsError, RecipeError
from byname.stage import Batch, ClassTexts, Member, StageName, State, register
from byname.stream import reduce_texts
from byname.weigh.grid import TemplateGrid

__all__ = ["Zpe", "ZpeParams"]

Floats = NDArray[np.float64]
Mode = Literal["auto", "both", "test", "reference", "none"]
_MODES = ("auto", "both", "test", "reference", "none")
_BLOCK = 4096  # images at a time
_ENOUGH = 10  # images a class for a bias from the test images
_ROUNDING = 1e-6  # mean cosines that differ by less are equal


@dataclass(frozen=True)
class ZpeParams:
    """Where the bias is learned, and how scores become weights."""

    mode: Mode = "auto"
    select: float | None = None
    temperature: float = 1.0
    unit: bool = False

    def __post_init__(self) -> None:
        if self.mode not in _MODES:
            raise RecipeError("use 'zpe'", f"mode is '{self.mode}'", f"Known: {', '.join(_MODES)}.")
        if self.select is not None and not np.isfinite(self.select):
            raise RecipeError(
                "use 'zpe'", f"select is {self.select}", "Give a number of deviations, or none."
            )
        if not self.temperature > 0:
            raise RecipeError(
                "use 'zpe'", f"temperature is {self.temperature}", "Give a number above 0."
            )


@register
class Zpe(Member):
    """Zero-shot prompt ensembling: templates count by their largest debiased logits.

    Formula, for P shared templates with the text t[p,k] of class k in template p, and s the scale::

        L[i,p,k] = s <x_i, t[p,k]>
        B[p,k]   = the mean of L over images i, here or in the reference, or half of each
        a_p      = mean over i of max over k of ( L[i,p,k] - B[p,k] )
        w_p      = softmax over p of a_p / temperature
                   with ``select``: over p with a_p > median(a) + select * MAD(a) alone
        W_k      = sum over p of w_p t[p,k], not brought to length one

    MAD is the median absolute deviation, not rescaled. The mean of L is the logit of the mean
    image b, so L - B = s <x_i - b, t[p,k]>: the first pass over the images is their mean, the
    second one product for each template. W gives the sum over p of w_p L[i,p,k] exactly.

    With given weights omega_m of the texts, weight_m is omega_m w_p brought back to the sum that
    the omega of the class's shared texts have. As in ``cpe``, texts of one class only
    (``prompt_index`` -1) are not scored and keep their share of the class beside the templates; a
    class that lacks a template is represented there by the mean of its texts, of length one.
    Equal scores, or an infinite temperature, give ``mean_similarity`` (with ``unit`` ``mean``).

    Falls back to equal weights without an image; to all templates, where ``select`` keeps none.

    Shapes: X (N, D), texts (M, D), reference (R, D) to ``weight_`` (M,), W (K, D). Time N*M*D, in
    tiles of 4096 texts; no (N, M) array is made. Batch.reference is looked at where it is given.

    Source: Allingham et al., "A Simple Zero-shot Prompt Weighting Technique to Improve Prompt
    Ensembling in Text-Image Models", ICML 2023. Assumes that a template which moves the best class
    far above its usual logit separates classes. That rewards spread as such: a template whose
    texts are scattered at random can score highest.

    Parameters
    ----------
    mode : {"auto", "both", "test", "reference", "none"}
        Images that the bias is learned from: these, the reference, or half of each ("both", the
        paper's default, there with 20,000 images of LAION). "auto" is "both" where a reference is
        given, else "test". The mean of few images is near to some of their classes: fewer than
        10 images a class make a warning in the report.
    select : float or None
        None weighs all templates. The paper selects with 0.5 on ImageNet and its shifts and with
        2.0 on fine-grained sets; which of the two a new set needs cannot be seen without labels.
    temperature : float
        1, as in the paper. At a scale of 100 a few units of a_p leave one template; raise it where
        ``effective_prompts`` is small.
    unit : bool
        Whether rows of W are brought to length one, which the paper does not.

    Attributes
    ----------
    weight_ : array, shape (M,)
        Summing to 1 over each class.
    prompts_, score_, prompt_weight_ : arrays, shape (P,)
        Prompt indices, a_p and w_p.
    effective_prompts_ : float
        1 / sum of w_p^2, between 1 and P.
    mode_ : str
        The mode that was used.

    Raises
    ------
    NeedsError
        Where no text is shared by the classes, or a mode asks for a reference that is not given.
    EmbeddingsError
        For a reference of another width.
    RecipeError
        For a parameter that does not fit.

    Examples
    --------
    >>> from byname.taxonomy import Taxonomy
    >>> good, flat = np.eye(2), np.array([[0.8, 0.6], [0.6, 0.8]])
    >>> texts = ClassTexts(np.vstack([good, flat]), np.array([0, 1, 0, 1]),
    ...                    Taxonomy.from_names(["cat", "dog"]), np.array([0, 0, 1, 1]), scale=4.0)
    >>> Zpe().fit(Batch(np.eye(2)), texts, State()).prompt_weight_.round(2).tolist()
    [0.83, 0.17]
    """

    stage: ClassVar[StageName] = "weigh"
    name = "zpe"
    needs = frozenset({"X", "prompt_index"})
    uses = frozenset({"reference"})
    Params = ZpeParams
    params: ZpeParams
    weight_: Floats

    def fit(self, batch: Batch, texts: ClassTexts, state: State) -> Self:
        """Score the templates on the unlabeled images, and weigh the texts."""
        self.mode_ = self._mode(batch)
        grid = TemplateGrid(texts, "zpe")
        self.prompts_, best = grid.prompts, _largest(batch, grid, self._bias(batch))
        # Less the largest before they are scaled: no scale is then too large.
        behind = best - best.max()
        with np.errstate(over="ignore"):
            self.score_ = texts.scale * best
            logits = behind / self.params.temperature * texts.scale
        if self.params.select is not None:
            middle = np.median(best)
            floor = middle + self.params.select * np.median(np.abs(best - middle)) + _ROUNDING
            kept = best > floor
            logits = np.where(kept | ~kept.any(), logits, -np.inf)
        self.prompt_weight_ = ops.softmax(logits)
        self.effective_prompts_ = float(1 / (self.prompt_weight_**2).sum())
        self.weight_ = grid.weights(np.repeat(self.prompt_weight_[:, None], grid.K, axis=1))
        self._few = self.mode_ in ("both", "test") and len(batch) < _ENOUGH * grid.K
        self._seen = f"{len(batch)} images for {grid.K} classes"
        return self

    def report(self) -> dict[str, Any]:
        """How many templates count, of how many, the mode, and a warning or None."""
        if not hasattr(self, "effective_prompts_"):
            return {}
        warning = (
            f"{self._seen}: with fewer than {_ENOUGH} a class the bias is that of some classes; "
            "give reference images"
        )
        return {
            "effective_prompts": self.effective_prompts_,
            "prompts": len(self.prompts_),
            "mode": self.mode_,
            "warning": warning if self._few else None,
        }

    def apply(self, batch: Batch, texts: ClassTexts, state: State) -> Any:
        """W (K, D), rows at most of length one."""
        W = ops.segment_sum(texts.vectors, texts.class_index, texts.n_classes, self.weight_)
        return ops.unit(W) if self.params.unit else W

    def _mode(self, batch: Batch) -> str:
        mode, reference = self.params.mode, batch.reference
        given = reference is not None and len(reference) > 0
        if mode == "auto":
            return "both" if given else "test"
        if mode in ("both", "reference") and not given:
            raise NeedsError(
                f"use 'zpe[mode={mode}]'",
                "it needs 'reference', which this run does not have",
                "Give reference images, or use mode=test.",
            )
        return mode

    def _bias(self, batch: Batch) -> Any:
        """The image (D,) whose logits are the bias; None where there is no bias."""
        parts = {"both": [batch.X, batch.reference], "test": [batch.X], "none": []}
        chosen = parts.get(self.mode_, [batch.reference])
        for images in chosen:
            if images.shape[1] != batch.X.shape[1]:
                raise EmbeddingsError(
                    "use the reference images",
                    f"they are {images.shape[1]} wide, the images {batch.X.shape[1]}",
                    "Both must come from one encoder.",
                )
        means = [
            ops.segment_mean(ops.like(images, batch.X), np.zeros(len(images), np.intp), 1)[0]
            for images in chosen
        ]
        return sum(means) / len(means) if means else None


def _largest(batch: Batch, grid: TemplateGrid, bias: Any) -> Floats:
    """Mean over images of the largest cosine of each template (P,), less that of ``bias``."""
    total = np.zeros(grid.P)
    for part, Z in grid.tiles():
        count = part.stop - part.start
        index = np.repeat(np.arange(count), grid.K)
        for rows in ops.blocks(len(batch), _BLOCK):
            X = ops.as_float(batch.X[rows])
            best = reduce_texts(X if bias is None else X - bias, Z, index, count, "max")
            total[part] += ops.to_numpy(best).sum(axis=0, dtype=np.float64)
    return total / max(len(batch), 1)
