"""The most probable classes, always accepted."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from byname import ops
from byname.stage import Answer, Batch, ClassTexts, Member, StageName, State, register

__all__ = ["Argmax", "most_probable"]


def most_probable(texts: ClassTexts, state: State) -> Answer:
    """The ``state.k`` most probable classes of each image, all accepted.

    Ranked by logit, not by probability: two logits that differ can round to one probability.
    """
    values, classes = map(ops.to_numpy, ops.topk(state.S, max(state.k, 2)))
    total = ops.to_numpy(ops.logsumexp(state.S))[:, None]
    with np.errstate(invalid="ignore"):
        probability = np.exp(values - total).astype(np.float32)
    probability[np.isneginf(total[:, 0])] = 0  # no class is possible
    second = probability[:, 1] if probability.shape[1] > 1 else np.float32(0)
    ranks = min(state.k, probability.shape[1])
    return Answer(
        node=np.asarray(texts.taxonomy.leaf_index, dtype=np.intp)[classes[:, :ranks]],
        probability=probability[:, :ranks],
        margin=probability[:, 0] - second,
        decision=np.full(len(values), "accept"),
    )


@register
class Argmax(Member):
    """Answer the classes of the largest logits.

    Formula::

        p = softmax(S)          over the K classes
        ranks = the k largest,  among equals the class that comes first in the taxonomy
        margin = p1 - p2        (p1 where K = 1)

    Shapes: S (N, K) to an Answer with min(k, K) columns; float32 probabilities. Encoders trained
    with a sigmoid are read with the softmax too: the question is which of the classes it is.

    Source: Radford et al., "Learning Transferable Visual Models From Natural Language
    Supervision", ICML 2021.

    Parameters
    ----------
    None. How many ranks is ``state.k``.

    Examples
    --------
    >>> from byname.taxonomy import Taxonomy
    >>> texts = ClassTexts(np.eye(2), np.array([0, 1]), Taxonomy.from_names(["cat", "dog"]))
    >>> answer = Argmax().apply(Batch(np.eye(2)), texts, State(S=np.log([[3.0, 1.0]])))
    >>> texts.taxonomy.nodes[answer.node[0, 0]].id, float(answer.probability[0, 0].round(2))
    ('cat', 0.75)
    """

    stage: ClassVar[StageName] = "decide"
    name = "argmax"

    def apply(self, batch: Batch, texts: ClassTexts, state: State) -> Answer:
        """Answer with ``decision`` "accept" everywhere."""
        return most_probable(texts, state)
