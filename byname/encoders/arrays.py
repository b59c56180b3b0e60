"""Checks on what goes into an encoder and what comes out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byname.errors import EncoderError

__all__ = ["as_pixels", "as_texts", "unit_rows"]


def as_pixels(pixels: Any, size: int, encoder: str) -> NDArray[np.uint8]:
    """The batch itself, if it is uint8 (B, size, size, 3); else EncoderError."""
    array = np.asarray(pixels)
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[1:] != (size, size, 3):
        raise EncoderError(
            f"encode images with '{encoder}'",
            f"got {array.dtype} pixels of shape {array.shape}",
            f"Give uint8 pixels of shape (B, {size}, {size}, 3), resized and cropped.",
        )
    return array


def as_texts(texts: Any, encoder: str) -> list[str]:
    """The texts as a list; EncoderError for a bare string or anything but strings."""
    listed = [] if isinstance(texts, str) else list(texts)
    if isinstance(texts, str) or not all(isinstance(text, str) for text in listed):
        kind = "a single string" if isinstance(texts, str) else "something that is not a string"
        raise EncoderError(
            f"encode texts with '{encoder}'", f"got {kind}", "Give a list of strings."
        )
    return listed


def unit_rows(
    vectors: NDArray[Any], asked: str, names: Sequence[str] | None = None
) -> NDArray[np.float32]:
    """Rows divided by their length.

    Parameters
    ----------
    vectors : array, shape (N, D)
    asked : str
        What was being done, for the message.
    names : sequence of str, optional
        What each row is, for the message.

    Raises
    ------
    EncoderError
        For a row that is zero or not finite: an encoder that yields one is broken.
    """
    rows = np.asarray(vectors, np.float64)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    bad = np.flatnonzero(~(np.isfinite(norms[:, 0]) & (norms[:, 0] > 0)))
    if bad.size:
        first = int(bad[0])
        kind = "only zeros" if norms[first, 0] == 0 else "NaN or infinite numbers"
        which = f"row {first}" + (f" ({names[first]!r:.60})" if names else "")
        raise EncoderError(
            asked,
            f"the model answered {kind} for {which}, {bad.size} of {len(rows)} rows are unusable",
            "The model file is damaged or was converted wrongly: export or download it again.",
        )
    unit: NDArray[np.float32] = (rows / norms).astype(np.float32)
    return unit
