"""Any dual encoder exported as two ONNX graphs, in three folder layouts (see ``layouts.py``)."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byname.encoders.arrays import as_pixels, as_texts, unit_rows
from byname.encoders.base import Encoder
from byname.encoders.files import sha256_of
from byname.encoders.layouts import read_layout
from byname.encoders.quantize import check_precision, int8_graphs
from byname.encoders.sessions import split_threads
from byname.encoders.towers import LOG_VAR, ImageTower, TextTower
from byname.errors import EncoderError

__all__ = ["OnnxEncoder"]


class OnnxEncoder(Encoder):
    """An encoder folder: two ONNX graphs, a tokenizer, and a description of the pixels.

    Parameters
    ----------
    folder : path
        byname's layout (visual.onnx, textual.onnx, tokenizer.json, preprocess.json), that of
        transformers.js (onnx/vision_model.onnx, onnx/text_model.onnx, ...) or that of Immich and
        open_clip (visual/model.onnx, textual/model.onnx, ...).
    threads : int, optional
        Threads of both towers together; all cores by default.
    device : {"cpu", "cuda"}
    precision : {"fp32", "int8", "int8-unchecked"}
        "fp32" runs the graphs as they are. The others run quantised copies, made once and kept in
        the cache folder; whether they are good enough is for ``precision.py`` to say.
    cache_dir : path, optional
        Where quantised copies are kept; ``BYNAME_CACHE`` or the user's cache folder by default.

    Raises
    ------
    EncoderError
        If files are missing or damaged, or the two towers do not fit together.
    EncoderUnavailableError
        If a quantised copy must be made and the package onnx is missing.

    Notes
    -----
    Texts are padded to the full context, unless the graph takes any length and a text was seen to
    give the same vector with and without padding (causal towers); then texts run in groups of
    equal length, which is several times faster.

    In int8 the numbers within a layer share one scale for the few images or texts that run
    together (8 images, 400 tokens), so a vector depends on its neighbours in about the third
    decimal; the same list gives the same vectors.

    Examples
    --------
    >>> OnnxEncoder("no-such-folder")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    byname.errors.EncoderError: cannot open the encoder folder 'no-such-folder': there is no such...
    """

    in_flight = 2

    def __init__(
        self,
        folder: str | Path,
        *,
        threads: int | None = None,
        device: str = "cpu",
        precision: str = "fp32",
        cache_dir: Path | None = None,
    ) -> None:
        check_precision(f"run the encoder folder '{folder}'", precision)
        self.precision = precision
        self.int8_folder: Path | None = None
        self._opened_with = (folder, threads, device, cache_dir)
        layout = read_layout(Path(folder))
        callers, threads = split_threads(threads)
        self._pool = ThreadPoolExecutor(callers, "onnx")
        # 600 MB take half a second to hash: beside the towers, not before them
        hashing = self._pool.submit(sha256_of, layout.content_files())
        cut = None
        if precision != "fp32":
            made = int8_graphs(layout, hashing.result(), cache_dir)
            layout = replace(layout, visual=made.visual, textual=made.textual)
            cut, self.int8_folder = made.cut, made.folder
        images = self._pool.submit(ImageTower, layout, threads, device, self._pool)
        self._texts = TextTower(layout, threads, device, self._pool, cut)
        self._images = images.result()
        if self._images.dim != self._texts.dim:
            raise EncoderError(
                f"use the encoder folder '{folder}'",
                f"its image vectors have width {self._images.dim}, its text vectors "
                f"{self._texts.dim}",
                "The two towers come from different models, or one lacks its projection: "
                "export both from the same model.",
            )
        towers = {"images": self._images.gives_log_var, "texts": self._texts.gives_log_var}
        self.gives_log_var = frozenset(name for name, given in towers.items() if given)
        weights = made.weights_sha256 if self.int8_folder else hashing.result()
        self.info = layout.info(self._images.dim, self._texts.context, weights)

    def exact(self) -> OnnxEncoder:
        """The same folder in fp32."""
        folder, threads, device, cache_dir = self._opened_with
        found = OnnxEncoder(folder, threads=threads, device=device, cache_dir=cache_dir)
        # a preset knows more about the model than its folder says
        found.info = replace(self.info, weights_sha256=found.info.weights_sha256)
        return found

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

    def image_log_var(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The output 'log_var' of the image tower, (B, D)."""
        if "images" not in self.gives_log_var:
            return super().image_log_var(pixels)
        pixels = as_pixels(pixels, self._images.preprocess.size, self.info.id)
        return self._checked(self._images.run(pixels, LOG_VAR), len(pixels))

    def text_log_var(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The output 'log_var' of the text tower, (M, D)."""
        if "texts" not in self.gives_log_var:
            return super().text_log_var(texts)
        listed = as_texts(texts, self.info.id)
        return self._checked(self._texts.run(listed, LOG_VAR), len(listed))

    def _checked(self, found: NDArray[Any], rows: int) -> NDArray[np.float32]:
        if found.shape != (rows, self.info.dim) or not np.isfinite(found).all():
            raise EncoderError(
                f"ask '{self.info.id}' for variances",
                f"its output '{LOG_VAR}' has the shape {found.shape}, or holds NaN",
                f"It must be log variances, as wide as the vector: {self.info.dim}.",
            )
        return np.asarray(found, np.float32)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, uncut, markers included."""
        return self._texts.tokens.counts(as_texts(texts, self.info.id))

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()
