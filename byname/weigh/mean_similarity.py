"""The mean of the similarities to a class's texts, instead of the similarity to their mean."""

from __future__ import annotations

from typing import Any

from byname.stage import Batch, ClassTexts, State, register
from byname.weigh.mean import Mean

__all__ = ["MeanSimilarity"]


@register
class MeanSimilarity(Mean):
    """Prompt ensemble over scores ("log-probability" ensemble): W is not brought to length one.

    Formula, with weight_m as in ``mean``::

        W_k = m_k = sum over the texts m of class k of  weight_m * t_m
        <x, W_k>  = sum over the texts m of class k of  weight_m * <x, t_m>

    It differs from ``mean`` by the factor ||m_k|| <= 1 alone: a class whose texts differ much from
    each other scores lower.

    Shapes: texts (M, D) to ``weight_`` (M,) and W (K, D). The images are not looked at.

    Source: Menon & Vondrick, "Visual Classification via Description from Large Language Models",
    ICLR 2023; called "vcd" by Liang & Davis, arXiv 2503.02248.

    Parameters
    ----------
    None.

    Raises
    ------
    PromptError
        For classes without a text of positive weight.

    Examples
    --------
    >>> import numpy as np
    >>> from byname.taxonomy import Taxonomy
    >>> texts = ClassTexts(np.eye(2), np.array([0, 0]), Taxonomy.from_names(["cat"]))
    >>> batch = Batch(np.empty((0, 2)))
    >>> MeanSimilarity().fit(batch, texts, State()).apply(batch, texts, State()).tolist()
    [[0.5, 0.5]]
    """

    name = "mean_similarity"

    def apply(self, batch: Batch, texts: ClassTexts, state: State) -> Any:
        """W (K, D), rows at most of length one."""
        return self.class_means(texts)
