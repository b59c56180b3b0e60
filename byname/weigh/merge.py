"""Several sources of texts, merged by the number of their texts or with an equal say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np

from byname import ops
from byname.errors import RecipeError
from byname.stage import Batch, ClassTexts, State, register
from byname.weigh.mean import Mean

__all__ = ["Merge", "MergeParams"]


@dataclass(frozen=True)
class MergeParams:
    """How much each source of texts counts."""

    mix: Literal["count", "equal"] = "count"

    def __post_init__(self) -> None:
        if self.mix not in ("count", "equal"):
            raise RecipeError("use 'merge'", f"mix is '{self.mix}'", "Known: count, equal.")


@register
class Merge(Mean):
    """Templates, descriptions and other kinds of texts of a class in one vector.

    Formula, where a source is a kind of texts, G_k the sources that class k has, and omega_m the
    given weight of text m::

        count:  weight_m = omega_m / sum of omega over the texts of the class
        equal:  weight_m = omega_m / sum of omega over the texts of its kind in the class / |G_k|
        W_k     = unit(sum over the texts m of class k of  weight_m * t_m)

    "count" is ``mean``: 50 descriptions and 80 templates count 50 to 80. "equal" gives each source
    of a class the same say, however many texts it has; a kind whose texts all have the weight 0 is
    no source. With one kind, or none known, both are ``mean``.

    Shapes: texts (M, D) with their ``kind`` (M,) to ``weight_`` (M,) and W (K, D), unit rows. The
    images are not looked at.

    Source: Pratt et al., "What does a platypus look like? Generating customized prompts for
    zero-shot image classification" (CuPL), ICCV 2023, which pools by count; "equal" is ours.

    Parameters
    ----------
    mix : {"count", "equal"}
        "count" is the published way.

    Attributes
    ----------
    weight_ : array, shape (M,)
        Summing to 1 over each class.

    Raises
    ------
    PromptError
        For classes without a text of positive weight.
    RecipeError
        For an unknown ``mix``.

    Examples
    --------
    >>> from byname.taxonomy import Taxonomy
    >>> texts = ClassTexts(np.eye(3), np.zeros(3, int), Taxonomy.from_names(["cat"]),
    ...                    kind=("template", "template", "description"))
    >>> Merge(mix="equal").fit(Batch(np.eye(3)), texts, State()).weight_.tolist()
    [0.25, 0.25, 0.5]
    """

    name = "merge"
    uses: ClassVar[frozenset[str]] = frozenset({"kind"})
    Params = MergeParams
    params: MergeParams
    _shares: dict[str, float]

    def fit(self, batch: Batch, texts: ClassTexts, state: State) -> Self:
        """Set ``weight_`` from the kinds, and the weights that came with the texts."""
        super().fit(batch, texts, state)
        index, K = ops.to_numpy(texts.class_index), texts.n_classes
        names, kind = np.unique(
            [""] * len(index) if texts.kind is None else texts.kind, return_inverse=True
        )
        used = np.flatnonzero(self.weight_ > 0)
        cell = index[used] * len(names) + kind[used]
        total = np.bincount(cell, self.weight_[used], K * len(names))
        sources = (total.reshape(K, -1) > 0).sum(axis=1)
        # Where a class has one source its weights stay as they are, to the last bit.
        many = sources[index[used]] > 1
        if self.params.mix == "equal":
            rows, cell = used[many], cell[many]
            self.weight_[rows] /= total[cell] * sources[index[rows]]
        share = np.bincount(kind[used], self.weight_[used], len(names)) / K
        self._shares = {str(name): float(s) for name, s in zip(names, share, strict=True)}
        return self

    def report(self) -> dict[str, Any]:
        """Mean share of the class vectors that each kind of texts has."""
        return {"shares": self._shares} if hasattr(self, "_shares") else {}
