"""One encoder out of two: the images of one, the texts of the other, each through a map."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from byname.encoders.base import Encoder, EncoderInfo
from byname.errors import EncoderError, UsageError

__all__ = ["TwoTowers", "check_width"]

Map = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def _same(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    return rows


class TwoTowers(Encoder):
    """Images through ``image_encoder`` and ``image_map``, texts through the other two.

    Parameters
    ----------
    image_encoder, text_encoder : Encoder
        The first also lends its preprocessing, the second its context length.
    image_map, text_map : callable
        Rows of an encoder, float32, to float32 unit rows of width ``dim``.
    dim : int
    fingerprint : str
        Of the maps: part of the key under which vectors are cached.
    logit_scale : float, optional
        Those of the text encoder by default, with its bias.

    Examples
    --------
    >>> from byname.encoders.precomputed import PrecomputedEncoder
    >>> clip = PrecomputedEncoder.from_arrays(["cat", "dog"], np.eye(2))
    >>> both = TwoTowers(clip, clip, dim=2, fingerprint="none")
    >>> both.info.id, both.encode_texts(["dog"]).tolist()
    ('precomputed + precomputed', [[0.0, 1.0]])
    """

    def __init__(
        self,
        image_encoder: Encoder,
        text_encoder: Encoder,
        *,
        dim: int,
        fingerprint: str,
        image_map: Map = _same,
        text_map: Map = _same,
        logit_scale: float | None = None,
    ) -> None:
        self.image_encoder, self.text_encoder = image_encoder, text_encoder
        self.image_map, self.text_map = image_map, text_map
        self.in_flight = image_encoder.in_flight
        eye, tongue = image_encoder.info, text_encoder.info
        parts = [eye.image_fingerprint(), tongue.text_fingerprint(), fingerprint]
        self.info = EncoderInfo(
            id=f"{eye.id} + {tongue.id}",
            dim=dim,
            preprocess=eye.preprocess,
            logit_scale=tongue.logit_scale if logit_scale is None else logit_scale,
            logit_bias=tongue.logit_bias if logit_scale is None else 0.0,
            activation=tongue.activation if logit_scale is None else "softmax",
            context_length=tongue.context_length,
            licence=" AND ".join(dict.fromkeys([eye.licence, tongue.licence])),
            source=f"images: {eye.source}; texts: {tongue.source}",
            weights_sha256=hashlib.sha256(" ".join(parts).encode()).hexdigest(),
        )

    def encode_images(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Pixels through the image encoder and the image map."""
        return self._mapped(self.image_map, self.image_encoder.encode_images(pixels))

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Texts through the text encoder and the text map."""
        return self._mapped(self.text_map, self.text_encoder.encode_texts(texts))

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """As the text encoder counts them."""
        return self.text_encoder.count_tokens(texts)

    def lookup(self, keys: Sequence[str]) -> tuple[NDArray[np.float32], dict[str, str]] | None:
        """Vectors that the image encoder holds, mapped."""
        found = self.image_encoder.lookup(keys)
        return None if found is None else (self._mapped(self.image_map, found[0]), found[1])

    def _mapped(self, through: Map, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Rows that a map refuses are the fault of their image: a run then takes one at a time."""
        try:
            return through(rows)
        except UsageError as error:
            do = "Look at what the encoder gives for it."
            raise EncoderError(f"use '{self.info.id}'", error.seen, do) from None

    def close(self) -> None:
        """Close both encoders."""
        self.image_encoder.close()
        self.text_encoder.close()


def check_width(encoder: Encoder, width: int, what: str) -> None:
    """Raise EncoderError unless the rows of the encoder are as wide as what a map takes."""
    if encoder.info.dim != width:
        raise EncoderError(
            f"use '{encoder.info.id}' with this adapter",
            f"its vectors have width {encoder.info.dim}, the adapter's {what} {width}",
            "Give the encoder whose vectors the adapter was fitted with.",
        )
