"""One encoder for everybody: no text twice, nobody kept waiting."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from byname.serve.encoder import BLOCK, SharedEncoder, Stopped
from tests.helpers import FakeEncoder


def test_only_new_texts_are_encoded() -> None:
    inner = FakeEncoder()
    shared = SharedEncoder(inner)
    first = shared.encode_texts(["a", "b", "a"])
    assert inner.texts == 2
    again = shared.encode_texts(["c", "b", "a"])
    assert inner.texts == 3
    np.testing.assert_array_equal(first[:2], again[[2, 1]])
    np.testing.assert_array_equal(again, inner.encode_texts(["c", "b", "a"]))


def test_the_least_used_texts_are_forgotten() -> None:
    shared = SharedEncoder(FakeEncoder())
    shared.remember(["a", "b", "c"], np.eye(3, 8, dtype=np.float32), most=2)
    assert (shared.known(["a"]), shared.known(["b", "c"])) == (0, 2)


def test_no_texts_give_no_rows() -> None:
    assert SharedEncoder(FakeEncoder()).encode_texts([]).shape == (0, 8)


def test_progress_is_told_in_blocks_and_ends() -> None:
    shared, told = SharedEncoder(FakeEncoder()), []
    shared.progress = lambda *said: told.append(said)
    shared.encode_texts([str(i) for i in range(BLOCK + 1)])
    assert told == [("texts", 0, BLOCK + 1), ("texts", BLOCK, BLOCK + 1), ("texts", 0, 0)]


def test_after_the_end_nothing_is_encoded() -> None:
    shared = SharedEncoder(FakeEncoder())
    shared.stopped.set()
    with pytest.raises(Stopped):
        shared.encode_texts(["a"])
    with pytest.raises(Stopped):
        shared.encode_images(np.zeros((1, 32, 32, 3), np.uint8))


def test_one_call_at_a_time() -> None:
    class Watched(FakeEncoder):
        inside = most = 0

        def encode_texts(self, texts):  # type: ignore[no-untyped-def]
            self.inside += 1
            self.most = max(self.most, self.inside)
            threading.Event().wait(0.002)
            self.inside -= 1
            return super().encode_texts(texts)

    inner = Watched()
    shared = SharedEncoder(inner)
    threads = [threading.Thread(target=shared.encode_texts, args=([str(i)],)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (inner.texts, inner.most) == (8, 1)
