"""Texts of a class weighed by how well they explain the images that are nearest to the class."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.errors import RecipeError
from byname.stage import Array, Batch, ClassTexts, Member, StageName, State, register
from byname.weigh.mean import class_weights
from byname.weigh.uncertainty import total_variance

__all__ = ["Bprw", "BprwParams"]

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
TILE = 4 << 20  # similarities at a time, and numbers of a block of classes
STREAMED = 4096  # images at a time, of those on disk
HELD = 64 << 20  # numbers of them that are held in memory
LIMIT = 30.0  # log variances are cut to this size: no division by zero, no overflow


@dataclass(frozen=True)
class BprwParams:
    """Which images count, how sharp the Gaussians are, and how strong the prior is."""

    top: int = 100
    tau2: float | None = None
    alpha: float = 100.0
    samples: int = 10
    power: float = 0.0
    tol: float = 1e-12
    max_iter: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        rules = {
            "top": (self.top >= 1, "1 or more"),
            "tau2": (self.tau2 is None or 0 < self.tau2 < np.inf, "a variance above 0, or none"),
            "alpha": (1 <= self.alpha < np.inf, "a finite number, 1 or more"),
            "samples": (self.samples >= 1, "1 or more"),
            "power": (0 <= self.power < np.inf, "a finite number, 0 or more"),
            "tol": (self.tol >= 0, "0 or more"),
            "max_iter": (self.max_iter >= 1, "1 or more"),
            "seed": (self.seed >= 0, "0 or more"),
        }
        for name, (fits, rule) in rules.items():
            if not fits:
                seen = f"{name} is {getattr(self, name)!r}"
                raise RecipeError("use 'bprw'", seen, f"It must be {rule}.")


@register
class Bprw(Member):
    """Bayesian prompt re-weighting: EM over the shares of Gaussians that sit at a class's texts.

    Formula, for class k with P texts t_p of given weights omega_p (summing to 1)::

        I_k     = the ``top`` images most similar to the class's mean text
        f_p(x)  = N(x | t_p, tau2 * I), that is exp(<x, t_p> / tau2) for unit rows
        pi      = omega at first, then until it settles
                  r_ip = pi_p f_p(x_i) / sum over q of pi_q f_q(x_i)
                  N_p  = c * sum over i in I_k of r_ip
                  pi_p = (N_p + (alpha - 1) P omega_p) / (c |I_k| + (alpha - 1) P)
        W_k     = sum over p of pi_p t_p                          (not brought to length one)

    with c = ``samples``. Each step raises, or leaves, the posterior c * sum_i log sum_p pi_p f_p +
    sum_p (alpha - 1) P omega_p log pi_p. Equal omega give the symmetric prior of the paper. One
    text has the share 1; identical texts keep omega.

    Where both the images and the texts come with variances (``log_var``, ``text_log_var``), the
    published form is used: f_p = N(x | t_p, diag exp(text_log_var_p)), c = 1, and each image gives
    ``samples`` draws from N(x_i, diag exp(log_var_i)), by noise that belongs to its rank in I_k,
    so that neither the order of images nor that of classes matters. An encoder without variances
    is the limit in which all draws of an image are the image: hence c = ``samples`` above, which
    keeps the published balance of data and prior.

    Falls back to omega (``mean``, before it is brought to length one) where there are no images.
    A text of length zero says nothing: it gets no share unless its class has no other.

    Shapes: X (N, D), texts (M, D) to ``weight_`` (M,), W (K, D). Time N*K*D for the nearest images
    and top*M*D for the densities (20 times that in the published form), which are worked off in
    blocks of classes; an EM step is top*M. No (N, K) array is made.

    Source: Chun et al., "Probabilistic Language-Image Pre-Training", ICLR 2025 (ProLIP), in the
    variant that needs no labels; tau2 and omega are ours. The paper's "few-shot" variant takes up
    to 50 labelled images of each class as I_k, and its figure of 75.8 on ImageNet is that one's.

    Parameters
    ----------
    top : int
        Images of a class, 100 as in the paper; all where there are fewer.
    tau2 : float, optional
        Variance of the Gaussians of an encoder without variances. By default 1 / scale, the
        reciprocal of the encoder's logit scale: then r is the encoder's own softmax over the
        texts. Ours, fixed by that reasoning.
    alpha : float
        Concentration of the prior on pi, 100 as in the paper. 1 is no prior.
    samples : int
        Draws of an image, 10 as in the paper.
    power : float
        With variances: omega_p is multiplied by u_p^-power, u_p the total variance of the text.
        0, the uniform prior, is the default; the paper's code has both.
    tol : float
        EM ends where the change of pi has a length below this: 1e-12 as in the paper.
    max_iter : int
        1000 steps at most, as in the paper.
    seed : int
        Of the draws.

    Attributes
    ----------
    weight_ : array, shape (M,)
        pi: summing to 1 over each class.
    effective_texts_ : array, shape (K,)
        exp(entropy) of pi of each class, between 1 and P.
    n_iter_ : int
        Steps until the last class had settled.
    form_ : {"isotropic", "variances"}

    Raises
    ------
    RecipeError
        For a parameter that does not fit.
    PromptError
        For classes without a text of positive weight, or log variances that are not a number.

    Examples
    --------
    >>> from byname.taxonomy import Taxonomy
    >>> texts = ClassTexts(np.eye(2), np.array([0, 0]), Taxonomy.from_names(["cat"]), scale=10.0)
    >>> batch = Batch(np.array([[0.96, 0.28], [0.8, 0.6], [1.0, 0.0]]))
    >>> Bprw(alpha=10.0).fit(batch, texts, State()).weight_.round(2).tolist()
    [0.81, 0.19]
    """

    stage: ClassVar[StageName] = "weigh"
    name = "bprw"
    needs = frozenset({"X"})
    uses: ClassVar[frozenset[str]] = frozenset({"log_var", "text_log_var"})
    Params = BprwParams
    params: BprwParams
    weight_: Floats

    def fit(self, batch: Batch, texts: ClassTexts, state: State) -> Self:
        """Find each class's nearest images, and the shares of its texts among them."""
        both = batch.log_var is not None and texts.text_log_var is not None
        self.form_ = "variances" if both else "isotropic"
        index, K = ops.to_numpy(texts.class_index), texts.n_classes
        prior = self._prior(texts, index)
        self.weight_, self.n_iter_ = prior.copy(), 0
        n = min(self.params.top, len(batch))
        if n:
            W = ops.unit(ops.segment_sum(texts.vectors, index, K, prior))
            near = _nearest(batch.X, W, n)
            batch, near = _held(batch, near)
            noise = self._noise(n, batch)
            for classes, rows in _blocks(prior, index, K, self._cost(n, batch)):
                F = self._densities(batch, texts, near[classes], rows, noise)
                share = np.where(rows >= 0, prior[rows], 0.0)
                pi, steps = self._em(F, share)
                self.weight_[rows[rows >= 0]] = pi[rows >= 0]
                self.n_iter_ = max(self.n_iter_, steps)
        self.effective_texts_ = _effective(self.weight_, index, K)
        self._n = n
        return self

    def apply(self, batch: Batch, texts: ClassTexts, state: State) -> Any:
        """W (K, D), not unit rows."""
        return ops.segment_sum(texts.vectors, texts.class_index, texts.n_classes, self.weight_)

    def report(self) -> dict[str, Any]:
        """How many texts count in a class, and how they were found; empty before ``fit``."""
        if not hasattr(self, "form_"):
            return {}
        return {
            "form": self.form_,
            "images_per_class": self._n,
            "steps": self.n_iter_,
            "effective_texts": {
                "mean": float(self.effective_texts_.mean()),
                "lowest": float(self.effective_texts_.min()),
            },
        }

    def _prior(self, texts: ClassTexts, index: Ints) -> Floats:
        """omega (M,): 0 for texts of length zero beside others."""
        omega, used = class_weights(texts), index >= 0
        extent = np.abs(ops.to_numpy(texts.vectors)).max(axis=1, initial=0)
        wanted = omega * (extent > 0)
        # Made where it is not used, too: it refuses what is no number.
        u = total_variance(texts.text_log_var) if self.form_ == "variances" else None
        if u is not None and self.params.power:
            u = np.maximum(u, np.finfo(float).tiny)
            least = np.full(texts.n_classes, np.inf)
            np.minimum.at(least, index[used], u[used])
            wanted[used] *= (u[used] / least[index[used]]) ** -self.params.power
        total = np.bincount(index[used], wanted[used], minlength=texts.n_classes)
        known = used & (total[index] > 0)
        omega[known] = wanted[known] / total[index[known]]
        return omega

    def _cost(self, n: int, batch: Batch) -> tuple[int, int]:
        """Numbers that a class holds for its images, and for each of its texts."""
        D = int(batch.X.shape[1])
        if self.form_ == "isotropic":
            return n * D, D + n
        draws = n * self.params.samples
        return 2 * draws * D, 2 * D + draws

    def _noise(self, n: int, batch: Batch) -> Floats:
        """Standard normal numbers (n, samples, D), the same for all classes."""
        shape = (n if self.form_ == "variances" else 0, self.params.samples, batch.X.shape[1])
        return np.random.default_rng(self.params.seed).standard_normal(shape)

    def _densities(
        self, batch: Batch, texts: ClassTexts, near: Ints, rows: Ints, noise: Floats
    ) -> Floats:
        """f (C, n, P) of C classes over the largest of each item; 0 beside the P texts of one."""
        if self.form_ == "isotropic":
            tau2 = self.params.tau2 or 1 / texts.scale
            X = ops.as_float(_rows(batch.X, near))
            T = ops.as_float(_rows(texts.vectors, np.maximum(rows, 0)))
            F: Floats = (X @ T.transpose(0, 2, 1)).astype(np.float64)
            F /= tau2
        else:
            F = _with_variances(batch, texts, near, np.maximum(rows, 0), noise)
        F += np.where(rows >= 0, 0.0, -np.inf)[:, None, :]
        F -= F.max(axis=2, keepdims=True)
        np.exp(F, out=F)
        return F

    def _em(self, F: Floats, omega: Floats) -> tuple[Floats, int]:
        """Shares pi (C, P), each class until it settles, and the number of steps."""
        p, copies = self.params, 1 if self.form_ == "variances" else self.params.samples
        pseudo = (p.alpha - 1) * omega * (omega > 0).sum(axis=1, keepdims=True)
        total = copies * F.shape[1] + pseudo.sum(axis=1, keepdims=True)
        out, left, pi = omega.copy(), np.arange(len(F)), omega
        steps = 0
        while steps < p.max_iter:
            steps += 1
            mixed = np.maximum((F @ pi[:, :, None])[:, :, 0], np.finfo(float).tiny)
            counts = pi * ((1 / mixed)[:, None, :] @ F)[:, 0]
            new = (copies * counts + pseudo) / total
            moving = np.linalg.norm(new - pi, axis=1) >= p.tol
            out[left], pi = new, new
            if not moving.any():
                break
            if not moving.all():
                F, pi, pseudo, total, left = (a[moving] for a in (F, pi, pseudo, total, left))
        return out, steps


