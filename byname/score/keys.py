"""Every text, and every vector of a support set, as a key; the nearest keys of an image vote."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.errors import RecipeError
from byname.stage import Array, Batch, ClassTexts, Member, StageName, State, register
from byname.stream import COLUMNS, ROWS, reduce_texts

__all__ = ["Keys", "KeysParams"]

_PASSES = 16
_FLAT = 1e-6  # cosines that differ by less are alike but for rounding


class _Group(NamedTuple):
    """Keys of one kind: vectors (R, D), the class of each or -1, and how their cosines count."""

    vectors: Array
    owner: NDArray[np.intp]
    kind: str
    factor: float = 1.0
    shift: float = 0.0


@dataclass(frozen=True)
class KeysParams:
    """How many keys vote."""

    k: int = 1

    def __post_init__(self) -> None:
        if self.k < 1:
            raise RecipeError("use 'keys'", f"k is {self.k}", "Give 1 or more keys.")


@register
class Keys(Member):
    """Nearest keys: no mean of a class is taken, its texts and examples stand for themselves.

    Formula, with the keys m of class k, its texts and the vectors of ``support`` that are its own,
    and N_i the ``k`` keys nearest to image i among all::

        near[i,k] = max over the keys m of class k of  <x_i, key_m>
        S[i,k]    = log sum over the keys m of class k in N_i of  exp(scale * <x_i, key_m>)  + bias
                    scale * near[i,k] + bias                        for a class without a key in N_i

    For k = 1 this is scale * near + bias for every class, and the answer is the class of the
    nearest key. For more, each of the k nearest keys votes for its class with the weight
    exp(scale * similarity); classes beside them keep their order and stand behind. With k of all
    keys, S is the log-sum-exp over all keys of the class.

    The label at a level of the taxonomy is that of the ancestor of the nearest key's class:
    ``level_labels``, and the ``details`` of each image. (``--level`` instead sums the softmax of S
    over the classes of each group.)

    Images lie nearer to images than to texts. Where the support leaves out a class that has texts,
    a key of it is therefore compared by ``factor_ * cosine + shift_``, which gives the cosines of
    the images of ``fit`` and the support the mean and the standard deviation of those of the images
    and the texts; else classes without an example would never be answered. Where every class has
    one, or ``fit`` saw no image, cosines are taken as they are, as in the publication.

    Keys count alike, whatever their weight, but a text of weight 0 is none. A class without a key
    has S = -inf.

    Shapes: X (N, D), texts (M, D), support (R, D) to S (N, K). O(N (M + R) D), in tiles; no
    (N, M) array is made. ``fit`` takes O((N + M + R) D^2) for a support of some classes only.

    Source: the evaluation code of CLIBD (Gong et al., "CLIBD: Bridging Vision and Genomics for
    Biodiversity Monitoring at Scale", ICLR 2025), where keys are images or DNA of known species;
    texts as keys, their common spread and the votes are byname's own.

    Parameters
    ----------
    k : int
        1, the top-1 of the publication, which reports 3 and 5 beside it.

    Attributes
    ----------
    factor_, shift_ : float
        How cosines with the support count, 1 and 0 unless it leaves out a class.

    Raises
    ------
    RecipeError
        For k below 1.

    Examples
    --------
    >>> from byname.taxonomy import Taxonomy
    >>> texts = ClassTexts(np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]]), np.array([0, 0, 1]),
    ...                    Taxonomy.from_names(["cat", "dog"]), scale=10.0)
    >>> Keys().apply(Batch(np.array([[0.8, 0.6]])), texts, State()).round(3).tolist()
    [[9.6, 6.0]]
    """

    stage: ClassVar[StageName] = "score"
    name = "keys"
    uses: ClassVar[frozenset[str]] = frozenset({"support"})
    Params = KeysParams
    params: KeysParams
    factor_, shift_ = 1.0, 0.0

    def fit(self, batch: Batch, texts: ClassTexts, state: State) -> Self:
        """Learn how cosines with a support of some classes compare with those of the texts."""
        self.factor_, self.shift_ = 1.0, 0.0
        text, *support = self._groups(batch, texts, state)
        told, *shown = (np.unique(g.owner[g.owner >= 0]) for g in (text, *support))
        if len(batch) and shown and len(shown[0]) and len(np.setdiff1d(told, shown[0])):
            mean, spread = _spread(batch.X, text)
            other, wide = _spread(batch.X, support[0])
            self.factor_ = spread / wide if min(spread, wide) > _FLAT else 1.0
            self.shift_ = mean - self.factor_ * other
        return self

    def report(self) -> dict[str, Any]:
        """How cosines with a support count that leaves out classes; else empty."""
        if (self.factor_, self.shift_) == (1.0, 0.0):
            return {}
        return {"support_factor": self.factor_, "support_shift": self.shift_}

    def apply(self, batch: Batch, texts: ClassTexts, state: State) -> Any:
        """S (N, K)."""
        groups = self._groups(batch, texts, state)
        near = _nearest(batch.X, groups, texts.n_classes)
        S = texts.scale * near + texts.bias
        if self.params.k > 1:
            for rows in ops.blocks(len(batch), ROWS):
                found = _top(batch.X[rows], groups, self.params.k)
                _vote(S[rows], *found, texts.scale, texts.bias)
        return S

    def level_labels(self, batch: Batch, texts: ClassTexts, state: State) -> NDArray[np.intp]:
        """Nodes (N, height) of the taxonomy: at each depth from 1, the label of the nearest key.

        Indices into ``taxonomy.nodes``; below a class that is less deep, the class again.
        """
        near = _nearest(batch.X, self._groups(batch, texts, state), texts.n_classes)
        found: NDArray[np.intp] = _ways(texts)[ops.to_numpy(ops.argmax(near))]
        return found

    def details(self, batch: Batch, texts: ClassTexts, state: State) -> dict[str, list[Any]]:
        """What the nearest key is, its class, and its label at each level above the classes."""
        groups, tree = self._groups(batch, texts, state), texts.taxonomy
        none = _Group(texts.vectors[:0], np.zeros(0, np.intp), "")
        each = [_nearest(batch.X, [none, group], texts.n_classes) for group in groups]
        best = [ops.to_numpy(near).max(axis=1, initial=-np.inf) for near in each]
        own = np.array([ops.to_numpy(ops.argmax(near)) for near in each]).reshape(len(each), -1)
        which = np.argmax(np.array(best), axis=0) if len(batch) else np.zeros(0, np.intp)
        way = _ways(texts)[own[which, np.arange(len(which))]]
        names = tree.levels or [f"level {depth}" for depth in range(1, tree.height + 1)]
        ids = [node.id for node in tree.nodes]
        return {
            "nearest_key": [groups[g].kind for g in which],
            "nearest_class": [ids[n] for n in way[:, -1]],
            **{
                f"nearest_{name}": [ids[n] for n in way[:, depth]]
                for depth, name in enumerate(names[:-1])
            },
        }

    def _groups(self, batch: Batch, texts: ClassTexts, state: State) -> list[_Group]:
        """Texts, and examples where there are some, each with its class, or -1."""
        index = ops.to_numpy(texts.class_index)
        weight = state.weight if state.weight is not None else texts.weight
        if weight is not None:
            index = np.where(ops.to_numpy(weight) > 0, index, -1)
        found = [_Group(texts.vectors, index, "text")]
        if batch.support is not None:
            own = batch.support
            at = ops.to_numpy(own.class_index)
            found.append(_Group(own.vectors, at, own.kind, self.factor_, self.shift_))
        return found


def _spread(X: Array, group: _Group) -> tuple[float, float]:
    """Mean and standard deviation of the cosines of all images with all keys of a group.

    From the moments of both, so that no array of all pairs is made.
    """
    parts = [X, ops.take_rows(group.vectors, np.flatnonzero(group.owner >= 0))]
    means, squares = zip(*(_moments(part) for part in parts), strict=True)
    mean = float(means[0] @ means[1])
    return mean, float(np.sqrt(max(float((squares[0] * squares[1]).sum()) - mean**2, 0)))


def _moments(V: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean (D,) and mean outer product (D, D) of the rows."""
    n, D = int(V.shape[0]), int(V.shape[1])
    total, squares = np.zeros(D), np.zeros((D, D))
    for rows in ops.blocks(n, ROWS):
        part = ops.to_numpy(V[rows]).astype(np.float64)
        total += part.sum(axis=0)
        squares += part.T @ part
    return total / n, squares / n


