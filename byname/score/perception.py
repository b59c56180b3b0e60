"""First infer in what circumstances a photo was taken, then classify it in these."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.errors import RecipeError
from byname.score.textparts import put_last, shown_unsaid, text_weights, unsaid
from byname.stage import Batch, ClassTexts, Member, StageName, State, register

__all__ = ["Perception", "PerceptionParams"]

Mode = Literal["with_class", "without_class", "one_step"]
_ROWS, _TILE = 512, 1 << 22  # images and logits at a time: few images, so that many contexts fit
_LEAST = 64  # images at a time where there are very many classes
_PIECE = 1 << 18  # logits that stay in a processor's cache
_LITTLE = 1e-30


@dataclass(frozen=True)
class PerceptionParams:
    """How contexts are inferred, and how much the inference is softened."""

    tau: float = 3.0
    mode: Mode = "with_class"

    def __post_init__(self) -> None:
        if not (self.tau > 0 and math.isfinite(self.tau)):
            raise RecipeError("use 'perception'", f"tau is {self.tau}", "Give a positive number.")
        if self.mode not in get_args(Mode):
            known = ", ".join(get_args(Mode))
            raise RecipeError("use 'perception'", f"mode is {self.mode!r}", f"Known: {known}.")


@register
class Perception(Member):
    """Classify within each context, and average by the probability of the contexts.

    Formula, with t[k,z] the unit mean of the texts of class k in context z::

        f(k,z)   = scale * <x, t[k,z]>
        p(z|x)   ~ sum over k of exp(f(k,z) / tau)           with_class
        p(z|x)   ~ exp(scale * <x, g_z> / tau)               without_class
        p(k|x,z) = softmax over k of f(k,z)
        S_k      = log p(k|x) = log sum over z of p(z|x) * p(k|x,z)

    each exponential with the largest taken out, so that no scale overflows; where p(k|x) is below
    1e-30, all in logarithms, so that S is exact still. "one_step" infers no context:
    S = scale * <x, unit mean over z of t[k,z]> + bias.

    g_z is the unit mean of the texts of no class (class index -1) in context z, such as "a photo of
    an object, in bright light", where every context has one; else the unit mean of t[k,z] over the
    classes. Texts that name neither class nor context cannot tell contexts apart: ``null`` is not
    used. A class without a text in context z has there the unit mean of its t[k,z] in the contexts
    that it has. A class without any context has the unit mean of all its texts in each of them.
    Else texts without a context are not looked at. Weights of the weigh stage count within t[k,z].
    With no context at all there is one, and S is the logarithm of the softmax of plain cosines.

    Shapes: X (N, D), texts (M, D) with their ``context`` (M,) to S (N, K). O(N K Z D), some images
    and contexts at a time; no (N, K, Z) array is made. ``fit`` costs as much again, except for
    "without_class" (N Z D) and "one_step" (nothing).

    Source: An et al., "PerceptionCLIP: Visual Classification by Inferring and Conditioning on
    Contexts", ICLR 2024, arXiv 2308.01313.

    Parameters
    ----------
    tau : float
        Softens p(z|x). The authors' code tries 1, 3, 5 and 10, and sets of factors, on the labelled
        test images; 3 is fixed beforehand.
    mode : {"with_class", "without_class", "one_step"}
        The first two are the paper's, the last is in its released code; "with_class" needs no
        generic word.

    Attributes
    ----------
    share_ : array, shape (Z,)
        After ``fit``: share of the images of which each context is the most likely; zeros where
        there is no image, and empty for "one_step".
    contexts_ : array of int, shape (Z,)
        Their numbers.

    Raises
    ------
    RecipeError
        For a ``tau`` that is not positive, and another ``mode``.

    Examples
    --------
    >>> from byname.taxonomy import Taxonomy
    >>> texts = ClassTexts(np.eye(4), np.array([0, 0, 1, 1]), Taxonomy.from_names(["owl", "cat"]),
    ...                    context=np.array([0, 1, 0, 1]), scale=9.0,
    ...                    context_names=("day", "night"))
    >>> batch = Batch(np.array([[0.2, 0.7, 0.1, 0.6]]))
    >>> np.exp(Perception().apply(batch, texts, State())).round(2).tolist()
    [[0.71, 0.29]]
    >>> Perception().details(batch, texts, State())["context"]
    ['night']
    """

    stage: ClassVar[StageName] = "score"
    name = "perception"
    Params = PerceptionParams
    params: PerceptionParams
    needs: ClassVar[frozenset[str]] = frozenset({"context"})
    uses: ClassVar[frozenset[str]] = frozenset({"context_names", "weight"})
    share_: NDArray[np.float64]
    contexts_: NDArray[np.intp]

    def fit(self, batch: Batch, texts: ClassTexts, state: State) -> Self:
        """Count the images by their most likely context."""
        held = _Contexts(texts, state)
        self.contexts_, self._names = held.ids, held.names()
        self.share_, self._images = np.zeros(0), len(batch)
        if self.params.mode != "one_step":
            best, _ = self._likeliest(batch, held)
            self.share_ = np.bincount(best, minlength=held.Z) / max(1, len(batch))
        return self

    def report(self) -> dict[str, Any]:
        """Number of images, and the share of each context among them, the largest first."""
        if not hasattr(self, "share_") or not len(self.share_) or not self._images:
            return {}
        order = np.argsort(-self.share_, kind="stable")
        shares = [{"context": self._names[z], "share": float(self.share_[z])} for z in order]
        return {"images": self._images, "contexts": shares}

    def details(self, batch: Batch, texts: ClassTexts, state: State) -> dict[str, list[Any]]:
        """``context``: the most likely one of each image, and ``context_probability``.

        Empty for "one_step", which infers none.
        """
        if self.params.mode == "one_step":
            return {}
        held = _Contexts(texts, state)
        best, p = self._likeliest(batch, held)
        names = held.names()
        return {"context": [names[z] for z in best], "context_probability": p.tolist()}

    def apply(self, batch: Batch, texts: ClassTexts, state: State) -> Any:
        """S (N, K)."""
        held = self.once(texts, state, lambda: _Contexts(texts, state))
        tau, X = self.params.tau, ops.as_float(batch.X)
        if self.params.mode == "one_step":
            S = ops.scaled(X, held.mean(), texts.scale, texts.bias)
            return shown_unsaid(S, texts, held.weight)
        A = self._generic(X, held) if self.params.mode == "without_class" else None
        S = ops.full(ops.matmul_t(X[:0], held.vectors[:0]), (len(batch), held.K), 0.0)
        total = ops.full(S, (1, len(batch)), -np.inf)  # log of the contexts' sum so far
        for zs, part, F in held.logits(X):
            E, sums, seen = _exponentials(F, tau if A is None else 0)
            so_far = ops.concat([total[:, part], (seen if A is None else A[part, zs]).T])
            share = ops.softmax(so_far, 0)  # of what S holds already, and of each new context
            found = ((share[1:].T / sums)[:, None] @ E)[:, 0]
            S[part] = S[part] * share[0][:, None] + found
            total[0, part] = ops.logsumexp(so_far, 0)
        poor = np.flatnonzero(ops.to_numpy((S < _LITTLE).any(1)))
        S = ops.log_probability(S)
        if len(poor):  # too little is left of a class for its logarithm to be exact
            A = A if A is None else ops.take_rows(A, poor)
            S[ops.like(poor, S)] = self._by_logarithms(ops.take_rows(X, poor), held, A)
        return S

    def _by_logarithms(self, X: Any, held: _Contexts, A: Any) -> Any:
        """S by log-sum-exp throughout, for probabilities of any size; slower."""
        S = ops.full(ops.matmul_t(X[:0], held.vectors[:0]), (len(X), held.K), -np.inf)
        for zs, part, F in held.logits(X):
            seen = ops.logsumexp(F / self.params.tau) if A is None else A[part, zs]
            found = ops.logsumexp(F + (seen - ops.logsumexp(F))[..., None], 1)
            S[part] = ops.logsumexp(ops.concat([S[part][None], found[None]]), 0)
        return ops.log_softmax(S)

    def _generic(self, X: Any, held: _Contexts) -> Any:
        """Logits (N, Z) of the contexts, by texts about no class."""
        return held.texts.scale / self.params.tau * ops.matmul_t(X, held.generic())

    def _likeliest(
        self, batch: Batch, held: _Contexts
    ) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Place (N,) of the most likely context of each image, and its probability."""
        X = ops.as_float(batch.X)
        if self.params.mode == "without_class":
            A = self._generic(X, held)
        else:
            A = ops.full(ops.matmul_t(X[:0], held.vectors[:0]), (len(batch), held.Z), 0.0)
            for zs, part, F in held.logits(X):
                A[part, zs] = ops.logsumexp(F / self.params.tau)
        p, best = ops.topk(ops.softmax(A), 1)
        return ops.to_numpy(best)[:, 0], ops.to_numpy(p)[:, 0].astype(np.float64)


