"""The images of several experts: vectors that are finite, matched by key, and in one order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.embeddings import Embeddings
from byname.errors import EmbeddingsError, quoted
from byname.stage import Batch

__all__ = ["ALIGN", "SeenImages", "aligned", "is_vectors", "seen_images"]

ALIGN = (
    "Give a list with one array (N, D), Embeddings or Batch for each expert, of the same images."
)


@dataclass(eq=False)
class SeenImages:
    """What one expert sees, and the order that brings it to that of the first expert."""

    batch: Batch
    embedded: Embeddings | None = None
    order: NDArray[np.intp] | None = None

    def given(self) -> Any:
        """For a classifier."""
        return self.batch.X if self.embedded is None else self.embedded


def is_vectors(x: Any) -> bool:
    """Whether these are vectors, and not files or images."""
    if isinstance(x, Embeddings | Batch):
        return True
    return (isinstance(x, np.ndarray) or ops.is_torch(x)) and x.ndim == 2


def seen_images(part: Any, e: int) -> SeenImages:
    """The images of expert ``e``; every number must be finite."""
    X = ops.to_numpy(part.vectors if isinstance(part, Embeddings) else getattr(part, "X", part))
    odd: Any = np.flatnonzero(~np.isfinite(X).all(axis=1)) if X.dtype.kind == "f" else []
    if len(odd):
        seen = f"row {odd[0]} of expert {e} holds a number that is not finite"
        raise EmbeddingsError("read the images", seen, "Leave such images out, for all experts.")
    if isinstance(part, Batch):
        return SeenImages(part)
    if isinstance(part, Embeddings):
        return SeenImages(Batch(part.vectors), part)
    return SeenImages(Batch(Embeddings.from_arrays(X).vectors))


def aligned(parts: list[SeenImages]) -> list[SeenImages]:
    """The same images of every expert, with the order that brings them to that of the first."""
    first = parts[0]
    for i, part in enumerate(parts):
        if (first.embedded is None) != (part.embedded is None):
            seen = f"of experts 0 and {i}, the images of one have keys"
            raise EmbeddingsError("match the images", seen, ALIGN)
        if first.embedded is None or part.embedded is None:
            if len(part.batch) != len(first.batch):
                seen = f"expert 0 has {len(first.batch)}, expert {i} has {len(part.batch)}"
                raise EmbeddingsError("match the images", seen, ALIGN)
            continue
        odd = sorted(set(first.embedded.keys) ^ set(part.embedded.keys))
        if odd:
            seen = f"experts 0 and {i} do not have the same images: {quoted(odd)}"
            raise EmbeddingsError("match the images", seen, ALIGN)
        place = {key: j for j, key in enumerate(part.embedded.keys)}
        part.order = np.array([place[key] for key in first.embedded.keys], np.intp)
    return parts
