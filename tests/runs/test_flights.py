"""Several batches with the encoder at once: same rows, same order, copies encoded once."""

from __future__ import annotations

import random
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from byname.embeddings import Embeddings
from byname.images.sources import open_source
from byname.runs import embed_source
from tests.helpers import FakeEncoder, make_photos

N, BATCH = 40, 4


class Flying(FakeEncoder):
    """Calls take turns at random; ``most`` is how many were there at once."""

    def __init__(self, in_flight: int) -> None:
        super().__init__()
        self.in_flight = in_flight
        self.inside = self.most = 0
        self._lock, self._random = threading.Lock(), random.Random(0)

    def encode_images(self, pixels: np.ndarray) -> np.ndarray:
        with self._lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
            pause = self._random.uniform(0.002, 0.01)
        time.sleep(pause)
        with self._lock:
            self.inside -= 1
            return super().encode_images(pixels)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BYNAME_CACHE", str(tmp_path / "cache"))
    return make_photos(tmp_path / "photos", N)


def embed(photos: Path, in_flight: int, cache: bool) -> tuple[Embeddings, Flying]:
    encoder = Flying(in_flight)
    found = embed_source(open_source(photos), encoder, batch_size=BATCH, shard_size=24, cache=cache)
    return found, encoder


@pytest.mark.parametrize("in_flight", [2, 5])
@pytest.mark.parametrize("cache", [True, False])
def test_flights_change_nothing(photos: Path, in_flight: int, cache: bool) -> None:
    wanted = embed(photos, 1, False)[0]
    found, encoder = embed(photos, in_flight, cache)
    assert found.keys == wanted.keys
    np.testing.assert_array_equal(found.vectors, wanted.vectors)
    assert (encoder.images, encoder.batches) == (N, 10)
    assert 1 < encoder.most <= in_flight


def test_one_flight_is_one_call_at_a_time(photos: Path) -> None:
    assert embed(photos, 1, True)[1].most == 1


@pytest.mark.parametrize("in_flight", [1, 2, 5])
def test_copies_in_batches_that_fly_together_are_encoded_once(photos: Path, in_flight: int) -> None:
    for i in range(0, 12, 3):
        for j in range(3):
            shutil.copy(photos / f"{i:04d}.png", photos / f"{i:04d}-{j}.png")
    found, encoder = embed(photos, in_flight, True)
    assert len(found) == N + 12
    assert encoder.images == N
    by_key = dict(zip(found.keys, found.vectors, strict=True))
    np.testing.assert_array_equal(by_key["0003-2.png"], by_key["0003.png"])


@pytest.mark.parametrize("in_flight", [1, 2, 5])
def test_copies_of_an_image_that_is_refused_are_errors_alike(photos: Path, in_flight: int) -> None:
    for i in range(0, 30, 3):
        Image.new("RGB", (40, 40), (255, 0, 0)).save(photos / f"{i:04d}r.png")
    found, encoder = embed(photos, in_flight, True)
    assert set(found.errors.values()) == {"the encoder failed on it: it is all red"}
    assert (len(found.errors), len(found), encoder.images) == (10, N, N)


def test_without_the_cache_every_copy_is_encoded(photos: Path) -> None:
    shutil.copy(photos / "0000.png", photos / "0000-1.png")
    assert embed(photos, 2, False)[1].images == N + 1
