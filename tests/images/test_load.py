"""From bytes to pixels, and what many threads may take together."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

from byname.images import decode, load
from byname.images.load import load_pixels
from byname.images.preprocess import Preprocess
from tests.images.samples import encoded

SMALL = Preprocess(size=8, resize=8)


class Counting:
    """A lock that counts how often it was taken, and whether it is held."""

    def __init__(self) -> None:
        self.taken, self._lock = 0, threading.Lock()

    @contextmanager
    def _held(self) -> Iterator[None]:
        with self._lock:
            self.taken += 1
            yield

    def __enter__(self) -> None:
        self._now = self._held()
        self._now.__enter__()

    def __exit__(self, *error: object) -> None:
        self._now.__exit__(None, None, None)

    def locked(self) -> bool:
        return self._lock.locked()


def test_large_images_are_in_memory_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    lock, held = Counting(), []
    monkeypatch.setattr(decode, "LARGE", 500)
    monkeypatch.setattr(decode, "_one_large", lock)

    def to_pixels(image: Image.Image, preprocess: Preprocess) -> np.ndarray:
        held.append(lock.locked())
        return np.zeros((8, 8, 3), np.uint8)

    monkeypatch.setattr(load, "to_pixels", to_pixels)
    for side in (10, 30):
        load_pixels(encoded(Image.new("RGB", (side, side)), "PNG"), SMALL)
    assert held == [False, True], "until the large one has been made small"
    assert (lock.taken, lock.locked()) == (1, False)


def test_the_lock_is_let_go_where_decoding_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    lock = Counting()
    monkeypatch.setattr(decode, "LARGE", 500)
    monkeypatch.setattr(decode, "_one_large", lock)
    data = encoded(
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)), "PNG"
    )
    with pytest.raises(decode.ImageError):
        load_pixels(data[: len(data) // 2], SMALL)
    assert (lock.taken, lock.locked()) == (1, False)
