"""From a file's bytes, or a decoded image, to the encoder's pixels."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from byname.images.decode import decode
from byname.images.preprocess import Preprocess, to_pixels
from byname.images.views import Crops

__all__ = ["image_pixels", "load_pixels"]


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
        (V, size, size, 3) for :class:`byname.images.views.Crops`.

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
    if isinstance(preprocess, Crops):
        return preprocess.load(data)
    with ExitStack() as large:
        return to_pixels(decode(data, target=preprocess.resize, large=large), preprocess)


def image_pixels(image: Image.Image, preprocess: Preprocess) -> NDArray[np.uint8]:
    """The same of a decoded RGB image.

    Examples
    --------
    >>> image_pixels(Image.new("RGB", (9, 8)), Preprocess(size=8, resize=8)).shape
    (8, 8, 3)
    """
    if isinstance(preprocess, Crops):
        return preprocess.pixels(image, image.tobytes())
    return to_pixels(image, preprocess)
