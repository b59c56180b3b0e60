"""One vector a class: the mean of its texts, of length one."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.errors import PromptError
from byname.stage import Batch, ClassTexts, Member, StageName, State, register

__all__ = ["Mean", "class_weights"]


def class_weights(texts: ClassTexts) -> NDArray[np.float64]:
    """Weight of each text within its class: non-negative, summing to 1 over each class.

    Parameters
    ----------
    texts : ClassTexts
        With M texts; ``weight`` counts as 1 where absent, a text of no class weighs 0.

    Returns
    -------
    array, shape (M,)

    Raises
    ------
    PromptError
        For a weight that is negative or not finite, and for classes without a text that counts.
    """
    index = ops.to_numpy(texts.class_index)
    given = np.ones(len(index)) if texts.weight is None else ops.to_numpy(texts.weight)
    weight = np.where(index >= 0, given, 0.0).astype(np.float64)
    wrong = np.flatnonzero(~(np.isfinite(weight) & (weight >= 0)))
    if len(wrong):
        raise PromptError(
            "weigh the texts",
            f"text {wrong[0]} has the weight {weight[wrong[0]]}",
            "Give weights that are finite and not negative.",
        )
    used = index >= 0
    # Divided by the largest first: weights may be as small or as large as a float can be.
    top = np.zeros(texts.n_classes)
    np.maximum.at(top, index[used], weight[used])
    empty = np.flatnonzero(top == 0)
    if len(empty):
        ids = [repr(texts.taxonomy.classes[k].id) for k in empty[:5]]
        more = f" and {len(empty) - 5} more" if len(empty) > 5 else ""
        raise PromptError(
            "weigh the texts",
            f"no text, or only texts of weight 0, for the classes {', '.join(ids)}{more}",
            "Give each class at least one text of positive weight.",
        )
    weight[used] /= top[index[used]]
    total = np.bincount(index[used], weight[used], minlength=texts.n_classes)
    weight[used] /= total[index[used]]
    return weight


@register
class Mean(Member):
    """Embedding-space prompt ensemble: every text counts by its given weight.

    Formula, with omega_m the given weight of text m (1 where none is given)::

        weight_m = omega_m / sum of omega over the texts of the class of m
        m_k      = sum over the texts m of class k of  weight_m * t_m
        W_k      = m_k / ||m_k||                       (zero stays zero)

    Shapes: texts (M, D) and their classes (M,) to ``weight_`` (M,) and W (K, D). Texts of no class
    (class index -1) weigh 0. The images are not looked at.

    Source: Radford et al., "Learning Transferable Visual Models From Natural Language
    Supervision", ICML 2021, section 3.1.4; called "flat" by Liang & Davis, arXiv 2503.02248.

    Parameters
    ----------
    None.

    Raises
    ------
    PromptError
        For classes without a text of positive weight.

    Examples
    --------
    >>> from byname.taxonomy import Taxonomy
    >>> texts = ClassTexts(np.eye(2), np.array([0, 0]), Taxonomy.from_names(["cat"]))
    >>> batch = Batch(np.empty((0, 2)))
    >>> Mean().fit(batch, texts, State()).apply(batch, texts, State()).round(3).tolist()
    [[0.707, 0.707]]
    """

    stage: ClassVar[StageName] = "weigh"
    name = "mean"
    weight_: NDArray[np.float64]

    def fit(self, batch: Batch, texts: ClassTexts, state: State) -> Self:
        """Set ``weight_`` from the weights that came with the texts."""
        self.weight_ = class_weights(texts)
        return self

    def apply(self, batch: Batch, texts: ClassTexts, state: State) -> Any:
        """W (K, D), unit rows."""
        return ops.unit(self.class_means(texts))

    def class_means(self, texts: ClassTexts) -> Any:
        """m_k (K, D), not unit rows."""
        return ops.segment_sum(texts.vectors, texts.class_index, texts.n_classes, self.weight_)
