"""Text prototypes and image prototypes that label together: DPA."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.errors import RecipeError
from byname.knn import nearest
from byname.refine.descent import AdamW, cosine_rate, fixed_order
from byname.refine.guard import NEIGHBOURS, caution, doubt, told, too_few
from byname.refine.shares import named_shares, refuse_nan, uneven
from byname.refine.whole import barred
from byname.stage import Array, Batch, ClassTexts, Member, StageName, State, register

__all__ = ["Dpa", "DpaParams", "loss_gradient", "prototypes"]

Floats = NDArray[np.float64]
_BLOCK = 2048
_LEAST = 1e-12  # smallest mean probability that counts
_ASTRAY = "the training ran off to infinity: the rate is too large"


@dataclass(frozen=True)
class DpaParams:
    """Share of the image prototypes, shares of the classes, and how prototypes are trained."""

    a: float = 0.5
    prior: str | None = "uniform"
    rounds: int = 10
    train: bool = False
    lr: float = 1e-4
    epochs: int = 15
    batch: int = 64
    reg: float = 1.0
    align: float = 1.0
    align_scale: float = 100.0
    weight_decay: float = 0.1
    seed: int = 0
    guard: bool = True

    def __post_init__(self) -> None:
        p = self
        rules = {
            "a": (0 <= p.a <= 1, "from 0 to 1"),
            "prior": (
                p.prior in ("uniform", None) or ":" in p.prior,
                "uniform, none, or shares as 'id:share;id:share'",
            ),
            **{n: (getattr(p, n) >= 1, "1 or more") for n in ("rounds", "epochs", "batch")},
            "lr": (0 < p.lr < math.inf, "above 0"),
            **{
                n: (0 <= getattr(p, n) < math.inf, "0 or more")
                for n in ("reg", "align", "align_scale", "weight_decay", "seed")
            },
        }
        for name, (fits, rule) in rules.items():
            if not fits:
                seen = f"{name} is {getattr(self, name)!r}"
                raise RecipeError("use 'dpa'", seen, f"It must be {rule}.")


def prototypes(X: Array, answer: NDArray[np.intp], W: Array) -> Array:
    """Unit mean (K, D) of the images answered with each class; unit w where there are none.

    Examples
    --------
    >>> prototypes(np.eye(2), np.array([1, 1]), np.array([[2.0, 0.0], [1.0, 0.0]])).round(2).tolist()
    [[1.0, 0.0], [0.71, 0.71]]
    """  # noqa: E501
    W = ops.unit(ops.cast(W, ops.as_float(X)))
    V = ops.unit(ops.segment_sum(X, answer, len(W)))
    empty = ~(ops.to_numpy(V) != 0).any(axis=1, keepdims=True)
    return V + ops.cast(empty, V) * W


def loss_gradient(
    W: Floats, X: Floats, y: NDArray[np.intp], weight: Floats, V: Floats, scale: float, p: DpaParams
) -> tuple[float, Floats]:
    """Loss of a batch, and its gradient for W (K, D).

    With P = softmax(scale X W^T) over B images with pseudo-labels y: mean of -weight log P_iy, less
    reg times the mean over classes of log mean_i P_ik, plus align times the cross entropy of
    softmax(align_scale V W^T) with the identity.
    """
    B, K = len(X), len(W)
    log_p = np.asarray(ops.log_softmax(scale * X @ W.T))
    P, rows = np.exp(log_p), np.arange(B)
    mean = np.maximum(P.mean(axis=0), _LEAST)
    log_a = np.asarray(ops.log_softmax(p.align_scale * V @ W.T))
    loss = (
        -float((weight * log_p[rows, y]).mean())
        - p.reg * float(np.log(mean).mean())
        - p.align * float(np.diagonal(log_a).mean())
    )
    G = P * (weight / B)[:, None]
    G[rows, y] -= weight / B
    pull = -p.reg / (K * B * mean)
    G += P * (pull - (P @ pull)[:, None])
    A = np.exp(log_a)
    A[np.arange(K), np.arange(K)] -= 1
    return loss, scale * G.T @ X + p.align * p.align_scale / K * A.T @ V


@register
class Dpa(Member):
    """Image prototypes from pseudo-labels, averaged with debiased text answers, in rounds.

    Formula::

        p^t = softmax(S),  y = argmax p^t
        v_k = unit(mean of x_i with y_i = k), unit w_k for a class without any
        q   = p^t / mean_i p^t * prior, its rows rescaled to sum to 1
        p   = a softmax(scale X V^T) + (1 - a) q,  y = argmax p
        the last two and v again until y stays, at most ``rounds`` times;  S' = log p

    With ``train`` the text prototypes learn from this, with the images as they are: in every epoch
    y, V and the confidence weights (p^t_iy / max p^t_i) (p^v_iy / max p^v_i) are made anew with the
    prototypes so far, then W moves by AdamW on the loss of :func:`loss_gradient`, with a rate that
    falls as a cosine, over batches in a seeded order. The last epoch counts, and the text
    prototypes alone answer: S' = scale X W'^T + bias, which replaces what the score stage said. The
    paper also trains layer norms inside the encoder, and on augmented images; that is not possible
    with stored vectors.

    Assumes clusters, of which most images have the right answer already, and with prior "uniform"
    balanced shares. Where the answers of S are only as mixed as fewer than 2/3 of the classes would
    be (exp of their entropy), ``guard`` debiases nothing, as ``prior=none`` does, and of uneven
    shares it warns. It keeps S, and says why, with fewer than 2 images, with one class, where
    neighbours agree less than before, and where a training runs off to infinity. Not noticed: a
    class that another one swallows, since neighbours then agree even more.

    Shapes: X (N, D), W (K, D), S (N, K) to S' (N, K). N K D a round, in blocks beside one (N, K)
    array; ``guard`` takes the 10 nearest of each image, N^2 D; an epoch 3 (N + N K / batch) K D.

    Source: Ali et al., "DPA: Dual Prototypes Alignment for Unsupervised Adaptation of
    Vision-Language Models", WACV 2025. The rounds, in place of training, are ours. The released
    code keeps the epoch that is best on the labels of the test images.

    Parameters
    ----------
    a : float
        Share of the image prototypes; 0.5 as in the code, which takes 0.01 to 0.2 for some sets.
    prior : str or None
        "uniform" as in the paper, None for no debiasing, or shares as "id:share;id:share" (ours).
    rounds : int
        10, ours.
    train : bool
        Whether text prototypes are trained.
    lr : float
        1e-4, the largest of the code, which takes 1e-6 to 1e-4 by data set.
    epochs : int
        15; the code takes 10 to 15.
    batch : int
        64, as in the code.
    reg : float
        Weight of balanced answers; 1, as in the code for all sets but one.
    align : float
        Weight of the alignment of both kinds of prototypes; 1, as in the code for most sets.
    align_scale : float
        100, as in the code for most sets.
    weight_decay : float
        0.1, as in the code.
    seed : int
        Of the order of the batches.
    guard : bool
        Whether neighbours must agree as before, and classes must seem to be there.

    Attributes
    ----------
    V_, W_ : arrays, shape (K, D), or None
        Image prototypes, and trained text prototypes; None where S was kept, or not trained.
    factor_ : array, shape (K,)
        What the probabilities of the text are multiplied with.
    rounds_ : int
        Rounds until the answers stayed.
    prior_ : str or None
        The shares that were assumed.
    reason_ : str or None
        Why S was kept.
    warning_ : str or None
        What to know where shares look uneven (:func:`byname.refine.guard.caution`).

    Raises
    ------
    RecipeError
        For a parameter that does not fit, or shares that do not fit the classes.
    UsageError
        For an image that holds NaN or infinity.

    Examples
    --------
    >>> from byname.taxonomy import Taxonomy
    >>> texts = ClassTexts(np.eye(2), np.array([0, 1]), Taxonomy.from_names(["cat", "dog"]), scale=9)
    >>> X = np.array([[1.0, 0.0], [0.96, 0.28], [0.6, 0.8], [0.28, 0.96]])
    >>> member = Dpa().fit(Batch(X), texts, State(W=np.eye(2), S=9 * X))
    >>> member.V_.round(2).tolist(), member.rounds_
    ([[0.99, 0.14], [0.45, 0.89]], 1)
    """  # noqa: E501

    stage: ClassVar[StageName] = "refine"
    name = "dpa"
    needs = frozenset({"X"})
    inductive = False
    Params = DpaParams
    params: DpaParams
    V_: Array | None = None
    W_: Array | None = None
    factor_: Floats | None = None
    rounds_: int = 0
    prior_: str | None = None
    reason_: str | None = "nothing was learned yet"
    warning_: str | None = None

    def fit(self, batch: Batch, texts: ClassTexts, state: State) -> Self:
        """Learn the prototypes from this batch."""
        refuse_nan(self.name, batch.X, logits=state.S)
        self.V_ = self.W_ = self.factor_ = self.warning_ = None
        self.rounds_, self.prior_ = 0, self.params.prior
        self.reason_ = too_few(state.S)
        if self.reason_ is not None:
            return self
        S = ops.as_float(state.S)
        if self.params.guard and self.prior_ == "uniform" and uneven(S) is not None:
            self.prior_ = None
        self._learn(batch.X, texts, S, ops.to_numpy(ops.argmax(S)), state.W)
        if self.params.train:
            self._train(batch.X, texts, state.W)
        if self.reason_ is None and self.params.guard:
            near, S2 = nearest(batch.X, NEIGHBOURS)[0], self.apply(batch, texts, state)
            self.reason_, self.warning_ = doubt(near, S, S2), caution(near, S, S2)
        if self.reason_:
            self.V_ = self.W_ = None
        return self

    def apply(self, batch: Batch, texts: ClassTexts, state: State) -> Any:
        """S' (N, K)."""
        S = ops.as_float(state.S)
        if self.W_ is not None:
            return barred(texts.scale * ops.matmul_t(batch.X, self.W_) + texts.bias, S)
        if self.V_ is None:
            return S
        out = ops.full(S, tuple(S.shape), 0.0)
        for part in ops.blocks(len(S), _BLOCK):
            out[part] = ops.log_probability(self._both(batch.X[part], S[part], texts.scale))
        return barred(out, S)

    def report(self) -> dict[str, Any]:
        """Rounds, the shares that were assumed, and whether and why S was kept."""
        return {"rounds": self.rounds_, "prior": self.prior_, **told(self.reason_, self.warning_)}

    def _learn(
        self, X: Array, texts: ClassTexts, S: Array, answer: NDArray[np.intp], W: Array
    ) -> None:
        """V and the factor from logits, rounds and rounds until the answers stay."""
        self.factor_ = self._factor(S, texts)
        for done in range(self.params.rounds):
            self.rounds_ = done + 1
            self.V_ = prototypes(X, answer, W)
            new = np.concatenate(
                [
                    ops.to_numpy(ops.argmax(self._both(X[part], S[part], texts.scale)))
                    for part in ops.blocks(len(S), _BLOCK)
                ]
            )
            if (new == answer).all():
                return
            answer = new

    def _factor(self, S: Array, texts: ClassTexts) -> Floats:
        K = texts.n_classes
        if self.prior_ is None:
            return np.ones(K)
        wanted = np.full(K, 1 / K)
        if self.prior_ != "uniform":
            wanted = named_shares(self.name, self.prior_, texts.taxonomy)
        total = np.zeros(K)
        for part in ops.blocks(len(S), _BLOCK):
            total += ops.to_numpy(ops.softmax(S[part])).sum(axis=0, dtype=np.float64)
        factor = wanted / np.maximum(total / len(S), _LEAST)
        return np.asarray(factor / factor.max(), np.float64)

    def _both(self, X: Array, S: Array, scale: float) -> Array:
        """p of some images."""
        q = ops.softmax(S) * ops.cast(self.factor_, S)
        total = q.sum(axis=1)[:, None]
        q = q / (total + ops.cast(ops.to_numpy(total) == 0, q))
        a = self.params.a
        return a * ops.cast(ops.softmax(scale * ops.matmul_t(X, self.V_)), q) + (1 - a) * q

    def _train(self, X: Array, texts: ClassTexts, W: Array) -> None:
        p, scale = self.params, texts.scale
        wide = ops.to_numpy(X).astype(np.float64)
        wide = wide[fixed_order(wide)]
        moved = np.asarray(ops.unit(ops.to_numpy(W).astype(np.float64)))
        rng, step = np.random.default_rng(p.seed), 0
        steps = p.epochs * math.ceil(len(wide) / p.batch)
        optimiser = AdamW(moved, weight_decay=p.weight_decay)
        for _ in range(p.epochs):
            if not np.isfinite(moved).all():
                self.reason_ = _ASTRAY
                return
            y, weight, V = self._targets(wide, texts, moved)
            order = rng.permutation(len(wide))
            for rows in (order[part] for part in ops.blocks(len(order), p.batch)):
                _, gradient = loss_gradient(moved, wide[rows], y[rows], weight[rows], V, scale, p)
                optimiser.step(gradient, cosine_rate(p.lr, step, steps))
                step += 1
        self.W_ = ops.cast(moved, ops.as_float(X[:0]))
        if not np.isfinite(ops.to_numpy(self.W_)).all():
            self.reason_ = _ASTRAY

    def _targets(
        self, X: Floats, texts: ClassTexts, W: Floats
    ) -> tuple[NDArray[np.intp], Floats, Floats]:
        """Pseudo-labels, confidence weights and image prototypes with the prototypes so far."""
        scale = texts.scale
        first = np.concatenate(
            [(X[part] @ W.T).argmax(axis=1) for part in ops.blocks(len(X), _BLOCK)]
        )
        self.V_ = V = np.asarray(prototypes(X, first, W))
        self.factor_ = self._factor(scale * X @ W.T, texts)
        y, weight = np.empty(len(X), np.intp), np.empty(len(X))
        for part in ops.blocks(len(X), _BLOCK):
            text, image = (scale * X[part] @ both.T for both in (W, V))
            y[part] = self._both(X[part], text, scale).argmax(axis=1)
            at = (np.arange(len(text)), y[part])
            weight[part] = np.exp(sum(L[at] - L.max(axis=1) for L in (text, image)))
        return y, weight, V