def _with_variances(
    batch: Batch, texts: ClassTexts, near: Ints, rows: Ints, noise: Floats
) -> Floats:
    """log N(draw | t_p, sigma2_p) (C, draws, P), but for a constant of each draw."""
    X, T = (_rows(v, i).astype(np.float64) for v, i in ((batch.X, near), (texts.vectors, rows)))
    spread = np.exp(0.5 * _log_variance(batch.log_var, near))
    X = (X[:, :, None] + spread[:, :, None] * noise).reshape(len(X), -1, X.shape[2])
    # Measured from the class's first text: the squares below stay small.
    X, T = X - T[:, :1], T - T[:, :1]
    log_var = _log_variance(texts.text_log_var, rows)
    precision = np.exp(-log_var)
    both = np.concatenate([T * precision, -0.5 * precision], axis=2)
    own = -0.5 * (T * T * precision + log_var).sum(axis=2)
    return np.asarray(np.concatenate([X, X * X], axis=2) @ both.transpose(0, 2, 1) + own[:, None])


def _rows(x: Array, index: Ints) -> NDArray[Any]:
    """x[index] (..., D) as a NumPy array."""
    return ops.to_numpy(ops.take_rows(x, index))


def _log_variance(log_var: Array, index: Ints) -> Floats:
    return np.clip(_rows(log_var, index).astype(np.float64), -LIMIT, LIMIT)


