"""A match is worth the cosine between the image and its class, times the encoder's scale."""

from __future__ import annotations

from typing import Any, ClassVar

from byname import ops
from byname.stage import Batch, ClassTexts, Member, StageName, State, register

__all__ = ["Cosine"]


@register
class Cosine(Member):
    """Scaled inner products, as the encoder was trained with.

    Formula::

        S = scale * X W^T + bias

    Shapes: X (N, D), W (K, D) to S (N, K), float32 (float64 where X and W both are). It is a
    cosine where the rows of W have length one.

    Source: Radford et al., "Learning Transferable Visual Models From Natural Language
    Supervision", ICML 2021; the bias is that of Zhai et al., "Sigmoid Loss for Language Image
    Pre-Training", ICCV 2023, and 0 for other encoders.

    Parameters
    ----------
    None. ``scale`` and ``bias`` are the encoder's and come with the texts.

    Examples
    --------
    >>> import numpy as np
    >>> from byname.taxonomy import Taxonomy
    >>> texts = ClassTexts(np.eye(2), np.array([0, 1]), Taxonomy.from_names(["cat", "dog"]))
    >>> Cosine().apply(Batch(np.array([[0.6, 0.8]])), texts, State(W=texts.vectors)).tolist()
    [[60.0, 80.0]]
    """

    stage: ClassVar[StageName] = "score"
    name = "cosine"

    def apply(self, batch: Batch, texts: ClassTexts, state: State) -> Any:
        """S (N, K)."""
        return ops.scaled(batch.X, state.W, texts.scale, texts.bias)
