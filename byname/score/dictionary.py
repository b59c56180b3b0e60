"""Is this word relevant to this item? A model of that, learned from the texts of the classes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from byname import ops
from byname.errors import RecipeError
from byname.stage import Array, Batch, ClassTexts, Member, StageName, State, register

__all__ = ["Dictionary", "DictionaryParams"]

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
WORDS = frozenset({"name", "synonym"})  # kinds of texts that are words for a class
ENTRIES = 5  # a word of more classes than this is not trained on
PAIRS = 8192  # texts to train on at most
TRIES = 20  # draws of a negative before a text goes without
ROWS = 256  # images at a time: their differences from a word stay in the cache
MAX_ITER = 500
IMAGES = 5  # images a class at which half of their mean counts
LEAST = 1e-5  # a shorter vector, once centred, is rounding


@dataclass(frozen=True)
class DictionaryParams:
    """How the relevance model is trained."""

    C: float = 1.0
    negatives: int = 1
    center: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        rules = {
            "C": (0 < self.C < np.inf, "a finite number above 0"),
            "negatives": (self.negatives >= 1, "1 or more"),
            "seed": (self.seed >= 0, "0 or more"),
        }
        for name, (fits, rule) in rules.items():
            if not fits:
                seen = f"{name} is {getattr(self, name)!r}"
                raise RecipeError("use 'dictionary'", seen, f"It must be {rule}.")


@register
class Dictionary(Member):
    """Relevance of the class's words to an image, by a logistic regression over pairs of texts.

    Formula, for a pair of vectors u and v, with s(z) = 1 / (1 + exp(-z))::

        P(u, v) = s( sum_d a_d u_d v_d + sum_d b_d |u_d - v_d| + c )
        a, b, c: min 1/2 (|a|^2 + |b|^2) + C * sum over the pairs of -log P, or -log(1 - P)
        S[i,k]  = log mean over the words v of class k of P(x_i, v)

    With ``center``, u and v are made of unit(t - mu) for the texts t, mu the mean of the classes'
    mean texts, and x of unit(x - s nu), nu the mean of the images that were given to ``fit`` and
    s = N / (N + 5 K) their shrinkage. Otherwise they are the vectors as they are.

    The words of a class are its texts of the kinds "name" and "synonym"; a class without one has
    one word, the unit mean of its texts. Positive pairs: each text with a word of its class other
    than itself, drawn at random; where the word is the mean, with the mean of the class's other
    texts. Negative pairs: the same text with a word of the class of another text, drawn at random.
    Homonyms are told by their vectors: a negative that equals a word of the text's own class is
    drawn anew, up to 20 times, and words of more than 5 classes are not trained on.
    Draws go by the ids of the classes and the contents of the texts; their order changes nothing.

    Falls back to ``cosine`` where there is no positive or no negative pair: one class, one text a
    class, identical texts. Texts of no class or of weight 0 do not count. A class without texts
    has the probability 1e-30.

    Shapes: X (N, D), texts (M, D), R words to S (N, K). Training: 8192 texts at most, evenly drawn,
    so at most 16384 pairs with 2 D features. Then N*R*D products and N*R*D absolute differences,
    which are no matrix product and cost several times as much; 256 images at a time.

    Source: Philippy et al., "Forget NLI, Use a Dictionary: Zero-Shot Topic Classification for
    Low-Resource Languages with Application to Luxembourgish", SIGUL 2024 (LETZ), who train a
    cross-encoder on sentences and words of a dictionary. The regression on frozen vectors, the
    texts of the classes as the dictionary, and its use on images are ours.

    Parameters
    ----------
    C : float
        Inverse strength of the regularisation, not of the intercept; 1 is ours.
    negatives : int
        Negative pairs a text; 1 as in the paper's data.
    center : bool
        Whether both modalities are centred; ours. What the regression learns about two texts is
        not true of an image and a text while images and texts lie apart. False is the paper's
        formula on vectors as they are, which on images loses much (docs/recipes/dictionary.md).
    seed : int
        Of all draws.

    Attributes
    ----------
    coef_ : array, shape (2 D,), or None
        a, then b; None where it falls back.
    intercept_ : float
    pairs_ : tuple of int
        Positive and negative pairs trained on.

    Raises
    ------
    RecipeError
        For a parameter that does not fit.

    Examples
    --------
    >>> from byname.taxonomy import Taxonomy
    >>> vectors = ops.unit(np.array([[1.0, 0.1], [1.0, -0.1], [0.1, 1.0], [-0.1, 1.0]]))
    >>> texts = ClassTexts(vectors, np.array([0, 0, 1, 1]), Taxonomy.from_names(["cat", "dog"]))
    >>> batch, state = Batch(np.array([[0.8, 0.6]])), State(W=np.eye(2))
    >>> Dictionary().fit(batch, texts, state).apply(batch, texts, state).argmax(axis=1).tolist()
    [0]
    """

    stage: ClassVar[StageName] = "score"
    name = "dictionary"
    uses: ClassVar[frozenset[str]] = frozenset({"kind"})
    Params = DictionaryParams
    params: DictionaryParams
    coef_: Floats | None

    def fit(self, batch: Batch, texts: ClassTexts, state: State) -> Self:
        """Train on pairs of texts; the images give their mean alone."""
        words = _Words(texts, state, self.params.center)
        self.coef_, self.intercept_, self.accuracy_ = None, 0.0, 0.0
        positive, negative = words.pairs(self.params)
        self.pairs_ = len(positive[0]), len(negative[0])
        if all(self.pairs_):
            U, V = (np.concatenate(both) for both in zip(positive, negative, strict=True))
            y = np.repeat([True, False], self.pairs_)
            F = np.concatenate([U * V, np.abs(U - V)], axis=1, dtype=np.float64)
            self.coef_, self.intercept_ = _logistic(F, y, self.params.C)
            self.accuracy_ = float((((F @ self.coef_ + self.intercept_) > 0) == y).mean())
        self._words, self._table = words.vectors, words.table
        N, K = len(batch), texts.n_classes
        self._mean = None
        if self.params.center and N:
            mean = ops.segment_mean(batch.X, np.zeros(N, np.intp), 1)
            self._mean = ops.to_numpy(mean) * (N / (N + IMAGES * K))
        return self

    def apply(self, batch: Batch, texts: ClassTexts, state: State) -> Any:
        """S (N, K): logarithms of probabilities."""
        if self.coef_ is None:
            return texts.scale * ops.matmul_t(batch.X, state.W) + texts.bias
        X = ops.as_float(batch.X)
        mean = None if self._mean is None else ops.cast(self._mean, X)
        V = ops.cast(self._words, X)
        a, b = (ops.cast(part, X) for part in np.split(self.coef_, 2))
        known = self._table >= 0
        empty = ops.like(np.flatnonzero(~known.any(axis=1)), X)
        inside = ops.cast(np.where(known, 0.0, -np.inf), X)
        inside[empty] = 0
        share = ops.cast(np.log(np.maximum(known.sum(axis=1), 1)), X)
        columns = ops.like(np.maximum(self._table, 0), X)
        S = ops.full(X, (len(batch), len(self._table)), 0.0)
        for rows in ops.blocks(len(batch), ROWS):
            x = X[rows] if mean is None else ops.unit(X[rows] - mean)
            logs = _log_sigmoid(_pair_logits(x, V, a, b) + self.intercept_)
            S[rows] = ops.logsumexp(logs[:, columns] + inside) - share
        S[:, empty] = float(np.log(1e-30))
        return S

    def report(self) -> dict[str, Any]:
        """What it was trained on, and how many of these pairs it tells; empty before ``fit``."""
        if not hasattr(self, "pairs_"):
            return {}
        return {
            "positive_pairs": self.pairs_[0],
            "negative_pairs": self.pairs_[1],
            "words": len(self._words),
            "accuracy_on_pairs": self.accuracy_,
            "fell_back_to_cosine": self.coef_ is None,
        }


class _Words:
    """The words of the classes, and pairs of texts and words to train on.

    Inside, texts are sorted and classes numbered by their ids: the same are drawn in any order.

    Attributes
    ----------
    vectors : array, shape (R, D)
    table : array of int, shape (K, most words of a class)
        Words of each class, -1 beside them.
    """

    def __init__(self, texts: ClassTexts, state: State, center: bool) -> None:
        K, given = texts.n_classes, state.weight if state.weight is not None else texts.weight
        index, kinds, place = _places(texts)
        weight = np.ones(len(index)) if given is None else ops.to_numpy(given).astype(np.float64)
        vectors = ops.to_numpy(ops.as_float(texts.vectors))
        order = np.lexsort((weight, kinds, _digests(vectors), index))
        index, kinds = index[order], kinds[order]
        self.weight = np.where(index >= 0, weight[order], 0.0)
        self.index, self.texts = index, vectors[order]
        used = self.weight > 0
        self.used = np.flatnonzero(used)
        if center:
            self.texts = _centred(self.texts, index, K, self.weight)
        own = np.flatnonzero(kinds & used)
        self.sums = ops.segment_sum(self.texts, index, K, self.weight)
        nameless = np.bincount(index[self.used], minlength=K) > 0
        nameless[index[own]] = False
        mean = np.flatnonzero(nameless)
        self.vectors = np.concatenate([self.texts[own], ops.unit(self.sums[mean])])
        self.row = np.append(own, np.full(len(mean), -1))  # text of each word
        word_class = np.append(index[own], mean)
        order = np.argsort(word_class, kind="stable")
        self.count = np.bincount(word_class, minlength=K)
        number = np.arange(self.count.max(initial=1))
        inside = number < self.count[:, None]
        first = np.cumsum(self.count) - self.count
        at = np.where(inside, first[:, None] + number, 0)
        self.sorted = np.where(inside, order[at], -1) if len(order) else np.full(at.shape, -1)
        self.table = self.sorted[place]
        self._homonyms(word_class)

    def _homonyms(self, word_class: Ints) -> None:
        """Number words by their vectors; ``common`` ones are words of too many classes."""
        near = np.round(self.vectors.astype(np.float64), 4) + 0.0
        _, entry = np.unique(near, axis=0, return_inverse=True)
        self.entry = entry.reshape(-1)
        self.held = np.unique(np.stack([word_class, self.entry], axis=1), axis=0)
        self.common = np.bincount(self.held[:, 1])[self.entry] > ENTRIES

    def pairs(self, params: DictionaryParams) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
        """Vectors (u, v) of the positive pairs, and of the negative ones."""
        rng = np.random.default_rng(params.seed)
        some = np.linspace(0, len(self.used) - 1, min(PAIRS, len(self.used))).astype(np.intp)
        rows = self.used[some]
        drawn = rng.random(len(rows))
        own = self._word(rows, drawn)
        # A word is no example of itself: the next one of its class, if there is another.
        own = np.where(self.row[own] == rows, self._word(rows, drawn, step=1), own)
        fits = (self.row[own] != rows) & ~self.common[own]
        rows, own = rows[fits], own[fits]
        V = self.vectors[own]
        mean = np.flatnonzero(self.row[own] < 0)
        of = rows[mean]
        # Of the mean of the class, the text's own part is taken out.
        V[mean] = self._without(of)
        kept = (np.abs(V) > 0).any(axis=1)
        negative = [self._negative(rows, rng) for _ in range(params.negatives)]
        U, other = (np.concatenate(part) for part in zip(*negative, strict=True))
        return (
            (self.texts[rows[kept]], V[kept]),
            (self.texts[U], self.vectors[other]),
        )

    def _without(self, rows: Ints) -> NDArray[Any]:
        """Unit mean of the other texts of the class of each text; zero where there are none."""
        sums = self.sums[self.index[rows]]
        rest = sums - self.weight[rows].astype(sums.dtype)[:, None] * self.texts[rows]
        rest[np.linalg.norm(rest, axis=1) <= LEAST * np.linalg.norm(sums, axis=1)] = 0
        return np.asarray(ops.unit(rest))

    def _word(self, rows: Ints, drawn: Floats, step: int = 0) -> Ints:
        """A word of the class of each text: number floor(drawn * count) + step, in a circle."""
        classes = self.index[rows]
        count = self.count[classes]
        return np.asarray(self.sorted[classes, ((drawn * count).astype(np.intp) + step) % count])

    def _negative(self, rows: Ints, rng: np.random.Generator) -> tuple[Ints, Ints]:
        """Texts, and a word for each that none of the words of the text's class equals."""
        E = len(self.common) + 1
        held = self.held[:, 0] * E + self.held[:, 1]
        found = np.full(len(rows), -1)
        for _ in range(TRIES):
            open_ = np.flatnonzero(found < 0)
            if not len(open_):
                break
            other = self.used[rng.integers(0, len(self.used), len(open_))]
            word = self._word(other, rng.random(len(open_)))
            own = np.isin(self.index[rows[open_]] * E + self.entry[word], held)
            found[open_] = np.where(own | self.common[word], -1, word)
        chosen = found >= 0
        return rows[chosen], found[chosen]


