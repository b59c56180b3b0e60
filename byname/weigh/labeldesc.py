"""A head trained on the texts of the classes, and used on images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from byname import ops
from byname.errors import RecipeError
from byname.stage import Batch, ClassTexts, Member, StageName, State, register
from byname.weigh.mean import class_weights

__all__ = ["Labeldesc", "LabeldescParams"]

Head = Literal["ridge", "logistic", "prototype"]
Floats = NDArray[np.float64]
GRID = tuple(10.0 ** (-4 + step / 2) for step in range(9))  # ridge strengths that "auto" tries
ROWS = 4096  # texts at a time
LEFT_OUT = 2048  # texts whose leave-one-out errors are summed up, at most
IMAGES = 5  # images a class at which half of their mean counts
MAX_ITER = 200  # steps of the logistic head


@dataclass(frozen=True)
class LabeldescParams:
    """Which head, how much it is held back, and whether both modalities are centred."""

    head: Head = "ridge"
    strength: float | Literal["auto"] = "auto"
    center: bool = True

    def __post_init__(self) -> None:
        s = self.strength
        number = isinstance(s, int | float) and not isinstance(s, bool) and 0 < s < np.inf
        rules = {
            "head": (self.head in get_args(Head), "'ridge', 'logistic' or 'prototype'"),
            "strength": (s == "auto" or number, "a number above 0, or 'auto'"),
        }
        for name, (fits, rule) in rules.items():
            if not fits:
                seen = f"{name} is {getattr(self, name)!r}"
                raise RecipeError("use 'labeldesc'", seen, f"It must be {rule}.")


@register
class Labeldesc(Member):
    """LabelDesc training: learn to tell the classes' texts apart, then classify images.

    Formula, with omega_m the weight of text m within its class (summing to 1), v_m = omega_m / K,
    so that all classes weigh the same however many texts they have, and m_k = sum omega_m t_m::

        mu   = mean of the m_k
        z_m  = (t_m - mu) / sqrt(sum of v_m |t_m - mu|^2)
        p_k  = unit(m_k - mu)                                                  the prototype
        ridge:     min sum_m v_m |y_m - b - B z_m|^2 + strength |B|^2         y_m one-hot (K,)
        logistic:  min sum_m v_m cross-entropy(y_m, softmax(b + B z_m)) + strength / 2 |B|^2
        prototype: B = p;  unit(m_k) without ``center``
        c    = root mean square length of the rows of B that belong to classes of several texts
        A_k  = B_k / c;  p_k for a class with a single text
        W_k  = A_k - s <nu, A_k> nu / |nu|^2,   nu = mean of the images, s = N / (N + 5 K)

    A ridge strength of "auto" is the one of least leave-one-text-out error, sum over m of
    v_m |y_m - f^(-m)(z_m)|^2 with f^(-m) trained without text m, over the texts of classes that
    have several (over 2048 of them, evenly drawn, where there are more). It comes in closed form
    from one eigendecomposition of a (D, D) matrix. The intercept b is for training only; under
    ridge, whose classes are balanced, it is the same for all of them.

    The last line (with ``center`` only) centres the images: the part of a class vector that the
    mean image has is taken out, so that the mean score over the images, hence the advantage that a
    class has with every image alike, is (1 - s) of what it was. s keeps a few images from being
    taken for the mean of many: one image alone is not wiped out.

    Falls back: to the prototypes where no class has two texts; without images to centred texts
    alone; with one class, or identical texts, to the uncentred prototypes. With
    ``head=prototype, center=false`` W is that of ``mean``.

    Shapes: texts (M, D) to ``weight_`` (M,), that of ``mean``, and W (K, D), not unit rows. Ridge:
    M*D^2 in float64, 4096 texts at a time, D^3 once, and 9 * 2048*D*min(K, D) at most to choose
    the strength. Logistic: 2*M*K*D a step, up to 200 steps.

    Source: Gao et al., "The Benefits of Label-Description Training for Zero-Shot Text
    Classification", EMNLP 2023, who fine-tune a language model on such texts. The heads on frozen
    vectors, the centring and everything about images are ours.

    Parameters
    ----------
    head : {"ridge", "logistic", "prototype"}
        Ridge is ours: its strength needs neither labels nor a validation set.
    strength : float or "auto"
        For ridge and logistic, in units of the texts' variance. "auto" is leave-one-text-out over
        10^-4, 10^-3.5, ..., 1 for ridge, and 1 / M (C = 1) for logistic. Ours.
    center : bool
        Whether the images are centred, and the texts under ``head=prototype`` (the other heads
        always centre them); ours. The mean of the images takes the classes to be mixed: where
        nearly all images are of one class, switch it off.

    Attributes
    ----------
    weight_ : array, shape (M,)
        As ``mean`` has it; W is not a weighted sum of the texts.
    W_ : array, shape (K, D)
    strength_ : float
        Strength used; 0 where no head was trained.
    loo_ : dict of float to float
        Leave-one-text-out error of each strength tried; empty where none was.

    Raises
    ------
    RecipeError
        For a parameter that does not fit.
    PromptError
        For classes without a text of positive weight.

    Examples
    --------
    >>> from byname.taxonomy import Taxonomy
    >>> vectors = ops.unit(np.array([[3.0, 1.0, 1.0], [3.0, 1.0, -1.0], [3.0, -1.0, 1.0],
    ...                              [3.0, -1.0, -1.0]]))
    >>> texts = ClassTexts(vectors, np.array([0, 0, 1, 1]), Taxonomy.from_names(["cat", "dog"]))
    >>> batch = Batch(np.empty((0, 3)))
    >>> (Labeldesc().fit(batch, texts, State()).apply(batch, texts, State()) + 0).round(3).tolist()
    [[0.0, 1.0, 0.0], [0.0, -1.0, 0.0]]
    """

    stage: ClassVar[StageName] = "weigh"
    name = "labeldesc"
    Params = LabeldescParams
    params: LabeldescParams
    weight_: Floats

    def fit(self, batch: Batch, texts: ClassTexts, state: State) -> Self:
        """Train on the texts; the images give their mean alone."""
        self.weight_ = class_weights(texts)
        self.strength_ = 0.0
        self.loo_: dict[float, float] = {}
        data, head = _Texts(texts, self.weight_), self.params.head
        if data.alike or (head == "prototype" and not self.params.center):
            A = ops.unit(data.means)
        elif head == "prototype" or not data.several.any():
            A = data.prototypes
        else:
            A = _scaled(self._ridge(data) if head == "ridge" else self._logistic(data), data)
        if self.params.center and len(batch):
            A = _without_mean(A, batch)
        self.W_ = A
        return self

    def apply(self, batch: Batch, texts: ClassTexts, state: State) -> Any:
        """W (K, D), not unit rows."""
        return ops.cast(self.W_, ops.as_float(texts.vectors))

    def report(self) -> dict[str, Any]:
        """The head, its strength, and how well texts were told that it had not seen.

        Empty before ``fit``.
        """
        if not hasattr(self, "W_"):
            return {}
        tried = [{"strength": s, "loo_error": e} for s, e in self.loo_.items()]
        return {"head": self.params.head, "strength": self.strength_, "tried": tried}

    def _ridge(self, data: _Texts) -> Floats:
        """B (K, D): one solve in the eigenbasis of the texts' covariance."""
        values, Q = np.linalg.eigh(data.covariance())
        values = np.maximum(values, 0)
        if self.params.strength == "auto":
            errors = _loo(data, values, Q, GRID)
            self.loo_ = dict(zip(GRID, errors.tolist(), strict=True))
            # Among equals the strongest, whatever rounding says.
            self.strength_ = max(s for s, e in self.loo_.items() if e <= min(errors) * (1 + 1e-9))
        else:
            self.strength_ = float(self.params.strength)
        return np.asarray((data.targets @ Q / (values + self.strength_)) @ Q.T)

    def _logistic(self, data: _Texts) -> Floats:
        """B (K, D), by L-BFGS; texts are seen 4096 at a time."""
        K, D = data.means.shape
        data.spread = float(np.sqrt(sum(v @ (z * z).sum(axis=1) for z, v, _ in data.blocks())))
        auto = self.params.strength == "auto"
        self.strength_ = 1 / len(data.rows) if auto else float(self.params.strength)

        def loss(flat: Floats) -> tuple[float, Floats]:
            B, b = flat[: K * D].reshape(K, D), flat[K * D :]
            value = 0.5 * self.strength_ * float((B * B).sum())
            slope, drift = self.strength_ * B, np.zeros(K)
            for z, v, y in data.blocks():
                L = ops.log_softmax(z @ B.T + b)
                own = np.arange(len(y)), y
                value -= float(v @ L[own])
                G = np.exp(L)
                G[own] -= 1
                G *= v[:, None]
                slope += G.T @ z
                drift += G.sum(axis=0)
            return value, np.append(slope, drift)

        options = {"maxiter": MAX_ITER, "gtol": 1e-9, "ftol": 1e-14}
        start = np.zeros(K * (D + 1))
        found = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", options=options)
        return np.asarray(found.x[: K * D].reshape(K, D))


