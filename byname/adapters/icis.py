"""ICIS: rows for new classes in an existing linear head, from their descriptions alone."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.adapters.linear_head import LinearHead
from byname.adapters.ridge import Affine, check_ridge, fit_ridge
from byname.adapters.rows import Adapter, as_rows, check_rules, is_number, is_whole, paired
from byname.adapters.training import AdamW, Params, check_loss, cosine_loss, linear_init
from byname.errors import UsageError

__all__ = ["Icis", "LinearHead", "RidgeInjector", "inject"]

Array = NDArray[Any]
FEW = 30
_ASKED = "inject classes into the head"


class _Injector(Adapter, ABC):
    """Descriptions of classes to rows of a head, rescaled to the mean length of the seen rows."""

    length_: float
    n_features_in_: int

    def transform(self, A: Any) -> Array:
        """Rows (U, w) for descriptions (U, a), each of length ``length_``."""
        self._need_fit("length_", _ASKED)
        rows = as_rows(A, _ASKED, "descriptions", self.n_features_in_)
        made: Array = ops.unit(self._direction(rows)).astype(np.float32, copy=False)
        return made * np.float32(self.length_)

    @abstractmethod
    def _direction(self, A: Array) -> Array:
        """Rows (U, w) whose length does not count."""

    def _pairs(self, A: Any, W: Any) -> tuple[Array, Array]:
        X, Y = paired(A, W, _ASKED, ("descriptions of seen classes", "rows of the head"), 2)
        if len(X) < FEW:
            warnings.warn(
                f"The head has {len(X)} classes: with fewer than about {FEW} the rows of new ones "
                "are hardly better than a guess.",
                stacklevel=3,
            )
        return X, Y


class RidgeInjector(_Injector):
    """The baseline: ridge regression from descriptions to rows, in closed form.

    Parameters
    ----------
    ridge : float or "auto"
        As in ``LinearAligner``: by default the strength of least leave-one-class-out error.

    Attributes
    ----------
    ridge_ : float
    length_ : float
        Mean length of the seen rows, which every new row gets.

    Examples
    --------
    >>> A = np.random.default_rng(0).standard_normal((40, 5))
    >>> W = A @ np.diag([1.0, 2.0, 3.0, 4.0, 5.0])
    >>> new = RidgeInjector().fit(A, W).transform([[1.0, 0.0, 0.0, 0.0, 0.0]])
    >>> np.abs(new / np.linalg.norm(new)).round(3).tolist()
    [[1.0, 0.0, 0.0, 0.0, 0.0]]
    """

    _derived: ClassVar[frozenset[str]] = frozenset({"_map"})
    _map: Affine
    ridge_: float

    def __init__(self, ridge: float | Literal["auto"] = "auto") -> None:
        self.ridge = ridge

    def fit(self, A: Any, W: Any, A_unseen: Any = None) -> Self:
        """From descriptions (S, a) and rows (S, w) of seen classes; the others take no part."""
        check_ridge(self.ridge, _ASKED)
        X, Y = self._pairs(A, W)
        found = fit_ridge(X, Y, self.ridge)
        self._learn(_map=found, ridge_=found.ridge, length_=_length(Y), n_features_in_=X.shape[1])
        return self

    def _direction(self, A: Array) -> Array:
        made: Array = A @ self._map.weight + self._map.bias
        return made


class Icis(_Injector):
    """Two autoencoders that share their middle: one for descriptions, one for rows of the head.

    Formula, with E a linear map and ReLU, D a linear map, and cos averaged over a batch::

        loss = 1 - cos(D_a(E_a(a)), a) + 1 - cos(D_w(E_w(w)), w)
             + 1 - cos(D_w(E_a(a)), w) + 1 - cos(D_a(E_w(w)), a)
        new row = length of seen rows * unit(D_w(E_a(a_u)))

    The first term also uses the descriptions of the unseen classes. Training ends when the loss of
    an epoch falls by less than ``slope`` five times in a row; the last step is kept, never an epoch
    chosen on labels. Both inputs are divided by one number each to entries of size 1 (ours).

    Complexity: 12 * (S + U) * hidden * (a + w) operations an epoch and as many for Adam's updates
    at each of its S / batch steps.

    Parameters
    ----------
    hidden : int
        2048, as in the paper's code.
    rate : float
        1e-3, ours: as good in tens of epochs as the 1e-5 of the paper's code in hundreds.
    beta1 : float
        0.9, as published.
    batch : int
        16, as published.
    epochs : int
        1000 at most, as published.
    slope : float
        2e-3, as published.
    patience : int
        5, as published.
    seed : int

    Attributes
    ----------
    losses_ : list of float
        Sum of the four terms, by epoch; at most 8.
    length_ : float
        Mean length of the seen rows, which every new row gets (ours: the loss knows no lengths).

    Notes
    -----
    Source: Christensen et al., "Image-free Classifier Injection for Zero-Shot Classification"
    (ICIS), ICCV 2023.

    Examples
    --------
    >>> A = np.random.default_rng(0).standard_normal((40, 4))
    >>> model = Icis(hidden=32, epochs=3).fit(A, A @ np.ones((4, 3)))
    >>> len(model.losses_), model.transform(A[:2]).shape
    (3, (2, 3))
    """

    _derived: ClassVar[frozenset[str]] = frozenset({"_params", "_spread"})
    _params: Params
    _spread: float
    losses_: list[float]

    def __init__(
        self,
        hidden: int = 2048,
        rate: float = 1e-3,
        beta1: float = 0.9,
        batch: int = 16,
        epochs: int = 1000,
        slope: float = 2e-3,
        patience: int = 5,
        seed: int = 0,
    ) -> None:
        self.hidden = hidden
        self.rate = rate
        self.beta1 = beta1
        self.batch = batch
        self.epochs = epochs
        self.slope = slope
        self.patience = patience
        self.seed = seed

    def fit(self, A: Any, W: Any, A_unseen: Any = None) -> Self:
        """Train on seen classes, and on the descriptions of unseen ones where they are given.

        Parameters
        ----------
        A : array, shape (S, a)
            Descriptions: attributes, or vectors of texts.
        W : array, shape (S, w)
            Rows of the head, the bias as one more column.
        A_unseen : array, shape (U, a), optional

        Raises
        ------
        UsageError
            For settings out of range, shapes that do not fit, NaN or enormous values, and a rate
            with which training diverges.

        Warns
        -----
        UserWarning
            For fewer than 30 seen classes.
        """
        self._check()
        X, Y = self._pairs(A, W)
        more = as_rows(A_unseen, _ASKED, "descriptions", X.shape[1]) if A_unseen is not None else X
        length, spread = _length(Y), _size(X)
        X, Z, Y = (
            (rows / size).astype(np.float32)
            for rows, size in ((X, spread), (more, spread), (Y, _size(Y)))
        )
        Z = X if A_unseen is None else np.concatenate([X, Z])
        rng = np.random.default_rng(self.seed)
        params = _initial(rng, X.shape[1], Y.shape[1], self.hidden)
        with np.errstate(all="ignore"):  # what diverges is reported
            losses = self._train(params, (X, Y, Z), rng)
        self._learn(
            _params=params,
            _spread=spread,
            losses_=losses,
            length_=length,
            n_features_in_=X.shape[1],
        )
        return self

    def _train(
        self, params: Params, given: tuple[Array, Array, Array], rng: np.random.Generator
    ) -> list[float]:
        X, Y, Z = given
        adam = AdamW(params, self.rate, betas=(self.beta1, 0.999))
        losses: list[float] = []
        flat = 0
        steps = -(-len(X) // self.batch)
        units = [np.asarray(ops.unit(rows)) for rows in (X, Y, Z)]
        while len(losses) < self.epochs and flat < self.patience:
            total = 0.0
            seen = np.array_split(rng.permutation(len(X)), steps)
            every = np.array_split(rng.permutation(len(Z)), steps)
            for s, e in zip(seen, every, strict=True):
                rows = (X[s], Y[s], Z[e])
                loss, grads = _losses(params, rows, (units[0][s], units[1][s], units[2][e]))
                adam.step(grads)
                total += loss * len(s)
            losses.append(total / len(X))
            check_loss(_ASKED, len(losses), self.rate, losses[-1], params)
            flat = flat + 1 if len(losses) > 1 and losses[-2] - losses[-1] < self.slope else 0
        # The loss of an epoch is from before its last step.
        made = float(_rows(params, X).sum(dtype=np.float64))
        check_loss(_ASKED, len(losses), self.rate, made, params)
        return losses

    def _direction(self, A: Array) -> Array:
        return _rows(self._params, (A / self._spread).astype(np.float32))

    def _check(self) -> None:
        rules = {
            name: (is_whole(getattr(self, name), 1), "a whole number, 1 or more")
            for name in ("hidden", "batch", "epochs", "patience")
        }
        rules |= {
            "rate": (is_number(self.rate) and self.rate > 0, "a number above 0"),
            "beta1": (is_number(self.beta1) and 0 <= self.beta1 < 1, "0 or more, below 1"),
            "slope": (is_number(self.slope) and self.slope >= 0, "0 or more"),
            "seed": (is_whole(self.seed, 0), "a whole number, 0 or more"),
        }
        check_rules(self, _ASKED, rules)


def _length(rows: Array) -> float:
    return float(np.linalg.norm(rows.astype(np.float64), axis=1).mean())


def _rows(p: Params, descriptions: Array) -> Array:
    made: Array = np.maximum(descriptions @ p["Ea"] + p["ea"], 0) @ p["Dw"] + p["dw"]
    return made


def _size(rows: Array) -> float:
    return float(np.sqrt(np.mean(np.square(rows, dtype=np.float64)))) or 1.0


def _initial(rng: np.random.Generator, a: int, w: int, hidden: int) -> Params:
    made: Params = {}
    for name, size in {
        "Ea": (a, hidden),
        "Da": (hidden, a),
        "Ew": (w, hidden),
        "Dw": (hidden, w),
    }.items():
        made[name], made[name.lower()] = linear_init(rng, *size)
    return made


def _losses(
    p: Params, rows: tuple[Array, Array, Array], wanted: tuple[Array, Array, Array]
) -> tuple[float, Params]:
    """The four losses and their gradients; rows and targets of seen a, seen w, any a."""
    x, y, z = rows
    hidden = [
        np.maximum(part @ p[E] + p[E.lower()], 0) for part, E in ((x, "Ea"), (y, "Ew"), (z, "Ea"))
    ]
    grads: Params = {name: np.zeros_like(value) for name, value in p.items()}
    back = [np.zeros_like(h) for h in hidden]
    loss = 0.0
    for source, D, target in ((2, "Da", 2), (1, "Dw", 1), (0, "Dw", 1), (1, "Da", 0)):
        h = hidden[source]
        term, g = cosine_loss(h @ p[D] + p[D.lower()], wanted[target])
        loss += term
        grads[D] += h.T @ g
        grads[D.lower()] += g.sum(axis=0)
        back[source] += g @ p[D].T
    for part, E, h, g in zip((x, y, z), ("Ea", "Ew", "Ea"), hidden, back, strict=True):
        g *= h > 0
        grads[E] += part.T @ g
        grads[E.lower()] += g.sum(axis=0)
    return loss, grads


def inject(
    head_weights: Any,
    head_bias: Any,
    seen_descriptions: Any,
    unseen_descriptions: Any,
    method: Literal["icis", "ridge"] | Icis | RidgeInjector = "icis",
) -> Array:
    """Rows for classes that a linear head was never trained on; no image takes part.

    Parameters
    ----------
    head_weights : array, shape (S, d)
    head_bias : array, shape (S,), or None
    seen_descriptions : array, shape (S, a)
        Of the head's classes: attributes, or text vectors of a dual encoder.
    unseen_descriptions : array, shape (U, a)
    method : {"icis", "ridge"}, Icis or RidgeInjector

    Returns
    -------
    array, shape (U, d + 1)
        With the bias as the last column; (U, d) where the head has none.

    Warns
    -----
    UserWarning
        For fewer than 30 seen classes.

    Examples
    --------
    >>> A = np.random.default_rng(0).standard_normal((40, 5))
    >>> inject(2 * A[:30], A[:30, 0], A[:30], A[30:], "ridge").shape
    (10, 6)
    """
    known: dict[Any, type[Icis] | type[RidgeInjector]] = {"icis": Icis, "ridge": RidgeInjector}
    if not isinstance(method, _Injector):
        if method not in known:
            raise UsageError(_ASKED, f"method is {method!r}", "Use icis or ridge.")
        method = known[method]()
    W = as_rows(head_weights, _ASKED, "weights of the head")
    if head_bias is not None:
        bias = ops.to_numpy(head_bias)
        if bias.shape != (len(W),):
            seen = f"{len(W)} weights, biases of shape {bias.shape}"
            raise UsageError(_ASKED, seen, "Give one bias a class, or None.")
        W = np.column_stack([W, as_rows(bias[:, None], _ASKED, "biases of the head")])
    return method.fit(seen_descriptions, W, unseen_descriptions).transform(unseen_descriptions)
