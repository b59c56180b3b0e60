"""Images in any form a user may hold them, to Embeddings."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from byname.embeddings import Embeddings, is_embeddings_file, is_run_folder
from byname.encoders import Encoder, EncoderInfo
from byname.encoders.onnx import OnnxEncoder
from byname.encoders.precision import Verdict, settle
from byname.errors import EmbeddingsError, EncoderError, ImageError, UsageError
from byname.images.decode import array_to_image, to_rgb
from byname.images.load import image_pixels, load_pixels
from byname.images.sources import ImageRef, Source, item_keys, open_source
from byname.ops import is_torch, to_numpy
from byname.runs import embed_source
from byname.runs.plan import ordered
from byname.runs.shard import Progress
from byname.stored import StoredVectors

__all__ = [
    "as_embeddings",
    "check_arguments",
    "check_count",
    "check_same",
    "check_vectors",
    "fingerprints",
    "in_place",
    "listed",
    "open_images",
    "opened",
    "settled",
]

ACCEPTED = (
    "Accepted: a folder, glob, list file or tar; a list of files; PIL images; (N, H, W, 3) uint8 "
    "pixels; (N, D) vectors; Embeddings."
)


def open_images(X: Any, *, image_column: str | None = None) -> Source | Embeddings:
    """A path to a listed source, or to embeddings (a file, a run); nothing is decoded yet."""
    if isinstance(X, str | os.PathLike):
        path = Path(X)
        if is_embeddings_file(path) or (image_column is None and is_run_folder(path)):
            return Embeddings.load(path)
    return open_source(X, image_column=image_column)


def opened(X: Any) -> Any:
    """Paths as a listed source or stored embeddings; images in memory as they are."""
    X = open_images(X) if isinstance(X, str | os.PathLike) else listed(X)
    if isinstance(X, list | tuple) and X and all(isinstance(x, str | os.PathLike) for x in X):
        return open_source(X)
    return X


def settled(encoder: Encoder, X: Any, names: Sequence[str] = ()) -> tuple[Encoder, Verdict | None]:
    """An int8 encoder that agrees with fp32 on these images, or its fp32 original.

    Any other encoder comes back as it is, without a verdict; so does one that made the stored
    vectors X: they hold no images to check it on, which a warning says.
    """
    if not isinstance(encoder, OnnxEncoder) or encoder.precision != "int8":
        return encoder, None
    if isinstance(X, Embeddings) and X.fingerprint == encoder.info.image_fingerprint():
        warnings.warn(
            "int8 was not checked with these classes, because there are only vectors: classify the "
            "images for that",
            stacklevel=2,
        )
        return encoder, None
    identity = ""
    if isinstance(X, Source):
        files = [(r.key, r.offset, r.length, r.size, r.mtime_ns, r.inside) for r in X.refs[:256]]
        identity = repr((X.root, files))
    return settle(encoder, partial(_first_pixels, X, encoder), names, identity)


def _first_pixels(X: Any, encoder: Encoder, most: int) -> NDArray[np.uint8]:
    """Pixels of the first readable images, at most so many; (0, ...) where X holds none."""
    preprocess = encoder.info.preprocess
    assert preprocess is not None
    X = to_numpy(X) if is_torch(X) else X
    items: Sequence[Any] = ()
    if isinstance(X, Source):
        items = ordered(X)
    elif isinstance(X, Image.Image):
        items = [X]
    elif isinstance(X, list | tuple):
        items = cast(Sequence[Any], X)
    elif isinstance(X, np.ndarray):
        with suppress(UsageError):  # vectors, for instance
            items = _images_of(X)
    found: list[NDArray[np.uint8]] = []
    # one by one: each is read when its turn comes, and unreadable ones cost no place
    for item in items:
        with suppress(ImageError, UsageError, MemoryError):
            if isinstance(item, ImageRef):
                found.append(load_pixels(item.read(), preprocess))
            elif isinstance(item, Image.Image):
                found.append(image_pixels(to_rgb(item), preprocess))
            else:
                found.append(image_pixels(array_to_image(item), preprocess))
        if len(found) == most:
            break
    return np.stack(found) if found else np.zeros((0, 1, 1, 3), np.uint8)


def check_count(asked: str, name: str, value: Any) -> None:
    """Refuse what is not a whole number above 0."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise UsageError(asked, f"{name} is {value!r}", "Give a whole number, 1 or more.")


def check_arguments(given: Mapping[str, Any]) -> None:
    """Refuse parameters of a classifier that contradict each other or are out of range."""
    templates = given["templates"]
    if given["classes"] is None:
        raise UsageError("classify", "no classes were given", "Pass classes=['cat', 'dog'].")
    if templates is not None and given["prompts"] is not None:
        raise UsageError("make prompts", "both templates and prompts were given", "Choose one.")
    if isinstance(templates, str):
        raise UsageError("make prompts", "templates is one string", "Pass a list of strings.")
    check_count("classify", "batch_size", given["batch_size"])
    if given["threads"] is not None:
        check_count("load the encoder", "threads", given["threads"])


def check_vectors(found: Embeddings, info: EncoderInfo) -> None:
    """Refuse vectors that are not of this encoder, as far as can be seen."""
    if found.dim != info.dim:
        raise EmbeddingsError(
            "use these vectors",
            f"their width is {found.dim}, but '{info.id}' has {info.dim}",
            "Use the encoder that made them" + (f" ('{found.encoder}')." if found.encoder else "."),
        )
    if found.fingerprint and found.fingerprint != info.image_fingerprint():
        raise EmbeddingsError(
            "use these vectors",
            f"they were made by '{found.encoder}', which is not this '{info.id}'",
            "Use the same encoder for images and texts.",
        )


