"""One encoder for everybody: calls one after the other, and no text encoded twice."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from byname.encoders import Encoder
from byname.progress import tell

__all__ = ["SharedEncoder", "Stopped", "Superseded"]

BLOCK = 256  # texts that are encoded before others get their turn
KEPT = 50_000  # texts that are remembered, more only if one class list has more


class Stopped(Exception):  # noqa: N818 - not an error: the user ended the server
    """Long work that was ended with the server."""


class Superseded(Exception):  # noqa: N818 - not an error: the user asked for something newer
    """Long work that nobody waits for any more."""


class SharedEncoder(Encoder):
    """An encoder behind a lock, with a memory for texts.

    Parameters
    ----------
    inner : Encoder

    Examples
    --------
    >>> from byname.encoders import PrecomputedEncoder
    >>> shared = SharedEncoder(PrecomputedEncoder.from_arrays(["a", "b"], np.eye(2)))
    >>> shared.encode_texts(["b", "a", "b"]).tolist(), shared.known(["a", "c"])
    ([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]], 1)
    """

    def __init__(self, inner: Encoder) -> None:
        self.inner, self.info = inner, inner.info
        self.gives_log_var = inner.gives_log_var
        self.stopped = threading.Event()
        self.progress: Callable[[str, int, int], None] = lambda what, done, total: None
        self._lock, self._next = threading.Lock(), threading.Lock()
        self._memory: OrderedDict[str, NDArray[np.float32]] = OrderedDict()
        self._guard = threading.Lock()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """The encoder for one call. Who waits holds the door, so that no loop keeps others out."""
        with self._next:
            self._lock.acquire()
        try:
            if self.stopped.is_set():
                raise Stopped
            yield
        finally:
            self._lock.release()

    def known(self, texts: Sequence[str]) -> int:
        """How many of these texts are remembered."""
        with self._guard:
            return sum(text in self._memory for text in texts)

    def encode_images(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """As the encoder itself."""
        with self._turn():
            return self.inner.encode_images(pixels)

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """As the encoder itself; only texts that are not remembered are encoded."""
        listed = list(texts)
        with self._guard:
            found = {t: self._memory[t] for t in listed if t in self._memory}
            for text in found:
                self._memory.move_to_end(text)
        # Neighbours in length make batches of equal work.
        new = sorted({t for t in listed if t not in found}, key=lambda t: (len(t), t))
        try:
            for start in range(0, len(new), BLOCK):
                part = new[start : start + BLOCK]
                tell("texts encoded", start, len(new))  # who listens may end the work here
                if len(new) > BLOCK:
                    self.progress("texts", start, len(new))
                with self._turn():
                    vectors = self.inner.encode_texts(part)
                self.remember(part, vectors, most=max(KEPT, 2 * len(listed)))
                found.update(zip(part, vectors, strict=True))
        finally:
            self.progress("texts", 0, 0)
        if not listed:
            return np.zeros((0, self.info.dim), np.float32)
        return np.stack([found[text] for text in listed])

    def remember(
        self, texts: Sequence[str], vectors: NDArray[np.float32], most: int = KEPT
    ) -> None:
        """Keep the vectors of texts; the least recently used are forgotten."""
        with self._guard:
            for text, vector in zip(texts, vectors, strict=True):
                # A copy: a row of a block would keep the whole block in memory.
                self._memory[text] = np.array(vector, np.float32)
                self._memory.move_to_end(text)
            while len(self._memory) > most:
                self._memory.popitem(last=False)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """As the encoder itself."""
        return self.inner.count_tokens(texts)

    def lookup(self, keys: Sequence[str]) -> tuple[NDArray[np.float32], dict[str, str]] | None:
        """As the encoder itself."""
        return self.inner.lookup(keys)

    def text_log_var(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """As the encoder itself."""
        with self._turn():
            return self.inner.text_log_var(texts)
