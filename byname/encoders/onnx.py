"""Any dual encoder exported as two ONNX graphs, in three folder layouts (see ``layouts.py``)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byname.encoders.arrays import as_pixels, as_texts, unit_rows
from byname.encoders.base import Encoder, EncoderInfo
from byname.encoders.files import sha256_of
from byname.encoders.layouts import Layout, read_layout
from byname.encoders.sessions import open_session
from byname.encoders.tokens import TextTokenizer, groups_of_equal_length
from byname.errors import EncoderError
from byname.images.preprocess import Preprocess

__all__ = ["OnnxEncoder"]

TEXT_BATCH = 64
ID_INPUTS = ("input_ids", "text", "tokens")
IMAGE_INPUTS = ("pixel_values", "pixels", "image", "images")
# The projected vector where the graph names it, else what SigLIP exports call it.
OUTPUTS = ("image_embeds", "text_embeds", "embedding", "image_embedding", "text_embedding")
FALLBACK_OUTPUT = "pooler_output"
INTEGERS = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
PIXELS = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32, "tensor(float16)": np.float16}
# Texts of different lengths, to see whether padding changes a vector.
PROBE = ("a", "a photo of a dog")


class OnnxEncoder(Encoder):
    """An encoder folder: two ONNX graphs, a tokenizer, and a description of the pixels.

    Parameters
    ----------
    folder : path
        byname's layout (visual.onnx, textual.onnx, tokenizer.json, preprocess.json), that of
        transformers.js (onnx/vision_model.onnx, onnx/text_model.onnx, ...) or that of Immich and
        open_clip (visual/model.onnx, textual/model.onnx, ...).
    threads : int, optional
        Threads of each session; all cores by default.
    device : {"cpu", "cuda"}

    Raises
    ------
    EncoderError
        If files are missing or damaged, or the two towers do not fit together.

    Notes
    -----
    Texts are padded to the full context, unless the graph takes any length and a text was seen to
    give the same vector with and without padding (causal towers); then texts run in groups of
    equal length, which is several times faster.

    Examples
    --------
    >>> OnnxEncoder("no-such-folder")
    Traceback (most recent call last):
    ...
    byname.errors.EncoderError: cannot open the encoder folder 'no-such-folder': there is no such...
    """

    def __init__(
        self, folder: str | Path, *, threads: int | None = None, device: str = "cpu"
    ) -> None:
        layout = read_layout(Path(folder))
        self._images = _ImageTower(layout, threads, device)
        self._texts = _TextTower(layout, threads, device)
        if self._images.dim != self._texts.dim:
            raise EncoderError(
                f"use the encoder folder '{folder}'",
                f"its image vectors have width {self._images.dim}, its text vectors "
                f"{self._texts.dim}",
                "The two towers come from different models, or one lacks its projection: "
                "export both from the same model.",
            )
        self.info = EncoderInfo(
            id=layout.id,
            dim=self._images.dim,
            preprocess=layout.preprocess,
            logit_scale=layout.logit_scale,
            logit_bias=layout.logit_bias,
            activation=layout.activation,
            context_length=self._texts.context,
            licence=layout.licence,
            source=layout.source,
            weights_sha256=sha256_of(layout.content_files()),
        )

    def encode_images(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(B, size, size, 3) uint8 pixels to (B, D) unit rows."""
        pixels = as_pixels(pixels, self._images.preprocess.size, self.info.id)
        asked = f"encode images with '{self.info.id}'"
        return unit_rows(self._images.run(pixels), asked)

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """M texts to (M, D) unit rows; each distinct text is run once."""
        listed = as_texts(texts, self.info.id)
        unique = {text: i for i, text in enumerate(dict.fromkeys(listed))}
        asked = f"encode texts with '{self.info.id}'"
        vectors = unit_rows(self._texts.run(list(unique)), asked, list(unique))
        return vectors[[unique[text] for text in listed]]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, uncut, markers included."""
        return self._texts.tokens.counts(as_texts(texts, self.info.id))


class _Tower:
    """A session with one output of interest, run in the batches that its graph allows."""

    def __init__(self, path: Path, threads: int | None, device: str) -> None:
        self.path = path
        self.session = open_session(path, str(path), threads=threads, device=device)
        self.inputs = {i.name: i for i in self.session.get_inputs()}
        self.output = _pick_output(path, self.session.get_outputs())

    def input(self, names: Sequence[str], types: Mapping[str, Any]) -> Any:
        """The input that goes by one of these names, or the only one."""
        found = next((self.inputs[n] for n in names if n in self.inputs), None)
        if found is None and len(self.inputs) == 1:
            found = next(iter(self.inputs.values()))
        if found is None or found.type not in types:
            listed = ", ".join(f"{i.name} {i.type}" for i in self.inputs.values())
            raise EncoderError(
                f"use '{self.path}'",
                f"it takes {listed}",
                f"Expected an input called {' or '.join(names)} of type {' or '.join(types)}.",
            )
        return found

    def call(self, feed: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """The (B, D) output."""
        rows = len(next(iter(feed.values())))
        try:
            out = np.asarray(self.session.run([self.output], dict(feed))[0])
        # onnxruntime raises a dozen classes of its own without a common base
        except Exception as error:  # noqa: BLE001
            raise EncoderError(
                f"run '{self.path}'",
                f"onnxruntime failed ({type(error).__name__}: {error!s:.200})",
                "The graph does not accept what its description promises: export it again.",
            ) from None
        if out.ndim != 2 or len(out) != rows:
            raise EncoderError(
                f"use '{self.path}'",
                f"its output '{self.output}' has shape {out.shape} for a batch of {rows}",
                "Expected one vector a row: export the tower with its projection.",
            )
        return out


class _ImageTower(_Tower):
    def __init__(self, layout: Layout, threads: int | None, device: str) -> None:
        super().__init__(layout.visual, threads, device)
        self.preprocess: Preprocess = layout.preprocess
        spec = self.input(IMAGE_INPUTS, PIXELS)
        shape = list(spec.shape) if spec.shape else [None] * 4
        self.name, self.dtype = spec.name, PIXELS[spec.type]
        self.channels_last = shape[-1] == 3 or (shape[1] != 3 and self.dtype is np.uint8)
        self.batch = _fixed(shape[0])
        sides = [s for s in (shape[1:3] if self.channels_last else shape[2:4]) if _fixed(s)]
        size = layout.preprocess.size
        if len(shape) != 4 or any(side != size for side in sides):
            raise EncoderError(
                f"use '{layout.visual}'",
                f"it takes images of shape {shape}, its description says {size} x {size}",
                "Correct the size in the description, or export the graph for that size.",
            )
        values = np.arange(256, dtype=np.float32)[:, None] / np.float32(255)
        mean, std = (np.array(v, np.float32) for v in (self.preprocess.mean, self.preprocess.std))
        self.table = ((values - mean) / std).astype(self.dtype)  # (256, 3)
        self.dim = _fixed(_output_width(self)) or self.run(
            np.zeros((1, size, size, 3), np.uint8)
        ).shape[1]

    def run(self, pixels: NDArray[np.uint8]) -> NDArray[Any]:
        parts = [
            self.call({self.name: self.feed(chunk)})[:count]
            for chunk, count in _chunks(pixels, self.batch, len(pixels))
        ]
        return np.concatenate(parts) if parts else np.zeros((0, self.dim), np.float32)

    def feed(self, pixels: NDArray[np.uint8]) -> NDArray[Any]:
        """Pixels as the graph wants them; a uint8 graph normalises by itself."""
        if self.dtype is np.uint8:
            array: NDArray[Any] = pixels if self.channels_last else pixels.transpose(0, 3, 1, 2)
        else:
            axis = 3 if self.channels_last else 1
            array = np.stack([self.table[pixels[..., c], c] for c in range(3)], axis=axis)
        return np.ascontiguousarray(array)


class _TextTower(_Tower):
    def __init__(self, layout: Layout, threads: int | None, device: str) -> None:
        super().__init__(layout.textual, threads, device)
        spec = self.input(ID_INPUTS, INTEGERS)
        self.name, self.batch = spec.name, _fixed(spec.shape[0])
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
            layout.tokenizer.read_text(encoding="utf-8"),
            min(self.context, layout.context),
            layout.canonical,
            str(layout.tokenizer),
        )
        self.pad = self._pad_id(layout)
        self.cut = False
        self.dim = _fixed(_output_width(self)) or self.run(PROBE[:1]).shape[1]
        self.cut = length is None and layout.causal is not False and self._padding_is_inert()

    def run(self, texts: Sequence[str]) -> NDArray[Any]:
        rows = self.tokens.rows(texts)
        lengths = [len(row) if self.cut else self.context for row in rows]
        out = np.zeros((len(rows), self.dim if rows else 0)) if self.cut or not rows else None
        for group in groups_of_equal_length(lengths, TEXT_BATCH):
            ids = np.full((len(group), lengths[group[0]]), self.pad, np.int64)
            real = np.zeros_like(ids)
            for i, index in enumerate(group):
                ids[i, : len(rows[index])] = rows[index]
                real[i, : len(rows[index])] = 1
            for chunk, count in _chunks(np.stack([ids, real], 1), self.batch, TEXT_BATCH):
                pass
        raise NotImplementedError
