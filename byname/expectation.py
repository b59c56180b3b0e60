"""What share of the answers is right, of all images and of each class, without a label.

Formula, with answers y, logits S before any member of the stage ``refine``, p_i = softmax(S_i), q_i
the mean of p over the 10 nearest neighbours of image i, and z_i the probabilities that the label-
free member ``auto`` makes of S (:mod:`byname.refine.auto`), which pools all images::

    image     m_i = T_iy - max over k != y of T_ik, in deviations of T_i over the classes, where
              T = S - the mean of each column
              P_i = logistic(a + b m_i + c logit q_iy + d logit z_iy)
    class k   recall as another view v sees it, v = q or z:
              R_k(v) = sum of v_ik over the images answered k / sum of v_ik over all images
              E_k = logistic(a' + b' margin_k + c' log share_k + d' logit R_k(q) + e' logit R_k(z))
              0 where no image is answered k
    overall   logistic(a" + b" logit(mean over i of P_i) + c" logit(mean over i, k of q_ik E_k))
    interval  logistic(logit E - 1.645 sqrt(l^2 + 1 / (n E (1 - E)))), with n images, to the same
              with + and h for l

margin_k is the class-wise matching margin (CMM) in deviations of an image's cosines; share_k the
share of answers k times the number of classes that are answered, counted by their entropy. A text
that is near to all images takes answers without knowing any image; in T it is level with the
others, whatever the logit scale. There are two sets of constants: for the best of S, and for
answers that a ``refine`` member changed; these are expected less surely, since the views of all
images are no longer another's.

Assumes that neighbours are of one class more often than not, that the logit scale is about the
encoder's own, and that the images show the listed classes. A group of images that is sound and has
the wrong name looks right to all of these signs. So the estimate is too high where texts hardly
tell the classes apart, which nothing here can notice, and the interval holds the truth of such
tasks in four cases of ten only.

Source: byname's own. That the agreement of two classifiers tells the accuracy: Jiang et al.,
Assessing Generalization of SGD via Disagreement, 2022; CMM: Shao et al., 2023. Constants are
fitted, and the spreads l and h measured with one family left out at a time, on made-up tasks and
nothing else, by ``benchmarks/diagnose_synthetic.py``; docs/expected-accuracy.md says what
was known of real data by then.

Cost: up to 20,000 images are looked at, fewer with more than 2,000 classes; among them every pair
is compared, in tiles, and ``auto`` runs. Neighbours of the last images are kept in memory, for the
next call with other classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.margins import cmm
from byname.refine.auto import Auto
from byname.refine.whole import Near, neighbours
from byname.stage import Batch, ClassTexts, State
from byname.taxonomy import Taxonomy

__all__ = ["Look", "Signals", "ahead", "centred", "changed", "interval", "look"]
__all__ += ["looked_at", "signals"]

Floats = NDArray[np.float64]
NEIGHBOURS = 10
SAMPLE = 20_000  # images that are looked at
CELLS = 40_000_000  # of them, times classes
LEAST = 2_000  # images, however many classes
# Fitted on made-up tasks by benchmarks/diagnose_synthetic.py; spread: one deviation, in logits.
Constants = dict[str, dict[str, float]]
TEXTS: Constants = {
    "image": {"one": -0.46, "margin": 1.21, "near": 0.35, "pooled": 0.31},
    "class": {"one": -0.16, "margin": 1.02, "share": 0.29, "near": 0.19, "pooled": 0.57},
    "overall": {"one": -0.08, "image": 0.94, "class": 0.13},
    "spread": {"overall low": 0.55, "overall high": 1.05, "class low": 0.73, "class high": 0.97},
}
POOLED: Constants = {
    "image": {"one": -0.14, "margin": 0.94, "near": 0.23, "pooled": 0.35},
    "class": {"one": 0.13, "margin": 0.44, "share": 0.59, "near": 0.16, "pooled": 0.64},
    "overall": {"one": -0.3, "image": 1.42, "class": 0.0},
    "spread": {"overall low": 1.22, "overall high": 2.07, "class low": 0.8, "class high": 1.34},
}
WIDE = 1.645  # deviations to either side of an interval that holds 9 of 10
EDGE = 0.02  # shares are cut here before their logit is taken


@dataclass(frozen=True)
class Signals:
    """Label-free signs of n images and K classes.

    ``cmm`` in cosines, -inf where ``count``, the images answered so, is 0; ``margin``, ``share``,
    ``near`` and ``pooled`` as the formula has them, the last two being R(q) and R(z); ``mass`` the
    sum of q as a share of all. ``image`` (n, 3) holds m, q_y and z_y of the images that were looked
    at, ``weight`` (n,) how much of all images each stands for; ``n`` counts all images.
    ``pooled_answers`` says that some answers are not the best of S.
    """

    cmm: Floats
    count: Floats
    margin: Floats
    share: Floats
    near: Floats
    pooled: Floats
    mass: Floats
    image: Floats
    weight: Floats
    n: float
    pooled_answers: bool

    @property
    def constants(self) -> Constants:
        """Those for these answers."""
        return POOLED if self.pooled_answers else TEXTS

    def image_signs(self) -> Floats:
        """Columns (n, 4) that the constants ``image`` weigh."""
        m, near, pooled = self.image.T
        return np.column_stack([np.ones(len(m)), np.clip(m, -3, 4), _logit(near), _logit(pooled)])

    def class_signs(self) -> Floats:
        """Columns (K, 5) that the constants ``class`` weigh."""
        return np.column_stack(
            [
                np.ones(len(self.count)),
                np.clip(self.margin, -1, 5),
                np.log(np.clip(self.share, 0.05, 20)),
                _logit(self.near),
                _logit(self.pooled),
            ]
        )

    def overall_signs(self, each: Floats, right: Floats) -> Floats:
        """The three numbers that the constants ``overall`` weigh."""
        p = np.clip([self.weight @ right, self.mass @ each], 0.005, 0.995)
        return np.array([1.0, *np.log(p / (1 - p))])

    def expected(self) -> Floats:
        """Expected accuracy of each class; 0 where no image is answered so."""
        found = _logistic(self.class_signs() @ [*self.constants["class"].values()])
        return np.where(self.count > 0, found, 0.0)

    def right(self) -> Floats:
        """Probability (n,) that the answer is right, of the images that were looked at."""
        return _logistic(self.image_signs() @ [*self.constants["image"].values()])

    def overall(self) -> float:
        """Expected accuracy of all images."""
        signs = self.overall_signs(self.expected(), self.right())
        return float(_logistic(signs @ [*self.constants["overall"].values()]))

    def intervals(self) -> Floats:
        """Low and high (K, 2) of the accuracy of each class, 9 of 10 times."""
        made = interval(self.expected(), self.mass * self.n, *self.spread("class"))
        return np.where(self.count[:, None] > 0, made, 0.0)

    def interval(self) -> tuple[float, float]:
        """Low and high of the accuracy of all images, 9 of 10 times."""
        found = interval(np.array(self.overall()), np.array(self.n), *self.spread("overall"))
        return float(found[0]), float(found[1])

    def spread(self, kind: str) -> tuple[float, float]:
        """Deviations in logits below and above the estimates of "overall" or "class"."""
        spread = self.constants["spread"]
        return spread[f"{kind} low"], spread[f"{kind} high"]


@dataclass(frozen=True)
class Look:
    """What the signs are made of: n images, with answer ``y`` and probabilities q and z (n, K).

    ``gap`` is an image's margin in cosines, ``m`` the one that the formula has, ``width`` the
    deviation of an image's cosines; ``cmm`` and ``count`` are of all images, and ``pooled_answers``
    says that some answers are not the best of S.
    """

    cmm: Floats
    count: NDArray[np.intp]
    y: NDArray[np.intp]
    gap: Floats
    m: Floats
    q: Floats
    z: Floats
    width: float
    pooled_answers: bool

    def signals(self, draw: Floats | None = None) -> Signals:
        """The signs; with ``draw`` (n,), as if image i had been there so many times."""
        K, rows = len(self.count), np.arange(len(self.y))
        weight = (self.count / np.maximum(np.bincount(self.y, minlength=K), 1))[self.y]
        if draw is not None:
            weight = weight * draw
        near, pooled = self.q[rows, self.y].astype(float), self.z[rows, self.y].astype(float)

        def total(values: Floats) -> Floats:
            return np.bincount(self.y, weight * values, minlength=K).astype(np.float64)

        count = total(np.ones(len(rows))) if draw is not None else self.count.astype(np.float64)
        n = float(weight.sum())
        p = count[count > 0] / n
        some = np.maximum(count, 1e-9)
        mean = total(self.gap) / some
        mass, mass_z = weight @ self.q, weight @ self.z
        same = float(weight @ pooled) / n
        return Signals(
            cmm=self.cmm if draw is None else np.where(count > 0, mean, -np.inf),
            count=count,
            margin=np.where(count > 0, mean, -1) / (self.width or 1.0),
            share=count / n * float(np.exp(-(p * np.log(p)).sum())),
            near=np.minimum(1, total(near) / np.maximum(mass, 1e-9)),
            # One image at the mean keeps a class of a few images from the ends.
            pooled=np.minimum(1, (total(pooled) + same) / (mass_z + 1)),
            mass=mass / n,
            image=np.column_stack([self.m, near, pooled]),
            weight=weight / n,
            n=n,
            pooled_answers=self.pooled_answers,
        )


def signals(
    X: Any, W: Any, S: Any, y: NDArray[np.intp] | None = None, rows: NDArray[np.intp] | None = None
) -> Signals:
    """Label-free signs of images and classes; see :func:`look` for the arguments.

    Examples
    --------
    >>> found = signals(np.eye(2), np.eye(2), 100 * np.eye(2))
    >>> found.cmm.tolist(), found.count.tolist()
    ([1.0, 1.0], [1.0, 1.0])
    """
    return look(X, W, S, y, rows).signals()


def look(
    X: Any, W: Any, S: Any, y: NDArray[np.intp] | None = None, rows: NDArray[np.intp] | None = None
) -> Look:
    """What neighbours, and all images together, say of the answers.

    Parameters
    ----------
    X : array, shape (N, D)
        Unit rows.
    W : array, shape (K, D)
        Class vectors; brought to length one.
    S : array, shape (N, K)
        Logits, at the encoder's own scale, before images are pooled.
    y : array of int, shape (N,), optional
        The answers; by default the best of S.
    rows : array of int, optional
        S holds these images alone: what ``looked_at(y, K)`` gives.
    """
    W, K = ops.unit(W), int(S.shape[1])
    y = ops.to_numpy(ops.argmax(S)) if y is None else y
    values, count = cmm((X, W), y)
    pick = looked_at(y, K) if rows is None else rows
    S = ops.take_rows(S, pick) if rows is None else S
    X, y = ops.take_rows(X, pick), y[pick]
    C, S = (ops.to_numpy(a).astype(np.float32) for a in (ops.matmul_t(X, W), S))
    p = ops.softmax(S)
    near = _neighbours(X)
    beside, q = near[0], p.copy()
    if beside.shape[1]:
        for part in ops.blocks(len(p), max(1, CELLS // (8 * NEIGHBOURS * K))):
            q[part] = p[beside[part]].mean(axis=1)
    pooled = _Known(near).fit(Batch(X), _texts(W), State(W=W, S=S)).scores_
    z = ops.softmax(ops.to_numpy(pooled))
    width = float(C.std(axis=1, dtype=np.float64).mean())
    return Look(values, count, y, ahead(C, y), centred(S, y), q, z, width, changed(S, y))


class _Known(Auto):
    """``auto``, with neighbours that were looked up before."""

    def __init__(self, near: Near) -> None:
        super().__init__(guard=False)  # which would look them up again
        self._known = near

    def _near(self) -> int:
        return 0

    def _refined(self, X: Any, texts: ClassTexts, state: State, near: Any) -> Any:
        found = super()._refined(X, texts, state, self._known)
        if self.reason_ is None:
            self._look(self._known[0], state.S, found)
        return found


_KEPT: dict[bytes, Near] = {}  # of the last images


def _neighbours(X: Any) -> Near:
    held = np.ascontiguousarray(ops.to_numpy(X))
    key = blake2b(held.data, digest_size=16, key=repr((held.shape, held.dtype)).encode()).digest()
    near = _KEPT.get(key)
    if near is None:
        none = np.zeros((len(held), 0))
        near = neighbours(X, NEIGHBOURS) if len(held) > 1 else (none.astype(np.intp), none)
        _KEPT.clear()
        _KEPT[key] = near
    return near


def changed(S: NDArray[Any], y: NDArray[np.intp]) -> bool:
    """Whether an answer is behind another class, by more than rounding errors.

    Examples
    --------
    >>> S = np.array([[3.0, 1.0], [3.0, 3.0]])
    >>> changed(S, np.array([0, 1])), changed(S, np.array([1, 1]))
    (False, True)
    """
    return bool((ahead(S, y) < -1e-3 * S.std(axis=1)).any())


def centred(S: NDArray[Any], y: NDArray[np.intp]) -> Floats:
    """m (N,) of logits (N, K) and answers; see the formula above.

    Examples
    --------
    >>> centred(np.array([[3.0, 1.0], [3.0, 2.0]]), np.array([0, 0])).tolist()
    [2.0, -2.0]
    """
    T = S - S.mean(axis=0)
    spread = T.std(axis=1, dtype=np.float64)
    # Where all images are alike only rounding errors are left.
    none = spread <= 1e-4 * S.std(axis=1, dtype=np.float64).mean()
    return np.where(none, 0, ahead(T, y)) / np.where(none, 1, spread)


def ahead(S: NDArray[Any], y: NDArray[np.intp]) -> Floats:
    """How far each answer is ahead of the best other class; the value itself with one class.

    Examples
    --------
    >>> ahead(np.array([[3.0, 1.0], [3.0, 1.0]]), np.array([0, 1])).tolist()
    [2.0, -2.0]
    """
    rows = np.arange(len(S))
    own = S[rows, y].astype(np.float64)
    if S.shape[1] < 2:
        return own
    best = np.partition(S, -2, axis=1)[:, -2:].astype(np.float64)
    return np.where(own < best[:, 1], own - best[:, 1], own - best[:, 0])


def _texts(W: Any) -> ClassTexts:
    K = len(W)
    return ClassTexts(W, np.arange(K), Taxonomy.from_names([f"class {k}" for k in range(K)]))


def looked_at(y: NDArray[np.intp], K: int) -> NDArray[np.intp]:
    """All images; of many, some at even distances, and some of every answered class."""
    most = min(SAMPLE, max(LEAST, CELLS // K))
    if len(y) <= most:
        return np.arange(len(y))
    even = np.linspace(0, len(y) - 1, most).astype(np.intp)
    order = np.argsort(y, kind="stable")
    ends = np.flatnonzero(np.diff(y[order], prepend=-1))
    place = np.arange(len(y)) - np.repeat(ends, np.diff([*ends, len(y)]))
    return np.union1d(even, order[place < NEIGHBOURS])


def interval(expected: Floats, n: Floats, below: float, above: float) -> Floats:
    """Low and high (..., 2) for estimates (...), from their spreads and that of n draws, in logits.

    Examples
    --------
    >>> interval(np.array([0.5, 0.9]), np.array([100.0, 100.0]), 0.5, 0.5).round(2).tolist()
    [[0.29, 0.71], [0.77, 0.96]]
    """
    e = np.clip(expected, 1e-6, 1 - 1e-6)
    z = np.log(e / (1 - e))
    n = np.maximum(n, 1)
    drawn, image = 1 / (n * e * (1 - e)), 1 / n
    low = _logistic(z - WIDE * np.sqrt(below**2 + drawn))
    high = _logistic(z + WIDE * np.sqrt(above**2 + drawn))
    # An end within half an image of 0 or 1 is 0 or 1.
    low, high = np.where(low < image / 2, 0, low), np.where(high > 1 - image / 2, 1, high)
    return np.stack([low, high], axis=-1)


def _logit(p: Floats) -> Floats:
    p = np.clip(p, EDGE, 1 - EDGE)
    logit: Floats = np.log(p / (1 - p))
    return logit


def _logistic(z: Floats) -> Floats:
    made: Floats = 1 / (1 + np.exp(-np.clip(z, -50, 50)))
    return made