def _exponentials(F: Any, tau: float) -> tuple[Any, Any, Any]:
    """exp(F) up to a factor of each row, its sums, and logsumexp(F / tau); F may be overwritten.

    All images meet all classes in all contexts here, so each pass over F is one that counts.
    """
    if ops.is_torch(F):
        E = ops.softmax(F)
        return E, E.sum(-1), ops.logsumexp(F / tau) if tau else None
    top, ones, seen = F.max(axis=-1, keepdims=True), np.ones(F.shape[-1], F.dtype), None
    F -= top
    if tau:
        G = F / tau
        np.exp(G, out=G)
        seen = np.log(G @ ones) + top[..., 0] / tau  # a product is the fastest sum
    np.exp(F, out=F)
    return F, F @ ones, seen


class _Contexts:
    """The texts as Z contexts of K classes."""

    def __init__(self, texts: ClassTexts, state: State) -> None:
        self.texts, self.vectors, self.K = texts, ops.as_float(texts.vectors), texts.n_classes
        self.index, given = ops.to_numpy(texts.class_index), ops.to_numpy(texts.context)
        self.weight = text_weights(texts, state)
        self.unsaid = unsaid(texts, self.weight)
        counted = (self.weight > 0) & (given >= 0)
        self.ids: NDArray[np.intp] = np.unique(given[counted]).astype(np.intp)
        place = np.searchsorted(self.ids, given)
        known = np.isin(given, self.ids)
        self.ids = self.ids if len(self.ids) else np.array([-1], np.intp)
        self.Z = len(self.ids)
        self.loose = np.where(known & (self.index < 0), place, -1)  # contexts of no class
        self.cell = np.where(counted, place * self.K + self.index, -1)
        self.has: NDArray[np.bool_] = np.asarray(
            np.bincount(self.cell[counted], minlength=self.Z * self.K) > 0
        )

    def names(self) -> list[str | None]:
        """Of the contexts; None where there is none at all."""
        given = self.texts.context_names
        return [None if z < 0 else str(z) if given is None else given[z] for z in self.ids.tolist()]

    def logits(self, X: Any) -> Iterator[tuple[slice, slice, Any]]:
        """Contexts, images, and f of these: (images, contexts, K)."""
        wide = max(1, min(self.Z, _TILE // (_ROWS * self.K)))
        rows = max(_LEAST, _TILE // (wide * self.K))
        for zs in ops.blocks(self.Z, wide):
            T = self.tile(zs) * self.texts.scale
            for part in ops.blocks(len(X), rows):
                F = ops.matmul_t(X[part], T)
                F = put_last(F.reshape(len(F), -1, self.K), self.unsaid, -self.texts.scale)
                for few in ops.blocks(len(F), max(1, _PIECE // (wide * self.K))):
                    yield zs, slice(part.start + few.start, part.start + few.stop), F[few]

    def tile(self, zs: slice) -> Any:
        """t (contexts * K, D) of some contexts, without holes."""
        T = self._raw(zs)
        holes = np.flatnonzero(~self.has[zs.start * self.K : zs.stop * self.K])
        if len(holes):
            T[ops.like(holes, T)] = ops.take_rows(self.mean(), holes % self.K)
        return T

    def _raw(self, zs: slice) -> Any:
        first, last = zs.start * self.K, zs.stop * self.K
        rows = np.flatnonzero((self.cell >= first) & (self.cell < last))
        if len(rows) == last - first and self.has[first:last].all():  # one text each
            return ops.unit(ops.take_rows(self.vectors, rows[np.argsort(self.cell[rows])]))
        T = ops.take_rows(self.vectors, rows)
        return ops.unit(
            ops.segment_sum(T, self.cell[rows] - first, last - first, self.weight[rows])
        )

    def mean(self) -> Any:
        """Unit mean over the contexts (K, D); of all texts for a class without contexts."""
        if not hasattr(self, "_mean"):
            K, empty = self.K, np.asarray(~self.has.reshape(self.Z, self.K).any(axis=0))
            rest = np.where(empty[self.index], self.index, -1)
            total = ops.unit(ops.segment_sum(self.vectors, rest, K, self.weight))
            for z in range(self.Z):
                total = total + self._raw(slice(z, z + 1))
            self._mean = ops.unit(total)
        return self._mean

    def generic(self) -> Any:
        """g (Z, D)."""
        own = np.bincount(self.loose[self.loose >= 0], minlength=self.Z)
        if (own > 0).all():
            return ops.unit(ops.segment_sum(self.vectors, self.loose, self.Z))
        parts = []
        for z in range(self.Z):
            T = self.tile(slice(z, z + 1))
            parts.append(ops.segment_sum(T, np.zeros(self.K, np.intp), 1))
        return ops.unit(ops.concat(parts))
