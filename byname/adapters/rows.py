"""What the adapters share: checks of rows and of pairs of rows, and scikit-learn's manners."""

from __future__ import annotations

import hashlib
import math
import sys
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.errors import UsageError
from byname.estimator import Estimator

__all__ = [
    "Adapter",
    "as_rows",
    "by_content",
    "check_rules",
    "is_number",
    "is_whole",
    "numbered",
    "paired",
]

ENORMOUS = 1e30  # the square of what is less, and its fourth power, is a float64


class Adapter(Estimator):
    """Learned from pairs of rows; neither a classifier nor a regressor to scikit-learn."""

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import InputTags, Tags, TargetTags

        return Tags(
            estimator_type=None, target_tags=TargetTags(required=True), input_tags=InputTags()
        )

    def _learn(self, **learned: Any) -> None:
        """Take over what a ``fit`` has found, all at once: one that ends early changes nothing."""
        vars(self).update(learned)
        self._remember()

    def _need_fit(self, learned: str, asked: str) -> None:
        """Raise UsageError unless ``fit`` was called with the parameters as they are now."""
        self._refresh()
        if not hasattr(self, learned):
            seen = f"{type(self).__name__} is not fitted, or was changed since"
            raise UsageError(asked, seen, "Call fit first.")


def as_rows(X: Any, asked: str, what: str, width: int | None = None) -> NDArray[Any]:
    """``X`` as a NumPy array (n, width) of float32 or float64 numbers below 1e30 in size.

    Raises
    ------
    UsageError
        For another shape, another width, and NaN, infinite or larger values.
    """
    try:
        rows: NDArray[Any] = ops.as_float(ops.to_numpy(X))
    except (TypeError, ValueError) as error:
        raise UsageError(asked, f"{what}: {error!s:.120}", "Give rows of numbers.") from None
    if rows.ndim != 2 or not rows.shape[1] or width not in (None, rows.shape[1]):
        wanted = "(n, width)" if width is None else f"(n, {width})"
        raise UsageError(asked, f"{what} have the shape {rows.shape}", f"Give {wanted} numbers.")
    if len(bad := np.flatnonzero(~(np.abs(rows) < ENORMOUS).all(axis=1))):
        kind = (
            "values of 1e30 or more" if np.isfinite(rows[bad]).all() else "NaN or infinite values"
        )
        seen = f"{len(bad)} of {len(rows)} rows of {what} hold {kind}, the first is row {bad[0]}"
        raise UsageError(asked, seen, "Leave those rows out, or scale them.")
    return rows


def paired(
    F: Any, G: Any, asked: str, names: tuple[str, str], least: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Two arrays of as many rows each.

    Raises
    ------
    UsageError
        As :func:`as_rows`, for numbers that differ, and for fewer than ``least`` pairs.
    """
    left, right = as_rows(F, asked, names[0]), as_rows(G, asked, names[1])
    if len(left) != len(right):
        seen = f"there are {len(left)} {names[0]}, but {len(right)} {names[1]}"
        raise UsageError(asked, seen, "Row i of both must come from the same thing.")
    if len(left) < least:
        raise UsageError(asked, f"there are {len(left)} pairs", f"Give {least} or more.")
    return left, right


def numbered(rows: NDArray[Any]) -> NDArray[np.intp]:
    """A number for each row, the same for identical ones; shape (n,).

    Examples
    --------
    >>> numbered(np.array([[1.0], [2.0], [1.0]])).tolist()
    [0, 1, 0]
    """
    known: dict[bytes, int] = {}
    return np.array([known.setdefault(row.tobytes(), len(known)) for row in rows], np.intp)


def by_content(F: NDArray[Any], G: NDArray[Any], seed: int) -> NDArray[np.intp]:
    """An order of pairs, shuffled by ``seed``, that follows from what they hold alone.

    Pairs of one F stay together.

    Examples
    --------
    >>> F, G = np.arange(8.0).reshape(4, 2), np.ones((4, 1))
    >>> one, other = by_content(F, G, 0), by_content(F[::-1], G, 0)
    >>> bool((F[one] == F[::-1][other]).all())
    True
    """
    key = str(seed).encode()

    def digest(row: NDArray[Any]) -> bytes:
        return hashlib.blake2b(row.tobytes(), key=key[:64], digest_size=16).digest()

    # Adding 0 makes -0 and 0, which are equal, the same bytes.
    keys = [(digest(f + 0), digest(g + 0)) for f, g in zip(F, G, strict=True)]
    return np.array(sorted(range(len(keys)), key=keys.__getitem__), np.intp)


def is_whole(value: Any, least: int, most: float = math.inf) -> bool:
    """Whether it is a whole number in a range; True and False are none."""
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    return whole and least <= int(value) <= most


def is_number(value: Any) -> bool:
    """Whether it is a finite number; True and False are none.

    Examples
    --------
    >>> [is_number(x) for x in (1, 0.5, 10**400, float("nan"), "1", True)]
    [True, True, False, False, False, False]
    """
    real = isinstance(value, Real) and not isinstance(value, bool)
    return real and bool(abs(value) <= sys.float_info.max)


def check_rules(owner: Any, asked: str, rules: dict[str, tuple[bool, str]]) -> None:
    """Raise UsageError for the first setting of ``owner`` that is not good: (good, what it is)."""
    for name, (good, wanted) in rules.items():
        if not good:
            raise UsageError(asked, f"{name} is {getattr(owner, name)!r:.80}", f"It is {wanted}.")
