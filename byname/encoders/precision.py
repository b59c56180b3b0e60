"""Whether an int8 copy of an encoder is good enough, asked on the user's own images.

The limits were fixed before anything was measured: the mean cosine between int8 and fp32 vectors of
the sample is at least 0.99, for images and for texts, and at least 98 % of the images get the same
best class. An encoder that falls short is replaced by its fp32 original.
"""

from __future__ import annotations

import hashlib
import json
import platform
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from byname.encoders.base import Encoder
from byname.encoders.onnx import OnnxEncoder
from byname.errors import EncoderError
from byname.files import atomic_path, parse_json

__all__ = ["Verdict", "settle"]

SAMPLE = 64
MOST_CLASSES = 200
MIN_COSINE = 0.99
MIN_TOP1 = 0.98


@dataclass(frozen=True)
class Verdict:
    """What the check of an int8 encoder found.

    ``cosine`` and ``text_cosine`` are means, ``top1`` is the share of the images whose best class
    is the same in int8 and fp32; None where there was nothing to compare.
    """

    kept: bool
    images: int
    cosine: float | None = None
    lowest_cosine: float | None = None
    top1: float | None = None
    text_cosine: float | None = None

    def in_words(self) -> str:
        """One line for a person.

        Examples
        --------
        >>> Verdict(True, 64, 0.9991, 0.9987, 1.0, 0.9995).in_words()
        'int8 checked against fp32 on 64 of these images: cosine 0.9991 (lowest 0.9987), top-1 \
agreement 100.0 %, texts 0.9995: int8 is used'
        """
        if not self.images:
            return "int8 was not checked, because there were no usable images: fp32 is used"
        parts = [f"cosine {self.cosine:.4f} (lowest {self.lowest_cosine:.4f})"]
        if self.top1 is not None:
            parts.append(f"top-1 agreement {self.top1:.1%}".replace("%", " %"))
        if self.text_cosine is not None:
            parts.append(f"texts {self.text_cosine:.4f}")
        wanted = f"at least {MIN_COSINE} and {MIN_TOP1:.0%}".replace("%", " %")
        end = "int8 is used" if self.kept else f"not {wanted}, so fp32 is used"
        return (
            f"int8 checked against fp32 on {self.images} of these images: {', '.join(parts)}: {end}"
        )


def settle(
    encoder: OnnxEncoder,
    sample: Callable[[int], NDArray[np.uint8]],
    names: Sequence[str] = (),
    identity: str = "",
) -> tuple[OnnxEncoder, Verdict]:
    """The int8 encoder itself if it is good enough, else its fp32 original, with a warning.

    Parameters
    ----------
    encoder : OnnxEncoder
        One that runs in int8.
    sample : callable
        Gives at most so many of the user's images as (n, size, size, 3) pixels; is only called
        where no verdict on them is known.
    names : sequence of str
        Class names, for the agreement; at most ``MOST_CLASSES``, evenly spaced, are taken.
    identity : str
        What tells these images from others. A verdict is kept beside the int8 graphs, for this
        identity and these names; "" keeps none.
    """
    texts = [f"a photo of a {name}." for name in _spread(list(dict.fromkeys(names)), MOST_CLASSES)]
    place = _place(encoder, identity, texts)
    verdict, exact = _kept(place), None
    if verdict is None:
        pixels = sample(SAMPLE)
        verdict = Verdict(False, 0)
        if len(pixels):
            exact = encoder.exact()
            verdict = _compare(encoder, exact, pixels, texts)
        if verdict.images:
            _keep(place, verdict)
    if verdict.kept:
        return encoder, verdict
    warnings.warn(verdict.in_words(), stacklevel=3)
    return exact or encoder.exact(), verdict


def _compare(
    encoder: Encoder, exact: Encoder, pixels: NDArray[np.uint8], texts: Sequence[str]
) -> Verdict:
    X, X8 = (_vectors(e, pixels) for e in (exact, encoder))
    # One that an encoder fails on becomes a row with an error later: it says nothing here.
    usable = np.isfinite(X).all(axis=1) & np.isfinite(X8).all(axis=1)
    X, X8 = X[usable], X8[usable]
    if not len(X):
        return Verdict(False, 0)
    cosines = np.einsum("nd,nd->n", X, X8)
    cosine, top1, text_cosine = float(cosines.mean()), None, None
    good = cosine >= MIN_COSINE
    if texts:
        T, T8 = (e.encode_texts(texts) for e in (exact, encoder))
        text_cosine = float(np.einsum("md,md->m", T, T8).mean())
        top1 = float(((X @ T.T).argmax(axis=1) == (X8 @ T8.T).argmax(axis=1)).mean())
        good = good and text_cosine >= MIN_COSINE and top1 >= MIN_TOP1
    return Verdict(good, len(X), cosine, float(cosines.min()), top1, text_cosine)


def _vectors(encoder: Encoder, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Rows of NaN for images that the encoder fails on."""
    try:
        return encoder.encode_images(pixels)
    except EncoderError:
        if len(pixels) == 1:
            return np.full((1, encoder.info.dim), np.nan, np.float32)
        return np.concatenate([_vectors(encoder, one[None]) for one in pixels])


def _spread(values: Sequence[str], most: int) -> list[str]:
    count = min(most, len(values))
    return [values[i * len(values) // count] for i in range(count)]


def _place(encoder: OnnxEncoder, identity: str, texts: Sequence[str]) -> Path | None:
    if not identity or encoder.int8_folder is None:
        return None
    asked = json.dumps([identity, list(texts), SAMPLE, MIN_COSINE, MIN_TOP1, _machine()])
    name = hashlib.sha256(asked.encode("utf-8", "backslashreplace")).hexdigest()[:16]
    return encoder.int8_folder / f"verdict-{name}.json"


def _machine() -> list[str]:
    """What products of 8-bit numbers depend on besides the numbers: runtime and processor."""
    import onnxruntime

    model = platform.processor()
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        model = next((line for line in lines if line.startswith("model name")), model)
    return [onnxruntime.__version__, platform.machine(), model]


def _kept(place: Path | None) -> Verdict | None:
    if place is not None:
        with suppress(OSError, ValueError, TypeError):
            return Verdict(**parse_json(place.read_bytes()))
    return None


def _keep(place: Path | None, verdict: Verdict) -> None:
    if place is not None:
        with suppress(OSError), atomic_path(place) as temporary:
            temporary.write_text(json.dumps(asdict(verdict)), encoding="utf-8")
