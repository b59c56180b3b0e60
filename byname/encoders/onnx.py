"""Any dual encoder exported as two ONNX graphs, in three folder layouts (see ``layouts.py``)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from byname.encoders.arrays import as_pixels, as_texts, unit_rows
from byname.encoders.base import Encoder
from byname.encoders.files import sha256_of
from byname.encoders.layouts import read_layout
from byname.encoders.towers import ImageTower, TextTower
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
    >>> OnnxEncoder("no-such-folder")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    byname.errors.EncoderError: cannot open the encoder folder 'no-such-folder': there is no such...
    """

    def __init__(
        self, folder: str | Path, *, threads: int | None = None, device: str = "cpu"
    ) -> None:
        layout = read_layout(Path(folder))
        self._images = ImageTower(layout, threads, device)
        self._texts = TextTower(layout, threads, device)
        if self._images.dim != self._texts.dim:
            raise EncoderError(
                f"use the encoder folder '{folder}'",
                f"its image vectors have width {self._images.dim}, its text vectors "
                f"{self._texts.dim}",
                "The two towers come from different models, or one lacks its projection: "
                "export both from the same model.",
            )
        self.info = layout.info(
            self._images.dim, self._texts.context, sha256_of(layout.content_files())
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
