"""Images in any form a user may hold them, to Embeddings."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from byname.embeddings import Embeddings, is_embeddings_file
from byname.encoders import Encoder
from byname.errors import UsageError
from byname.images.decode import array_to_image, to_rgb
from byname.images.preprocess import to_pixels
from byname.images.sources import Source, open_source
from byname.ops import is_torch, to_numpy
from byname.runs import embed_source
from byname.runs.shard import Progress

__all__ = ["as_embeddings", "open_images"]

ACCEPTED = (
    "Accepted: a folder, glob, list file or tar; a list of files; PIL images; (N, H, W, 3) uint8 "
    "pixels; (N, D) vectors; Embeddings."
)


def open_images(X: Any, *, image_column: str | None = None) -> Source | Embeddings:
    """A path to a listed source, or to stored embeddings; nothing is decoded yet."""
    if isinstance(X, str | os.PathLike) and is_embeddings_file(Path(X)):
        return Embeddings.load(Path(X))
    return open_source(X, image_column=image_column)


def as_embeddings(
    X: Any,
    encoder: Encoder,
    *,
    batch_size: int = 32,
    cache: bool = True,
    progress: Progress = lambda done, encoded: None,
) -> Embeddings:
    """Vectors of whatever the user passed as images.

    Raises
    ------
    UsageError
        For anything that is not one of the accepted forms, or a batch size below 1.
    """
    if batch_size < 1:
        raise UsageError("embed images", f"the batch size is {batch_size}", "It is 1 or more.")
    if isinstance(X, str | os.PathLike):
        X = open_images(X)
    if isinstance(X, Embeddings):
        return X
    if isinstance(X, Source):
        keys = [ref.key for ref in X.refs]
        if (found := encoder.lookup(keys)) is not None:
            vectors, errors = found
            known = tuple(key for key in keys if key not in errors)
            return Embeddings(known, vectors, encoder.info.id, "", errors, X.root)
        return embed_source(X, encoder, batch_size=batch_size, cache=cache, progress=progress)
    if is_torch(X):
        X = to_numpy(X)
    if isinstance(X, np.ndarray) and X.ndim == 2 and X.dtype.kind in "fiu":
        return Embeddings.from_arrays(X)
    if isinstance(X, Image.Image) or (isinstance(X, np.ndarray) and X.ndim == 3):
        X = [X]
    if isinstance(X, np.ndarray) and X.ndim == 4:
        return _encode_in_memory(list(X), encoder, batch_size, progress)
    if isinstance(X, Sequence) and not isinstance(X, bytes | bytearray):
        if all(isinstance(x, str | os.PathLike) for x in X):
            return as_embeddings(
                open_source(X), encoder, batch_size=batch_size, cache=cache, progress=progress
            )
        if all(isinstance(x, Image.Image | np.ndarray) for x in X):
            return _encode_in_memory(X, encoder, batch_size, progress)
    shape = f" of shape {X.shape} and type {X.dtype}" if isinstance(X, np.ndarray) else ""
    raise UsageError("use these images", f"they are a {type(X).__name__}{shape}", ACCEPTED)


def _encode_in_memory(
    images: Sequence[Image.Image | NDArray[Any]], encoder: Encoder, size: int, progress: Progress
) -> Embeddings:
    preprocess = encoder.info.preprocess
    if preprocess is None:
        raise UsageError(
            "use these images", f"'{encoder.info.id}' holds ready vectors", "Give it vectors."
        )
    blocks = [np.zeros((0, encoder.info.dim), np.float32)]
    for start in range(0, len(images), size):
        part = [
            to_rgb(x) if isinstance(x, Image.Image) else array_to_image(x)
            for x in images[start : start + size]
        ]
        pixels = np.stack([to_pixels(image, preprocess) for image in part])
        blocks.append(encoder.encode_images(pixels))
        progress(len(part), True)
    return Embeddings.from_arrays(np.concatenate(blocks), encoder=encoder.info.id)
