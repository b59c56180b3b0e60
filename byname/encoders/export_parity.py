"""How close an exported encoder is to the model that it was made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byname.encoders.base import Encoder

__all__ = ["TEXTS", "Parity", "Row", "compare"]

LEAST_COSINE = 0.9999
BATCH = 7
# Short and long, with case, marks and letters that tokenizers treat in ways of their own.
TEXTS = (
    "cat",
    "dog",
    "a photo of a cat.",
    "a photo of a dog.",
    "a photo of two pears on a wooden table.",
    "a city street at night, seen from above",
    "It's 12 o'clock: naïve CAFÉ menus (in_french)!",
    "a satellite photo of a harbour with many small boats",
    "a close-up photo of the flower of an apple tree, in bright sunlight",
    "a drawing of a bicycle",
    "printed text on paper",
    "stars",
)


@dataclass(frozen=True)
class Row:
    """One comparison.

    Parameters
    ----------
    what : str
    rows : int
        Vectors compared.
    max_abs : float
        Largest difference between two numbers of the unit vectors.
    cosine : float
        Least cosine between two vectors that should be the same.
    top1 : float or None
        Share of images whose best text is the same; None for rows about texts.
    """

    what: str
    rows: int
    max_abs: float
    cosine: float
    top1: float | None = None


@dataclass(frozen=True)
class Parity:
    """All comparisons, and whether they are good enough.

    Examples
    --------
    >>> Parity((Row("texts", 12, 1e-7, 0.99999),)).passed
    True
    """

    rows: tuple[Row, ...]
    least: float = LEAST_COSINE

    @property
    def passed(self) -> bool:
        """Whether every cosine reaches the least one; NaN does not."""
        return all(row.cosine >= self.least for row in self.rows)

    def record(self) -> dict[str, Any]:
        """For JSON; NaN becomes None."""
        rows = [
            {name: None if value != value else value for name, value in asdict(row).items()}
            for row in self.rows
        ]
        return {"least_cosine": self.least, "passed": self.passed, "rows": rows}

    def worst(self) -> Row:
        """The comparison with the least cosine."""
        return min(self.rows, key=lambda row: np.nan_to_num(row.cosine, nan=-2.0))


def compare(
    torch: Encoder, onnx: Encoder, images: NDArray[np.uint8] | None = None, seed: int = 0
) -> Parity:
    """Both encoders on the same pixels and texts, by the way that users take.

    Parameters
    ----------
    torch, onnx : Encoder
        The model, and its export.
    images : array of uint8, shape (N, S, S, 3), optional
        Real images, resized and cropped; random ones are always added.
    seed : int
        Of the random images.
    """
    assert onnx.info.preprocess is not None
    size = onnx.info.preprocess.size
    rng = np.random.default_rng(seed)
    random = rng.integers(0, 256, (2 * BATCH, size, size, 3), np.uint8)
    texts = [encoder.encode_texts(TEXTS) for encoder in (torch, onnx)]
    sets = {"random images": random}
    if images is not None and len(images):
        sets["images"] = images
    rows = [_images(name, pixels, torch, onnx, texts) for name, pixels in sets.items()]
    some = images[:BATCH] if images is not None and len(images) >= BATCH else random[:BATCH]
    single = np.concatenate([onnx.encode_images(image[None]) for image in some])
    rows.append(_row(f"batch of {len(some)} and one by one", single, onnx.encode_images(some)))
    rows.append(_row("texts", texts[0], texts[1]))
    for length, text in _texts_of_lengths(onnx):
        pair = [encoder.encode_texts([text]) for encoder in (torch, onnx)]
        rows.append(_row(f"text of {length} tokens", pair[0], pair[1]))
    return Parity(tuple(rows))


def _images(
    name: str,
    pixels: NDArray[np.uint8],
    torch: Encoder,
    onnx: Encoder,
    texts: Sequence[NDArray[np.float32]],
) -> Row:
    starts = range(0, len(pixels), BATCH)
    want, got = (
        np.concatenate([encoder.encode_images(pixels[i : i + BATCH]) for i in starts])
        for encoder in (torch, onnx)
    )
    best = [
        (vectors @ words.T).argmax(1) for vectors, words in zip((want, got), texts, strict=True)
    ]
    return _row(name, want, got, float((best[0] == best[1]).mean()))


def _row(
    what: str, want: NDArray[np.float32], got: NDArray[np.float32], top1: float | None = None
) -> Row:
    a, b = want.astype(np.float64), got.astype(np.float64)
    return Row(what, len(a), float(np.abs(a - b).max()), float((a * b).sum(1).min()), top1)


def _texts_of_lengths(encoder: Encoder) -> list[tuple[int, str]]:
    """A text of 3 tokens, one of 15 and one that fills the context, or as near as it goes."""
    context = encoder.info.context_length or 77
    candidates = [" ".join(["photo"] * n) for n in range(1, context + 1)]
    counts = encoder.count_tokens(candidates)
    found = {}
    for wanted in (min(3, context), min(15, context), context):
        fitting = [i for i, count in enumerate(counts) if count <= wanted]
        if fitting:
            found[counts[fitting[-1]]] = candidates[fitting[-1]]
    return list(found.items())
