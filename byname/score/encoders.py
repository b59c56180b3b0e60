"""Two encoders look at every image: their logits, or their probabilities, are averaged."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np

from byname import ops
from byname.errors import EmbeddingsError, RecipeError
from byname.score.textparts import put_last, text_weights, unsaid
from byname.stage import Array, Batch, ClassTexts, Member, SecondTexts, StageName, State, register

__all__ = ["Encoders", "EncodersParams", "logit_statistics", "matched", "temperature_of"]

_BLOCK = 4096
_SAME_SCALE = 1e-3  # scales that differ by less, relatively, are one


@dataclass(frozen=True)
class EncodersParams:
    """How much the first encoder counts, and what is averaged."""

    weight: float | Literal["zpe"] = 0.5
    combine: Literal["logits", "probabilities"] = "logits"
    match: Literal["auto", "spread", "none"] = "auto"
    temperature: float = 1.0

    def __post_init__(self) -> None:
        w, t = self.weight, self.temperature
        number = isinstance(w, int | float) and not isinstance(w, bool)
        rules = {
            "weight": (w == "zpe" or (number and 0 <= float(w) <= 1), "from 0 to 1, or 'zpe'"),
            "combine": (
                self.combine in ("logits", "probabilities"),
                "'logits' or 'probabilities'",
            ),
            "match": (self.match in ("auto", "spread", "none"), "'auto', 'spread' or 'none'"),
            "temperature": (0 < t < math.inf, "above 0 and finite"),
        }
        for name, (fits, rule) in rules.items():
            if not fits:
                seen = f"{name} is {getattr(self, name)!r}"
                raise RecipeError("use 'encoders'", seen, f"It must be {rule}.")


def logit_statistics(blocks: Iterable[Array], centre: Array) -> tuple[float, float]:
    """Spread of logits within an image, and the debiased mean largest logit.

    Parameters
    ----------
    blocks : iterable of arrays, shapes (n, K)
        Logits, some images at a time.
    centre : array, shape (K,)
        Mean logit of each class.

    Returns
    -------
    spread : float
        Root of the mean, over images, of the variance of an image's logits over the classes.
    top : float
        Mean over images of the largest logit minus ``centre``; ZPE's score of a prompt, here of an
        encoder. Both are 0 where there is no image.

    Examples
    --------
    >>> logit_statistics([np.array([[2.0, 0.0], [0.0, 2.0]])], np.array([1.0, 1.0]))
    (1.0, 1.0)
    """
    squares = top = 0.0
    n = 0
    for L in blocks:
        apart = L - L.mean(1)[:, None]
        squares += float((apart * apart).mean(1).sum())
        L = L - ops.cast(centre, L)
        best = ops.argmax(L)
        top += float(L[ops.like(np.arange(len(best)), L), best].sum())
        n += len(best)
    return (math.sqrt(squares / n), top / n) if n else (0.0, 0.0)


def matched(scale: float, target_scale: float, match: str) -> bool:
    """Whether logits of one scale are brought to the spread of others under this ``match``.

    Examples
    --------
    >>> matched(50.0, 100.0, "auto"), matched(100.0, 100.0, "auto")
    (True, False)
    """
    same = math.isclose(scale, target_scale, rel_tol=_SAME_SCALE)
    return match == "spread" or (match == "auto" and not same)


def temperature_of(
    spread: float, target: float, scale: float, target_scale: float, match: str
) -> float:
    """What logits are divided by to be as far apart as others: 1 where nothing is matched.

    Where a spread is not known (no image, one class, identical texts), the ratio of the scales.

    Examples
    --------
    >>> temperature_of(3.0, 6.0, 50.0, 100.0, "auto"), temperature_of(3.0, 6.0, 50.0, 50.0, "auto")
    (0.5, 1.0)
    """
    if not matched(scale, target_scale, match):
        return 1.0
    # Logits that are equal but for rounding have no spread that could be compared.
    if spread > 1e-6 * scale and target > 1e-6 * target_scale:
        return spread / target
    return scale / target_scale


@register
class Encoders(Member):
    """Plain ensemble of two encoders over the same images and the same texts.

    Formula, with W2_k = unit(sum of weight_m * t2_m over the texts m of class k), t2 the texts in
    the second encoder and ``weight`` those of the weigh stage::

        S1 = scale  * X  W^T  + bias
        S2 = (scale2 * X2 W2^T + bias2) / T
        S  = w S1 + (1 - w) S2                                     combine="logits"
        S  = log(w softmax(S1) + (1 - w) softmax(S2))              combine="probabilities"

        T  = spread(S2 at T = 1) / spread(S1),   spread = sqrt(mean_i var_k S[i,k]),  or 1

    and, for ``weight="zpe"``, with the mean over the unlabeled images i::

        a_e    = mean_i max_k ( S_e[i,k] - mean_i S_e[i,k] )
        (w, 1 - w) = softmax((a_1, a_2) / temperature)

    Every class vector of the second encoder has length one, as with ``mean``: where the weigh
    member does not bring W to length one, as ``mean_similarity``, the two differ in that.

    Falls back: to equal weights under "zpe" where there is no image, one image, one class, or
    identical texts; T is the ratio of the scales, scale2 / scale, where a spread is not known.

    Shapes: X (N, D), X2 (N, D2), W (K, D), second texts (M, D2) to S (N, K). Time N*K*(D + D2), and
    once more in ``fit`` where something is learned from the images; beside S, memory of one more
    (N, K) array for the images that are scored at a time.

    Assumes that the second vectors are of the same images, row by row, and the second texts the
    same texts, row by row.

    Source: averaging of logits is the plain ensemble, such as that of Ma et al., "MoDE: CLIP Data
    Experts via Clustering", CVPR 2024, which weighs the logits of experts; the label-free score is
    that of Allingham et al., "A Simple Zero-shot Prompt Weighting Technique to Improve Prompt
    Ensembling in Text-Image Models", ICML 2023, who weigh prompts by it. Encoders are weighed by it
    and matched by their spread here; that is not of the papers.

    Parameters
    ----------
    weight : float or "zpe"
        Share w of the first encoder. 0.5, equal shares, is fixed beforehand. "zpe" is learned from
        the unlabeled images; at scale 100 it may come close to taking one encoder alone, and a
        score rewards spread, not truth.
    combine : {"logits", "probabilities"}
        What is averaged. Logits by default, as in MoDE's code.
    match : {"auto", "spread", "none"}
        Whether the second encoder's logits are brought to the spread of the first's: "auto" does it
        where the scales differ by more than 0.1 %, since logits of one scale can be averaged as
        they are (ours).
    temperature : float
        Of the softmax under "zpe". 1, as in ZPE's code.

    Attributes
    ----------
    shares_ : tuple of two floats
        w and 1 - w.
    temperature_ : float
        T.
    scores_ : tuple of two floats
        a_1 and a_2; NaN where not computed.
    second_W_ : array, shape (K, D2)

    Raises
    ------
    EmbeddingsError
        Where the second vectors do not fit to the images or texts.
    RecipeError
        For a parameter that does not fit.

    Examples
    --------
    >>> from byname.taxonomy import Taxonomy
    >>> texts = ClassTexts(np.eye(2), np.array([0, 1]), Taxonomy.from_names(["cat", "dog"]),
    ...                    second_texts=SecondTexts(np.eye(2)))
    >>> batch = Batch(np.array([[0.6, 0.8]]), second=np.array([[1.0, 0.0]]))
    >>> state = State(weight=np.ones(2), W=texts.vectors)
    >>> Encoders(weight=0.25).fit(batch, texts, state).apply(batch, texts, state).tolist()
    [[90.0, 20.0]]
    """

    stage: ClassVar[StageName] = "score"
    name = "encoders"
    needs: ClassVar[frozenset[str]] = frozenset({"second", "second_texts"})
    Params = EncodersParams
    params: EncodersParams
    shares_: tuple[float, float]
    temperature_: float
    scores_: tuple[float, float]

    def fit(self, batch: Batch, texts: ClassTexts, state: State) -> Self:
        """Class vectors of the second encoder; weights and temperature from unlabeled images."""
        own = _second(texts)
        self.second_W_ = _class_vectors(texts, own, state)
        zpe = self.params.weight == "zpe"
        self.scores_ = (math.nan, math.nan)
        w = 0.5 if zpe else float(self.params.weight)
        self.shares_ = (w, 1 - w)
        one, two = (0.0, 0.0), (0.0, 0.0)
        if len(batch) and (zpe or matched(own.scale, texts.scale, self.params.match)):
            _check_rows(batch, own)
            one = _statistics(batch.X, state.W, texts.scale)
            two = _statistics(batch.second, self.second_W_, own.scale)
        self.temperature_ = temperature_of(
            two[0], one[0], own.scale, texts.scale, self.params.match
        )
        if zpe:
            self.scores_ = (one[1], two[1] / self.temperature_)
            w, rest = ops.softmax(np.array(self.scores_) / self.params.temperature).tolist()
            self.shares_ = (w, rest)
        return self

    def apply(self, batch: Batch, texts: ClassTexts, state: State) -> Any:
        """S (N, K)."""
        first, second = self._both(batch, texts, state)
        w, rest = self.shares_
        if self.params.combine == "logits":
            return w * first + rest * second
        return ops.log_probability(w * ops.softmax(first) + rest * ops.softmax(second))

    def report(self) -> dict[str, Any]:
        """Shares of both encoders, the second's temperature, and the scores under "zpe"."""
        if not hasattr(self, "shares_"):
            return {}
        told: dict[str, Any] = {
            "weights": list(self.shares_),
            "temperature": self.temperature_,
        }
        return {**told, "scores": list(self.scores_)} if self.params.weight == "zpe" else told

    def details(self, batch: Batch, texts: ClassTexts, state: State) -> dict[str, list[Any]]:
        """Whether each encoder by itself would give the same class."""
        agree: list[bool] = []
        for rows in ops.blocks(len(batch), _BLOCK):
            part = Batch(batch.X[rows], second=_rows(batch.second, rows))
            first, second = map(ops.argmax, self._both(part, texts, state))
            agree += (ops.to_numpy(first) == ops.to_numpy(second)).tolist()
        return {"encoders_agree": agree}

    def _both(self, batch: Batch, texts: ClassTexts, state: State) -> tuple[Array, Array]:
        """S1 and S2 (N, K), of one kind and type."""
        own = _second(texts)
        _check_rows(batch, own)
        t = self.temperature_
        first = ops.scaled(batch.X, state.W, texts.scale, texts.bias)
        second = ops.scaled(batch.second, self.second_W_, own.scale / t, own.bias / t)
        none = unsaid(texts, text_weights(texts, state))
        put_last(second, none, (own.bias - own.scale) / t)
        put_last(first, none, texts.bias - texts.scale)
        return first, ops.cast(second, first)


