"""Conditions and small files that several tests share."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from byname.encoders.mini import mini_available

__all__ = ["needs_mini", "write_photo"]

needs_mini = pytest.mark.skipif(
    not mini_available(), reason="needs the packages of mini: pip install 'byname[demo]'"
)


def write_photo(path: Path, colour: tuple[int, int, int]) -> None:
    """A photo with a gradient towards ``colour``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    grey = Image.linear_gradient("L").resize((48, 40))
    Image.composite(Image.new("RGB", (48, 40), colour), Image.new("RGB", (48, 40)), grey).save(path)
