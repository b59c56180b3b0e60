"""Late interaction: every part of the image looks for its word, or every word for its part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.errors import EmbeddingsError, RecipeError
from byname.score.textparts import shown_unsaid
from byname.stage import Array, Batch, ClassTexts, Member, StageName, State, register
from byname.stream import Segments, reduce_texts

__all__ = ["Filip", "FilipParams"]

Direction = Literal["i2t", "t2i", "both"]
Ints = NDArray[np.intp]
ROWS, COLUMNS = 1024, 4096  # tokens of images and of texts at a time


@dataclass(frozen=True)
class FilipParams:
    """Who looks for whom."""

    direction: Direction = "i2t"

    def __post_init__(self) -> None:
        if self.direction not in get_args(Direction):
            seen = f"direction is {self.direction!r}"
            raise RecipeError("use 'filip'", seen, "It must be 'i2t', 't2i' or 'both'.")


@register
class Filip(Member):
    """Token-wise similarity between images and texts.

    Formula, with z_i1 ... z_iT the tokens of an image and e_m1 ... e_mL those of a text, all
    brought to length one::

        i2t[i,m] = mean over t of  max over l of <z_it, e_ml>
        t2i[i,m] = mean over l of  max over t of <z_it, e_ml>
        both     = (i2t + t2i) / 2
        S[i,k]   = scale * (weighted mean of the chosen one over the texts m of class k) + bias

    Zero rows are padding and count neither in a mean nor in a maximum. An image or a text without
    tokens counts its own vector as its one token. With one token on either side all three are the
    cosine. The weights are those of the weigh stage, else those that came with the texts; W is not
    used, since a mean of texts has no tokens. A class whose texts all weigh 0 has S = bias.

    Shapes: tokens (N, T, D), text_tokens (M, L, D) to S (N, K). O(N T M L D), twice for "both", a
    tile of tokens at a time. The products are T * L times those of the cosine: a few thousand
    images and texts, not millions.

    Source: Yao et al., "FILIP: Fine-grained Interactive Language-Image Pre-Training", ICLR 2022,
    which has no public weights of its authors. It is of use with tokens that were trained for it;
    those of a CLIP were not.

    Parameters
    ----------
    direction : {"i2t", "t2i", "both"}
        The paper defines "i2t" and "t2i" and trains with both. "i2t" as the default is ours: an
        image asks which class it is. Nothing is tuned.

    Raises
    ------
    RecipeError
        For an unknown direction.
    EmbeddingsError
        For tokens whose shape does not fit the images or texts.

    Examples
    --------
    >>> from byname.taxonomy import Taxonomy
    >>> texts = ClassTexts(np.eye(2), np.arange(2), Taxonomy.from_names(["cat", "dog"]),
    ...                    text_tokens=np.array([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0, 0]]]))
    >>> batch = Batch(np.array([[1.0, 0.0]]), tokens=np.array([[[1.0, 0.0], [0.8, 0.6]]]))
    >>> Filip().apply(batch, texts, State()).round(2).tolist()
    [[90.0, 30.0]]
    """

    stage: ClassVar[StageName] = "score"
    name = "filip"
    needs = frozenset({"tokens", "text_tokens"})
    Params = FilipParams
    params: FilipParams

    def apply(self, batch: Batch, texts: ClassTexts, state: State) -> Any:
        """S (N, K)."""
        X = ops.as_float(batch.X)
        tokens = _checked(batch.tokens, X, "images")
        words = _checked(texts.text_tokens, texts.vectors, "texts")
        index, weight = _shares(texts, state)
        segments, (N, T, _) = Segments.of(index), tokens.shape
        out = ops.full(ops.matmul_t(X[:0], X[:0]), (N, texts.n_classes), 0.0)
        width, height = max(1, COLUMNS // max(1, words.shape[1])), max(1, ROWS // max(1, T))
        for some in ops.blocks(len(segments.order), width):
            rows = segments.order[some]
            ids, of_class = np.unique(index[rows], return_inverse=True)
            E, of_text = _packed(ops.take_rows(words, rows), ops.take_rows(texts.vectors, rows), X)
            for part in ops.blocks(N, height):
                Z, of_image = _packed(tokens[part], X[part], X)
                found = self._pairs(Z, of_image, E, of_text, of_class, weight[rows])
                at = ops.like(ids, out)
                out[part, at] = out[part, at] + ops.cast(found, out)
        return shown_unsaid(texts.scale * out + texts.bias, texts, weight)

    def _pairs(
        self, Z: Array, of_image: Ints, E: Array, of_text: Ints, of_class: Ints, weight: Any
    ) -> Array:
        """Similarities of some images and some texts, summed by class, (images, classes)."""
        n, m, g = int(of_image[-1]) + 1, int(of_text[-1]) + 1, int(of_class[-1]) + 1
        found, way = [], self.params.direction
        if way != "t2i":
            best = reduce_texts(Z, E, of_text, m, "max")  # (tokens of images, texts)
            best = ops.segment_sum(best.T, of_class, g, weight).T
            found.append(ops.segment_mean(best, of_image, n))
        if way != "i2t":
            best = reduce_texts(E, Z, of_image, n, "max")  # (tokens of texts, images)
            share = (weight / np.bincount(of_text))[of_text]
            found.append(ops.segment_sum(best, of_class[of_text], g, share).T)
        return found[0] if len(found) == 1 else (found[0] + found[1]) / 2


def _checked(tokens: Array | None, vectors: Array, what: str) -> Array:
    if tokens is None or tokens.ndim != 3 or tuple(tokens.shape[::2]) != tuple(vectors.shape):
        seen = "none" if tokens is None else f"the shape {tuple(tokens.shape)}"
        raise EmbeddingsError(
            "score with 'filip'",
            f"the tokens of the {what} have {seen}, the {what} {tuple(vectors.shape)}",
            "Give tokens of the width of the vectors, and zero rows where there are fewer.",
        )
    return tokens


def _shares(texts: ClassTexts, state: State) -> tuple[Ints, NDArray[np.float64]]:
    """Class of each text that counts, else -1; and its share (M,) of its class."""
    index = ops.to_numpy(texts.class_index)
    given = state.weight if state.weight is not None else texts.weight
    weight = np.ones(len(index)) if given is None else ops.to_numpy(given).astype(np.float64)
    index = np.where(weight > 0, index, -1)
    total = np.bincount(index[index >= 0], weight[index >= 0], minlength=texts.n_classes)
    return index, np.where(index >= 0, weight / np.where(total > 0, total, 1)[index], 0.0)


def _packed(tokens: Array, own: Array, like: Array) -> tuple[Array, Ints]:
    """Unit tokens that are not padding, one below the other, and whose each is, ascending.

    Whoever has none has its ``own`` vector.
    """
    n, L, D = tokens.shape
    tokens = ops.as_float(ops.like(tokens, like))
    has = ops.to_numpy((tokens != 0).any(2))
    bare = np.flatnonzero(~has.any(axis=1))
    kept, owner = ops.take_rows(tokens.reshape(n * L, D), np.flatnonzero(has)), np.nonzero(has)[0]
    if len(bare):
        kept = ops.concat([kept, ops.cast(ops.take_rows(own, bare), kept)])
        owner = np.append(owner, bare)
        order = np.argsort(owner, kind="stable")
        kept, owner = ops.take_rows(kept, order), owner[order]
    return ops.unit(kept), owner
