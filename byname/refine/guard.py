"""When refined scores are taken back: the rules that the refine members share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.knn import agreement

__all__ = ["NEIGHBOURS", "TOLERANCE", "absent", "doubt", "kept", "told", "too_few"]

NEIGHBOURS = 10  # images that each image is compared with
TOLERANCE = 0.02  # how far the agreement may fall before it counts as a loss
_ROWS = 4096


def too_few(S: Any, k: int = 0) -> str | None:
    """Why these images and classes are too few for any refinement; None where they are not.

    Parameters
    ----------
    S : array, shape (N, K)
    k : int
        Images that the member looks at together: it needs as many; 0 for a member without.

    Examples
    --------
    >>> too_few(np.zeros((1, 3)))
    'there is 1 image, and others are what it learns from'
    >>> too_few(np.zeros((4, 3)), 5)
    'there are 4 images, and it looks at 5 together'
    >>> too_few(np.zeros((5, 3)), 5)
    """
    N, K = (int(n) for n in S.shape)
    if N < 2:
        seen = "there is 1 image" if N else "there are no images"
        return f"{seen}, and others are what it learns from"
    if K < 2:
        return "there is one class"
    return f"there are {N} images, and it looks at {k} together" if k > N else None


def doubt(
    neighbours: NDArray[np.intp], S: Any, S2: Any, *, tolerance: float = TOLERANCE
) -> str | None:
    """Why the scores S2 should not take the place of S; None where they may.

    Neighbours should have the same answer, more often than by chance. Where this holds less for the
    new answers than for the old ones, by more than ``tolerance``, the new ones are not believed.
    It notices answers that are scattered, or nearly all the same. It cannot notice a class that
    another one has swallowed whole, nor groups that are sound and have the wrong names. Where the
    neighbours are all other images it notices nothing but one answer for all.

    Parameters
    ----------
    neighbours : array of int, shape (N, k)
        Of the images, as :func:`byname.knn.nearest` gives them, ``NEIGHBOURS`` of each.
    S, S2 : arrays, shape (N, K)
        Logits before and after.
    tolerance : float

    Examples
    --------
    >>> near = np.array([[1], [0], [3], [2]])
    >>> S = np.array([[2, 1], [2, 1], [1, 2], [1, 2]])
    >>> doubt(near, S, np.array([[2, 1], [1, 2], [2, 1], [1, 2]]))
    'neighbours agree less than before: -1.00 of what chance leaves, after 1.00'
    """
    K = int(S.shape[1])
    if not np.isfinite(float(ops.to_numpy(S2).max(initial=0))):
        return "the new scores are not finite"
    old, new = (agreement(neighbours, _answers(s), K) for s in (S, S2))
    if new >= old - tolerance:
        return None
    return f"neighbours agree less than before: {new:.2f} of what chance leaves, after {old:.2f}"


def kept(neighbours: NDArray[np.intp], S: Any, S2: Any, *, tolerance: float = TOLERANCE) -> bool:
    """Whether the scores S2 may take the place of S; see :func:`doubt`.

    Examples
    --------
    >>> near, S = np.array([[1], [0], [3], [2]]), np.eye(2)[[0, 0, 1, 1]]
    >>> kept(near, S, S), kept(near, S, np.eye(2)[[0, 1, 0, 1]])
    (True, False)
    """
    return doubt(neighbours, S, S2, tolerance=tolerance) is None


def absent(S: Any, least: float) -> str | None:
    """Why the list of names seems longer than what the images show; None where it does not.

    For members that give every name a share of the images: names that no image was answered with
    would take some from others.

    Parameters
    ----------
    S : array, shape (N, K)
    least : float
        Share of the names that some image has to be answered with.

    Examples
    --------
    >>> absent(np.eye(5)[[0, 0, 1, 1, 0]], 0.5)
    'of 5 names the images were answered with 2 only: the others may not be there'
    >>> absent(np.eye(3)[[0, 0, 1]], 0.5)
    """
    K = int(S.shape[1])
    used = len(np.unique(_answers(S)))
    if used >= least * K:
        return None
    return f"of {K} names the images were answered with {used} only: the others may not be there"


def _answers(S: Any) -> NDArray[np.intp]:
    """Best class of each image (N,), in blocks, since a search for NaN takes copies."""
    found = [ops.to_numpy(ops.argmax(S[rows])) for rows in ops.blocks(len(S), _ROWS)]
    return np.concatenate(found) if found else np.zeros(0, np.intp)


def told(reason: str | None) -> dict[str, Any]:
    """The part of a member's report that says whether it stepped back to S, and why.

    Examples
    --------
    >>> told("there is one class")
    {'stepped_back': True, 'reason': 'there is one class'}
    """
    return {"stepped_back": reason is not None, "reason": reason}
