"""The two towers of an ONNX encoder: a session each, fed as its graph wants to be fed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byname.encoders.layouts import Layout
from byname.encoders.memory import MORE_MEMORY, out_of_memory
from byname.encoders.sessions import open_session
from byname.encoders.tokens import TextTokenizer, groups_of_equal_length
from byname.errors import EncoderError, EncoderMemoryError
from byname.files import read_text

__all__ = ["LOG_VAR", "ImageTower", "TextTower"]

# Rows a call: the fewest at which weights are read often enough from the processor's cache, and
# the same everywhere, so that no vector depends on how many threads a machine has.
IMAGE_BATCH = 8
TEXT_TOKENS = 400
TEXT_BATCH = 64
ID_INPUTS = ("input_ids", "text", "tokens")
IMAGE_INPUTS = ("pixel_values", "pixels", "image", "images")
# The projected vector where the graph names it, else what SigLIP exports call it.
OUTPUTS = ("image_embeds", "text_embeds", "embedding", "image_embedding", "text_embedding")
FALLBACK_OUTPUT = "pooler_output"
LOG_VAR = "log_var"  # beside the vector, in graphs that give its variances
INTEGERS: dict[str, Any] = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
PIXELS: dict[str, Any] = {
    "tensor(uint8)": np.uint8,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
}
# Texts of different lengths, to see whether padding changes a vector.
PROBE = ("a", "a photo of a dog")


class _Tower:
    """A session with one output of interest, run in the batches that its graph allows."""

    def __init__(
        self, path: Path, threads: int | None, device: str, pool: Executor | None = None
    ) -> None:
        self.path, self.pool = path, pool
        self.session = open_session(path, str(path), threads=threads, device=device)
        try:
            self.inputs = {i.name: i for i in self.session.get_inputs()}
            outputs = {o.name: o for o in self.session.get_outputs()}
            for spec in (*self.inputs.values(), *outputs.values()):
                _ = spec.shape, spec.type  # decoded only here; dimensions have names, too
        except UnicodeDecodeError:
            seen = "the names of its inputs or outputs are not UTF-8"
            raise EncoderError(f"use '{path}'", seen, "Export the graph again.") from None
        self.output = _pick_output(path, [o for n, o in outputs.items() if n != LOG_VAR])
        self.gives_log_var = LOG_VAR in outputs
        shape = outputs[self.output].shape
        self.width = _fixed(shape[-1]) if shape else None
        self.batch: int | None = None

    def input(self, names: Sequence[str], types: Mapping[str, Any], rank: int) -> Any:
        """The input that goes by one of these names, or the only one."""
        found = next((self.inputs[n] for n in names if n in self.inputs), None)
        if found is None and len(self.inputs) == 1:
            found = next(iter(self.inputs.values()))
        if found is None or found.type not in types or len(found.shape or ()) != rank:
            listed = ", ".join(f"{i.name} {i.type} {i.shape}" for i in self.inputs.values())
            raise EncoderError(
                f"use '{self.path}'",
                f"it takes {listed}",
                f"Expected an input called {' or '.join(names)} of type {' or '.join(types)} with "
                f"{rank} dimensions.",
            )
        return found

    def each(self, work: Callable[[Any], NDArray[Any]], parts: Sequence[Any]) -> list[NDArray[Any]]:
        """``work`` on every part, on as many threads as there are; results in order.

        A single part goes through the pool too: callers of their own would be threads on top.
        """
        if self.pool is None:
            return [work(part) for part in parts]
        return list(self.pool.map(work, parts))

    def call(self, feed: Mapping[str, NDArray[Any]], output: str = "") -> NDArray[Any]:
        """A (B, D) output, in as many runs as the graph's batch asks for; "" is the vector."""
        rows, named = len(next(iter(feed.values()))), [output] if output else []
        if not self.batch or rows == self.batch:
            return self._run(feed, *named)
        parts = []
        for start in range(0, rows, self.batch):
            chunk = {n: a[start : start + self.batch] for n, a in feed.items()}
            count = min(self.batch, rows - start)
            # a fixed batch is filled up by repeating the last row
            fill = {n: np.pad(a, _after(a, self.batch - count), "edge") for n, a in chunk.items()}
            parts.append(self._run(fill, *named)[:count])
        return np.concatenate(parts)

    def _run(self, feed: Mapping[str, NDArray[Any]], output: str = "") -> NDArray[Any]:
        rows, output = len(next(iter(feed.values()))), output or self.output
        try:
            out = np.asarray(self.session.run([output], dict(feed))[0])
        # onnxruntime raises a dozen classes of its own without a common base
        except Exception as error:  # noqa: BLE001
            seen = f"onnxruntime failed ({type(error).__name__}: {error!s:.200})"
            if out_of_memory(error):
                raise EncoderMemoryError(f"run '{self.path}'", seen, MORE_MEMORY) from None
            raise EncoderError(
                f"run '{self.path}'",
                seen,
                "The graph does not accept what its description promises: export it again.",
            ) from None
        if out.ndim != 2 or len(out) != rows:
            raise EncoderError(
                f"use '{self.path}'",
                f"its output '{output}' has shape {out.shape} for a batch of {rows}",
                "Expected one vector a row: export the tower with its projection.",
            )
        return out


