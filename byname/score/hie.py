"""Texts in levels, from general to fine: finer levels count while they keep agreeing better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from byname import ops
from byname.errors import RecipeError
from byname.stage import Batch, ClassTexts, Member, StageName, State, register

__all__ = ["Hie", "HieParams"]


@dataclass(frozen=True)
class HieParams:
    """Share of level 0, and the least gain by which a level must beat the one before."""

    lam: float = 0.5
    eta: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.lam <= 1:
            raise RecipeError("use 'hie'", f"lam is {self.lam}", "Give a number from 0 to 1.")
        if not abs(self.eta) <= 2:
            raise RecipeError(
                "use 'hie'", f"eta is {self.eta}", "Give a difference of cosines, from -2 to 2."
            )


@register
class Hie(Member):
    """Fuse the scores of a class's levels of texts: the longest increasing prefix of levels.

    Formula, with s_l[i,k] the weighted mean of <x_i, t_m> over the texts m of class k in level l::

        kept = {1} and every l >= 2 with s_l - s_{l-1} > eta whose earlier levels are all kept
        S = scale * (lam * s_0 + (1 - lam) * mean of the kept s_l) + bias

    A class without finer levels has S = scale * s_0 + bias, one without a level 0 the mean of the
    kept levels alone. Levels are counted for each class by itself: where a class has texts of the
    levels 0, 2 and 5, its finer levels are 1 and 2. Texts without a level (-1) are of level 0.
    A mean of cosines is the cosine with the mean vector, so each level costs one (K, D) matrix.

    Shapes: X (N, D), texts (M, D) with their ``level`` (M,) to S (N, K). O(N K D) a level; no
    (N, M) matrix is made.

    Source: Ren et al., "ChatGPT-Powered Hierarchical Comparisons for Image Classification",
    NeurIPS 2023, as specified by Liang & Davis, arXiv 2503.02248, whose code mixed up the order of
    the classes here.

    Parameters
    ----------
    lam : float
        Share of level 0. The authors chose it for each data set on labelled validation images
        (0.3 to 0.7); 0.5 is fixed beforehand, the middle of that range.
    eta : float
        Least gain of a level over the one before; 0 as published.

    Raises
    ------
    RecipeError
        For ``lam`` outside 0 to 1, or ``eta`` that is no difference of cosines.

    Examples
    --------
    >>> from byname.taxonomy import Taxonomy
    >>> texts = ClassTexts(np.eye(2), np.array([0, 0]), Taxonomy.from_names(["cat"]),
    ...                    level=np.array([0, 1]), scale=10.0)
    >>> Hie().apply(Batch(np.array([[0.6, 0.8]])), texts, State()).tolist()
    [[7.0]]
    """

    stage: ClassVar[StageName] = "score"
    name = "hie"
    Params = HieParams
    params: HieParams
    needs: ClassVar[frozenset[str]] = frozenset({"level"})

    def apply(self, batch: Batch, texts: ClassTexts, state: State) -> Any:
        """S (N, K)."""
        means, has, share = self.once(texts, state, lambda: self._sum_up(texts, state))
        base, total = (ops.matmul_t(batch.X, level) for level in means[:2])
        # As wide as the scores, of whichever library: a wider factor would widen the result.
        share, *has = (ops.cast(ops.like(part, base), base) for part in (share, *has))
        count, before = has[1], total
        alive: Any = has[1] > 0
        for level, here in zip(means[2:], has[2:], strict=True):
            now = ops.matmul_t(batch.X, level)
            alive = alive & (here > 0) & (now - before > self.params.eta)
            total, count, before = total + alive * now, count + alive, now
        fine = total / (count + (count == 0))
        # Scaled on the way, for the factors are small and the scores are many.
        base *= texts.scale * share
        fine *= texts.scale * (1 - share)
        base += fine
        return base + texts.bias if texts.bias else base

    def _sum_up(self, texts: ClassTexts, state: State) -> tuple[list[Any], list[Any], Any]:
        """Of each level the mean texts (K, D), and the classes (K,) with any; shares of level 0."""
        level, weight = _levels(texts), _weights(texts, state)
        own = [
            np.where(level == n, weight, 0) for n in range(max(2, int(level.max(initial=0)) + 1))
        ]
        K = texts.n_classes
        means = [ops.segment_mean(texts.vectors, texts.class_index, K, w) for w in own]
        return means, [_counted(texts, w) for w in own], self._shares(texts, level, weight)

    def _shares(self, texts: ClassTexts, level: Any, weight: Any) -> Any:
        """Share (K,) of level 0: ``lam``, but all or nothing for a class with one of the two."""
        general = _counted(texts, np.where(level == 0, weight, 0))
        fine = _counted(texts, np.where(level >= 1, weight, 0))
        return np.where(fine, np.where(general, self.params.lam, 0.0), 1.0)


def _counted(texts: ClassTexts, weight: Any) -> Any:
    """Whether each class has a text of positive weight."""
    index = ops.to_numpy(texts.class_index)
    used = (index >= 0) & (weight > 0)
    return np.bincount(index[used], minlength=texts.n_classes) > 0


def _weights(texts: ClassTexts, state: State) -> Any:
    """Weight (M,) of each text: that of the weigh stage, else that which came with it, else 1."""
    given = state.weight if state.weight is not None else texts.weight
    weight = np.ones(len(texts.class_index)) if given is None else ops.to_numpy(given)
    return weight.astype(np.float64)


def _levels(texts: ClassTexts) -> Any:
    """Level (M,) of each text, the finer ones numbered from 1 without gaps within each class."""
    index = ops.to_numpy(texts.class_index)
    given = np.maximum(ops.to_numpy(texts.level), 0)
    pairs = np.unique(np.stack([index, given], axis=1)[given > 0], axis=0)
    starts = np.searchsorted(pairs[:, 0], pairs[:, 0])
    rank = np.arange(len(pairs)) - starts + 1
    width = int(given.max(initial=0)) + 1
    table = np.zeros((index.max(initial=0) + 2, width), np.intp)  # the last row is for class -1
    table[pairs[:, 0], pairs[:, 1]] = rank
    return table[index, given]