def fingerprints(encoder: Encoder) -> tuple[str, str]:
    """What decides the vectors of texts, and of images."""
    return encoder.info.text_fingerprint(), encoder.info.image_fingerprint()


def check_same(found: Encoder, known: tuple[str, str]) -> None:
    """Refuse, after unpickling, another encoder than the one with these fingerprints."""
    if fingerprints(found) != known:
        raise EncoderError(
            "use this unpickled classifier",
            f"its texts were encoded by another encoder than '{found.info.id}' is here",
            "Restore the encoder's files or BYNAME_ENCODER, or call fit again.",
        )


def listed(X: Any) -> Any:
    """A generator or an array of paths as a list; everything else as it is."""
    if isinstance(X, Iterator):
        return list(X)
    return X.tolist() if isinstance(X, np.ndarray) and X.dtype.kind in "UO" and X.ndim == 1 else X


def in_place(X: Any, embeddings: Embeddings, values: NDArray[Any], absent: Any) -> NDArray[Any]:
    """Results (N, ...) in the order of the items of X, with ``absent`` for unreadable files.

    A sequence of paths keeps its order and its repetitions; other sources are sorted by key.
    """
    paths = isinstance(X, list | tuple) and all(isinstance(x, str | os.PathLike) for x in X)
    if not embeddings.errors and not paths:
        return values
    order = item_keys(X) if paths else sorted([*embeddings.keys, *embeddings.errors])
    if embeddings.errors:
        name, why = next(iter(embeddings.errors.items()))
        warnings.warn(
            f"{len(embeddings.errors)} of {len(order)} images could not be read, the first is "
            f"'{name}': {why}. classify() lists them all.",
            stacklevel=3,
        )
    position = {key: i for i, key in enumerate(embeddings.keys)}
    rows = np.array([position.get(key, -1) for key in order], np.intp)
    kind = object if absent is None and (rows < 0).any() else values.dtype
    result: NDArray[Any] = np.full((len(order), *values.shape[1:]), absent, kind)
    result[rows >= 0] = values[rows[rows >= 0]]
    return result


def as_embeddings(
    X: Any,
    encoder: Encoder,
    *,
    batch_size: int = 32,
    cache: bool = True,
    on_disk: bool = False,
    progress: Progress = lambda done, encoded: None,
) -> Embeddings:
    """Vectors of whatever the user passed as images.

    ``on_disk`` is for :func:`byname.runs.embed_source`.

    Raises
    ------
    UsageError
        For anything that is not one of the accepted forms, or a batch size below 1.
    """
    check_count("embed images", "batch_size", batch_size)
    X = opened(X)
    if isinstance(X, Embeddings):
        return X
    if isinstance(X, StoredVectors):
        return Embeddings(tuple(f"{i:08d}" for i in range(len(X))), X)
    if isinstance(X, Source):
        keys = [ref.key for ref in X.refs]
        if (found := encoder.lookup(keys)) is not None:
            vectors, errors = found
            known = tuple(key for key in keys if key not in errors)
            return Embeddings(known, vectors, encoder.info.id, "", errors, X.root)
        made = partial(embed_source, batch_size=batch_size, cache=cache, on_disk=on_disk)
        return made(X, encoder, progress=progress)
    if is_torch(X):
        X = to_numpy(X)
    if isinstance(X, np.ndarray):
        if X.ndim == 2 and X.dtype.kind in "fiu" and X.dtype != np.uint8:
            return Embeddings.from_arrays(X)
        images = _images_of(X)
        return _encode_in_memory(images, encoder, batch_size, progress)
    if isinstance(X, Image.Image):
        X = [X]
    if isinstance(X, Sequence) and not isinstance(X, bytes | bytearray):
        if all(isinstance(x, str | os.PathLike) for x in X):
            return as_embeddings(
                open_source(X), encoder, batch_size=batch_size, cache=cache, progress=progress
            )
        if all(isinstance(x, Image.Image | np.ndarray) for x in X):
            return _encode_in_memory(X, encoder, batch_size, progress)
    seen = f"they are a {type(X).__name__}"
    if isinstance(X, Sequence) and not isinstance(X, bytes | bytearray):
        seen += f" of {', '.join(sorted({type(x).__name__ for x in X}))}"
    raise UsageError("use these images", seen, ACCEPTED)


def _images_of(X: NDArray[Any]) -> list[NDArray[Any]]:
    """One image, or a batch of images; (N, H, W) is a batch of grey ones."""
    if X.ndim == 4:
        return list(X)
    if X.ndim == 3:
        return [X] if X.shape[-1] in (1, 3, 4) else list(X)
    hint = "A grey image goes into a list: [image]. " if X.ndim == 2 and X.dtype == np.uint8 else ""
    seen = f"they are an array of shape {X.shape} and type {X.dtype}"
    raise UsageError("use these images", seen, hint + ACCEPTED)


def _encode_in_memory(
    images: Sequence[Image.Image | NDArray[Any]], encoder: Encoder, size: int, progress: Progress
) -> Embeddings:
    preprocess = encoder.info.preprocess
    if preprocess is None:
        raise UsageError(
            "use these images", f"'{encoder.info.id}' takes no pixels", "Give it vectors."
        )
    blocks = [np.zeros((0, encoder.info.dim), np.float32)]
    for start in range(0, len(images), size):
        part = [
            to_rgb(x) if isinstance(x, Image.Image) else array_to_image(x)
            for x in images[start : start + size]
        ]
        pixels = np.stack([image_pixels(image, preprocess) for image in part])
        blocks.append(encoder.encode_images(pixels))
        progress(len(part), True)
    return Embeddings.from_arrays(np.concatenate(blocks), encoder=encoder.info.id)
