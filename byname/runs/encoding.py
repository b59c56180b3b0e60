"""Loaded images to rows: what must be encoded is, in smaller batches where one fails."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byname.encoders.base import Encoder
from byname.encoders.memory import out_of_memory
from byname.errors import EncoderError, RunError
from byname.images.refs import ImageRef
from byname.runs.loading import Batch
from byname.runs.parts import Row
from byname.runs.reuse import ReuseIndex
from byname.runs.stop import Stopped

__all__ = ["Batcher", "Encoding"]

Vectors = dict[int, NDArray[np.float32] | str]


class Batcher:
    """Batches through an encoder. Thread-safe.

    Where memory does not suffice, a batch is halved until it does, and the size that worked is
    kept from then on; what still does not fit alone has an error. From the first such failure on
    there is one call at a time, as two at once may be what it did not suffice for. Where the
    encoder refuses a batch, it is halved until the images are found whose fault it is.

    Parameters
    ----------
    encoder : Encoder
    careful : path, optional
        Before each call of the encoder the first and last position are written there.

    Attributes
    ----------
    seconds : float
        That the encoder took, summed over its calls.
    limit : int or None
        Most images a call, where memory has once not sufficed.
    """

    def __init__(self, encoder: Encoder, careful: Path | None = None) -> None:
        self.encoder, self.seconds = encoder, 0.0
        self.limit: int | None = None
        self._careful = careful
        self._turn, self._calls = threading.Condition(), 0

    def vectors(self, pixels: Mapping[int, NDArray[np.uint8]]) -> Vectors:
        """A vector (D,) for each position, or the reason why there is none."""
        found: Vectors = {}
        waiting = deque([list(pixels)] if pixels else [])
        while waiting:
            positions = waiting.popleft()
            if self.limit is not None and len(positions) > self.limit:
                waiting.extendleft([positions[self.limit :], positions[: self.limit]])
                continue
            alone = self.limit is not None
            vectors, why, short = self._call(positions, pixels)
            if vectors is not None:
                found.update(self._checked(positions, vectors))
            elif len(positions) == 1 and (alone or not short):
                found[positions[0]] = why
            elif short:
                self._shrink(len(positions))
                waiting.appendleft(positions)
            else:
                half = (len(positions) + 1) // 2
                waiting.extendleft([positions[half:], positions[:half]])
        return {i: found[i] for i in pixels}

    def _call(
        self, positions: Sequence[int], pixels: Mapping[int, NDArray[np.uint8]]
    ) -> tuple[NDArray[np.float32] | None, str, bool]:
        """Vectors, or None, why not, and whether it was for want of memory."""
        if self._careful is not None:
            note = f"encode {positions[0]} {positions[-1]}\n"
            self._careful.write_text(note, encoding="utf-8")
        with self._turn:
            # A call from before the first failure counts, too: it may hold what this one lacks.
            self._turn.wait_for(lambda: self.limit is None or not self._calls)
            self._calls += 1
        began = time.monotonic()
        try:
            return self.encoder.encode_images(np.stack([pixels[i] for i in positions])), "", False
        # A library's own class for want of memory is a RuntimeError or less; others are raised on.
        except Exception as error:
            if out_of_memory(error):
                return None, "not enough memory to encode it", True
            if isinstance(error, EncoderError):
                return None, f"the encoder failed on it: {error.seen}", False
            raise
        finally:
            with self._turn:
                self.seconds += time.monotonic() - began
                self._calls -= 1
                self._turn.notify_all()

    def _shrink(self, failed: int) -> None:
        """Halve the limit until it is below what has failed, so that resumed runs cut alike."""
        with self._turn:
            limit = self.limit or failed
            while limit >= failed and limit > 1:
                limit = (limit + 1) // 2 if limit > 2 else 1
            self.limit = limit
            self._turn.notify_all()

    def _checked(self, positions: Sequence[int], vectors: NDArray[np.float32]) -> Vectors:
        info = self.encoder.info
        if vectors.shape != (len(positions), info.dim):
            raise EncoderError(
                f"embed images with '{info.id}'",
                f"it gave vectors of shape {vectors.shape} for {len(positions)} images",
                f"Its card says that they have {info.dim} numbers each.",
            )
        bad = "the encoder gave NaN or infinite numbers for it"
        rows = zip(positions, vectors, strict=True)
        return {i: v if np.isfinite(v).all() else bad for i, v in rows}


@dataclass
class _Flight:
    """A batch that is with the encoder. ``first`` is the place of each content in it."""

    batch: Batch
    known: dict[int, NDArray[np.float16] | None]
    first: dict[bytes, int]
    vectors: Future[Vectors]


class Encoding:
    """Makes rows of the loaded images of a shard.

    Parameters
    ----------
    refs : sequence of ImageRef
        Of the shard.
    batcher : Batcher
    reuse : ReuseIndex, optional
        With it, of the images of one content only the first is encoded.
    """

    def __init__(
        self, refs: Sequence[ImageRef], batcher: Batcher, reuse: ReuseIndex | None
    ) -> None:
        self._refs, self._batcher, self._reuse = refs, batcher, reuse
        self._failed: dict[bytes, str] = {}

    def rows(
        self, batches: Iterable[Batch], at_once: int, stop: Callable[[], bool]
    ) -> Generator[tuple[list[Row], int], None, None]:
        """Rows of each batch in order, and how many images were encoded for them.

        ``at_once`` batches are with the encoder: where one has ended and its rows are written, the
        next is already being worked on. ``stop`` is asked when a batch was written; what is with
        the encoder then, or when files cannot be read any more, is finished first.
        """
        flights: deque[_Flight] = deque()
        end: BaseException | None = None
        with ThreadPoolExecutor(at_once) as pool:
            try:
                for batch in batches:
                    ahead = {content for flight in flights for content in flight.first}
                    flights.append(self._take_off(batch, ahead, pool))
                    del batch  # the pixels live as long as they are needed and no longer
                    if len(flights) == at_once:
                        yield self._land(flights.popleft())
                        if stop():
                            raise Stopped
            except (RunError, Stopped) as error:
                end = error
            while flights:
                yield self._land(flights.popleft())
                if end is None and stop():
                    end = Stopped()
        if end is not None:
            raise end

    def _take_off(self, batch: Batch, ahead: set[bytes], pool: ThreadPoolExecutor) -> _Flight:
        """Choose what of a batch must be encoded, and start.

        What this run has learnt, or is about to learn from the batches ``ahead``, is asked for here
        and not only when a file is loaded, so that a batch does not depend on how far loading was
        ahead.
        """
        pixels: dict[int, NDArray[np.uint8]] = {}
        known: dict[int, NDArray[np.float16] | None] = {}
        first: dict[bytes, int] = {}
        for i, loaded in batch:
            known[i] = loaded.vector
            if loaded.pixels is None:
                continue
            if self._reuse is not None:
                known[i] = self._reuse.learnt(loaded.content)
                if known[i] is not None or loaded.content in ahead:
                    continue
                if first.setdefault(loaded.content, i) != i:
                    continue
            pixels[i] = loaded.pixels
        bare = [(i, replace(loaded, pixels=None)) for i, loaded in batch]
        return _Flight(bare, known, first, pool.submit(self._batcher.vectors, pixels))

    def _land(self, flight: _Flight) -> tuple[list[Row], int]:
        """Rows of a batch, and how many images were encoded for them."""
        vectors = flight.vectors.result()
        self._failed.update(
            (content, vector)
            for content, i in flight.first.items()
            if isinstance(vector := vectors[i], str)
        )
        rows = []
        for i, loaded in flight.batch:
            content = loaded.content
            outcome: NDArray[Any] | str | None = flight.known[i]
            if outcome is None:
                outcome = vectors.get(flight.first.get(content, i))
            if outcome is None and self._reuse is not None and content:
                # a copy of an image of a batch before, which has been learnt or has failed since
                outcome = self._reuse.learnt(content)
            if outcome is None:
                outcome = self._failed.get(content, loaded.error)
            if isinstance(outcome, str):
                rows.append(Row(i, self._refs[i].key, b"", None, outcome))
            else:
                rows.append(Row(i, self._refs[i].key, content, outcome.astype(np.float16), None))
        return rows, sum(not isinstance(vector, str) for vector in vectors.values())
