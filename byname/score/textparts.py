"""What members that look at single texts share: weights within a class, and images by class."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.stage import ClassTexts, State

__all__ = ["by_class", "put_last", "shown_unsaid", "text_weights", "unsaid"]


def text_weights(texts: ClassTexts, state: State) -> NDArray[np.float64]:
    """Weight (M,) of each text within its class: those that count sum to 1 over each class.

    ``state.weight`` where the weigh stage set it, else the weights that came with the texts, else
    equal ones. A text of no class weighs 0.

    Examples
    --------
    >>> from byname.taxonomy import Taxonomy
    >>> texts = ClassTexts(np.eye(3), np.array([0, 0, -1]), Taxonomy.from_names(["cat"]))
    >>> text_weights(texts, State()).tolist()
    [0.5, 0.5, 0.0]
    """
    index = ops.to_numpy(texts.class_index)
    given = state.weight if state.weight is not None else texts.weight
    weight = np.ones(len(index)) if given is None else ops.to_numpy(given).astype(np.float64)
    weight = np.where(index >= 0, weight, 0.0)
    total = np.bincount(index[index >= 0], weight[index >= 0], texts.n_classes)
    total[total == 0] = 1
    return np.asarray(weight / np.where(index >= 0, total[index], 1))


def shown_unsaid(S: Any, texts: ClassTexts, weight: NDArray[np.float64]) -> Any:
    """S (N, K) with a cosine of -1 for classes of which no text counts; changed in place."""
    return put_last(S, unsaid(texts, weight), texts.bias - texts.scale)


def put_last(S: Any, classes: NDArray[np.intp], value: float) -> Any:
    """S (..., K) with ``value`` for these classes; changed in place."""
    if len(classes):
        S[..., ops.like(classes, S)] = value
    return S


def unsaid(texts: ClassTexts, weight: NDArray[np.float64]) -> NDArray[np.intp]:
    """Classes of which no text counts."""
    index = ops.to_numpy(texts.class_index)
    said = np.bincount(index[(weight > 0) & (index >= 0)], minlength=texts.n_classes)
    return np.flatnonzero(said == 0)


def by_class(answered: NDArray[np.intp]) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """Each class that is answered, with the rows of its images; -1 is left out.

    Examples
    --------
    >>> [(k, rows.tolist()) for k, rows in by_class(np.array([1, 0, 1, -1]))]
    [(0, [1]), (1, [0, 2])]
    """
    order = np.argsort(answered, kind="stable")
    classes, starts = np.unique(answered[order], return_index=True)
    ends = np.append(starts[1:], len(order))
    for k, start, end in zip(classes.tolist(), starts, ends, strict=False):  # none of no images
        if k >= 0:
            yield k, order[start:end]
