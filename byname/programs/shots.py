"""Labelled images as the few-shot programs take them: read, checked, and dealt out to folds."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.errors import UsageError
from byname.stage import Array, ClassTexts, Support

__all__ = ["among", "askable", "folds", "places", "read_rows", "read_support"]

SHOTS = 3  # images of a class that leave two to learn from
_BLOCK = 256
_SAME = 1e-3  # of unit rows: float16 copies differ by a third of it, two photos by far more


def folds(index: NDArray[np.intp], most: int = 5, seed: int = 0) -> NDArray[np.intp]:
    """Fold (n,) of each labelled image; all 0 where no class has two images.

    Each class's images are dealt out in turn after a seeded shuffle, so that a class of two images
    or more is on both sides of every split in which it takes part.

    Examples
    --------
    >>> folds(np.array([0, 0, 1, 1]), seed=0).reshape(2, 2).sum(axis=1).tolist()
    [1, 1]
    """
    counts = np.bincount(index)
    F = int(min(most, counts.max(initial=1)))
    order = np.random.default_rng(seed).permutation(len(index))
    order = order[np.argsort(index[order], kind="stable")]
    place = np.empty(len(index), np.intp)
    place[order] = np.arange(len(index)) - np.searchsorted(index[order], index[order])
    return place % F


def askable(index: NDArray[np.intp], least: int = SHOTS) -> tuple[NDArray[np.bool_], str | None]:
    """Labelled images (n,) that settings may be chosen on in turn, and why there are none.

    Those of classes with ``least`` images or more: with fewer, what is learned without one of them
    is something else than what is learned from all. Where only one class has so many, whatever
    favours it would look best.

    Examples
    --------
    >>> askable(np.array([0, 0, 0, 1, 1, 1, 2]))
    (array([ True,  True,  True,  True,  True,  True, False]), None)
    >>> askable(np.array([0, 0, 0, 1]))[1]
    'fewer than two classes have 3 labelled images or more, so none can be set aside'
    """
    enough = np.bincount(index) >= least
    if enough.sum() < 2:
        few = f"fewer than two classes have {least} labelled images or more"
        return np.zeros(len(index), bool), f"{few}, so none can be set aside"
    return enough[index], None


def read_support(
    texts: ClassTexts, given: Array | Support, ids: Sequence[str] | None
) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Vectors (n, D) and classes (n,) of the labelled images.

    Raises
    ------
    UsageError
        For an unknown id, numbers that do not fit, rows that are not finite, or no image.
    """
    if isinstance(given, Support):
        if given.kind != "labelled" or ids is not None:
            raise UsageError(
                "learn from the support",
                f"it is {given.kind}" if ids is None else "its classes were given twice",
                "Give images that a person has labelled, with their class ids.",
            )
        index = np.asarray(given.class_index)
        if not len(index) or index.min() < 0 or index.max() >= texts.n_classes:
            raise UsageError(
                "learn from the support",
                "it is empty, or its class indices do not count these classes",
                f"Give indices from 0 to {texts.n_classes - 1}.",
            )
        return read_rows("the support", given.vectors, texts), index
    if ids is None:
        raise UsageError("fit", "no class ids were given", "Give the id of each image's class.")
    index = places("the support", ids, len(given), texts)
    if not len(index):
        raise UsageError("fit", "the support has no image", "Give one image or more.")
    return read_rows("the support", given, texts), index


def places(what: str, ids: Sequence[str], n: int, texts: ClassTexts) -> NDArray[np.intp]:
    """Class (n,) of each id."""
    known = {node_id: k for k, node_id in enumerate(texts.taxonomy.class_ids)}
    for node_id in ids:
        if node_id not in known:
            close = difflib.get_close_matches(str(node_id), known, 1)
            raise UsageError(
                f"use the class {node_id!r} of {what}",
                "no class has this id",
                f"Did you mean {close[0]!r}?" if close else "Give ids, not positions.",
            )
    if len(ids) != n:
        raise UsageError(
            f"use {what}", f"there are {n} images and {len(ids)} ids", "Give one id an image."
        )
    return np.array([known[node_id] for node_id in ids], np.intp)


def read_rows(what: str, X: Array, texts: ClassTexts) -> NDArray[Any]:
    """Vectors (N, D) of images as NumPy floats, checked against the texts."""
    X, width = ops.to_numpy(X), texts.vectors.shape[1]
    if X.ndim != 2 or X.shape[1] != width:
        raise UsageError(
            f"use {what}",
            f"the shape is {X.shape}, the text vectors are {width} wide",
            "Give one row an image, from the encoder of the texts.",
        )
    if len(bad := np.flatnonzero(~np.isfinite(X).all(axis=1))):
        raise UsageError(
            f"use {what}",
            f"row {bad[0]} holds NaN or infinity",
            "Leave the row out, or embed its image anew.",
        )
    return np.asarray(ops.as_float(X))


def among(X: NDArray[Any], rows: NDArray[Any]) -> NDArray[np.bool_]:
    """Which rows of X (n, D) have the direction of one of the others, up to 0.001.

    Examples
    --------
    >>> among(np.array([[2.0, 0.0], [1.0, 1.0]]), np.array([[1.0, 0.0]])).tolist()
    [True, False]
    """
    if not len(rows):
        return np.zeros(len(X), bool)
    X, rows = np.asarray(ops.unit(X)), np.asarray(ops.unit(rows))
    found = [np.zeros(0, bool)]
    for part in ops.blocks(len(X), _BLOCK):
        nearest = rows[ops.argmax(ops.matmul_t(X[part], rows))]
        found.append(np.linalg.norm(X[part] - nearest, axis=1) < _SAME)
    return np.concatenate(found)
