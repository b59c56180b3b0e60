"""Encoders around an encoder, for what else there is to know of each image.

Each takes the same path as any encoder: shards, cache, error rows and resume come with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from byname.embeddings import Embeddings
from byname.encoders import Encoder
from byname.errors import EncoderError, UsageError
from byname.images.views import Attention, Crops, Rule
from byname.ops import unit

__all__ = ["LogVarEncoder", "ViewEncoder"]


class ViewEncoder(Encoder):
    """V crops of each image through one encoder, side by side as one vector of width V * D.

    Parameters
    ----------
    encoder : Encoder
    rule : Rule

    Raises
    ------
    UsageError
        For an encoder that takes no pixels, or one without attention where the rule needs it.
    """

    def __init__(self, encoder: Encoder, rule: Rule) -> None:
        asked = f"make views as '{rule.kind}'"
        info = encoder.info
        if info.preprocess is None:
            raise UsageError(
                asked, f"'{info.id}' takes no pixels", "Choose an encoder that takes images."
            )
        attend = encoder.attention if isinstance(rule, Attention) else None
        if attend is not None and not encoder.gives_attention:
            raise UsageError(
                asked,
                f"'{info.id}' does not say what it attends to",
                "Use uniform instead, or a CLIP model as transformers:NAME.",
            )
        self._encoder, self.rule = encoder, rule
        self.in_flight = encoder.in_flight
        self.info = replace(
            info,
            id=f"{info.id} views",
            dim=info.dim * rule.n,
            preprocess=Crops.of(info.preprocess, rule, attend),
        )

    def encode_images(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(B, V, H, W, 3) pixels to (B, V * D)."""
        found = self._encoder.encode_images(pixels.reshape(-1, *pixels.shape[2:]))
        return found.reshape(len(pixels), self.info.dim)

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """As the encoder does: (M, D)."""
        return self._encoder.encode_texts(texts)

    def views(self, embeddings: Embeddings) -> NDArray[np.float32]:
        """(N, V, D) unit rows of what was embedded with this encoder."""
        found: NDArray[np.float32] = embeddings.vectors.reshape(
            len(embeddings), self.rule.n, self._encoder.info.dim
        )
        return np.asarray(unit(found), np.float32)


class LogVarEncoder(Encoder):
    """The log variances of each image's vector as a vector, with a 1 behind it.

    Vectors are kept at length one; the 1 says what they were multiplied with.
    """

    def __init__(self, encoder: Encoder) -> None:
        if not encoder.gives_log_var:
            raise EncoderError(
                f"ask '{encoder.info.id}' for variances",
                "it gives none",
                "Use an encoder folder whose graphs have an output 'log_var'.",
            )
        self._encoder, self.in_flight = encoder, encoder.in_flight
        info = encoder.info
        self.info = replace(
            info,
            id=f"{info.id} log_var",
            dim=info.dim + 1,
            weights_sha256=info.weights_sha256 and f"{info.weights_sha256} log_var",
        )

    def encode_images(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(B, H, W, 3) pixels to (B, D + 1)."""
        found = self._encoder.image_log_var(pixels)
        return np.concatenate([found, np.ones((len(found), 1), np.float32)], axis=1)

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(M, D + 1) likewise."""
        found = self._encoder.text_log_var(texts)
        return np.concatenate([found, np.ones((len(found), 1), np.float32)], axis=1)

    def lookup(self, keys: Sequence[str]) -> tuple[NDArray[np.float32], dict[str, str]] | None:
        """Ready variances by file name."""
        found = self._encoder.lookup_log_var(keys)
        if found is None:
            return None
        rows, errors = found
        return np.concatenate([rows, np.ones((len(rows), 1), np.float32)], axis=1), errors

    @staticmethod
    def log_var(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, D) log variances of vectors (N, D + 1) that were brought to length one."""
        return np.asarray(vectors[:, :-1] / vectors[:, -1:], np.float32)