class ImageTower(_Tower):
    def __init__(
        self, layout: Layout, threads: int | None, device: str, pool: Executor | None = None
    ) -> None:
        super().__init__(layout.visual, threads, device, pool)
        self.preprocess = layout.preprocess
        spec = self.input(IMAGE_INPUTS, PIXELS, 4)
        shape = list(spec.shape)
        self.name, self.dtype = spec.name, PIXELS[spec.type]
        self.channels_last = shape[-1] == 3 or (shape[1] != 3 and self.dtype is np.uint8)
        self.batch = _fixed(shape[0])
        sides = [s for s in (shape[1:3] if self.channels_last else shape[2:4]) if _fixed(s)]
        size = layout.preprocess.size
        if any(side != size for side in sides):
            raise EncoderError(
                f"use '{layout.visual}'",
                f"it takes images of shape {shape}, its description says {size} x {size}",
                "Correct the size in the description, or export the graph for that size.",
            )
        values = np.arange(256, dtype=np.float32)[:, None] / np.float32(255)
        mean, std = (np.array(v, np.float32) for v in (self.preprocess.mean, self.preprocess.std))
        self.table = ((values - mean) / std).astype(self.dtype)  # (256, 3)
        probe = np.zeros((1, size, size, 3), np.uint8)
        self.dim = self.width or self.call({self.name: self.feed(probe)}).shape[1]

    def run(self, pixels: NDArray[np.uint8], output: str = "") -> NDArray[Any]:
        """(B, D) vectors, or another output, as the graph gives them."""
        if not len(pixels):
            return np.zeros((0, self.dim))
        step = self.batch or IMAGE_BATCH
        parts = [pixels[start : start + step] for start in range(0, len(pixels), step)]
        done = self.each(lambda part: self.call({self.name: self.feed(part)}, output), parts)
        return np.concatenate(done)

    def feed(self, pixels: NDArray[np.uint8]) -> NDArray[Any]:
        """Pixels as the graph wants them; a uint8 graph normalises by itself."""
        if self.dtype is np.uint8:
            array: NDArray[Any] = pixels if self.channels_last else pixels.transpose(0, 3, 1, 2)
            return np.ascontiguousarray(array)
        planes = np.empty((len(pixels), 3, *pixels.shape[1:3]), self.dtype)
        for c in range(3):
            # a look-up is exact and faster than arithmetic; "clip" spares a check of each index
            np.take(self.table[:, c], pixels[..., c], out=planes[:, c], mode="clip")
        return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)) if self.channels_last else planes


