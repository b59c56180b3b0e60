"""From a file's bytes to the encoder's pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from byname.images.decode import decode
from byname.images.preprocess import Preprocess, to_pixels

__all__ = ["load_pixels"]


def load_pixels(data: bytes, preprocess: Preprocess) -> NDArray[np.uint8]:
    """Decode, resize and crop one image. Thread-safe.

    Parameters
    ----------
    data : bytes
        The whole file.
    preprocess : Preprocess

    Returns
    -------
    array of uint8, shape (size, size, 3)

    Raises
    ------
    ImageError
        For whatever is wrong with this one file; the reason is one line for a person.

    Examples
    --------
    >>> load_pixels(b"", Preprocess(size=8, resize=8))
    Traceback (most recent call last):
    byname.errors.ImageError: empty file (0 bytes)
    """
    return to_pixels(decode(data, target=preprocess.resize), preprocess)
