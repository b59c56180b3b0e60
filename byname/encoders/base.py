"""What an encoder is: images to unit vectors, texts to unit vectors, and a card about itself."""

from __future__ import annotations

import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from byname.errors import EncoderError
from byname.images.preprocess import Preprocess

__all__ = ["Encoder", "EncoderInfo"]

MAX_CONTEXT = 2**20


@dataclass(frozen=True)
class EncoderInfo:
    """The card of an encoder; everything that decides what its vectors mean.

    Parameters
    ----------
    id : str
        Name under which the user asked for it, such as ``"mini"`` or ``"onnx:clip-vit-b-32"``.
    dim : int
        Width D of the vectors.
    preprocess : Preprocess or None
        Pixels it wants; None where it takes no images (precomputed vectors).
    logit_scale, logit_bias : float
        Logits are ``scale * cosine + bias``.
    activation : {"softmax", "sigmoid"}
        How the model was trained to read its logits.
    context_length : int or None
        Longest text in tokens, start and end included; None where unlimited or unknown.
    licence, source : str
        SPDX name where there is one, and where the weights come from.
    weights_sha256 : str
        Hash over the weight and tokenizer files: two encoders with the same hash and the same
        preprocessing give the same vectors, whatever they are called.

    Raises
    ------
    EncoderError
        For numbers that would make every answer nonsense, such as a scale of 0 or NaN.

    Examples
    --------
    >>> EncoderInfo("mine", 512, None, logit_scale=0.0)
    Traceback (most recent call last):
    byname.errors.EncoderError: cannot use the encoder 'mine': its logit_scale is 0.0. It is a \
finite number above 0.
    """

    id: str
    dim: int
    preprocess: Preprocess | None
    logit_scale: float = 100.0
    logit_bias: float = 0.0
    activation: Literal["softmax", "sigmoid"] = "softmax"
    context_length: int | None = 77
    licence: str = "unknown"
    source: str = "unknown"
    weights_sha256: str = ""

    def __post_init__(self) -> None:
        scale, context = self.logit_scale, self.context_length
        checks: tuple[tuple[str, bool, str], ...] = (
            ("dim", _whole(self.dim, 1), "a whole number, 1 or more"),
            ("logit_scale", _finite(scale) and scale > 0, "a finite number above 0"),
            ("logit_bias", _finite(self.logit_bias), "a finite number"),
            ("activation", self.activation in ("softmax", "sigmoid"), "softmax or sigmoid"),
            (
                "context_length",
                context is None or _whole(context, 2, MAX_CONTEXT),
                f"None or a whole number from 2 to {MAX_CONTEXT:,}",
            ),
        )
        for name, good, wanted in checks:
            if not good:
                raise EncoderError(
                    f"use the encoder '{self.id}'",
                    f"its {name} is {getattr(self, name)!r}",
                    f"It is {wanted}.",
                )

    def image_fingerprint(self) -> str:
        """Key of cached image vectors: weights and preprocessing, not the name."""
        return self._digest({"preprocess": asdict(self.preprocess) if self.preprocess else None})

    def text_fingerprint(self) -> str:
        """Key of cached text vectors."""
        return self._digest({"context": self.context_length})

    def _digest(self, extra: dict[str, object]) -> str:
        fields = {"weights": self.weights_sha256 or self.id, "dim": self.dim, **extra}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:32]


def _finite(value: Any) -> bool:
    return isinstance(value, Real) and math.isfinite(value)


def _whole(value: Any, least: int, most: float = math.inf) -> bool:
    return isinstance(value, Integral) and least <= int(value) <= most


class Encoder(ABC):
    """Images and texts to unit vectors in one space. Stateless after construction; thread-safe."""

    info: EncoderInfo
    in_flight: int = 1
    """Calls of ``encode_images`` that a run makes at once, so that nothing idles between two."""
    gives_attention: bool = False
    """Whether :meth:`attention` says what the encoder looks at."""
    gives_log_var: frozenset[str] = frozenset()
    """Of what, "images" or "texts", it says how sure it is: :meth:`image_log_var` and so on."""

    @abstractmethod
    def encode_images(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(B, H, W, 3) uint8 pixels, already resized and cropped, to (B, D) float32 unit rows."""

    @abstractmethod
    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """M texts to (M, D) float32 unit rows; M = 0 gives (0, D)."""

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text as the encoder's own tokenizer counts them, uncut, markers included.

        The default counts words, for encoders without a tokenizer.
        """
        return [len(text.split()) + 2 for text in texts]

    def lookup(self, keys: Sequence[str]) -> tuple[NDArray[np.float32], dict[str, str]] | None:
        """Ready vectors by file name, for encoders that hold them instead of taking pixels.

        Returns
        -------
        tuple or None
            Vectors (N, D) of the keys that are known, in order, and a reason for each other key.
            None, the default: images must be encoded.
        """
        return None

    def attention(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(B, H, W, 3) pixels to (B, h, w): how much the vector looks at each patch."""
        raise self._lacks("attention")

    def image_log_var(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(B, H, W, 3) pixels to the log variances (B, D) of their vectors."""
        raise self._lacks("variances of images")

    def text_log_var(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """M texts to the log variances (M, D) of their vectors."""
        raise self._lacks("variances of texts")

    def lookup_log_var(
        self, keys: Sequence[str]
    ) -> tuple[NDArray[np.float32], dict[str, str]] | None:
        """What :meth:`lookup` does, for log variances."""
        return None

    def _lacks(self, what: str) -> EncoderError:
        return EncoderError(f"ask '{self.info.id}' for {what}", "it gives none")

    def close(self) -> None:  # noqa: B027 - optional hook
        """Free sessions and memory."""