class TextTower(_Tower):
    """``cut``: whether padding is known to be inert or not; by default it is tried."""

    def __init__(
        self,
        layout: Layout,
        threads: int | None,
        device: str,
        pool: Executor | None = None,
        cut: bool | None = None,
    ) -> None:
        super().__init__(layout.textual, threads, device, pool)
        spec = self.input(ID_INPUTS, INTEGERS, 2)
        self.name, self.dtype, self.batch = spec.name, INTEGERS[spec.type], _fixed(spec.shape[0])
        self.extra = {n: i for n, i in self.inputs.items() if n != spec.name}
        if unknown := set(self.extra) - {"attention_mask", "token_type_ids"}:
            raise EncoderError(
                f"use '{layout.textual}'",
                f"it wants the input {', '.join(sorted(unknown))}",
                "Export the text tower on its own, with input_ids and at most attention_mask.",
            )
        length = _fixed(spec.shape[1])
        self.context = length or layout.context
        self.mask_padding = layout.mask_padding
        self.tokens = TextTokenizer(
            read_text(
                layout.tokenizer,
                EncoderError,
                f"read '{layout.tokenizer}'",
                "Get the file again from the model's source.",
            ),
            min(self.context, layout.context),
            layout.canonical,
            str(layout.tokenizer),
        )
        self.pad = self._pad_id(layout)
        probe = self._run_rows(self.tokens.rows(PROBE[:1]), self.context)
        self.dim = self.width or probe.shape[1]
        if cut is None:
            cut = layout.causal is not False and self._padding_is_inert()
        self.cut = length is None and cut

    def run(self, texts: Sequence[str], output: str = "") -> NDArray[Any]:
        """(M, D) vectors, or another output, as the graph gives them."""
        rows = self.tokens.rows(texts)
        lengths = [max(len(row), 1) if self.cut else self.context for row in rows]
        # the longest first, so that the threads end together
        groups = list(groups_of_equal_length(lengths, TEXT_BATCH, TEXT_TOKENS))[::-1]
        if not groups:
            return np.zeros((0, self.dim))
        done = self.each(
            lambda group: self._run_rows([rows[i] for i in group], lengths[group[0]], output),
            groups,
        )
        return np.concatenate(done)[np.argsort(np.concatenate(groups))]

    def _run_rows(
        self, rows: Sequence[Sequence[int]], length: int, output: str = ""
    ) -> NDArray[Any]:
        ids = np.full((len(rows), length), self.pad, self.dtype)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = row
        real = np.arange(length) < np.array([len(row) for row in rows])[:, None]
        mask = real if self.mask_padding else np.ones_like(real)
        feed = {"attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        feed = {n: feed[n].astype(INTEGERS[i.type]) for n, i in self.extra.items()}
        try:
            return self.call({self.name: ids, **feed}, output)
        except EncoderError as error:
            if "out of data bounds" not in error.seen:
                raise
            raise EncoderError(
                f"encode texts with '{self.path}'",
                f"its tokenizer gives token number {ids.max()}, for which the graph has no vector",
                "The tokenizer belongs to another model: get the folder again from its source.",
            ) from None

    def _pad_id(self, layout: Layout) -> int:
        if isinstance(layout.pad, int):
            if not 0 <= layout.pad < 2**31:
                raise EncoderError(
                    f"use the encoder folder '{layout.folder}'",
                    f"its pad_id is {layout.pad}",
                    "It is the number of a token, 0 or more: get the folder again from its source.",
                )
            return layout.pad
        found = self.tokens.token_id(layout.pad)
        if found is None:
            raise EncoderError(
                f"use the encoder folder '{layout.folder}'",
                f"its padding token {layout.pad!r} is not in its tokenizer's vocabulary",
                "The tokenizer belongs to another model: get the folder again from its source.",
            )
        return found

    def _padding_is_inert(self) -> bool:
        """Whether texts give the same vectors with and without padding."""
        for text in PROBE:
            rows = self.tokens.rows([text])
            try:
                padded, bare = (
                    self._run_rows(rows, n)[0].astype(np.float64)
                    for n in (self.context, len(rows[0]))
                )
            except EncoderError:
                return False  # "any length" was not meant
            # written so that NaN says no
            if not np.abs(padded - bare).max() <= 1e-4 * np.abs(padded).max():
                return False
        return True


def _pick_output(path: Path, outputs: Sequence[Any]) -> str:
    names = [o.name for o in outputs]
    for name in OUTPUTS:
        if name in names:
            return name
    flat = [o.name for o in outputs if o.shape is not None and len(o.shape) == 2]
    if len(flat) == 1:
        return str(flat[0])
    if FALLBACK_OUTPUT in flat:
        return FALLBACK_OUTPUT
    raise EncoderError(
        f"use '{path}'",
        f"its outputs are {', '.join(f'{o.name} {o.shape}' for o in outputs)}",
        f"Expected one vector a row, called {' or '.join(OUTPUTS)}: "
        "export the tower with its projection.",
    )


def _after(array: NDArray[Any], count: int) -> list[tuple[int, int]]:
    """Padding of the first axis, for ``np.pad``."""
    return [(0, count)] + [(0, 0)] * (array.ndim - 1)


def _fixed(size: Any) -> int | None:
    """A dimension that the graph fixes; free ones are names or None."""
    return size if isinstance(size, int) and size > 0 else None