class _Texts:
    """Centred and scaled texts in balanced classes, a block at a time in float64."""

    def __init__(self, texts: ClassTexts, omega: Floats) -> None:
        self.K, self.omega = texts.n_classes, omega
        self.index = ops.to_numpy(texts.class_index)
        self.vectors = ops.as_float(ops.to_numpy(texts.vectors))
        self.rows = np.flatnonzero(omega > 0)
        self.several = np.bincount(self.index[self.rows], minlength=self.K) > 1
        means = ops.segment_sum(self.vectors, self.index, self.K, omega)
        self.means = means.astype(np.float64)
        self.mu = self.means.mean(axis=0)
        self.prototypes = ops.unit(self.means - self.mu)
        # What is left of identical texts, or of a single class, is rounding and no direction.
        self.alike = bool((np.abs(self.means - self.mu) < 1e-6).all())
        self.spread = 1.0

    @property
    def targets(self) -> Floats:
        """sum over m of v_m z_m (y_m - 1/K)^T (K, D)."""
        return np.asarray((self.means - self.mu) / (self.K * self.spread))

    def blocks(
        self, rows: NDArray[np.intp] | None = None
    ) -> Iterator[tuple[Floats, Floats, NDArray[np.intp]]]:
        """z (m, D), v (m,) and classes (m,) of the texts that count, or of ``rows``."""
        rows = self.rows if rows is None else rows
        for part in ops.blocks(len(rows), ROWS):
            some = rows[part]
            z = (self.vectors[some] - self.mu) / self.spread
            yield z, self.omega[some] / self.K, self.index[some]

    def covariance(self) -> Floats:
        """sum over m of v_m z_m z_m^T (D, D), of trace 1; from here on the z are scaled."""
        out = np.zeros((len(self.mu), len(self.mu)))
        for z, v, _ in self.blocks():
            out += (z * v[:, None]).T @ z
        variance = float(np.trace(out))
        self.spread = float(np.sqrt(variance))
        return np.asarray(out / variance)


