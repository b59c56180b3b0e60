"""The answer of least expected cost: mistakes are weighed by how far they lie in the tree."""

from __future__ import annotations

import dataclasses
import reprlib
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.decide.argmax import most_probable
from byname.errors import RecipeError
from byname.stage import Answer, Batch, ClassTexts, Member, StageName, State, register
from byname.taxonomy import Taxonomy

__all__ = ["Crm", "CrmParams"]

_BLOCK = 4096
_TIE = 1e-9  # risks that differ by less, as a share of the largest cost, are equal
_ASKED = "weigh mistakes by these costs"


@dataclass(frozen=True)
class CrmParams:
    """What a mistake costs: ``lca``, the height of the lowest common ancestor."""

    cost: Literal["lca"] = "lca"

    def __post_init__(self) -> None:
        if self.cost != "lca":
            raise RecipeError("use 'crm'", f"cost is '{self.cost}'", "Known: lca.")


@register
class Crm(Member):
    """Conditional risk minimisation: rank the classes by expected cost, the least first.

    Formula, with C[k,c] the cost of answering c where k is right::

        p = softmax(S)                      over the K classes
        risk[i,c] = sum over k of p[i,k] C[k,c]
        ranks = the least risks; among equals the more probable class

    With the cost 1 for every mistake it is ``argmax``. ``probability`` is the class's own p, and
    ``margin`` is p1 - p2 of the two most probable classes, as everywhere.

    Shapes: S (N, K) to an Answer with min(k, K) columns; O(N K^2). In float64: in half precision,
    as published code computes it, small probabilities are rounded away.

    It needs groups whose probability mass is calibrated: it moves answers towards groups that hold
    more of the probability, many unlikely classes included, and where that mass says little about
    the truth, mistakes become worse and not milder (docs/recipes/crm.md has a case). With p close
    to 0 or 1 nothing changes.

    Source: Karthik et al., "No Cost Likelihood Manipulation at Test Time for Making Better
    Mistakes in Deep Networks", ICLR 2021; used by Liang & Davis, arXiv 2503.02248.

    Parameters
    ----------
    cost : {"lca"}
        Height of the lowest common ancestor (0 for the class itself, 1 for sibling classes).
    costs : array, shape (K, K), optional
        Own costs instead, rows the right class, columns the answer, in the order of the classes.
        An argument of the class, not part of the spec: assign ``Crm(costs=C)`` to
        ``Pipeline.decider``.

    Raises
    ------
    RecipeError
        For costs that are not square, negative, not finite, not 0 on the diagonal, or of another
        number of classes.

    Examples
    --------
    >>> from byname.taxonomy import Node
    >>> tree = Taxonomy([Node("f", "fruit"), Node("a", "apple", "f"), Node("p", "pear", "f"),
    ...                  Node("m", "milk")])
    >>> texts = ClassTexts(np.eye(3), np.arange(3), tree)
    >>> answer = Crm().apply(Batch(np.eye(3)), texts, State(S=np.log([[0.3, 0.3, 0.4]])))
    >>> tree.nodes[answer.node[0, 0]].id  # milk is likelier, but an apple is nearer to a pear
    'a'
    """

    stage: ClassVar[StageName] = "decide"
    name = "crm"
    Params = CrmParams
    params: CrmParams

    def __init__(self, params: Any = None, *, costs: Any = None, **kwargs: Any) -> None:
        super().__init__(params, **kwargs)
        self.costs = None if costs is None else _checked(costs)

    def apply(self, batch: Batch, texts: ClassTexts, state: State) -> Answer:
        """Answer with ``decision`` "accept" everywhere."""
        S, C = ops.to_numpy(ops.as_float(state.S)), self._matrix(texts.taxonomy)
        ranks = min(state.k, texts.n_classes)
        classes = np.zeros((len(S), ranks), np.intp)
        own = np.zeros((len(S), ranks), np.float32)
        for rows in ops.blocks(len(S), _BLOCK):
            block = S[rows].astype(np.float64)
            P = ops.softmax(block)
            classes[rows] = _least(P @ C, block, ranks)
            own[rows] = np.take_along_axis(P, classes[rows], axis=1)
        likeliest = most_probable(texts, dataclasses.replace(state, k=1))
        return dataclasses.replace(
            likeliest,
            node=np.asarray(texts.taxonomy.leaf_index, np.intp)[classes],
            probability=own,
        )

    def _matrix(self, taxonomy: Taxonomy) -> NDArray[np.float64]:
        """C (K, K), divided by its largest entry: the ranks stay, and ties have one scale."""
        C = taxonomy.lca_heights() if self.costs is None else self.costs
        if C.shape != (len(taxonomy),) * 2:
            raise RecipeError(
                _ASKED,
                f"they are for {len(C)} classes and there are {len(taxonomy)}",
                "Give a row and a column for each class that is to be answered, in their order.",
            )
        return C.astype(np.float64) / max(float(C.max(initial=0)), np.finfo(float).tiny)


def _least(risk: NDArray[np.float64], S: NDArray[np.float64], ranks: int) -> NDArray[np.intp]:
    """Columns of the least risks; among equals by logit, then in the order of the classes."""
    risk = np.round(risk / _TIE)
    if ranks > 1:
        return np.lexsort((-S, risk))[:, :ranks]
    tied = risk <= risk.min(axis=1, keepdims=True)
    return ops.argmax(np.where(tied, S, -np.inf))[:, None]  # type: ignore[no-any-return]


def _checked(costs: Any) -> NDArray[np.float64]:
    """A copy of the user's costs, or an error that says where they do not fit."""
    try:
        C = np.array(ops.to_numpy(costs), np.float64)
    except (TypeError, ValueError):
        seen = f"they are {reprlib.repr(costs)}, not numbers in rows of one length"
        raise RecipeError(_ASKED, seen, "Give a square matrix (K, K).") from None
    if C.ndim != 2 or C.shape[0] != C.shape[1]:
        raise RecipeError(_ASKED, f"their shape is {C.shape}", "Give a square matrix (K, K).")
    for wrong, seen, do in (
        (~np.isfinite(C), "not finite", "Give numbers."),
        (C < 0, "negative", "Give 0 or more."),
        (np.eye(len(C), dtype=bool) & (C != 0), "not 0", "The right answer costs nothing."),
    ):
        if wrong.any():
            i, j = (int(n) for n in np.argwhere(wrong)[0])
            raise RecipeError(_ASKED, f"row {i}, column {j} is {C[i, j]}, {seen}", do)
    return C
