"""Down the taxonomy for as long as one child is clearly the likeliest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.errors import RecipeError
from byname.stage import Answer, Batch, ClassTexts, Member, StageName, State, register
from byname.taxonomy import Taxonomy

__all__ = ["Descend", "DescendParams"]

_BLOCK = 4096


@dataclass(frozen=True)
class DescendParams:
    """Least lead of the best child over the second."""

    tau: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.tau <= 1:
            raise RecipeError("use 'descend'", f"tau is {self.tau}", "Give a number from 0 to 1.")


@register
class Descend(Member):
    """Go down from the root to the likeliest child, and stop where two are about as likely.

    Formula, with p(node) the sum of softmax(S) over its classes::

        q(c) = p(c) / sum of p over the children of a node       c one of these children
        at a node: go to the child of the largest q, if q1 - q2 >= tau; else answer the node

    q2 is 0 where there is one child, so that the way goes on. Among equals the child that comes
    first in the taxonomy is taken. ``decision`` is "accept" for a class and "backoff" for a group,
    which may be the root, with an empty path: then nothing is known. With tau = 0 every answer is a
    class, though not always that of ``argmax``: the likeliest class may lie in a group that is not.
    Rank 1 is the answer with its own probability p; the likeliest classes, with theirs, follow
    without it. ``margin`` is p1 - p2 over the classes.

    Against ``backoff``: that asks for a probability and takes the deepest node which has it; this
    asks at each fork for a lead, whatever the probability.

    Shapes: S (N, K) to an Answer with min(k, K) columns. O(N n_nodes), images in blocks.

    Source: the stop rule of level-by-level coding of ATC codes by language models (read as an
    abstract), over summed probabilities of classes.

    Parameters
    ----------
    tau : float
        Lead from 0 to 1, as a share of what the node has. 0.1 is byname's own, fixed beforehand
        and not tuned; the source names no value.

    Attributes
    ----------
    None: nothing is learned.

    Raises
    ------
    RecipeError
        For a tau outside 0 to 1.

    Examples
    --------
    >>> from byname.taxonomy import Node
    >>> tree = Taxonomy([Node("f", "fruit"), Node("a", "apple", "f"), Node("p", "pear", "f"),
    ...                  Node("m", "milk")])
    >>> texts = ClassTexts(np.eye(3), np.arange(3), tree)
    >>> state = State(S=np.log([[0.36, 0.34, 0.3], [0.6, 0.1, 0.3]]))
    >>> answer = Descend(tau=0.2).apply(Batch(np.eye(3)[:2]), texts, state)
    >>> [tree.nodes[n].id for n in answer.node[:, 0]], answer.decision.tolist()
    (['f', 'a'], ['backoff', 'accept'])
    """

    stage: ClassVar[StageName] = "decide"
    name = "descend"
    Params = DescendParams
    params: DescendParams

    def apply(self, batch: Batch, texts: ClassTexts, state: State) -> Answer:
        """Answer with ``decision`` "accept" or "backoff"."""
        taxonomy, S = texts.taxonomy, ops.to_numpy(ops.as_float(state.S))
        k = min(state.k, S.shape[1])
        node = np.zeros((len(S), k), np.intp)
        own, margin = np.zeros((len(S), k)), np.zeros(len(S))
        for rows in ops.blocks(len(S), _BLOCK):
            p = ops.softmax(S[rows].astype(np.float64))
            mass = taxonomy.rollup(p)
            mass[:, 0] = 1  # whatever the sum was rounded to
            end = self._ends(mass, taxonomy)
            _, classes = ops.topk(S[rows], max(k + 1, 2))
            ranks = taxonomy.leaf_index[classes]
            likeliest = np.take_along_axis(p, classes, axis=1)
            margin[rows] = likeliest[:, 0] - (likeliest[:, 1] if likeliest.shape[1] > 1 else 0)
            # The answer first, then the classes in their order without it.
            order = np.argsort(ranks == end[:, None], axis=1, kind="stable")
            node[rows, 0] = end
            own[rows, 0] = mass[np.arange(len(end)), end]
            node[rows, 1:] = np.take_along_axis(ranks, order, axis=1)[:, : k - 1]
            own[rows, 1:] = np.take_along_axis(likeliest, order, axis=1)[:, : k - 1]
        group = taxonomy.heights[node[:, 0]] > 0
        decision = np.where(group, "backoff", "accept")
        return Answer(node, own.astype(np.float32), margin.astype(np.float32), decision)

    def _ends(self, mass: NDArray[np.float64], taxonomy: Taxonomy) -> NDArray[np.intp]:
        """The node (N,) at which each image's way ends, for probabilities (N, n_nodes)."""
        at, going = np.zeros(len(mass), np.intp), np.arange(len(mass))
        order = np.argsort(taxonomy.parents, kind="stable")  # children of a node stand together
        begin = np.searchsorted(taxonomy.parents[order], np.arange(len(order)), side="left")
        stop = np.searchsorted(taxonomy.parents[order], np.arange(len(order)), side="right")
        while len(going):
            arrived = []
            for parent in np.unique(at[going]):
                rows = going[at[going] == parent]
                children = order[begin[parent] : stop[parent]]
                if not len(children):
                    continue
                two, best = ops.topk(mass[np.ix_(rows, children)], 2)
                total = mass[np.ix_(rows, children)].sum(axis=1)
                lead = two[:, 0] - (two[:, 1] if two.shape[1] > 1 else 0)
                # Where nothing is possible, or not a number, no lead is enough but that of tau 0.
                on = (lead >= self.params.tau * total) & (total > 0) | (self.params.tau == 0)
                at[rows[on]] = children[best[on, 0]]
                arrived.append(rows[on])
            going = np.concatenate(arrived) if arrived else going[:0]
        return at