def _loo(data: _Texts, values: Floats, Q: Floats, grid: tuple[float, ...]) -> Floats:
    """Leave-one-text-out error of each strength, over texts of classes that have several.

    With f the fit to all texts, y_m - f^(-m)(z_m) = (y_m - f(z_m)) / (1 - h_m), where
    h_m = v_m (1 + z_m^T (C + strength)^-1 z_m) is the share of text m in its own prediction.
    """
    beta = data.targets @ Q  # (K, D)
    K = data.K
    errors = np.zeros(len(grid))
    rows = data.rows[data.several[data.index[data.rows]]]
    some = np.linspace(0, len(rows) - 1, min(LEFT_OUT, len(rows))).astype(np.intp)
    for z, v, y in data.blocks(rows[some]):
        u = z @ Q
        for g, strength in enumerate(grid):
            shrunk = u / (values + strength)
            own = np.einsum("md,md->m", shrunk, beta[y])
            f = shrunk @ beta.T if len(values) >= K else None
            if f is not None:
                squares, sums = np.einsum("mk,mk->m", f, f), f.sum(axis=1)
            else:
                squares = np.einsum("md,md->m", shrunk @ (beta.T @ beta), shrunk)
                sums = shrunk @ beta.sum(axis=0)
            # |y - 1/K - f|^2 with a single 1 in y
            residual = 1 - 1 / K - 2 * own + 2 * sums / K + squares
            h = v * (1 + np.einsum("md,md->m", shrunk, u))
            errors[g] += float(v @ (residual / np.maximum(1 - h, 1e-12) ** 2))
    return errors


def _scaled(B: Floats, data: _Texts) -> Floats:
    """Rows of about length one; prototypes for the classes with a single text."""
    lengths = (B[data.several] ** 2).sum(axis=1)
    c = float(np.sqrt(lengths.mean()))
    return np.where(data.several[:, None], B / (c or 1.0), data.prototypes)


def _without_mean(A: Floats, batch: Batch) -> Floats:
    """A (K, D) less most of what the mean image has of each row."""
    N, K = len(batch), len(A)
    nu = ops.segment_mean(batch.X, np.zeros(N, np.intp), 1)
    nu = ops.to_numpy(nu)[0].astype(np.float64)
    square = float(nu @ nu)
    if square < 1e-12:
        return A
    return A - (N / (N + IMAGES * K)) * np.outer(A @ nu, nu / square)
