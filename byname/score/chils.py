"""Classes by their subclasses: the best kind of each, weighed by the class itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.errors import RecipeError
from byname.score.textparts import by_class, put_last, text_weights, unsaid
from byname.stage import Batch, ClassTexts, Member, StageName, State, register
from byname.stream import reduce_texts

__all__ = ["Chils", "ChilsParams"]

Mode = Literal["reweight", "unweighted", "sum", "own_total", "ensemble"]


@dataclass(frozen=True)
class ChilsParams:
    """How the probabilities of subclasses and classes are put together."""

    mode: Mode = "reweight"

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            known = ", ".join(get_args(Mode))
            raise RecipeError("use 'chils'", f"mode is {self.mode!r}", f"Known: {known}.")


@register
class Chils(Member):
    """Find the subclass that fits best, and answer the class that it belongs to.

    Formula, with u_j the unit mean of the texts of subclass j, P_c the unit vector of class c::

        p_sub = softmax over all subclasses of all classes of (scale * <x, u_j>)
        p_sup = softmax over the classes of (scale * <x, P_c>)
        reweight   r_c = p_sup,c * max over j in c of p_sub,j
        unweighted r_c = max over j in c of p_sub,j
        sum        r_c = p_sup,c * sum over j in c of p_sub,j
        own_total  r_c = (sum over j in c of p_sub,j) * (max over j in c of p_sub,j)
        ensemble   r   = softmax over the classes of (scale * <x, unit mean of the u_j of c>)
        S = log(max(r_c / sum of r, 1e-30))

    P_c is the unit mean of the texts of c without a subclass where c has some ("templates" beside
    "subclasses"); else the vector of the subclass that bears the class's own name; else W_c of the
    weigh stage, of length one. A class without subclasses is its own only one. A name in the sets
    of two classes is two subclasses, each with a probability of its own, and a name that is given
    twice in one set counts twice in "sum" and "own_total". Weights of the weigh stage count within
    a subclass; one whose texts all weigh 0 is left out.

    Shapes: X (N, D), texts (M, D) with their ``group`` (M,) to S (N, K). O(N (G + K) D) for G
    subclasses; no (N, G) array is made, since neither softmax's denominator matters.

    Source: Novack, McAuley, Lipton & Garg, "CHiLS: Zero-Shot Image Classification with
    Hierarchical Label Sets", ICML 2023, arXiv 2302.02551.

    Parameters
    ----------
    mode : {"reweight", "unweighted", "sum", "own_total", "ensemble"}
        "reweight" is the paper's; the others are the variants that it compares with on labelled
        test images. "unweighted" is its form without re-weighting.

    Attributes
    ----------
    None: nothing is learned from images.

    Raises
    ------
    RecipeError
        For another ``mode``.

    Examples
    --------
    >>> from byname.taxonomy import Taxonomy
    >>> texts = ClassTexts(np.eye(3), np.array([0, 0, 1]), Taxonomy.from_names(["dog", "cat"]),
    ...                    group=np.array([0, 1, -1]), group_names=("pug", "collie"), scale=10.0)
    >>> batch, state = Batch(np.array([[0.0, 0.8, 0.6]])), State(W=np.eye(3)[[1, 2]])
    >>> int(Chils().apply(batch, texts, state).argmax())
    0
    >>> Chils().details(batch, texts, state)["subclass"]
    ['collie']
    """

    stage: ClassVar[StageName] = "score"
    name = "chils"
    Params = ChilsParams
    params: ChilsParams
    needs: ClassVar[frozenset[str]] = frozenset({"group"})
    uses: ClassVar[frozenset[str]] = frozenset({"group_names", "weight"})

    def apply(self, batch: Batch, texts: ClassTexts, state: State) -> Any:
        """S (N, K)."""
        sets = self.once(texts, state, lambda: _Sets(texts, state))
        K, mode = texts.n_classes, self.params.mode
        X, scale = ops.as_float(batch.X), texts.scale
        if mode == "ensemble":
            r = scale * ops.matmul_t(X, ops.unit(ops.segment_mean(sets.vectors, sets.owner, K)))
            return ops.log_probability(ops.softmax(put_last(r, sets.unsaid, -scale)))
        r = 0 if mode in ("unweighted", "own_total") else scale * ops.matmul_t(X, sets.classes)
        if mode != "sum":
            r = r + reduce_texts(X, sets.vectors, sets.owner, K, "max", scale=scale)
        if mode in ("sum", "own_total"):
            r = r + reduce_texts(X, sets.vectors, sets.owner, K, "logsumexp", scale=scale)
        # Below all others: a sum of two logarithms, neither of which is less than -scale.
        return ops.log_probability(ops.softmax(put_last(r, sets.unsaid, -3 * scale)))

    def details(self, batch: Batch, texts: ClassTexts, state: State) -> dict[str, list[Any]]:
        """``subclass``: the most probable one of the class with the largest S.

        ``subclass_probability`` is its p_sub, among the subclasses of all classes. The class is
        that of ``state.S`` where it is given, so that it is the answered one. A class without
        subclasses is named itself.
        """
        S = state.S if state.S is not None else self.apply(batch, texts, state)
        sets, X, scale = _Sets(texts, state), ops.as_float(batch.X), texts.scale
        found = reduce_texts(X, sets.vectors, sets.owner, texts.n_classes, "logsumexp", scale=scale)
        total = ops.to_numpy(ops.logsumexp(found))
        names, p = np.zeros(len(batch), np.intp), np.zeros(len(batch))
        for k, rows in by_class(ops.to_numpy(ops.argmax(S))):
            own = np.flatnonzero(sets.owner == k)
            F = scale * ops.matmul_t(ops.take_rows(X, rows), ops.take_rows(sets.vectors, own))
            best, which = (ops.to_numpy(part)[:, 0] for part in ops.topk(F, 1))
            names[rows], p[rows] = own[which], np.exp(np.minimum(best - total[rows], 0))
        return {
            "subclass": [sets.name(j) for j in names.tolist()],
            "subclass_probability": p.tolist(),
        }


class _Sets:
    """Subclasses: ``vectors`` (G, D), ``owner`` (G,); and the ``classes`` (K, D) themselves."""

    def __init__(self, texts: ClassTexts, state: State) -> None:
        self.texts, K = texts, texts.n_classes
        index, group = ops.to_numpy(texts.class_index), ops.to_numpy(texts.group)
        weight = text_weights(texts, state)
        inside = (weight > 0) & (group >= 0)
        keys = np.stack([index[inside], group[inside]], axis=1)
        pairs, column = np.unique(keys, axis=0, return_inverse=True)
        place = np.full(len(index), -1)
        place[inside] = column.ravel()
        made = ops.unit(ops.segment_sum(texts.vectors, place, len(pairs), weight))
        self.classes = self._classes(state, weight, index, group, pairs, made)
        blank = np.flatnonzero(ops.to_numpy((self.classes == 0).all(1)))
        self.unsaid = np.intersect1d(unsaid(texts, weight), blank)  # W may know more than the texts
        bare = np.setdiff1d(np.arange(K), pairs[:, 0])
        self.vectors = ops.concat([made, ops.take_rows(self.classes, bare)])
        self.owner: NDArray[np.intp] = np.append(pairs[:, 0], bare).astype(np.intp)
        self.group = np.append(pairs[:, 1], np.full(len(bare), -1))

    def _classes(
        self, state: State, weight: Any, index: Any, group: Any, pairs: Any, made: Any
    ) -> Any:
        """Vectors of the classes by their own texts, by a subclass of their name, or by W."""
        texts, K = self.texts, self.texts.n_classes
        beside = np.where((weight > 0) & (group < 0), index, -1)
        out = ops.unit(ops.segment_sum(texts.vectors, beside, K, weight))
        missing = np.bincount(beside[beside >= 0], minlength=K) == 0
        W = state.W if state.W is not None else ops.segment_sum(texts.vectors, index, K, weight)
        rest = np.flatnonzero(missing)
        out[ops.like(rest, out)] = ops.cast(ops.take_rows(ops.unit(W), rest), out)
        names = self.texts.group_names or ()
        for j, (k, g) in enumerate(pairs.tolist()):
            own = (
                g < len(names) and names[g].casefold() == texts.taxonomy.classes[k].name.casefold()
            )
            if own and missing[k]:
                out[k] = made[j]
        return out

    def name(self, j: int) -> str:
        """Of a subclass, by its place in ``vectors``."""
        group, names = int(self.group[j]), self.texts.group_names
        if group < 0:
            return self.texts.taxonomy.classes[int(self.owner[j])].name
        return str(group) if names is None else names[group]
