"""What the image processors of the transformers library do, as a recipe of ours."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from byname.encoders.layouts import _json, _transformers_preprocess
from byname.errors import EncoderError
from byname.images.preprocess import Preprocess

__all__ = ["pixel_recipe"]


def pixel_recipe(folder: Path, asked: str) -> tuple[Preprocess, int | None]:
    """Recipe of the pixels of a transformers folder.

    Returns
    -------
    Preprocess
    int or None
        Side of the centre that the tower must still crop: a :class:`Preprocess` cannot crop what
        was squashed, which is what ALIGN asks for.

    Raises
    ------
    EncoderError
        If the folder has no preprocessor_config.json, or one that fits no supported recipe.
    """
    path = folder / "preprocessor_config.json"
    nested = folder / "processor_config.json"
    try:
        card = _json(path) if path.is_file() else dict(_json(nested)["image_processor"])
        if not card.get("rescale_offset") and "EfficientNet" not in str(
            card.get("image_processor_type")
        ):
            return _recipe(card), None
        return _efficientnet_recipe(card)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise EncoderError(
            f"use encoder '{asked}'",
            f"its preprocessor_config.json is missing or does not fit "
            f"({type(error).__name__}: {error!s:.200})",
            "Get the file again from the model's source.",
        ) from None


def _recipe(card: dict[str, Any]) -> Preprocess:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "preprocessor_config.json"
        path.write_text(json.dumps(card), encoding="utf-8")
        return _transformers_preprocess(path)


def _efficientnet_recipe(card: dict[str, Any]) -> tuple[Preprocess, int | None]:
    """ALIGN: squash to a square, crop its centre, and scale to -1..1 in up to three steps.

    ``x * factor - 1``, then ``(x - mean) / std``, then ``x / std`` again, each if asked for; a
    mean and a deviation of x / 255 say the same at once.
    """
    factor = 255 * float(card.get("rescale_factor", 1 / 255))
    shift = 1.0 if card.get("rescale_offset") else 0.0
    mean, std = (np.array(card[name], float) for name in ("image_mean", "image_std"))
    low, gain = np.full(3, shift), np.full(3, factor)
    if card.get("do_normalize", True):
        low, gain = (low + mean) / std, gain / std
    if card.get("include_top"):
        low, gain = low / std, gain / std
    plain: dict[str, Any] = {key: card[key] for key in ("size", "resample") if key in card}
    plain |= {
        "do_center_crop": False,
        "image_mean": (low / gain).tolist(),
        "image_std": (1 / gain).tolist(),
    }
    made = _recipe(plain)
    crop = card.get("crop_size") if card.get("do_center_crop") else None
    side = crop["height"] if isinstance(crop, dict) else crop
    return made, None if side in (None, made.size) else int(side)