def _places(texts: ClassTexts) -> tuple[Ints, NDArray[np.bool_], Ints]:
    """Of each text its class, numbered by the ids, and whether it is a word; and those numbers."""
    place = np.argsort(np.argsort(np.array(texts.taxonomy.class_ids, dtype=object)))
    index = ops.to_numpy(texts.class_index)
    kinds = np.array([kind in WORDS for kind in texts.kind or ("",) * len(index)], bool)
    return np.where(index < 0, -1, place[index]), kinds, place


def _digests(vectors: NDArray[Any]) -> NDArray[np.uint64]:
    """A number (M,) for the content of each row, the same everywhere."""
    found = (hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in vectors + 0.0)
    return np.frombuffer(b"".join(found), dtype="<u8")


def _centred(vectors: NDArray[Any], index: Ints, K: int, weight: Floats) -> NDArray[Any]:
    """Unit rows of the texts less the mean of the classes' means; zero where nothing is left."""
    means = ops.segment_mean(vectors, index, K, weight)
    present = np.bincount(index[weight > 0], minlength=K) > 0
    rest = vectors - means[present].sum(axis=0) / max(int(present.sum()), 1)
    rest[np.linalg.norm(rest, axis=1) < LEAST] = 0
    return np.asarray(ops.unit(rest))


