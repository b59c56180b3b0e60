"""How many classes seem to be there, which shares a user names, and rows that are not numbers."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.errors import RecipeError, UsageError

if TYPE_CHECKING:
    from byname.taxonomy import Taxonomy

__all__ = ["PRESENT", "answered_shares", "effective", "named_shares", "refuse_nan", "uneven"]

PRESENT = 2 / 3  # of the classes must seem to be there for shares to count as balanced
_LEAST = 1e-6  # a share named as 0 is this, so that its logarithm exists


def answered_shares(S: Any) -> NDArray[np.float64]:
    """Share (K,) of the images answered with each class; S (N, K) with N >= 1.

    Examples
    --------
    >>> answered_shares(np.eye(3)[[0, 0, 1, 1]]).tolist()
    [0.5, 0.5, 0.0]
    """
    counts = np.bincount(ops.to_numpy(ops.argmax(S)), minlength=int(S.shape[1]))
    return np.asarray(counts / len(S), np.float64)


def effective(share: NDArray[np.float64]) -> float:
    """exp(entropy) of shares: how many classes of equal share are as mixed as these.

    Examples
    --------
    >>> round(effective(np.array([0.5, 0.5, 0.0])), 6)
    2.0
    """
    some = share[share > 0]
    return float(np.exp(-(some * np.log(some)).sum()))


def uneven(S: Any) -> str | None:
    """Why it seems that many classes have no images; None where it does not.

    Examples
    --------
    >>> uneven(np.eye(3)), uneven(np.eye(3)[[0, 0, 0]])
    (None, 'the answers are as mixed as 1.0 of the 3 classes: some have too few images')
    """
    K, seen = int(S.shape[1]), effective(answered_shares(S))
    if seen >= PRESENT * K:
        return None
    return f"the answers are as mixed as {seen:.1f} of the {K} classes: some have too few images"


def named_shares(name: str, text: str, taxonomy: Taxonomy) -> NDArray[np.float64]:
    """Shares (K,) from ``"id:share;id:share"``; classes not named share the rest equally.

    Raises
    ------
    RecipeError
        For text of another form, ids that are unknown or given twice, shares that are negative or
        of which too much or, with all classes named, too little is given.

    Examples
    --------
    >>> from byname.taxonomy import Taxonomy
    >>> taxonomy = Taxonomy.from_names(["cat", "dog", "cow"])
    >>> named_shares("prior", "cat:0.5", taxonomy).round(3).tolist()
    [0.5, 0.25, 0.25]
    """
    do = "Give 'id:share;id:share', shares from 0 to 1, with ids of the classes."
    asked, place = f"use '{name}'", {id_: k for k, id_ in enumerate(taxonomy.class_ids)}
    share = np.full(len(place), np.nan)
    for part in filter(None, (p.strip() for p in text.split(";"))):
        id_, _, number = part.rpartition(":")
        if id_ not in place:
            raise RecipeError(asked, f"'{part}' names no class of this list", _known(id_, place))
        if not np.isnan(share[place[id_]]):
            raise RecipeError(asked, f"the share of '{id_}' is given twice", "Give it once.")
        try:
            share[place[id_]] = float(number)
        except ValueError:
            raise RecipeError(asked, f"the share of '{id_}' is {number!r}", do) from None
        if not 0 <= share[place[id_]] <= 1:
            raise RecipeError(asked, f"the share of '{id_}' is {number}", do)
    rest, total = np.isnan(share), float(np.nansum(share))
    if total > 1 + 1e-6 or (not rest.any() and total < 1 - 1e-3):
        raise RecipeError(asked, f"the shares add up to {total:g}", do)
    share[rest] = max(0.0, 1 - total) / max(1, int(rest.sum()))
    share = np.maximum(share, _LEAST)
    return np.asarray(share / share.sum(), np.float64)


def _known(id_: str, place: dict[str, int]) -> str:
    """What to do about an id that is none."""
    if close := difflib.get_close_matches(id_, place, 1):
        return f"Did you mean '{close[0]}'?"
    ids, more = ", ".join(list(place)[:10]), len(place) - 10
    return f"Give 'id:share;id:share' with ids of the classes: {ids}" + (
        f", and {more} more." if more > 0 else "."
    )


def refuse_nan(name: str, *vectors: Any, logits: Any = None) -> None:
    """Refuse vectors that hold NaN or infinity, and logits that hold NaN, naming the first row.

    Examples
    --------
    >>> refuse_nan("prior", np.array([[1.0], [np.nan]]))
    Traceback (most recent call last):
    byname.errors.UsageError: cannot run 'prior': row 1 holds NaN or infinity. Leave the image out, or embed it anew.
    """  # noqa: E501
    for rows in (*vectors, logits):
        if rows is None:
            continue
        # A sum is finite only if all its terms are; no array of flags is made.
        sums = ops.to_numpy(ops.as_float(rows).sum(axis=1))
        # A logit of -inf is that of a class which cannot be.
        wrong = np.isnan(sums) | (sums == np.inf) if rows is logits else ~np.isfinite(sums)
        if len(bad := np.flatnonzero(wrong)):
            raise UsageError(
                f"run '{name}'",
                f"row {bad[0]} holds NaN or infinity",
                "Leave the image out, or embed it anew.",
            )
