"""Batches that the encoder refuses: for want of memory, or for one image's fault."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

from byname.encoders.memory import MORE_MEMORY, out_of_memory, within_memory
from byname.errors import EncoderError, EncoderMemoryError
from byname.runs.encoding import Batcher
from tests.helpers import FakeEncoder, make_photo

NO_MEMORY = "not enough memory to encode it"
BAD = "the encoder failed on it: it is bad"


def pixels_of(count: int) -> dict[int, NDArray[np.uint8]]:
    return {10 + i: np.asarray(make_photo(i, (32, 32)), np.uint8) for i in range(count)}


class OutOfMemoryError(RuntimeError):
    """As torch calls its own."""


def chained() -> EncoderError:
    try:
        try:
            raise MemoryError
        except MemoryError:
            raise EncoderError("encode", "it failed") from None
    except EncoderError as error:
        return error


class Tight(FakeEncoder):
    """Refuses more than ``most`` images at once, and batches with one of the ``bad`` photos."""

    def __init__(self, most: int = 1000, bad: Sequence[int] = (), error: Exception | None = None):
        super().__init__()
        self.most, self.error = most, error or MemoryError()
        photos = pixels_of(max(bad, default=-1) + 1)
        self.bad = [photos[10 + i] for i in bad]
        self.sizes: list[int] = []

    def encode_images(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.sizes.append(len(pixels))
        if len(pixels) > self.most:
            raise self.error
        if any((pixels == bad).all((1, 2, 3)).any() for bad in self.bad):
            raise EncoderError("encode", "it is bad")
        return super().encode_images(pixels)


def check(batcher: Batcher, pixels: dict[int, NDArray[np.uint8]], errors: dict[int, str]) -> None:
    found = batcher.vectors(pixels)
    assert list(found) == list(pixels)
    assert {i: v for i, v in found.items() if isinstance(v, str)} == errors
    wanted = FakeEncoder().encode_images(np.stack(list(pixels.values())))
    for i, vector in zip(pixels, wanted, strict=True):
        if i not in errors:
            np.testing.assert_allclose(np.asarray(found[i]), vector, atol=1e-5)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        EncoderMemoryError("encode", "no"),
        OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        OutOfMemoryError(),
        chained(),
    ],
    ids=lambda e: type(e).__name__,
)
def test_a_batch_is_halved_until_memory_suffices_and_the_size_is_kept(error: Exception) -> None:
    encoder = Tight(5, error=error)
    batcher, pixels = Batcher(encoder), pixels_of(32)
    check(batcher, pixels, {})
    assert encoder.sizes == [32, 16, 8, *[4] * 8]
    encoder.sizes.clear()
    check(batcher, pixels, {})
    assert encoder.sizes == [4] * 8


@pytest.mark.parametrize("most", range(1, 8))
@pytest.mark.parametrize("count", [1, 2, 3, 7, 13])
def test_any_limit_and_any_batch(most: int, count: int) -> None:
    encoder = Tight(most)
    check(Batcher(encoder), pixels_of(count), {})
    assert sum(s for s in encoder.sizes if s <= most) == count


def test_what_does_not_fit_alone_is_an_error() -> None:
    encoder = Tight(0)
    check(Batcher(encoder), pixels_of(8), dict.fromkeys(range(10, 18), NO_MEMORY))
    assert encoder.sizes == [8, 4, 2, *[1] * 8]


@pytest.mark.parametrize("bad", [0, 1, 31, 32, 63])
def test_one_culprit_is_found_by_halving(bad: int) -> None:
    encoder = Tight(bad=[bad])
    batcher = Batcher(encoder)
    check(batcher, pixels_of(64), {10 + bad: BAD})
    assert len(encoder.sizes) == 13  # 1 + 2 log2(64)
    assert batcher.limit is None, "another batch is tried as a whole"


@pytest.mark.parametrize("seed", range(30))
def test_any_culprits_under_any_limit(seed: int) -> None:
    rng = random.Random(seed)
    count = rng.randrange(1, 40)
    bad = rng.sample(range(count), rng.randrange(0, min(count, 5) + 1))
    batcher = Batcher(Tight(rng.randrange(1, 40), bad))
    check(batcher, pixels_of(count), {10 + i: BAD for i in bad})


def test_other_errors_are_raised() -> None:
    with pytest.raises(TypeError, match="a mistake"):
        Batcher(Tight(0, error=TypeError("a mistake"))).vectors(pixels_of(4))


def test_no_images_are_no_call() -> None:
    encoder = Tight()
    assert Batcher(encoder).vectors({}) == {}
    assert encoder.sizes == []


def test_after_memory_has_failed_there_is_one_call_at_a_time() -> None:
    class Counting(Tight):
        inside = most_inside = 0
        lock = threading.Lock()

        def encode_images(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
            with self.lock:
                self.inside += 1
                if len(pixels) == 1:
                    self.most_inside = max(self.most_inside, self.inside)
            time.sleep(0.005)
            try:
                return super().encode_images(pixels)
            finally:
                with self.lock:
                    self.inside -= 1

    encoder = Counting(1)
    batcher = Batcher(encoder)
    batcher.vectors(pixels_of(2))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: batcher.vectors(pixels_of(3)), range(4)))
    assert all(not isinstance(v, str) for vectors in found for v in vectors.values())
    assert encoder.most_inside == 1
    assert batcher.seconds >= 14 * 0.005


@pytest.mark.parametrize("count", [1, 8])
def test_what_another_call_holds_is_waited_for(count: int) -> None:
    class Shared(FakeEncoder):
        held = 0
        inside = threading.Event()

        def encode_images(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
            if self.held + len(pixels) > 8:
                raise MemoryError
            self.held += len(pixels)
            self.inside.set()
            time.sleep(0.1)
            self.held -= len(pixels)
            return super().encode_images(pixels)

    encoder = Shared()
    batcher = Batcher(encoder)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(batcher.vectors, pixels_of(8))
        assert encoder.inside.wait(10)
        found = batcher.vectors(pixels_of(count))
        errors = [v for v in (*found.values(), *first.result().values()) if isinstance(v, str)]
    assert errors == []


@pytest.mark.parametrize(
    "text",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB (GPU 0; ...)",
        "MPS backend out of memory (MPS allocated: 8 GB)",
        "DefaultCPUAllocator: can't allocate memory: you tried to allocate 4000 bytes",
        "[enforce fail at alloc_cpu.cpp:83] err == 0. DefaultCPUAllocator: not enough memory",
        "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : ... Failed to allocate memory for requested "
        "buffer of size 34359738368",
        "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : std::bad_alloc",
        "[ONNXRuntimeError] : 1 : FAIL : bad allocation",
        "CUDNN failure 4: CUDNN_STATUS_ALLOC_FAILED",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    ],
)
def test_libraries_that_want_memory_are_understood(text: str) -> None:
    freed = []

    def fail() -> None:
        raise RuntimeError(text)

    assert out_of_memory(RuntimeError(text))
    with pytest.raises(EncoderMemoryError) as caught:
        within_memory("encode images", fail, lambda: freed.append(1))
    assert freed == [1]
    assert str(caught.value).endswith(MORE_MEMORY)
    assert caught.value.__context__ is None, "it would keep what the failed call had in memory"


@pytest.mark.parametrize("text", ["shapes do not match", "CUDA error: device-side assert", ""])
def test_other_failures_are_not_for_want_of_memory(text: str) -> None:
    def fail() -> None:
        raise RuntimeError(text)

    assert not out_of_memory(RuntimeError(text))
    with pytest.raises(RuntimeError) as caught:
        within_memory("encode images", fail)
    assert not isinstance(caught.value, EncoderError)


def test_a_chain_without_end_ends() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert not out_of_memory(first)
