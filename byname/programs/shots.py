"""Labelled images as the few-shot programs take them: read, checked, and dealt out to folds."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.errors import UsageError
from byname.kmeans import content_key
from byname.stage import Array, ClassTexts, Support

__all__ = [
    "DEALS",
    "among",
    "askable",
    "by_content",
    "check_number",
    "check_texts",
    "check_whole",
    "deals",
    "folds",
    "places",
    "read_rows",
    "read_support",
]

SHOTS = 3  # images of a class that leave two to learn from
DEALS = 3  # ways to deal the labelled images out, over which a choice is averaged
_BLOCK = 256
_SAME = 1e-3  # of unit rows: float16 copies differ by a third of it, two photos by far more


def by_content(index: NDArray[np.intp], rows: NDArray[Any], seed: int = 0) -> NDArray[np.intp]:
    """An order (n,) of labelled images, class by class, that their own order does not change.

    Examples
    --------
    >>> by_content(np.array([1, 0]), np.eye(2)).tolist()
    [1, 0]
    """
    return np.lexsort((content_key(rows, seed), index))


def folds(
    index: NDArray[np.intp], rows: NDArray[Any], most: int = 5, seed: int = 0
) -> NDArray[np.intp]:
    """Fold (n,) of each labelled image; all 0 where no class has two images.

    Each class's images are dealt out in turn, in their order along a seeded direction: a class of
    two images or more is on both sides of every split in which it takes part, and neither the order
    of the images nor that of the classes makes a difference.

    Examples
    --------
    >>> folds(np.array([0, 0, 1, 1]), np.eye(4), seed=0).reshape(2, 2).sum(axis=1).tolist()
    [1, 1]
    """
    counts = np.bincount(index)
    F = int(min(most, counts.max(initial=1)))
    order = by_content(index, rows, seed)
    place = np.empty(len(index), np.intp)
    place[order] = np.arange(len(index)) - np.searchsorted(index[order], index[order])
    return place % F


def deals(index: NDArray[np.intp], rows: NDArray[Any], seed: int = 0) -> list[NDArray[np.intp]]:
    """Folds of several deals: one alone often decides between settings that are about as good.

    Examples
    --------
    >>> len(deals(np.array([0, 0, 1, 1]), np.eye(4)))
    3
    """
    return [folds(index, rows, seed=DEALS * seed + d) for d in range(DEALS)]


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
    rows = read_rows("the support", given, texts)
    index = places("the support", ids, len(rows), texts)
    if not len(index):
        raise UsageError("fit", "the support has no image", "Give one image or more.")
    return rows, index


def places(what: str, ids: Sequence[str], n: int, texts: ClassTexts) -> NDArray[np.intp]:
    """Class (n,) of each id."""
    known = {node_id: k for k, node_id in enumerate(texts.taxonomy.class_ids)}
    if isinstance(ids, str) or not isinstance(ids, Iterable):
        raise UsageError(f"use {what}", f"its ids are {ids!r}", "Give a list with one id an image.")
    for node_id in ids:
        if not isinstance(node_id, str) or node_id not in known:
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
    width = texts.vectors.shape[1]
    try:
        X = ops.to_numpy(X)
    except ValueError:
        X = np.array(None)  # rows of several lengths
    if X.dtype.kind not in "fiub":
        raise UsageError(
            f"use {what}", "they are no array of numbers", "Give one row an image, as an array."
        )
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


def check_texts(asked: str, texts: Any) -> None:
    """Refuse what are no texts of classes."""
    if not isinstance(texts, ClassTexts):
        seen = f"texts is of the type {type(texts).__name__}"
        raise UsageError(asked, seen, "Give ClassTexts, as Task.texts_for() does.")


def check_number(asked: str, name: str, value: Any, *, zero: bool = False) -> None:
    """Refuse what is no finite number above 0, or from 0 on."""
    number = isinstance(value, int | float | np.integer | np.floating)
    number = number and not isinstance(value, bool)
    if number and (0 < value < math.inf or (zero and value == 0)):
        return
    do = "Give a number, 0 or more." if zero else "Give a number above 0."
    raise UsageError(asked, f"{name} is {_shown(value)}", do)


def check_whole(asked: str, name: str, value: Any, least: int = 0) -> None:
    """Refuse what is no whole number from ``least`` on."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < least:
        do = f"Give {least} or more, a whole number."
        raise UsageError(asked, f"{name} is {_shown(value)}", do)


def _shown(value: Any) -> str:
    return repr(value.item() if isinstance(value, np.generic) else value)
