"""When refined scores are taken back: the rules that the refine members share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.knn import agreement
from byname.refine.shares import answered_shares, effective

__all__ = ["NEIGHBOURS", "TOLERANCE", "absent", "caution", "doubt", "told", "too_few"]

NEIGHBOURS = 10  # images that each image is compared with
TOLERANCE = 0.02  # how far the agreement may fall before it counts as a loss
EVEN = 0.75  # of the classes must the answers be as mixed as, for shares to seem even
LOST = 0.9  # of how mixed even answers were, below which names have been lost
HARDLY = 0.1  # rise of the agreement for each image that moved, which shows nothing
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
    neighbours: NDArray[np.intp],
    S: Any,
    S2: Any,
    *,
    tolerance: float = TOLERANCE,
    rise: float = 0.0,
) -> str | None:
    """Why the scores S2 should not take the place of S; None where they may.

    Neighbours should have the same answer, more often than by chance. Where this holds less for the
    new answers than for the old ones, by more than ``tolerance``, the new ones are not believed.
    It notices answers that are scattered, or nearly all the same, and those that were even over the
    names and are much less so. It cannot notice one class of many that another one has swallowed
    whole, nor groups that are sound and have the wrong names. Where the neighbours are all other
    images it notices nothing but names that are lost.

    Parameters
    ----------
    neighbours : array of int, shape (N, k)
        Of the images, as :func:`byname.knn.nearest` gives them, ``NEIGHBOURS`` of each.
    S, S2 : arrays, shape (N, K)
        Logits before and after.
    tolerance : float
    rise : float
        What the agreement has to rise by, times the share of the images whose answer moved; 0 asks
        for none.

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
    before, after = _answers(S), _answers(S2)
    old, new = (agreement(neighbours, answer, K) for answer in (before, after))
    if new < old - tolerance:
        return (
            f"neighbours agree less than before: {new:.2f} of what chance leaves, after {old:.2f}"
        )
    moved = float((before != after).mean()) if rise else 0.0
    if rise and new - old < rise * moved:
        return (
            f"{moved:.0%} of the answers changed, and neighbours hardly agree more: {new:.2f} of "
            f"what chance leaves, after {old:.2f}"
        )
    return _lost(before, after, K)


def _lost(before: NDArray[np.intp], after: NDArray[np.intp], K: int) -> str | None:
    """Why answers (N,) that were even have lost names; None where they did not, or were not."""
    old, new = (effective(np.bincount(a, minlength=K) / max(len(a), 1)) for a in (before, after))
    if old < EVEN * K or new >= LOST * old:
        return None
    return f"the answers were as mixed as {old:.1f} of {K} names, and after it as {new:.1f} only"


def caution(neighbours: NDArray[np.intp], S: Any, S2: Any) -> str | None:
    """What to tell of new scores S2 that are kept, although S does not look like even shares.

    Where names are rare or absent, members that give each name its share take images from others,
    and members that pool near images lose the rare ones. Whether few names win because few are
    there, or because the texts are biased, which refining mends, the answers cannot tell: so this
    is a warning, and no reason to go back to S.

    Parameters
    ----------
    neighbours, S, S2 : arrays
        As for :func:`doubt`.

    Examples
    --------
    >>> near = np.array([[1], [0], [3], [2]])
    >>> S = np.eye(4)[[0, 0, 0, 1]]
    >>> caution(near, np.eye(4), np.eye(4)), caution(near, S, S)
    (None, 'shares seem uneven: the answers before were only as mixed as 1.8 of 4 names; where names are rare or absent it may lose')
    """  # noqa: E501
    K = int(S.shape[1])
    mixed = effective(answered_shares(S)) if len(S) else K
    if mixed >= EVEN * K:
        return None
    told = (
        f"shares seem uneven: the answers before were only as mixed as {mixed:.1f} of {K} names; "
        "where names are rare or absent it may lose"
    )
    before, after = _answers(S), _answers(S2)
    moved = float((before != after).mean())
    old, new = (agreement(neighbours, answer, K) for answer in (before, after))
    if new - old >= HARDLY * moved:
        return told
    return f"{told}, and neighbours hardly agree more, though {moved:.0%} of the answers changed"


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


def told(reason: str | None, warning: str | None = None) -> dict[str, Any]:
    """The part of a member's report that says whether it stepped back to S, and why.

    With a warning about scores that it did not step back from, where there is one.

    Examples
    --------
    >>> told("there is one class")
    {'stepped_back': True, 'reason': 'there is one class'}
    >>> told(None, "few names")
    {'stepped_back': False, 'reason': None, 'warning': 'few names'}
    """
    found = {"stepped_back": reason is not None, "reason": reason}
    return {**found, "warning": warning} if warning and reason is None else found
