"""What is known of a batch of images, put together row by row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byname.embeddings import Embeddings
from byname.encoders import Encoder
from byname.errors import UsageError, quoted
from byname.images.sources import Source
from byname.joins import join_names
from byname.runs.shard import Progress
from byname.spilled import pick
from byname.stage import Batch
from byname.taxonomy import Taxonomy

__all__ = [
    "KINDS",
    "Gathered",
    "Means",
    "Part",
    "are_vectors",
    "check_kinds",
    "common",
    "every_key",
    "join_all",
    "only_vectors",
    "parse_with",
    "same_value",
    "shown",
]

KINDS = {
    "second": "an encoder, or an embeddings file",
    "reference": "other unlabeled images, or an embeddings file",
    "support": "a folder with a sub-folder a class, or a CSV with file_name,class",
    "captions": "a CSV or JSONL file with file_name and caption",
    "class_probs": "an .npz or .parquet file with probabilities over other classes",
    "views": "uniform[n=8] or attention[n=50]",
}
"""The optional inputs, and what each is given as."""


def parse_with(items: Iterable[str]) -> dict[str, str]:
    """``KIND=VALUE``, each kind once.

    Raises
    ------
    UsageError
        For anything else.

    Examples
    --------
    >>> parse_with(["second=mini", "views=uniform[n=4]"])
    {'second': 'mini', 'views': 'uniform[n=4]'}
    """
    found: dict[str, str] = {}
    for item in items:
        kind, equals, value = item.partition("=")
        kind = kind.strip()
        if not equals or not value.strip():
            do = f"Write KIND=VALUE with {', '.join(KINDS)}."
            raise UsageError(f"use --with '{item}'", "it is not of the form KIND=VALUE", do)
        if kind in found:
            raise UsageError(f"use --with '{item}'", f"'{kind}' is given twice", "Give it once.")
        found[kind] = value.strip()
    check_kinds(found)
    return found


def check_kinds(given: Mapping[str, Any]) -> None:
    unknown = [kind for kind in given if kind not in KINDS]
    if unknown:
        known = "; ".join(f"{kind}: {what}" for kind, what in KINDS.items())
        seen = "there is no input of that kind"
        raise UsageError(f"use '{unknown[0]}' as a further input", seen, f"Known: {known}.")


@dataclass(frozen=True)
class Means:
    """The main encoder, the classes, and how to embed."""

    encoder: Encoder
    taxonomy: Taxonomy
    batch_size: int = 32
    cache: bool = True
    device: str = "cpu"
    threads: int | None = None
    progress: Progress = lambda done, encoded: None


@dataclass(frozen=True, eq=False)
class Gathered:
    """Images with everything that is known of them; row i of each array is ``embeddings.keys[i]``.

    ``embeddings.errors`` holds the images for which any of it could not be had.
    """

    embeddings: Embeddings
    batch: Batch

    def __len__(self) -> int:
        return len(self.embeddings)

    def take(self, rows: NDArray[np.intp]) -> Gathered:
        """Some of the images, without the unreadable ones."""
        keys, X = self.embeddings.keys, np.ascontiguousarray(self.batch.X[rows])
        cut: dict[str, Any] = {}
        for f in fields(Batch):
            value = getattr(self.batch, f.name)
            if f.name == "class_probs" and value is not None:
                cut[f.name] = (value[0][rows], value[1])
            elif f.name not in ("X", "reference", "support") and value is not None:
                cut[f.name] = value[rows]
        kept = replace(self.embeddings, keys=tuple(keys[i] for i in rows), vectors=X, errors={})
        return Gathered(kept, replace(self.batch, X=X, **cut))


@dataclass(frozen=True, eq=False)
class Part:
    """One input of the images that it is known of; ``why`` says what is wrong with the others."""

    array: NDArray[np.float32]
    rows: Mapping[str, int]
    errors: Mapping[str, str]
    why: str

    @classmethod
    def of(cls, found: Embeddings, array: NDArray[np.float32], what: str) -> Part:
        rows = {key: i for i, key in enumerate(found.keys)}
        return cls(array, rows, found.errors, f"{what}: there is no vector for it")

    @classmethod
    def joined(cls, second: Embeddings, places: Mapping[str, int]) -> Part:
        """Stored vectors; ``places`` are rows of its vectors, and then of its errors."""
        n, why = len(second), list(second.errors.values())
        rows = {key: i for key, i in places.items() if i < n}
        errors = {key: why[i - n] for key, i in places.items() if i >= n}
        return cls(second.vectors, rows, errors, "second: its embeddings hold no vector for it")


def common(
    embeddings: Embeddings, parts: Mapping[str, Part]
) -> tuple[Embeddings, dict[str, NDArray[np.intp] | slice]]:
    """The images of which every part is known, and their rows in each; the others are errors."""
    errors = dict(embeddings.errors)
    for part in parts.values():
        for key in embeddings.keys:
            if key not in part.rows:
                errors.setdefault(key, part.errors.get(key, part.why))
    kept = [i for i, key in enumerate(embeddings.keys) if key not in errors]
    if len(kept) < len(embeddings):
        keys = tuple(embeddings.keys[i] for i in kept)
        vectors = pick(embeddings.vectors, kept)
        embeddings = replace(embeddings, keys=keys, vectors=vectors, errors=errors)
    rows: dict[str, NDArray[np.intp] | slice] = {}
    for kind, part in parts.items():
        places = np.array([part.rows[key] for key in embeddings.keys], np.intp)
        same = len(places) == len(part.array) and (places == np.arange(len(places))).all()
        rows[kind] = slice(None) if same else places  # no copy of what may be large
    return embeddings, rows


def every_key(X: Any) -> list[str]:
    """Keys of all images, readable or not; those in memory are numbered."""
    if isinstance(X, Source):
        return [ref.key for ref in X.refs]
    if isinstance(X, Embeddings):
        return [*X.keys, *X.errors]
    one = not hasattr(X, "__len__") or (getattr(X, "ndim", 0) == 3 and X.shape[-1] in (1, 3, 4))
    return [f"{i:08d}" for i in range(1 if one else len(X))]


def join_all(
    keys: Sequence[str], given: Mapping[str, Mapping[str, Any]], said: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """What the files say of all these images, by kind and key; ``said`` is what was asked for.

    Raises
    ------
    UsageError
        Where a file says nothing of any image.
    """
    found = {kind: join_names(keys, named) for kind, named in given.items()}
    for kind, joined in found.items():
        if keys and not joined:
            raise UsageError(
                f"join the images with {kind}={said[kind]}",
                f"none of the {len(keys)} images is among its {len(given[kind])} files "
                f"(images: {quoted(list(keys), 3)}; files: {quoted(list(given[kind]), 3)})",
                "Names are relative to the folder of the images; base names will do if unique.",
            )
    return found


def are_vectors(X: Any) -> bool:
    if isinstance(X, Embeddings):
        return True
    return getattr(X, "ndim", 0) == 2 and "uint8" not in str(X.dtype)


def only_vectors(what: str) -> UsageError:
    return UsageError(
        f"make '{what}' of these images",
        "they are vectors already",
        "Give the images themselves" + (", or second=FILE.parquet." if what == "second" else "."),
    )


def shown(value: Any) -> str:
    return str(value) if isinstance(value, str | Path) else type(value).__name__


def same_value(a: Any, b: Any) -> bool:
    """Whether what is given now as an input is what was given before."""
    return a is b or (isinstance(a, str | Path) and type(a) is type(b) and bool(a == b))
