"""What the adapters share: checks of rows and of pairs of rows, and scikit-learn's manners."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.errors import UsageError
from byname.estimator import Estimator

__all__ = ["Adapter", "as_rows", "numbered", "paired"]


class Adapter(Estimator):
    """Learned from pairs of rows; neither a classifier nor a regressor to scikit-learn."""

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import InputTags, Tags, TargetTags

        return Tags(
            estimator_type=None, target_tags=TargetTags(required=True), input_tags=InputTags()
        )

    def _need_fit(self, learned: str, asked: str) -> None:
        """Raise UsageError unless ``fit`` was called with the parameters as they are now."""
        self._refresh()
        if not hasattr(self, learned):
            seen = f"{type(self).__name__} is not fitted, or was changed since"
            raise UsageError(asked, seen, "Call fit first.")


def as_rows(X: Any, asked: str, what: str, width: int | None = None) -> NDArray[Any]:
    """``X`` as a NumPy array (n, width) of finite float32 or float64 numbers.

    Raises
    ------
    UsageError
        For another shape, another width, and NaN or infinite values.
    """
    rows: NDArray[Any] = ops.as_float(ops.to_numpy(X))
    if rows.ndim != 2 or not rows.shape[1] or width not in (None, rows.shape[1]):
        wanted = "(n, width)" if width is None else f"(n, {width})"
        raise UsageError(asked, f"{what} have the shape {rows.shape}", f"Give {wanted} numbers.")
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        seen = f"{len(bad)} rows of {what} hold NaN or infinite values, the first is row {bad[0]}"
        raise UsageError(asked, seen, "Leave those pairs out.")
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