def _nearest(X: Array, W: Array, n: int) -> Ints:
    """The n rows (K, n) of X (N, D) most similar to each row of W (K, D), best first."""
    K, N = int(W.shape[0]), int(X.shape[0])
    if ops.is_stored(X):
        return _nearest_stored(X, ops.to_numpy(W), n)
    W = ops.cast(ops.as_float(W), ops.as_float(X[:0]))
    found = np.empty((K, n), np.intp)
    for part in ops.blocks(K, max(1, TILE // N)):
        S = ops.to_numpy(ops.matmul_t(W[part], X))
        least = np.partition(S, N - n, axis=1)[:, [N - n]]
        chosen = np.flatnonzero(least <= S)
        if (np.bincount(chosen // N, minlength=len(S)) == n).all():
            best = (chosen % N).reshape(len(S), n)
            order = np.argsort(-np.take_along_axis(S, best, axis=1), axis=1, kind="stable")
            found[part] = np.take_along_axis(best, order, axis=1)
        else:  # more images are tied with the last one than there is room for, or no number
            found[part] = ops.topk(S, n)[1]
    return found


def _nearest_stored(X: Any, W: NDArray[Any], n: int) -> Ints:
    """:func:`_nearest` in one pass over vectors on disk."""
    index = np.zeros((len(W), 0), np.intp)
    best = np.zeros((len(W), 0), np.float32)
    for part in ops.blocks(len(X), max(n, min(STREAMED, TILE // len(W)))):
        here = np.broadcast_to(np.arange(part.start, part.stop), (len(W), part.stop - part.start))
        # Those before stand first, so that among equals the lower place stays.
        best = np.concatenate([best, ops.matmul_t(W, X[part]).astype(np.float32)], axis=1)
        index = np.concatenate([index, here], axis=1)
        best, chosen = ops.topk(best, n)
        index = np.take_along_axis(index, chosen, axis=1)
    return index


def _held(batch: Batch, near: Ints) -> tuple[Batch, Ints]:
    """Of vectors on disk those that are near to a class, in memory, and their places there."""
    if not ops.is_stored(batch.X):
        return batch, near
    rows, place = np.unique(near, return_inverse=True)
    if rows.size * int(batch.X.shape[1]) > HELD:
        return batch, near
    log_var = None if batch.log_var is None else ops.take_rows(batch.log_var, rows)
    return replace(batch, X=batch.X[rows], log_var=log_var), place.reshape(near.shape)


def _blocks(
    prior: Floats, index: Ints, K: int, cost: tuple[int, int]
) -> Iterator[tuple[Ints, Ints]]:
    """Classes (C,) of about as many texts each, and their rows (C, P), -1 beside them.

    Texts without a prior share are left out, and so are classes with a single text.
    """
    used = np.flatnonzero(prior > 0)
    used = used[np.argsort(index[used], kind="stable")]
    count = np.bincount(index[used], minlength=K)
    first = np.cumsum(count) - count
    order = np.argsort(-count, kind="stable")
    order = order[count[order] > 1]
    start = 0
    while start < len(order):
        P = int(count[order[start]])
        classes = order[start : start + max(1, TILE // (cost[0] + P * cost[1]))]
        start += len(classes)
        place = np.arange(P)
        inside = place < count[classes][:, None]
        yield (
            classes,
            np.where(inside, used[np.where(inside, first[classes][:, None] + place, 0)], -1),
        )


def _effective(weight: Floats, index: Ints, K: int) -> Floats:
    used = (index >= 0) & (weight > 0)
    w = weight[used]
    return np.asarray(np.exp(-np.bincount(index[used], w * np.log(w), minlength=K)))
