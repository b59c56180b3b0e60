"""Two frozen encoders that never met, brought into one space by two small heads."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.adapters.heads import Head, ImageHead, TextHead
from byname.adapters.projector_training import MOST, Training, held_out
from byname.adapters.rows import (
    Adapter,
    as_rows,
    check_rules,
    is_number,
    is_whole,
    numbered,
    paired,
)
from byname.adapters.store import (
    check_shapes,
    fingerprint,
    fitting,
    load_arrays,
    save_arrays,
    told_number,
)
from byname.adapters.towers import TwoTowers, check_width
from byname.adapters.training import Params
from byname.encoders.base import Encoder
from byname.errors import UsageError

__all__ = ["ProjectorAligner", "linear_cka", "projected_encoder"]

Array = NDArray[Any]
_BLOCK = 4096
_KIND = "ProjectorAligner"


def linear_cka(V: Any, L: Any) -> float:
    """How alike two encoders see the same pairs: 1 for one space turned or scaled, 0 for nothing.

    Formula, on centred columns: ||L'V||_F^2 / (||L'L||_F ||V'V||_F). Of several pairs of encoders
    the one with the highest value aligns best; a thousand pairs are enough to see it.

    Parameters
    ----------
    V : array, shape (n, a)
    L : array, shape (n, b)

    Examples
    --------
    >>> V = np.random.default_rng(0).standard_normal((50, 4))
    >>> round(linear_cka(V, V), 6), round(linear_cka(V, 3 * V[:, ::-1] + 1), 6)
    (1.0, 1.0)
    """
    X, Y = paired(V, L, "compare two encoders", ("image vectors", "text vectors"), 2)
    X = X - X.mean(axis=0, dtype=np.float64)
    Y = Y - Y.mean(axis=0, dtype=np.float64)

    def size(A: Array, B: Array) -> float:
        """||A'B||_F, by whichever product is the smaller."""
        if len(A) * len(A) < A.shape[1] * B.shape[1]:
            return float(np.sqrt(max(0.0, float(np.einsum("ij,ij->", A @ A.T, B @ B.T)))))
        return float(np.linalg.norm(A.T @ B))

    whole = size(X, X) * size(Y, Y)
    return size(Y, X) ** 2 / whole if whole > 0 else 0.0


