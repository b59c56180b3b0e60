"""A small encoder that counts its work, and small photos."""

from __future__ import annotations

import hashlib
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from byname.encoders import Encoder, EncoderInfo
from byname.errors import EncoderError
from byname.images.preprocess import Preprocess

__all__ = ["FakeEncoder", "as_nobody", "make_photo", "make_photos", "open_to_all"]

DIM = 8
NOBODY = 65534


class FakeEncoder(Encoder):
    """Mean colours of a 4 x 4 grid through a fixed random matrix; texts by their hash.

    ``images`` and ``batches`` count what ``encode_images`` was given. ``stop_after`` batches it
    raises KeyboardInterrupt, as Ctrl-C would. A batch that holds a pure red photo is refused.
    """

    def __init__(
        self, *, stop_after: int | None = None, name: str = "fake", weights: str = "fake-1"
    ) -> None:
        self.info = EncoderInfo(
            name, DIM, Preprocess(size=32, resize=32), licence="CC0-1.0", weights_sha256=weights
        )
        self.images = self.batches = self.texts = 0
        self.stop_after = stop_after
        self._matrix = np.random.default_rng(0).normal(size=(48, DIM)).astype(np.float32)

    def encode_images(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        if self.batches == self.stop_after:
            raise KeyboardInterrupt
        assert pixels.shape[1:] == (32, 32, 3)
        assert pixels.dtype == np.uint8
        grid = pixels.reshape(-1, 4, 8, 4, 8, 3).mean((2, 4), dtype=np.float32)
        if (np.ptp(pixels, axis=(1, 2)).max(1) == 0)[(pixels[:, 0, 0] == (255, 0, 0)).all(1)].any():
            raise EncoderError("encode it", "it is all red")
        self.images += len(pixels)
        self.batches += 1
        return unit((grid.reshape(len(pixels), 48) / 255 - 0.5) @ self._matrix)

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.texts += len(texts)
        seeds = [
            int.from_bytes(hashlib.sha256(t.encode("utf-8", "surrogatepass")).digest()[:8], "big")
            for t in texts
        ]
        rows = [np.random.default_rng(seed).normal(size=DIM) for seed in seeds]
        return unit(np.array(rows, np.float32).reshape(len(texts), DIM))


def unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def make_photo(seed: int, size: tuple[int, int] = (40, 36)) -> Image.Image:
    """A photo of coloured tiles; each seed gives another."""
    tiles = np.random.default_rng(seed).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    return Image.fromarray(tiles).resize(size, Image.Resampling.NEAREST)


def make_photos(folder: Path, count: int, first: int = 0) -> Path:
    """``folder`` with ``count`` photos ``0000.png``, every third in a sub-folder ``sub``."""
    (folder / "sub").mkdir(parents=True, exist_ok=True)
    for seed in range(first, first + count):
        place = folder / "sub" if seed % 3 == 2 else folder
        make_photo(seed).save(place / f"{seed:04d}.png")
    return folder


def as_nobody(action: Callable[[], None]) -> None:
    """Run ``action`` in a child process without root's rights; fails where it raises."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            action()
            code = 0
        except BaseException:  # noqa: BLE001 - the child must not go on as a second pytest
            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0


def open_to_all(path: Path) -> None:
    """Let other users pass through pytest's own folders above ``path``."""
    # Three levels at most (the test's, the session's, the user's): never the system's folders.
    for folder in list(path.parents)[:3]:
        if folder.stat().st_mode & 0o077 == 0:
            folder.chmod(0o711)