def _statistics(X: Array, W: Array, scale: float) -> tuple[float, float]:
    """Spread and score of scale * X W^T, from the cosines, whose squares fit at any scale."""
    mean = ops.segment_mean(X, np.zeros(len(X), np.intp), 1)
    spread, score = logit_statistics(_cosines(X, W), ops.matmul_t(mean, W)[0])
    return scale * spread, scale * score


def _cosines(X: Array, W: Array) -> Iterator[Array]:
    for rows in ops.blocks(len(X), _BLOCK):
        yield ops.matmul_t(X[rows], W)


def _rows(x: Array | None, rows: slice) -> Array | None:
    return None if x is None else x[rows]


def _class_vectors(texts: ClassTexts, own: SecondTexts, state: State) -> Array:
    """W2 (K, D2): unit rows, under the weights of the weigh stage."""
    weight = state.weight if state.weight is not None else texts.weight
    index = ops.to_numpy(texts.class_index)
    return ops.unit(ops.segment_sum(own.vectors, index, texts.n_classes, weight))


def _second(texts: ClassTexts) -> SecondTexts:
    own = texts.second_texts
    seen = "there are none" if own is None else f"their vectors have the shape {own.vectors.shape}"
    M = len(texts.class_index)
    if own is None or len(own.vectors.shape) != 2 or own.vectors.shape[0] != M:
        raise EmbeddingsError(
            "use the texts of the second encoder",
            f"{seen}, for {M} texts",
            "Encode the same texts, in the same order, with the second encoder.",
        )
    return own


def _check_rows(batch: Batch, own: SecondTexts) -> None:
    seen = None if batch.second is None else tuple(batch.second.shape)
    if seen != (len(batch), own.vectors.shape[1]):
        raise EmbeddingsError(
            "use the second encoder's vectors of the images",
            f"their shape is {seen}, for {len(batch)} images and texts {own.vectors.shape[1]} wide",
            "Give one row an image, of the encoder that made the second texts.",
        )
