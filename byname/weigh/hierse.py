"""Class vectors that lean towards those of the groups above them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from byname import ops
from byname.errors import RecipeError
from byname.stage import Batch, ClassTexts, StageName, State, register
from byname.taxonomy_vectors import node_vectors
from byname.weigh.mean import Mean

__all__ = ["Hierse", "HierseParams"]


@dataclass(frozen=True)
class HierseParams:
    """How many nodes of the way up count, and whether the class vectors have length one."""

    chain: int = 7
    unit: bool = True

    def __post_init__(self) -> None:
        if self.chain < 1:
            raise RecipeError(
                "use 'hierse'", f"chain is {self.chain}", "Give 1 for the class alone, or more."
            )


@register
class Hierse(Mean):
    """HierSE: a class is the decaying mean of its own vector and those of its ancestors.

    Formula, with v_0 the class's vector as of ``mean``, v_l that of its l-th ancestor, and L the
    number of nodes from the class up, at most ``chain``::

        W_k = sum over l < L of  exp(-l) * v_l / sum over l < L of  exp(-l)
        W_k = W_k / ||W_k||                                     unless ``unit=false``

    An inner node's vector is the mean of its own texts, of length one. Under a recipe with this
    member the Classifier encodes "a photo of a {name}." for each. Where there are no such texts,
    as in a task file, it is the mean of the class vectors below it, of length one. The root is one
    of the ancestors only if it has a name of its own. A class right below a root without a name
    keeps its vector: on a flat list this is ``mean``, bit for bit. A class whose vector is zero
    takes that of its ancestors.

    Shapes: texts (M, D) to ``weight_`` (M,) and W (K, D). The images are not looked at. O(M D) and
    ``chain`` times K D.

    Source: Li et al., "Zero-shot Image Tagging by Hierarchical Semantic Embedding", SIGIR 2015,
    after its released code, which ranks the classes by cosines: hence the length one here, which
    the sum itself does not have. With the score ``conse``, which takes cosines, ``unit=false``
    gives the same.

    Parameters
    ----------
    chain : int
        7, as released: the class and up to six ancestors. 1 is ``mean``.
    unit : bool
        Whether W has rows of length one. True, for the cosine; nothing here was tuned.

    Attributes
    ----------
    weight_ : array, shape (M,)
        Of the classes' own texts, as of ``mean``; summing to 1 over each class, 0 for others.

    Raises
    ------
    PromptError
        For classes without a text of positive weight.
    RecipeError
        For a chain below 1.

    Examples
    --------
    >>> from byname.taxonomy import Node, Taxonomy
    >>> tree = Taxonomy([Node("f", "fruit"), Node("a", "apple", "f"), Node("p", "pear", "f"),
    ...                  Node("m", "milk")])
    >>> texts, batch = ClassTexts(np.eye(3), np.arange(3), tree), Batch(np.empty((0, 3)))
    >>> Hierse().fit(batch, texts, State()).apply(batch, texts, State()).round(2).tolist()
    [[0.98, 0.2, 0.0], [0.2, 0.98, 0.0], [0.0, 0.0, 1.0]]
    """

    stage: ClassVar[StageName] = "weigh"
    name = "hierse"
    uses: ClassVar[frozenset[str]] = frozenset({"inner"})
    Params = HierseParams
    params: HierseParams

    def apply(self, batch: Batch, texts: ClassTexts, state: State) -> Any:
        """W (K, D)."""
        own = super().apply(batch, texts, state)
        tree = texts.taxonomy
        V = ops.to_numpy(node_vectors(texts, own)).astype(np.float64)
        lowest = 0 if tree.root.name else 1
        node = tree.leaf_index.copy()
        total, share = np.zeros((len(node), V.shape[1])), np.zeros((len(node), 1))
        for step in range(self.params.chain):
            factor = np.where(node >= lowest, np.exp(-float(step)), 0.0)[:, None]
            if not factor.any():
                break
            total += factor * V[np.maximum(node, 0)]
            share += factor
            node = np.where(node > 0, tree.parents[np.maximum(node, 0)], -1)
        smooth = ops.unit(total) if self.params.unit else total / share
        alone = share[:, 0] == 1
        smooth[alone] = V[tree.leaf_index[alone]]  # exactly what it was
        return ops.cast(smooth, own)