def _logistic(F: Floats, y: NDArray[np.bool_], C: float) -> tuple[Floats, float]:
    """Coefficients (d,) and intercept of a logistic regression on the rows of F (n, d)."""
    sign = np.where(y, 1.0, -1.0)

    def loss(w: Floats) -> tuple[float, Floats]:
        margin = sign * (F @ w[:-1] + w[-1])
        value = 0.5 * float(w[:-1] @ w[:-1]) + C * float(np.logaddexp(0, -margin).sum())
        slope = -C * sign * special.expit(-margin)
        return value, np.append(w[:-1] + slope @ F, slope.sum())

    options = {"maxiter": MAX_ITER, "gtol": 1e-8, "ftol": 1e-15}
    start = np.zeros(F.shape[1] + 1)
    found = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", options=options)
    return np.asarray(found.x[:-1]), float(found.x[-1])


def _pair_logits(X: Array, V: Array, a: Array, b: Array) -> Array:
    """sum_d a_d x_d v_d + b_d |x_d - v_d| (n, R), without the intercept."""
    Z = ops.matmul_t(X * a, V)
    for r in range(len(V)):
        Z[:, r] += abs(X - V[r]) @ b
    return Z


def _log_sigmoid(Z: Array) -> Array:
    """-log(1 + exp(-Z)), exact however small."""
    return -ops.logsumexp(ops.concat([0 * Z[None], -Z[None]]), axis=0)
