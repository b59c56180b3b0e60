"""From a listed image to the encoder's pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from byname.images.decode import decode
from byname.images.preprocess import Preprocess, to_pixels
from byname.images.sources import ImageRef

__all__ = ["load_pixels"]


def load_pixels(ref: ImageRef, preprocess: Preprocess) -> NDArray[np.uint8]:
    """Read, decode, resize and crop one image. Thread-safe.

    Parameters
    ----------
    ref : ImageRef
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
    >>> load_pixels(ImageRef("a.jpg", "no/such/a.jpg"), Preprocess(size=8, resize=8))
    Traceback (most recent call last):
    byname.errors.ImageError: the file does not exist
    """
    return to_pixels(decode(ref.read(), target=preprocess.resize), preprocess)
