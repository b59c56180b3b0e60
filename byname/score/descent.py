"""Down the taxonomy, level by level: at each node the children compete among themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.errors import RecipeError
from byname.score.textparts import put_last, text_weights, unsaid
from byname.stage import Array, Batch, ClassTexts, Member, StageName, State, register
from byname.stream import reduce_texts
from byname.taxonomy import Taxonomy
from byname.taxonomy_vectors import node_vectors

__all__ = ["Descent", "DescentParams"]

Mode = Literal["full", "beam", "greedy"]
_ROWS = 1024  # images at a time
_FLOOR = -69.08  # log(1e-30): where classes begin that no path led to


@dataclass(frozen=True)
class DescentParams:
    """Which paths are followed, and how many at once in a beam."""

    mode: Mode = "full"
    beam: int = 3

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise RecipeError(
                "use 'descent'", f"mode is {self.mode!r}", f"Known: {', '.join(get_args(Mode))}."
            )
        if self.beam < 1:
            raise RecipeError("use 'descent'", f"beam is {self.beam}", "Give 1 or more paths.")


@register
class Descent(Member):
    """Log probability of the way from the root to a class, with a softmax at each fork.

    Formula, with v the vectors of the nodes and siblings(n) the children of the parent of n::

        log p(n | parent) = scale <x, v_n> - log sum over m in siblings(n) of exp(scale <x, v_m>)
        S[i,k]            = sum of log p(n | parent) over the nodes n from below the root to class k

    A class has its row of W, an inner node its own texts, of length one in the mean; under a recipe
    with this member the Classifier encodes "a photo of a {name}." for each. Where there are no
    such texts, as in a task file, an inner node has the mean of the class vectors below it.

    ``full`` gives this for every class, exactly. ``beam`` follows the ``beam`` likeliest paths and
    ``greedy`` one, level by level, as who must ask a model at every fork would do; a path that has
    arrived at a class stays among them. Classes that none of them reached come last, all alike, one
    below the least that was reached, and below 1e-30. With as many paths as there are nodes, a beam
    is ``full``. On a flat list ``full`` is ``cosine``, less a number for each image, and its
    softmax the same. Beam and greedy save no time here, since all nodes are scored in one product:
    they are for comparison.

    Shapes: X (N, D), W (K, D) to S (N, K). O(N n D) for n nodes and O(N K D) for the paths, images
    in blocks.

    Assumes that a fork can be decided by its own children: a mistake near the root costs all that
    lies below it, which the sums over classes that ``--level`` takes do not.

    Source: level-by-level coding of ATC codes by language models (read as an abstract); beam and
    full are byname's own.

    Parameters
    ----------
    mode : {"full", "beam", "greedy"}
        The publication goes down greedily, since each fork is a question to a language model;
        "full" is the default here because it costs the same and errs no more.
    beam : int
        3 paths, fixed beforehand, for ``mode="beam"``.

    Attributes
    ----------
    None: nothing is learned.

    Raises
    ------
    RecipeError
        For an unknown mode, and a beam below 1.

    Examples
    --------
    >>> from byname.taxonomy import Node, Taxonomy
    >>> tree = Taxonomy([Node("f", "fruit"), Node("a", "apple", "f"), Node("p", "pear", "f"),
    ...                  Node("m", "milk")])
    >>> texts = ClassTexts(np.eye(3), np.arange(3), tree, scale=4.0)
    >>> batch = Batch(np.array([[0.6, 0.0, 0.8]]))
    >>> ops.softmax(Descent().apply(batch, texts, State(W=texts.vectors))).round(2).tolist()
    [[0.17, 0.02, 0.82]]
    """

    stage: ClassVar[StageName] = "score"
    name = "descent"
    uses: ClassVar[frozenset[str]] = frozenset({"inner"})
    Params = DescentParams
    params: DescentParams

    def apply(self, batch: Batch, texts: ClassTexts, state: State) -> Any:
        """S (N, K)."""
        X = ops.as_float(batch.X)
        forks = self.once(texts, state, lambda: _Forks(texts, ops.as_float(state.W)))
        if self.params.mode == "full":
            nodes = texts.taxonomy.leaf_index
            parts = [forks.log_p(X[rows], nodes) for rows in _blocks(X)]
        else:
            beam = self.params.beam if self.params.mode == "beam" else 1
            every = np.arange(len(texts.taxonomy.nodes))
            parts = [
                _followed(forks.log_p(X[rows], every), texts.taxonomy, beam) for rows in _blocks(X)
            ]
        # Below every path: log p of a node is not less than -(2 scale + log of its siblings).
        tree = texts.taxonomy
        least = _FLOOR - 2 - tree.height * (2 * texts.scale + np.log(len(tree.nodes)))
        return put_last(ops.concat(parts), unsaid(texts, text_weights(texts, state)), float(least))


def _blocks(X: Array) -> list[slice]:
    return list(ops.blocks(int(X.shape[0]), _ROWS)) or [slice(0, 0)]


class _Forks:
    """The inner nodes of a taxonomy, and what it takes to come to a node."""

    def __init__(self, texts: ClassTexts, W: Array) -> None:
        tree = texts.taxonomy
        self.tree, self.scale, self.V = tree, texts.scale, node_vectors(texts, W)
        self.inner = np.flatnonzero(tree.heights > 0)
        number = np.full(len(tree.nodes), -1, np.intp)
        number[self.inner] = np.arange(len(self.inner))
        # The fork at which each node is chosen; the root, the node 0, is not.
        self.fork = np.where(tree.parents >= 0, number[tree.parents], -1)
        path = ops.to_numpy(self.V).astype(np.float64)
        path[0] = 0
        for i in range(1, len(path)):  # in preorder a parent comes before its children
            path[i] += path[tree.parents[i]]
        self.path = ops.cast(path, self.V)

    def log_p(self, X: Array, nodes: NDArray[np.intp]) -> Array:
        """log p (N, n) of the ways to these nodes."""
        total = reduce_texts(X, self.V, self.fork, len(self.inner), "logsumexp", scale=self.scale)
        depths, own = self.tree.depths[self.inner], self.fork[self.inner]
        for depth in range(1, int(depths.max(initial=0)) + 1):
            here = np.flatnonzero(depths == depth)
            at, above = ops.like(here, total), ops.like(own[here], total)
            total[:, at] += total[:, above]
        S = self.scale * ops.matmul_t(X, ops.take_rows(self.path, nodes))
        at = np.flatnonzero(self.fork[nodes] >= 0)
        if len(at) == len(nodes):
            return S - total[:, ops.like(self.fork[nodes], total)]
        S[:, ops.like(at, S)] -= total[:, ops.like(self.fork[nodes][at], total)]
        return S


def _followed(S: Array, tree: Taxonomy, beam: int) -> Array:
    """Of log p (N, n_nodes), those of the classes, where only ``beam`` paths are followed."""
    log_p = ops.to_numpy(S)
    alive = np.zeros(log_p.shape, bool)
    alive[:, 0] = True
    for depth in range(1, tree.height + 1):
        # Paths that arrived before stay in the race with those that are one step further.
        nodes = np.flatnonzero(
            (tree.depths == depth) | ((tree.depths < depth) & (tree.heights == 0))
        )
        above = np.where(tree.depths[nodes] == depth, tree.parents[nodes], nodes)
        candidates = np.where(alive[:, above], log_p[:, nodes], -np.inf)
        _, best = ops.topk(candidates, beam)
        kept = np.zeros_like(candidates, dtype=bool)
        np.put_along_axis(kept, best, True, axis=1)
        alive[:, nodes] = kept & (candidates > -np.inf)
    arrived = alive[:, tree.leaf_index]
    found = log_p[:, tree.leaf_index]
    least = np.where(arrived, found, np.inf).min(axis=1, keepdims=True)
    return ops.like(np.where(arrived, found, np.minimum(least, _FLOOR) - 1).astype(found.dtype), S)
