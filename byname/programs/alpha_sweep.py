"""The accuracy of text logits plus alpha times votes, for many values of alpha at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["right_by_alpha"]


def right_by_alpha(
    text: NDArray[np.float64],
    votes: NDArray[Any],
    index: NDArray[np.intp],
    alphas: NDArray[np.float64],
) -> NDArray[np.intp]:
    """How many images are right at each alpha, all alphas at once.

    Parameters
    ----------
    text : array, shape (N, K)
        Logits of the texts.
    votes : array, shape (N, K)
        What alpha multiplies.
    index : array of int, shape (N,)
        Class of each image.
    alphas : array, shape (J,)
        Ascending, 0 or more.

    Returns
    -------
    array of int, shape (J,)

    Notes
    -----
    Image i is right where lead + alpha * gain > 0 for each other class, with its lead in text
    logits and its gain in votes over that class: an interval of alpha, found once. On equality
    the class of the lower index wins, as with arg-max. N * K work,
    whatever the number of alphas.

    Examples
    --------
    >>> text, votes = np.array([[2.0, 0.0]]), np.array([[0.0, 1.0]])
    >>> right_by_alpha(text, votes, np.array([1]), np.array([0.0, 2.0, 3.0])).tolist()
    [0, 0, 1]
    """
    first, last = _run_of_alphas(text, votes, index, alphas)
    some, J = first < last, len(alphas) + 1
    change = np.bincount(first[some], minlength=J) - np.bincount(last[some], minlength=J)
    counts: NDArray[np.intp] = np.cumsum(change)[:-1]
    return counts


def _run_of_alphas(
    text: NDArray[np.float64],
    votes: NDArray[Any],
    index: NDArray[np.intp],
    alphas: NDArray[np.float64],
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Of each image, the first alpha at which it is right, and one past the last."""
    rows = np.arange(len(index))
    lead = text[rows, index][:, None] - text
    gain = votes[rows, index][:, None].astype(np.float64) - votes
    wins_ties = np.arange(text.shape[1]) > index[:, None]
    other = np.arange(text.shape[1]) != index[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        turn = -lead / gain
    rising, falling = other & (gain > 0), other & (gain < 0)
    never = other & (gain == 0) & ((lead < 0) | ((lead == 0) & ~wins_ties))
    low = np.where(rising, turn, -np.inf).max(axis=1)
    high = np.where(falling, turn, np.inf).min(axis=1)
    # A bound itself is inside only where every class that sets it loses ties.
    low_in = ~(rising & (turn == low[:, None]) & ~wins_ties).any(axis=1)
    high_in = ~(falling & (turn == high[:, None]) & ~wins_ties).any(axis=1)
    usable = ~never.any(axis=1)
    first = np.where(
        low_in, np.searchsorted(alphas, low, "left"), np.searchsorted(alphas, low, "right")
    )
    last = np.where(
        high_in, np.searchsorted(alphas, high, "right"), np.searchsorted(alphas, high, "left")
    )
    return np.where(usable, first, 0), np.where(usable, last, 0)