def _nearest(X: Array, groups: list[_Group], K: int) -> Array:
    """Largest similarity (N, K) of each image to the keys of each class."""
    near = reduce_texts(X, groups[0].vectors, groups[0].owner, K, "max")
    for group in groups[1:]:
        other = reduce_texts(X, group.vectors, group.owner, K, "max", scale=group.factor)
        other += group.shift
        closer = other > near
        near[closer] = ops.cast(other, near)[closer]
    return near


def _top(X: Array, groups: list[_Group], k: int) -> tuple[Array, Array]:
    """Similarities (N, k) of the nearest keys, nearest first, and their classes."""
    value: Any = None
    own: Any = None
    for vectors, index, _, factor, shift in groups:
        keys = np.flatnonzero(index >= 0)
        for part in ops.blocks(len(keys), COLUMNS):
            S = ops.scaled(X, ops.take_rows(vectors, keys[part]), factor, shift)
            best, at = _largest(S, k)
            mine = ops.like(index[keys[part]], best)[at]
            if value is not None:
                both = ops.concat([value.T, ops.cast(best, value).T]).T
                best, at = ops.topk(both, k)
                mine = _along(ops.concat([own.T, mine.T]).T, at)
            value, own = best, mine
    return value, own


def _largest(S: Array, k: int) -> tuple[Array, Array]:
    """As ``ops.topk``, of an array that may be spoilt: a few looks at it are faster than a sort."""
    if k > _PASSES:
        return ops.topk(S, k)
    rows = ops.like(np.arange(int(S.shape[0]))[:, None], S)
    values, columns = [], []
    for _ in range(min(k, int(S.shape[1]))):
        at = S.argmax(axis=1)[:, None]
        columns.append(at)
        values.append(S[rows, at])
        S[rows, at] = -np.inf
    return ops.concat([v.T for v in values]).T, ops.concat([c.T for c in columns]).T


def _along(values: Array, columns: Array) -> Array:
    rows = ops.like(np.arange(int(values.shape[0]))[:, None], values)
    return values[rows, columns]


def _vote(S: Array, value: Array, own: Array, scale: float, bias: float) -> None:
    """Write into S (N, K) the votes of the nearest keys (N, k) of each image, in place."""
    if value is None:
        return
    rows = ops.like(np.arange(int(S.shape[0])), own)
    for j in range(int(own.shape[1])):
        other = own != own[:, j : j + 1]
        votes = scale * value
        votes[other] = -np.inf
        S[rows, own[:, j]] = ops.cast(ops.logsumexp(votes) + bias, S)


def _ways(texts: ClassTexts) -> NDArray[np.intp]:
    """Nodes (K, height) on the way down to each class; the class again where it ends early."""
    tree = texts.taxonomy
    way = np.repeat(tree.leaf_index[:, None], tree.height, axis=1)
    at = tree.leaf_index.copy()
    while (tree.depths[at] > 0).any():
        inside = tree.depths[at] > 0
        way[np.flatnonzero(inside), tree.depths[at[inside]] - 1] = at[inside]
        at = np.where(inside, tree.parents[at], at)
    return way
