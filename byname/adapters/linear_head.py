"""A linear classifier over the classes it was trained on and those that were injected."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.adapters.rows import as_rows, check_rules, is_number, is_whole
from byname.errors import UsageError, quoted

__all__ = ["LinearHead"]

_ASKED = "inject classes into the head"


@dataclass(frozen=True, eq=False)
class LinearHead:
    """A linear classifier over seen and injected classes.

    Formula: logits[i, k] = <x_i, w_k> + b_k - offset for the first ``n_seen`` classes, and without
    the offset for the others. A head prefers the classes it was trained on; an offset above 0
    evens that out. It cannot be found without labels of both kinds, so it is 0 unless you set it.

    Parameters
    ----------
    weights : array, shape (K, d)
    bias : array, shape (K,), or None
    class_ids : tuple of str, length K
    n_seen : int, optional
        All by default, which -1 stands for.
    offset : float

    Raises
    ------
    UsageError
        For numbers that do not fit, NaN or enormous values, and ids that stand twice.

    Examples
    --------
    >>> head = LinearHead(np.eye(2), None, ("cat", "dog")).add([[1.0, 1.0]], ["fox"])
    >>> head.predict([[2.0, 1.0], [0.0, 3.0]]).tolist()
    ['fox', 'dog']
    """

    weights: Any
    bias: Any
    class_ids: tuple[str, ...]
    n_seen: int = -1
    offset: float = 0.0

    def __post_init__(self) -> None:
        asked = "make a head"
        weights = as_rows(self.weights, asked, "weights")
        bias = np.zeros(len(weights)) if self.bias is None else ops.to_numpy(self.bias)
        ids = _ids(self.class_ids, asked)
        if len(ids) != len(weights) or bias.shape != (len(weights),):
            seen = f"{len(weights)} weights, biases of shape {bias.shape}, {len(ids)} classes"
            raise UsageError(asked, seen, "Give one of each for every class.")
        bias = as_rows(bias[:, None], asked, "biases")[:, 0]
        if twice := sorted(i for i, times in Counter(ids).items() if times > 1):
            raise UsageError(asked, f"the class ids {quoted(twice)} stand twice", "Make unique.")
        rules = {
            "n_seen": (is_whole(self.n_seen, -1, len(ids)), f"-1 for all, or 0 to {len(ids)}"),
            "offset": (is_number(self.offset), "a finite number"),
        }
        check_rules(self, asked, rules)
        object.__setattr__(self, "weights", weights)
        object.__setattr__(self, "bias", bias.astype(weights.dtype))
        object.__setattr__(self, "class_ids", ids)
        object.__setattr__(self, "n_seen", len(ids) if self.n_seen < 0 else self.n_seen)

    def add(self, rows: Any, class_ids: Sequence[str]) -> LinearHead:
        """The head with more classes.

        Parameters
        ----------
        rows : array, shape (U, d) or (U, d + 1)
            With a last column, that is the bias; as ``inject`` gives them.
        class_ids : sequence of str, length U
        """
        d = self.weights.shape[1]
        new = as_rows(rows, _ASKED, "rows")
        if new.shape[1] not in (d, d + 1):
            seen = f"they have width {new.shape[1]}, the head {d}"
            raise UsageError(_ASKED, seen, "Give its width, or one more for the bias.")
        bias = new[:, d] if new.shape[1] > d else np.zeros(len(new))
        return replace(
            self,
            weights=np.concatenate([self.weights, new[:, :d]]),
            bias=np.concatenate([self.bias, bias]),
            class_ids=(*self.class_ids, *_ids(class_ids, _ASKED)),
        )

    def decision_function(self, X: Any) -> Any:
        """Logits (N, K), of the kind of X.

        Raises
        ------
        UsageError
            For another width than the head's, and NaN or enormous values.
        """
        rows = as_rows(X, "classify with the head", "images", self.weights.shape[1])
        shift = self.bias - self.offset * (np.arange(len(self.class_ids)) < self.n_seen)
        S = ops.matmul_t(X if ops.is_torch(X) else rows, self.weights)
        return S + ops.cast(shift, S)

    def predict(self, X: Any) -> NDArray[np.str_]:
        """Id of the best class of each image, shape (N,)."""
        ids: NDArray[np.str_] = np.array(self.class_ids)
        found: NDArray[np.str_] = ids[ops.to_numpy(ops.argmax(self.decision_function(X)))]
        return found


def _ids(given: Sequence[str], asked: str) -> tuple[str, ...]:
    if isinstance(given, str) or not all(isinstance(i, str) for i in given):
        raise UsageError(asked, f"the class ids are {given!r:.80}", "Give a list of texts.")
    return tuple(given)
