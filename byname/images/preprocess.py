"""The one place where a decoded image becomes the pixels an encoder asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Preprocess"]


@dataclass(frozen=True)
class Preprocess:
    """How an encoder wants its pixels.

    Parameters
    ----------
    size : int
        Side of the square that the encoder sees, in pixels.
    resize : int
        Target of the resize before the crop: the short side for ``mode="shortest"``; equal to
        ``size`` for ``mode="squash"``.
    mode : {"shortest", "squash"}
        Keep the aspect ratio and crop the centre (CLIP), or resize to a square (SigLIP).
    interpolation : {"bicubic", "bilinear", "lanczos", "nearest"}
        Pillow's filter of that name (antialiased).
    mean, std : tuple of float
        Per channel, in units of 0-1 pixels: ``(x / 255 - mean) / std``. Applied by the encoder.
    """

    size: int
    resize: int
    mode: Literal["shortest", "squash"] = "shortest"
    interpolation: Literal["bicubic", "bilinear", "lanczos", "nearest"] = "bicubic"
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