class ProjectorAligner(Adapter):
    """Heads on the vectors of an image encoder and of a text encoder, learned from pairs.

    Formula, with u, v the unit rows that the heads make of the n images and texts of a batch::

        L = exp(s) u v'
        loss = mean over i of (CE(L[i, :], i) + CE(L[:, i], i)) / 2

    Entries whose text, or whose image, is that of the row itself are no negatives and are left
    out. Image head: a linear map plus (linear, GELU, linear). Text head: linear, then plus (GELU,
    linear, dropout), then LayerNorm. AdamW on both and on s; a tenth of the images is held out,
    and the heads are those of the epoch with the best recall on it (equal: the lower loss): no
    class label takes part.

    Complexity: per epoch n * (a + b) * width * 6 + n * batch * width * 6 operations.

    Parameters
    ----------
    variant : {"freeze-align", "ape"}
        "ape" leaves the image side as it is and trains the text head alone, towards its width.
    width : int
        Of the common space; 256 by default for seconds on a CPU, 1024 in freeze-align. "ape"
        takes the width of the images instead.
    batch : int
        At most 4096; 512 by default, so that thousands of pairs make enough steps (14,400 in
        freeze-align, for 17 million).
    epochs : int
        At most; 30 by default, 15 in freeze-align.
    patience : int
        Epochs without a better recall after which training ends; ours.
    rate, weight_decay : float
        1e-3 and 0.02, as in freeze-align; the decay is on matrices only.
    dropout : float
        0.1, ours.
    temperature : float
        At the start, learned; 0.07 as in CLIP and freeze-align.
    holdout : float
        Share of the images, 0.1; ours.
    seed : int
        Draws the held-out images, the first weights and the batches; all go by the order of the
        pairs.

    Attributes
    ----------
    cka_ : float
        Linear CKA of the encoders over at most 4,096 of the pairs: what to expect.
    recall_ : float
        Of the heads that were kept: share of held-out images whose own text is nearest, and of
        texts whose image is, averaged.
    epoch_ : int
        That epoch, counted from 1.
    recalls_, losses_ : list of float
        Of each epoch: held-out recall, training loss.
    scale_ : float
        exp(s), the logit scale.
    dim_ : int
    n_features_in_, n_text_features_ : int

    Notes
    -----
    Source: Maniparambil et al., "Harnessing Frozen Unimodal Encoders for Flexible Multimodal
    Alignment" (freeze-align), CVPR 2025; Rosenfeld et al., "APE: Aligning Pretrained Encoders to
    Quickly Learn Aligned Multimodal Representations", 2022, of which only the abstract was read.
    Freeze-align feeds patches and APE tokens; this works on one pooled vector each.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> hidden = rng.standard_normal((400, 6))
    >>> V, L = hidden @ rng.standard_normal((6, 12)), hidden @ rng.standard_normal((6, 10))
    >>> model = ProjectorAligner(width=16, batch=64).fit(V, L)
    >>> model.recall_ > 0.5, model.transform_texts(L[:3]).shape
    (True, (3, 16))
    """

    image_head_: ImageHead | None
    text_head_: TextHead
    cka_: float
    recall_: float
    epoch_: int
    recalls_: list[float]
    losses_: list[float]
    scale_: float
    dim_: int
    n_features_in_: int
    n_text_features_: int

    def __init__(
        self,
        variant: Literal["freeze-align", "ape"] = "freeze-align",
        width: int = 256,
        batch: int = 512,
        epochs: int = 30,
        patience: int = 5,
        rate: float = 1e-3,
        weight_decay: float = 0.02,
        dropout: float = 0.1,
        temperature: float = 0.07,
        holdout: float = 0.1,
        seed: int = 0,
    ) -> None:
        self.variant = variant
        self.width = width
        self.batch = batch
        self.epochs = epochs
        self.patience = patience
        self.rate = rate
        self.weight_decay = weight_decay
        self.dropout = dropout
        self.temperature = temperature
        self.holdout = holdout
        self.seed = seed

    def fit(self, V: Any, L: Any, texts: Sequence[str] | None = None) -> Self:
        """Train the heads.

        Parameters
        ----------
        V : array, shape (n, a)
            Image vectors, 8 or more; an image with several texts stands in several rows.
        L : array, shape (n, b)
            Vectors of their texts.
        texts : sequence of str, length n, optional
            The texts themselves; without them, texts of identical vectors count as identical.

        Raises
        ------
        UsageError
            For settings out of range, numbers of rows that differ, NaN or enormous values, and a
            rate with which training diverges.
        """
        asked = "fit the projector"
        self._check(asked)
        X, Y = paired(V, L, asked, ("image vectors", "text vectors"), 8)
        if texts is not None and len(texts) != len(X):
            seen = f"there are {len(X)} pairs, but {len(texts)} texts"
            raise UsageError(asked, seen, "Give the text of each pair, or none.")
        X, Y = X.astype(np.float32), Y.astype(np.float32)
        same = numbered(X), numbered(Y) if texts is None else _numbers_of(texts)
        if (different := len(set(same[0].tolist()))) < 4:
            raise UsageError(asked, f"there are {different} different images", "Give 4 or more.")
        rng = np.random.default_rng(self.seed)
        held = held_out(same[0], self.holdout, rng)
        few = rng.permutation(len(X))[:MOST]
        cka = linear_cka(X[few], Y[few])
        training = Training(self, asked, X, Y, same, held, rng)
        with np.errstate(all="ignore"):  # what diverges is reported
            recalls, losses = training.run()
        self._learn(
            cka_=cka,
            recalls_=recalls,
            losses_=losses,
            image_head_=training.image,
            text_head_=training.text,
            epoch_=training.epoch,
            recall_=training.best[0],
            scale_=float(np.exp(training.log_scale[0])),
            dim_=training.dim,
            n_features_in_=X.shape[1],
            n_text_features_=Y.shape[1],
        )
        return self

    def transform_images(self, V: Any) -> Array:
        """Unit rows (n, dim) of image vectors; all-zero rows stay zero."""
        return self._through("image", V)

    def transform_texts(self, L: Any) -> Array:
        """Unit rows (n, dim) of text vectors; all-zero rows stay zero."""
        return self._through("text", L)

    def save(self, path: str | Path) -> None:
        """Write one safetensors file; :meth:`load` reads it."""
        self._need_fit("text_head_", f"save '{path}'")
        told = {"n_features_in_": self.n_features_in_, "dim_": self.dim_, "scale_": self.scale_}
        told |= {"cka_": self.cka_, "recall_": self.recall_}
        about = {**self.get_params(), **told, "spread": self._spreads()}
        save_arrays(path, _KIND, self._arrays(), about)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what :meth:`save` wrote; nothing in it is executed.

        Raises
        ------
        EncoderError
            For a file that is missing, damaged, or something else.
        """
        text_names = _named(TextHead, "text")
        arrays, about = load_arrays(
            path, _KIND, text_names, text_names | _named(ImageHead, "image")
        )
        with fitting(path), np.errstate(all="ignore"):
            made = cls(**{name: about[name] for name in cls._parameter_names()})
            made._check("use its settings")
            dim = arrays["text.gain"].size
            text = _head(TextHead, "text", arrays, about, dim)
            image = None if made.variant == "ape" else _head(ImageHead, "image", arrays, about, dim)
            if (image is None) != ("image.mean" not in arrays):
                raise ValueError(f"variant is {made.variant}")
            widths = dim if image is None else len(image.mean), len(text.mean)
            if (about["n_features_in_"], about["dim_"]) != (widths[0], dim):
                raise ValueError(f"n_features_in_ and dim_ are not {widths[0]} and {dim}")
            made._learn(
                image_head_=image,
                text_head_=text,
                scale_=told_number(about, "scale_", positive=True),
                cka_=told_number(about, "cka_"),
                recall_=told_number(about, "recall_"),
                dim_=dim,
                n_features_in_=widths[0],
                n_text_features_=widths[1],
            )
            for what, width in zip(("image", "text"), widths, strict=True):
                if not np.isfinite(made._through(what, np.ones((1, width), np.float32))).all():
                    raise ValueError(f"it makes NaN of {what} vectors")
        return made

    def _check(self, asked: str) -> None:
        rules = {
            "variant": (self.variant in ("freeze-align", "ape"), "freeze-align or ape"),
            "batch": (is_whole(self.batch, 2, MOST), f"2 to {MOST}"),
            "seed": (is_whole(self.seed, 0), "a whole number, 0 or more"),
        }
        rules |= {
            name: (is_whole(getattr(self, name), 1), "a whole number, 1 or more")
            for name in ("width", "epochs", "patience")
        }

        def number(name: str, wanted: str, good: Callable[[float], bool]) -> None:
            value = getattr(self, name)
            rules[name] = (is_number(value) and good(value), wanted)

        number("rate", "a number above 0", lambda x: x > 0)
        number("weight_decay", "0 or more", lambda x: x >= 0)
        number("dropout", "0 or more, below 1", lambda x: 0 <= x < 1)
        number("temperature", "0.01 or more", lambda x: x >= 0.01)
        number("holdout", "a share between 0 and 1", lambda x: 0 < x < 1)
        check_rules(self, asked, rules)

    def _through(self, what: str, rows: Any) -> Array:
        asked = f"project these {what} vectors"
        self._need_fit("text_head_", asked)
        image = what == "image"
        head = self.image_head_ if image else self.text_head_
        width = self.n_features_in_ if image else self.n_text_features_
        X = as_rows(rows, asked, f"{what} vectors", width).astype(np.float32, copy=False)
        out = np.empty((len(X), self.dim_), np.float32)
        for part in ops.blocks(len(X), _BLOCK):
            known = np.abs(X[part]).max(axis=1, keepdims=True) > 0
            out[part] = (ops.unit(X[part]) if head is None else head(X[part])) * known
        made: Array = ops.like(out, rows)
        return made

    def _heads(self) -> dict[str, Head]:
        heads: dict[str, Head] = {"text": self.text_head_}
        return heads if self.image_head_ is None else {"image": self.image_head_, **heads}

    def _spreads(self) -> dict[str, float]:
        return {what: head.spread for what, head in self._heads().items()}

    def _arrays(self) -> Params:
        return {
            f"{what}.{name}": array
            for what, head in self._heads().items()
            for name, array in {**head.params, "mean": head.mean}.items()
        }


def projected_encoder(
    image_encoder: Encoder, text_encoder: Encoder, projector: ProjectorAligner
) -> Encoder:
    """The two frozen encoders and their heads as one encoder.

    Raises
    ------
    EncoderError
        For widths that do not fit.
    """
    projector._need_fit("text_head_", "use the projector")
    projector = copy.deepcopy(projector)  # fitted again, it would not be what the fingerprint says
    check_width(image_encoder, projector.n_features_in_, "images")
    check_width(text_encoder, projector.n_text_features_, "texts")
    about = str(sorted(projector._spreads().items()))
    return TwoTowers(
        image_encoder,
        text_encoder,
        dim=projector.dim_,
        fingerprint=fingerprint(projector._arrays(), _KIND, about),
        image_map=projector.transform_images,
        text_map=projector.transform_texts,
        logit_scale=projector.scale_,
    )


def _numbers_of(texts: Sequence[str]) -> Array:
    known: dict[str, int] = {}
    return np.array([known.setdefault(text, len(known)) for text in texts], np.intp)


def _named(head: type[Head], what: str) -> frozenset[str]:
    return frozenset(f"{what}.{name}" for name in (*head.shapes(1, 1), "mean"))


def _head(head: type[Head], what: str, arrays: Params, about: dict[str, Any], width: int) -> Any:
    """A head from a file, its shapes taken from the arrays alone."""
    mean = arrays[f"{what}.mean"].astype(np.float32)
    shapes = head.shapes(mean.size, width)
    wanted = {f"{what}.{n}": shape for n, shape in shapes.items()}
    check_shapes(arrays, {**wanted, f"{what}.mean": (mean.size,)})
    spread = told_number({f"spread of {what}": about["spread"][what]}, f"spread of {what}", True)
    if not 0 < np.float32(1 / spread) < np.inf:
        raise ValueError(f"the spread of {what} is {spread}")
    return head({n: arrays[f"{what}.{n}"].astype(np.float32) for n in shapes}, mean, spread)
