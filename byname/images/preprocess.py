"""The one place where a decoded image becomes the pixels an encoder asks for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from byname.errors import UsageError

__all__ = ["Preprocess", "to_pixels"]

Mode = Literal["shortest", "squash"]
Interpolation = Literal["bicubic", "bilinear", "lanczos", "nearest"]
Rounding = Literal["round", "floor"]

LONGEST = 32
"""Long side over short side up to which the whole image is resized, exactly as CLIP does it."""
LARGEST = 4096
"""Longest side that an encoder may ask for; the largest known ones see less than 1,000 pixels."""
_UNITS = 4.0  # means and deviations of 0-1 pixels are far below, those of 0-255 pixels above
_SUPPORT = 3  # radius of the widest filter (lanczos), in pixels


@dataclass(frozen=True)
class Preprocess:
    """How an encoder wants its pixels.

    Parameters
    ----------
    size : int
        Side of the square that the encoder sees, in pixels.
    resize : int
        Target of the resize before the crop: the short side for ``mode="shortest"``, at least
        ``size``; equal to ``size`` for ``mode="squash"``.
    mode : {"shortest", "squash"}
        Keep the aspect ratio and crop the centre (CLIP), or resize to a square (SigLIP).
    interpolation : {"bicubic", "bilinear", "lanczos", "nearest"}
        Pillow's filter of that name (antialiased).
    mean, std : tuple of float
        Per channel, in units of 0-1 pixels: ``(x / 255 - mean) / std``. Applied by the encoder.
    crop_rounding : {"round", "floor"}
        Where the crop begins when an odd number of pixels must go: half of it rounded to even
        (torchvision, hence OpenAI's CLIP and open_clip), or rounded down (the image processors of
        transformers). They differ by one pixel in one image out of four or so.

    Raises
    ------
    UsageError
        For values that fit no encoder.

    Examples
    --------
    >>> Preprocess(size=224, resize=224).interpolation
    'bicubic'
    """

    size: int
    resize: int
    mode: Mode = "shortest"
    interpolation: Interpolation = "bicubic"
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    crop_rounding: Rounding = "round"

    def __post_init__(self) -> None:
        for field, choices in (
            ("mode", Mode),
            ("interpolation", Interpolation),
            ("crop_rounding", Rounding),
        ):
            value, known = getattr(self, field), get_args(choices)
            if value not in known:
                raise _unfit(f"{field} is {value!r}", f"It is one of {', '.join(known)}.")
        for field in ("size", "resize"):
            value = getattr(self, field)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= LARGEST:
                raise _unfit(
                    f"{field} is {value!r}", f"It is a whole number of pixels, 1 to {LARGEST}."
                )
        if self.mode == "squash" and self.resize != self.size:
            raise _unfit(
                f"resize {self.resize} differs from size {self.size}",
                "They are equal for mode 'squash'.",
            )
        if self.resize < self.size:
            raise _unfit(
                f"resize {self.resize} is smaller than size {self.size}",
                "Resize to at least the side of the crop.",
            )
        for field in ("mean", "std"):
            # Lists come from JSON; a frozen dataclass must stay hashable.
            given = getattr(self, field)
            try:
                values = tuple(float(v) for v in given)
            except (TypeError, ValueError):
                values = ()
            good = len(values) == 3 and all(map(math.isfinite, values))
            if not good or (field == "std" and min(values) <= 0):
                raise _unfit(f"{field} is {given!r}", "Give three finite numbers; std above 0.")
            if max(map(abs, values)) > _UNITS:
                raise _unfit(
                    f"{field} is {given!r}, as if pixels went to 255",
                    "Pixels go from 0 to 1: divide it by 255.",
                )
            object.__setattr__(self, field, values)


def to_pixels(image: Image.Image, preprocess: Preprocess) -> NDArray[np.uint8]:
    """Resize and crop as the encoder wants it: the same bits with every version of Pillow.

    Bit for bit as CLIP's recipe does, with the Pillow that the models were trained with.

    ``mode="shortest"``: the short side becomes ``resize``, the long side
    ``int(resize * long / short)``, then the centre is cropped. Where the sides differ more than
    ``LONGEST`` times, only the part around the crop is resized, since the whole might not fit into
    memory; the result may then differ by rounding.

    Parameters
    ----------
    image : PIL.Image.Image
        Mode RGB.
    preprocess : Preprocess

    Returns
    -------
    array of uint8, shape (size, size, 3)

    Raises
    ------
    UsageError
        For an image of another mode, or without pixels.

    Examples
    --------
    >>> to_pixels(Image.new("RGB", (640, 480)), Preprocess(size=224, resize=224)).shape
    (224, 224, 3)
    """
    if image.mode != "RGB" or 0 in image.size:
        raise UsageError(
            "resize the image",
            f"its mode is {image.mode} and its size {image.width} x {image.height}",
            "Use byname.images.decode.to_rgb first.",
        )
    resample = Image.Resampling[preprocess.interpolation.upper()]
    size, resize = preprocess.size, preprocess.resize
    if preprocess.mode == "squash":
        whole = (0.0, 0.0, float(image.width), float(image.height))
        return np.array(_resize(image, (size, size), resample, whole))
    short, long = min(image.size), max(image.size)
    # Multiply first, as the reference does: resize * (long / short) is not the same number.
    new_long = int(resize * long / short)
    start, across = _start(new_long, preprocess), _start(resize, preprocess)
    wide = image.width > image.height
    first, last, box = 0, new_long, (0.0, float(long))
    if long > LONGEST * short:
        step = long / new_long
        margin = math.ceil(_SUPPORT * max(1.0, 1.0 / step))
        first, last = max(0, start - margin), min(new_long, start + size + margin)
        box = (first * step, min(float(long), last * step))
    start -= first
    if wide:
        shape, source = (last - first, resize), (box[0], 0.0, box[1], float(short))
        crop = (start, across, start + size, across + size)
    else:
        shape, source = (resize, last - first), (0.0, box[0], float(short), box[1])
        crop = (across, start, across + size, start + size)
    return np.array(_resize(image, shape, resample, source).crop(crop))


def _resize(
    image: Image.Image,
    shape: tuple[int, int],
    resample: Image.Resampling,
    box: tuple[float, float, float, float],
) -> Image.Image:
    """``image.resize``, with the horizontal pass first in every version of Pillow.

    Between the two passes pixels are rounded and clipped to 8 bits, so that their order shows. All
    of Pillow up to 12, with which the encoders were trained, begins with the rows; Pillow 13 begins
    with the columns where far more rows than columns go. Two calls, one for each pass, leave it no
    choice.
    """
    (width, height), (left, top, right, bottom) = image.size, box
    other_order = height - shape[1] > max(0, 2 * (width - shape[0]))
    if not other_order or resample is Image.Resampling.NEAREST:
        return image.resize(shape, resample, box=box)
    reach = math.ceil(_SUPPORT * max(1.0, (bottom - top) / shape[1])) + 1
    first, last = max(0, math.floor(top) - reach), min(height, math.ceil(bottom) + reach)
    if last - first > LONGEST * width:
        columns = image.resize((width, shape[1]), resample, box=(0.0, top, width, bottom))
        return columns.resize(shape, resample, box=(left, 0.0, right, shape[1]))
    rows = image if (first, last) == (0, height) else image.crop((0, first, width, last))
    rows = rows.resize((shape[0], last - first), resample, box=(left, 0.0, right, last - first))
    return rows.resize(shape, resample, box=(0.0, top - first, shape[0], bottom - first))


def _start(side: int, preprocess: Preprocess) -> int:
    """First row or column of the crop."""
    gone = side - preprocess.size
    return round(gone / 2.0) if preprocess.crop_rounding == "round" else gone // 2


def _unfit(seen: str, do: str) -> UsageError:
    return UsageError("preprocess images that way", seen, do)
