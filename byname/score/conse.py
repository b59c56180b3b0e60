"""ConSE: what another classifier sees, said in the vectors of its labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from byname import ops
from byname.errors import EmbeddingsError, RecipeError
from byname.stage import Batch, ClassTexts, Member, StageName, State, register

__all__ = ["Conse", "ConseParams", "semantic_vectors"]

_ROWS = 2048  # images at a time


@dataclass(frozen=True)
class ConseParams:
    """How many labels of the other classifier count, and its share of the score."""

    top: int = 10
    lam: float = 1.0

    def __post_init__(self) -> None:
        if self.top < 1:
            raise RecipeError("use 'conse'", f"top is {self.top}", "Give 1 or more labels.")
        if not 0 <= self.lam <= 1:
            raise RecipeError("use 'conse'", f"lam is {self.lam}", "Give a number from 0 to 1.")


def semantic_vectors(P: Any, V: Any, top: int) -> Any:
    """e (N, D), of length one: the mean of the likeliest labels' vectors, by their probabilities.

    Parameters
    ----------
    P : array, shape (N, K0)
        Probabilities; they need not sum to one.
    V : array, shape (K0, D)
        A row of zeros is a label without a vector: it is passed over.
    top : int
        Labels that count.

    Returns
    -------
    array, shape (N, D)
        Zero where no label with a vector is possible.
    """
    P, V = ops.as_float(P), ops.as_float(V)
    known = ops.like((ops.to_numpy(V) != 0).any(axis=1), P)
    values, likeliest = ops.topk(P * ops.cast(known, P), top)
    V = ops.cast(V, P)
    parts = []
    for rows in ops.blocks(int(P.shape[0]), _ROWS):
        total = ops.full(V, (int(values[rows].shape[0]), int(V.shape[1])), 0.0)
        for t in range(int(likeliest.shape[1])):
            total = total + values[rows, t : t + 1] * V[likeliest[rows, t]]
        # A direction: dividing by the sum of the probabilities would not change it.
        parts.append(ops.unit(total))
    return ops.concat(parts) if parts else ops.full(V, (0, int(V.shape[1])), 0.0)


@register
class Conse(Member):
    """Match the classes with the mean of the labels that another classifier gives an image.

    Formula, with p and v the probabilities and vectors of ``class_probs``, and T the ``top``
    likeliest labels of an image that have a vector::

        e(x_i) = sum over t in T of  p_t v_t / sum over t in T of  p_t
        S      = scale * (lam * cos(e(x_i), W_k) + (1 - lam) * <x_i, W_k>) + bias

    A label whose vector is all zero has none, and is passed over in both sums. A class whose vector
    is all zero has the cosine -1. An image without any such label has the cosine 0 with every
    class. For lam = 0 it is ``cosine``.

    For ``lam`` below 1 both parts must lie in one space: v must come from the text encoder of W. v
    may be smoothed over a hierarchy by whoever gives it, as ``hierse`` does it for W.

    Shapes: class_probs (N, K0) and (K0, D), W (K, D) to S (N, K). O(N K D + N T D + N K0), images
    in blocks.

    Source: Norouzi et al., "Zero-Shot Learning by Convex Combination of Semantic Embeddings", ICLR
    2014, as in the released code of HierSE. The share ``lam`` is byname's own.

    Parameters
    ----------
    top : int
        10, as published and in the released code of HierSE; how it was chosen was not checked.
    lam : float
        Share of ConSE. 1 is ConSE alone, as published; not tuned.

    Attributes
    ----------
    None: nothing is learned.

    Raises
    ------
    NeedsError
        Without ``class_probs``.
    EmbeddingsError
        For probabilities that are negative or no numbers, and vectors of another width.
    RecipeError
        For a parameter that does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from byname.taxonomy import Taxonomy
    >>> texts = ClassTexts(np.eye(2), np.array([0, 1]), Taxonomy.from_names(["cat", "dog"]))
    >>> probs = np.array([[0.6, 0.3, 0.1]]), np.array([[0.6, 0.8], [1.0, 0.0], [0.0, 0.0]])
    >>> batch = Batch(np.zeros((1, 2)), class_probs=probs)
    >>> Conse().apply(batch, texts, State(W=texts.vectors)).round(1).tolist()
    [[80.9, 58.8]]
    """

    stage: ClassVar[StageName] = "score"
    name = "conse"
    needs = frozenset({"class_probs"})
    Params = ConseParams
    params: ConseParams

    def apply(self, batch: Batch, texts: ClassTexts, state: State) -> Any:
        """S (N, K)."""
        lam, W = self.params.lam, ops.as_float(state.W)
        P, V = self._given(batch, W)
        e = ops.cast(semantic_vectors(P, V, self.params.top), ops.as_float(batch.X))
        told = ops.matmul_t(e, ops.unit(W))
        missing = ops.like(~(ops.to_numpy(W) != 0).any(axis=1), told)
        told[:, missing] = -1.0
        if lam == 1:
            return texts.scale * told + texts.bias
        return texts.scale * (lam * told + (1 - lam) * ops.matmul_t(batch.X, W)) + texts.bias

    def _given(self, batch: Batch, W: Any) -> tuple[Any, Any]:
        assert batch.class_probs is not None  # one of the needs
        P, V = batch.class_probs
        shapes = tuple(P.shape), tuple(V.shape)
        if shapes != ((len(batch), V.shape[0]), (P.shape[-1], W.shape[1])):
            raise EmbeddingsError(
                "use 'conse'",
                f"the probabilities have the shape {shapes[0]}, the labels' vectors {shapes[1]}; "
                f"there are {len(batch)} images, and the class vectors are {W.shape[1]} wide",
                "Give (N, K0) and (K0, D), with vectors from the encoder of the class texts.",
            )
        if not bool((P >= 0).all()):
            raise EmbeddingsError(
                "use 'conse'",
                "some of the probabilities are negative or not a number",
                "Give the softmax of the other classifier's logits.",
            )
        return P, V
