"""Text scores plus a cache of images whose class is known or guessed (TIP-X, CapS)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.errors import EmbeddingsError, RecipeError
from byname.score.textparts import shown_unsaid, text_weights
from byname.stage import Array, Batch, ClassTexts, Member, StageName, State, Support, register
from byname.stream import reduce_texts

__all__ = ["TipX", "TipXParams", "confident_images"]

Order = Literal["rescale-negate", "negate-rescale"]
Ints = NDArray[np.intp]
ROWS, COLUMNS = 1024, 4096
FLAT = 1e-9  # divergences in nats that differ by less are rounding


@dataclass(frozen=True)
class TipXParams:
    """Shares of the two terms of the cache, and where its images come from."""

    alpha: float = 1.0
    beta: float = 5.5
    gamma: float = 1.0
    temperature: float = 0.5
    order: Order = "rescale-negate"
    balance: bool = False
    delta: float = 0.3
    pseudo: int = 16

    def __post_init__(self) -> None:
        p = self
        rules = {
            "alpha": (0 <= p.alpha < math.inf, "0 or more"),
            "beta": (0 <= p.beta < math.inf, "0 or more"),
            "gamma": (0 <= p.gamma < math.inf, "0 or more"),
            "temperature": (0.001 <= p.temperature < math.inf, "0.001 or more"),
            "order": (p.order in get_args(Order), " or ".join(map(repr, get_args(Order)))),
            "delta": (0 <= p.delta <= 1, "from 0 to 1"),
            "pseudo": (p.pseudo >= 1, "1 or more"),
        }
        for name, (fits, rule) in rules.items():
            if not fits:
                seen = f"{name} is {getattr(self, name)!r}"
                raise RecipeError("use 'tip_x'", seen, f"It must be {rule}.")


@register
class TipX(Member):
    """Class texts, and images of each class: similar images and similar answers count.

    Formula, with F (R, D) the support, Y (R, K) its classes one-hot, C its captions::

        A    = X G^T,  G = F, or (1 - delta) F + delta C for rows with a caption
        K1   = exp(-beta (1 - A)) Y
        q_i  = softmax(W x_i / temperature),  r_m = softmax(W f_m / temperature)
        D_im = KL(q_i || r_m) = sum_c q_ic log(q_ic / r_mc)
        D'   = D, its minimum and maximum moved onto those of A
        K2   = -D' Y                          (order "rescale-negate")
        K2   = (-D)' Y                        (order "negate-rescale")
        S    = scale * X W^T + bias + alpha K1 + gamma K2

    With ``balance`` the columns of Y are divided by their sums. Minima and maxima are taken over
    the images of ``fit`` and the support, and then stay, so that the answer for an image does not
    depend on those scored with it. Since D' is linear in D, only the search for its range needs
    the pairs of images and support; ``apply`` needs sums over the classes. D is computed from
    what the signatures are above 1/K, since float32 would lose it in the difference of two
    entropies.

    A batch without ``support`` makes its own: of each class the ``pseudo`` images that are surest
    of it, where first choices come before second, second before third, whatever their
    probability. All classes then have equally many. A class without support in a given one gets
    the mean of what the others get, so that it is neither preferred nor punished (ours; the
    papers have support for every class). Without any support S is the cosine.

    Shapes: X (N, D), support (R, D), W (K, D) to S (N, K). O(N R (D + K)) for ``fit``,
    O(N R D + N K^2) for ``apply``; the (N, R) arrays are made in tiles only.

    Source: Udandarao et al., "SuS-X: Training-Free Name-Only Transfer of Vision-Language Models",
    ICCV 2023; its captions: Wang, Liu & Wang, "CapS-Adapter: Caption-based MultiModal Adapter in
    Zero-Shot Classification", arXiv 2405.16591, 2024. The released code of the first leaves the
    last images of a batch without divergence and scales that of the test by the validation range;
    that of the second takes softmax over feature dimensions. None of that is repeated here.

    Parameters
    ----------
    alpha : float
        Share of K1, in logits. The papers chose alpha, beta and gamma on labelled validation
        images of each data set (from 0.1 to 50, 1 to 50, and 0.1 to 30). 1 is ours, fixed
        beforehand.
    beta : float
        How fast similarity stops counting; 5.5 is ours too.
    gamma : float
        Share of K2, in logits; 1 is ours.
    temperature : float
        Of the signatures, 0.5 as published.
    order : {"rescale-negate", "negate-rescale"}
        The text of the paper, or the other way round. They differ by a constant times the number
        of images of a class: the first prefers classes with few, the second with many; with equal
        numbers it does not matter.
    balance : bool
        Whether classes count alike however many images support them. Off as published; K1 and K2
        then count 1/n as much, so alpha and gamma would have to be larger.
    delta : float
        Share of the captions, where the support has them. The paper chose it on labelled
        validation images; 0.3 is ours. 0 is TIP-X.
    pseudo : int
        Images of each class that support themselves, where no support is given; 16 is ours.

    Attributes
    ----------
    kind_ : str
        ``pseudo``, ``generated`` or ``labelled``.
    support_ : array of int, shape (K,)
        Support images of each class.
    affinity_, divergence_ : tuple of float
        Smallest and largest A and D over the images of ``fit``.

    Raises
    ------
    RecipeError
        For a parameter that does not fit.
    EmbeddingsError
        For a support whose shapes or classes do not fit.

    Examples
    --------
    >>> from byname.taxonomy import Taxonomy
    >>> texts = ClassTexts(np.eye(2), np.arange(2), Taxonomy.from_names(["cat", "dog"]))
    >>> support = Support(np.array([[0.8, 0.6], [0.6, 0.8]]), np.array([0, 1]), "labelled")
    >>> batch, state = Batch(np.array([[0.8, 0.6]]), support=support), State(W=texts.vectors)
    >>> TipX().fit(batch, texts, state).apply(batch, texts, state).round(2).tolist()
    [[80.04, 59.8]]
    """

    stage: ClassVar[StageName] = "score"
    name = "tip_x"
    needs = frozenset({"X"})
    uses: ClassVar[frozenset[str]] = frozenset({"support"})
    Params = TipXParams
    params: TipXParams

    def fit(self, batch: Batch, texts: ClassTexts, state: State) -> Self:
        """Choose the support where none is given, sum it up, and find the ranges."""
        X, W = ops.as_float(batch.X), ops.as_float(ops.like(state.W, batch.X))
        support, K = batch.support, texts.n_classes
        if support is None:
            rows, index = confident_images(X, W, self.params.pseudo, texts.scale, texts.bias)
            support = Support(ops.take_rows(X, rows), index, "pseudo")
        self.kind_ = support.kind
        F, G, self.index_ = _checked(support, X, K, self.params.delta)
        self.support_ = np.bincount(self.index_, minlength=K)
        self.keys_ = G
        C = ops.matmul_t(F, W)
        parts = [self._signatures(C[rows])[1:3] for rows in ops.blocks(len(self.index_), ROWS)]
        parts = parts or [self._signatures(C)[1:3]]
        deviation, z = (ops.concat(arrays) for arrays in zip(*parts, strict=True))
        self.affinity_, self.divergence_ = self._ranges(X, W, G, deviation, z)
        self.sums_ = ops.segment_sum(deviation, self.index_, K)
        self.offsets_ = ops.segment_sum(z[:, None], self.index_, K)[:, 0]
        return self

    def report(self) -> dict[str, Any]:
        """Kind and number of support images, and the ranges; empty before ``fit``."""
        if not hasattr(self, "kind_"):
            return {}
        return {
            "kind": self.kind_,
            "support": int(self.support_.sum()),
            "fewest_of_a_class": int(min(self.support_, default=0)),
            "most_of_a_class": int(max(self.support_, default=0)),
            "affinity": list(self.affinity_),
            "divergence": list(self.divergence_),
        }

    def apply(self, batch: Batch, texts: ClassTexts, state: State) -> Any:
        """S (N, K)."""
        X = ops.as_float(batch.X)
        C = ops.matmul_t(X, ops.like(state.W, X))
        S = shown_unsaid(texts.scale * C + texts.bias, texts, text_weights(texts, state))
        held = self.support_ > 0
        if not held.any() or not len(batch):
            return S
        extra = self._cache(X, C)
        if not held.all():
            some, none = (ops.like(np.flatnonzero(flag), extra) for flag in (held, ~held))
            extra[:, none] = extra[:, some].mean(1)[:, None]
        return S + extra

    def _cache(self, X: Array, C: Array) -> Array:
        """alpha K1 + gamma K2 (N, K), from images and their cosines with the classes."""
        p, K = self.params, len(self.support_)
        found = reduce_texts(X, self.keys_, self.index_, K, "logsumexp", scale=p.beta) - p.beta
        # No cosine is above 1 but by rounding, which a large beta would make much of.
        most = ops.full(found, tuple(found.shape), 0.0)
        most += ops.cast(np.log(np.maximum(self.support_, 1)), found)
        found[found > most] = most[found > most]
        K1 = p.alpha * math.e**found
        dq, _, _, h = self._signatures(C)
        n = ops.cast(self.support_, C)
        D = ops.matmul_t(dq, self.sums_)  # sums over the support of a class, less its constants
        D = h[:, None] * n + ops.cast(self.offsets_, C) - D
        (low, high), (least, most) = self.affinity_, self.divergence_
        factor = (high - low) / (most - least) if most - least > FLAT else 0.0
        if p.order == "rescale-negate":
            K2 = -factor * D - (low - factor * least) * n
        else:
            K2 = -factor * D + (low + factor * most) * n
        extra = K1 + p.gamma * K2
        return extra / (n + (n == 0)) if p.balance else extra

    def _signatures(self, C: Array) -> tuple[Array, Array, Array, Array]:
        """From cosines (N, K): q - 1/K, logits less their mean, z and h.

        log q = logits less their mean - z - log K, and h = sum q log(q K), so that
        KL(q_i || r_m) = h_i + z_m - (q_i - 1/K) . deviation_m, where all terms are small.
        """
        K = int(C.shape[1])
        deviation = C / self.params.temperature
        deviation = deviation - deviation.mean(1)[:, None]
        wide = ops.to_numpy(deviation).astype(np.float64)
        z = ops.cast(ops.logsumexp(wide) - math.log(K), deviation)
        dq = ops.softmax(deviation) - 1 / K
        return dq, deviation, z, (dq * deviation).sum(1) - z

    def _ranges(
        self, X: Array, W: Array, G: Array, deviation: Array, z: Array
    ) -> tuple[tuple[float, float], tuple[float, float]]:
        """Smallest and largest A and D over all images and the support; zeros without support."""
        ends: list[tuple[float, float, float, float]] = []
        for part in ops.blocks(int(X.shape[0]), ROWS):
            dq, _, _, h = self._signatures(ops.matmul_t(X[part], W))
            for columns in ops.blocks(int(G.shape[0]), COLUMNS):
                A = ops.matmul_t(X[part], G[columns])
                D = ops.matmul_t(-dq, deviation[columns])
                D += h[:, None]
                D += z[columns][None]
                ends.append((*_ends(A), *_ends(D)))
        if not ends:
            return (0.0, 0.0), (0.0, 0.0)
        a, b, c, d = np.array(ends).T
        return (float(a.min()), float(b.max())), (float(c.min()), float(d.max()))


def _ends(x: Array) -> tuple[float, float]:
    return float(x.min()), float(x.max())


def _checked(support: Support, X: Array, K: int, delta: float) -> tuple[Array, Array, Ints]:
    """Vectors, those with the captions mixed in, and classes, of the rows that have a class."""
    index, given = ops.to_numpy(support.class_index), ops.as_float(ops.like(support.vectors, X))
    D, captions = int(X.shape[1]), support.captions
    fits = index.ndim == 1 and tuple(given.shape) == (len(index), D)
    fits = fits and (captions is None or tuple(captions.shape) == (len(index), D))
    if not fits or (len(index) and not (index.min() >= -1 and index.max() < K)):
        seen = f"vectors {tuple(given.shape)}, classes {index.shape}"
        seen += "" if captions is None else f", captions {tuple(captions.shape)}"
        if index.size:
            seen += f", class indices from {index.min()} to {index.max()}"
        raise EmbeddingsError(
            "score with 'tip_x'",
            f"the support has {seen}",
            f"Give vectors {D} wide, one class below {K} for each, and as many captions or none.",
        )
    used = np.flatnonzero(index >= 0)
    F = ops.take_rows(given, used)
    if captions is None:
        return F, F, index[used]
    told = ops.cast(ops.take_rows(captions, used), F)
    share = delta * ops.cast((told != 0).any(1), F)[:, None]
    return F, (1 - share) * F + share * told, index[used]


def confident_images(
    X: Array, W: Array, n: int, scale: float = 100.0, bias: float = 0.0
) -> tuple[Ints, Ints]:
    """The n images that are surest of each class: first choices, then second ones, and so on.

    Among the images whose r-th choice a class is, those of the largest softmax(scale X W^T + bias)
    come first.

    Parameters
    ----------
    X : array, shape (N, D)
    W : array, shape (K, D)
    n : int
        Cut to N where it is larger.
    scale, bias : float

    Returns
    -------
    rows, classes : arrays of int, shape (K * min(n, N),)
        Sorted by class, then by choice and probability. An image may stand for several classes.

    Examples
    --------
    >>> confident_images(np.array([[1.0, 0.0], [0.8, 0.6]]), np.eye(2), 1)
    (array([0, 1]), array([0, 1]))
    """
    K, N = int(W.shape[0]), int(X.shape[0])
    top, sure = np.zeros(N, np.intp), np.zeros(N)
    for part in ops.blocks(N, ROWS):
        S = ops.to_numpy(scale * ops.matmul_t(X[part], W) + bias)
        best, at = S.argmax(axis=1), np.arange(len(S))
        own = S[at, best]
        S[at, best] = -np.inf
        rest = ops.logsumexp(S) if K > 1 else 0.0
        # Log odds, since probabilities near 1 are all the same in floating point.
        top[part], sure[part] = best, own - rest
    order = np.lexsort((-sure, top))
    first = np.searchsorted(top[order], top[order])
    chosen = order[np.arange(N) - first < n]
    few = np.flatnonzero(np.bincount(top[chosen], minlength=K) < min(n, N))
    full = chosen[~np.isin(top[chosen], few)]
    rows, classes = full, top[full]
    if len(few):
        more = _later_choices(X, W, min(n, N), scale, few)
        rows = np.append(rows, more.T.ravel())
        classes = np.append(classes, np.repeat(few, len(more)))
        order = np.argsort(classes, kind="stable")
        rows, classes = rows[order], classes[order]
    return rows, classes


def _later_choices(X: Array, W: Array, n: int, scale: float, classes: Ints) -> Ints:
    """Rows (n, C) of the images that rank these classes highest, and then are surest of them."""
    N = int(X.shape[0])
    keys: NDArray[np.float64] = np.empty((0, len(classes)))
    rows: Ints = np.empty((0, len(classes)), np.intp)
    for part in ops.blocks(N, ROWS):
        S = ops.to_numpy(scale * ops.matmul_t(X[part], W))
        order, rank = np.argsort(-S, axis=1, kind="stable"), np.empty(S.shape)
        np.put_along_axis(rank, order, np.arange(S.shape[1], dtype=float)[None], axis=1)
        doubt = ops.logsumexp(S)[:, None] - S[:, classes].astype(np.float64)
        doubt = np.maximum(doubt, 0)
        key = rank[:, classes] + doubt / (1 + doubt)
        here = np.repeat(np.arange(part.start, part.stop)[:, None], len(classes), axis=1)
        keys, rows = np.concatenate([keys, key]), np.concatenate([rows, here])
        kept = np.argsort(keys, axis=0, kind="stable")[:n]
        keys = np.take_along_axis(keys, kept, axis=0)
        rows = np.take_along_axis(rows, kept, axis=0)
    return rows
