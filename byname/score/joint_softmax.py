"""The texts of all classes compete in one softmax; a class scores the mean of its texts' shares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.score.textparts import shown_unsaid, text_weights
from byname.stage import Batch, ClassTexts, Member, StageName, State, register
from byname.stream import reduce_texts

__all__ = ["JointSoftmax", "JointSoftmaxParams"]


@dataclass(frozen=True)
class JointSoftmaxParams:
    """Whether all classes are to count with as many texts."""

    equal_counts: bool = False


@register
class JointSoftmax(Member):
    """Mean over the texts of a class of their probabilities among the texts of all classes.

    Formula, with w_m the weights of the texts, which sum to 1 over a class::

        p_m = softmax over all texts of (scale * <x, t_m> + bias)
        S_k = log sum over the texts m of class k of  w_m * p_m,  up to a constant of the image
            = logsumexp over m of (scale * <x, t_m> + bias + log w_m)

    The denominator of p is common to all texts, so it is never computed: it changes neither the
    answer nor its probability. Where ``describe`` averages cosines, this averages exponentials: a
    text that fits well counts for far more than others that do not, a soft maximum. A class with
    one text has S = scale * <x, t> + bias, as ``cosine`` has.

    The mean keeps a class from gaining by the number of its texts alone: texts that are given
    twice change nothing. Of different texts, more still have more chances that one fits very well.
    ``equal_counts`` takes that away: each class counts with the n texts of largest weight (the
    first given among equals), n being the number of texts of the class that has fewest. A class of
    which no text counts has the S of a cosine of -1.

    Shapes: X (N, D), texts (M, D) to S (N, K). O(N M D), a tile at a time; no (N, M) array is made.

    Source: Saha, Van Horn & Maji, "Improved Zero-Shot Classification by Adapting VLMs with Text
    Descriptions", CVPR 2024, arXiv 2401.02460 (AdaptCLIPZS). Its gains come from training on such
    texts; its abstract says that attributes at test time alone do not help.

    Parameters
    ----------
    equal_counts : bool
        Off, as in the paper's scoring; on is byname's own reading of the remedy against uneven
        counts. The paper tuned no parameter of the scoring: the scale is the model's.

    Attributes
    ----------
    None: nothing is learned from images.

    Examples
    --------
    >>> from byname.taxonomy import Taxonomy
    >>> texts = ClassTexts(np.eye(2), np.array([0, 0]), Taxonomy.from_names(["cat"]), scale=10.0)
    >>> JointSoftmax().apply(Batch(np.array([[0.6, 0.8]])), texts, State()).round(3).tolist()
    [[7.434]]
    """

    stage: ClassVar[StageName] = "score"
    name = "joint_softmax"
    Params = JointSoftmaxParams
    params: JointSoftmaxParams
    uses: ClassVar[frozenset[str]] = frozenset({"weight"})

    def apply(self, batch: Batch, texts: ClassTexts, state: State) -> Any:
        """S (N, K)."""
        weight, index = text_weights(texts, state), ops.to_numpy(texts.class_index)
        if self.params.equal_counts:
            weight = _equal(weight, index, texts.n_classes)
        S = reduce_texts(
            batch.X,
            texts.vectors,
            np.where(weight > 0, index, -1),
            texts.n_classes,
            "logsumexp",
            scale=texts.scale,
            offset=np.log(np.where(weight > 0, weight, 1.0)) + texts.bias,
        )
        return shown_unsaid(S, texts, weight)


def _equal(weight: NDArray[np.float64], index: NDArray[np.intp], K: int) -> NDArray[np.float64]:
    """Weights of the heaviest n texts of each class, summing to 1; 0 for the others."""
    order = np.lexsort((-weight, index))  # stable: among equals the first given comes first
    order = order[weight[order] > 0]
    count = np.bincount(index[order], minlength=K)
    n = count[count > 0].min(initial=len(index))
    rank = np.arange(len(order)) - (np.cumsum(count) - count)[index[order]]
    kept = order[rank < n]
    out = np.zeros(len(weight))
    out[kept] = weight[kept] / np.bincount(index[kept], weight[kept], K)[index[kept]]
    return out
