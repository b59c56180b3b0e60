"""Shared templates, weighed for each class by the images that they assign to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.errors import RecipeError
from byname.stage import Batch, ClassTexts, Member, StageName, State, register
from byname.weigh.grid import TemplateGrid

__all__ = ["Carprt", "CarprtParams"]

Floats = NDArray[np.float64]
_TILE = 1 << 22  # products held at a time


@dataclass(frozen=True)
class CarprtParams:
    """How scores become weights, and what a template scores for a class that it never predicts."""

    temperature: float = 1.0
    empty: Literal["prompt", "zero"] = "prompt"
    unit: bool = False

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise RecipeError(
                "use 'carprt'", f"temperature is {self.temperature}", "Give a number above 0."
            )
        if self.empty not in ("prompt", "zero"):
            raise RecipeError("use 'carprt'", f"empty is '{self.empty}'", "Known: prompt, zero.")


@register
class Carprt(Member):
    """Class-aware prompt reweighting: each class weighs the templates by its own images.

    Formula, for P shared templates with the text t[p,k] of class k in template p, and s the scale::

        L[i,p,k] = s <x_i, t[p,k]>;   c_ip = argmax over k of L[i,p,k]
        a[p,k]   = mean of L[i,p,k] over the images i with c_ip = k
        w[p,k]   = softmax over p of a[p,k] / temperature
        W_k      = sum over p of w[p,k] t[p,k], not brought to length one

    A cell (p, k) that no image hits scores a_p, the mean over all images of max over k of L[i,p,k]
    (``empty="prompt"``); a class that no template predicts is weighed by a_p alone. The published
    code gives such a cell 0 (``"zero"``): hardly any weight, but equal weights for a class without
    any. The bias of the encoder is left out, since it would make 0 the best score. Classes of equal
    logits, as those of the same texts, share the image, so that their order decides nothing.

    With given weights omega_m of the texts, weight_m is omega_m w[p,k] brought back to the sum that
    the omega of the class's shared texts have. As in ``cpe``, texts of one class only
    (``prompt_index`` -1) are not scored and keep their share of the class beside the templates; a
    class that lacks a template is represented there by the mean of its texts, of length one.
    Equal scores, or an infinite temperature, give ``mean_similarity`` (with ``unit`` ``mean``), as
    does a batch without an image.

    Shapes: X (N, D), texts (M, D) to ``weight_`` (M,), W (K, D). Time N*M*D, in tiles of 4 million
    products; no (N, M) array is made.

    Source: "CARPRT: Class-Aware Zero-Shot Prompt Reweighting for Vision-Language Model", ICLR 2026,
    by the specification of its published code (tmlr-group/CARPRT). Assumes that a template's high
    logits for the images that it assigns to a class speak for it there; these may be wrong.

    Parameters
    ----------
    temperature : float
        1, as published, for logits at the encoder's scale.
    empty : {"prompt", "zero"}
        "prompt" is ours, the safer one; "zero" is as published.
    unit : bool
        Whether rows of W are brought to length one, which the published code does not.

    Attributes
    ----------
    weight_ : array, shape (M,)
        Summing to 1 over each class.
    prompts_ : array of int, shape (P,)
        Prompt indices.
    score_, class_weight_ : arrays, shape (P, K)
        a[p,k] and w[p,k].
    hits_ : array, shape (P, K)
        Images that template p assigns to class k; with fractions where classes share one.
    effective_prompts_ : float
        Mean over classes of 1 / sum over p of w[p,k]^2, between 1 and P.

    Raises
    ------
    NeedsError
        Where no text is shared by the classes.
    RecipeError
        For a parameter that does not fit.

    Examples
    --------
    >>> from byname.taxonomy import Taxonomy
    >>> good, flat = np.eye(2), np.array([[0.8, 0.6], [0.6, 0.8]])
    >>> texts = ClassTexts(np.vstack([good, flat]), np.array([0, 1, 0, 1]),
    ...                    Taxonomy.from_names(["cat", "dog"]), np.array([0, 0, 1, 1]), scale=10.0)
    >>> Carprt().fit(Batch(np.eye(2)), texts, State()).class_weight_.round(2).tolist()
    [[0.88, 0.88], [0.12, 0.12]]
    """

    stage: ClassVar[StageName] = "weigh"
    name = "carprt"
    needs = frozenset({"X", "prompt_index"})
    Params = CarprtParams
    params: CarprtParams
    weight_: Floats

    def fit(self, batch: Batch, texts: ClassTexts, state: State) -> Self:
        """Score the templates class by class on the unlabeled images, and weigh the texts."""
        grid = TemplateGrid(texts, "carprt")
        sums, self.hits_ = _assigned(batch, grid)
        missed = np.zeros((grid.P, 1))
        if self.params.empty == "prompt":
            missed = sums.sum(axis=1, keepdims=True) / max(len(batch), 1)
        hit = self.hits_ > 0
        cosine = np.where(hit, sums / np.where(hit, self.hits_, 1), missed)
        self.prompts_ = grid.prompts
        # Less the largest before they are scaled: no scale is then too large.
        behind = cosine - cosine.max(axis=0)
        with np.errstate(over="ignore"):
            self.score_ = texts.scale * cosine
            logits = behind / self.params.temperature * texts.scale
        self.class_weight_ = ops.softmax(logits, axis=0)
        self.effective_prompts_ = float((1 / (self.class_weight_**2).sum(axis=0)).mean())
        self.weight_ = grid.weights(self.class_weight_)
        self._ids = texts.taxonomy.class_ids
        return self

    def report(self) -> dict[str, Any]:
        """How many templates count, of how many, and the classes that no template predicts."""
        if not hasattr(self, "effective_prompts_"):
            return {}
        never = np.flatnonzero(self.hits_.sum(axis=0) == 0)
        return {
            "effective_prompts": self.effective_prompts_,
            "prompts": len(self.prompts_),
            "never_predicted": [self._ids[k] for k in never],
        }

    def apply(self, batch: Batch, texts: ClassTexts, state: State) -> Any:
        """W (K, D), rows at most of length one."""
        W = ops.segment_sum(texts.vectors, texts.class_index, texts.n_classes, self.weight_)
        return ops.unit(W) if self.params.unit else W


def _assigned(batch: Batch, grid: TemplateGrid) -> tuple[Floats, Floats]:
    """Sum of the largest cosines, and number of images, of each template and class (P, K).

    Classes of the same cosine share the image.
    """
    sums, hits = np.zeros((grid.P, grid.K)), np.zeros((grid.P, grid.K))
    for part, Z in grid.tiles():
        count = part.stop - part.start
        n = count * grid.K
        for rows in ops.blocks(len(batch), max(1, _TILE // n)):
            # A row for each pair of an image and a template.
            S = ops.matmul_t(batch.X[rows], Z).reshape(-1, grid.K)
            top = S[ops.like(np.arange(len(S)), S), S.argmax(axis=1)]
            pair, k = np.nonzero(ops.to_numpy(top[:, None] == S))
            share = 1 / np.bincount(pair, minlength=1)[pair]
            cell, largest = pair % count * grid.K + k, ops.to_numpy(top).astype(np.float64)
            sums[part] += np.bincount(cell, share * largest[pair], n).reshape(count, grid.K)
            hits[part] += np.bincount(cell, share, n).reshape(count, grid.K)
    return sums, hits
