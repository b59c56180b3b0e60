"""A small head on a second encoder, taught by the surest answers: NoLA."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.errors import RecipeError
from byname.knn import nearest
from byname.refine.descent import AdamW, fixed_order
from byname.refine.guard import NEIGHBOURS, caution, doubt, told, too_few
from byname.refine.shares import refuse_nan, uneven
from byname.refine.whole import barred
from byname.stage import Array, Batch, ClassTexts, Member, StageName, State, register

__all__ = ["Head", "Nola", "NolaParams", "surest"]

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
_BLOCK = 4096


@dataclass(frozen=True)
class NolaParams:
    """Images a class, the head, how it is trained, and the share of the text answers."""

    k: int = 16
    share: float = 0.2
    hidden: int = 256
    lr: float = 1e-3
    epochs: int = 50
    batch: int = 32
    mix: float = 0.0
    seed: int = 0
    guard: bool = True

    def __post_init__(self) -> None:
        p = self
        rules = {
            **{n: (getattr(p, n) >= 1, "1 or more") for n in ("k", "hidden", "epochs", "batch")},
            **{n: (0 <= getattr(p, n) <= 1, "from 0 to 1") for n in ("share", "mix")},
            "lr": (0 < p.lr < math.inf, "above 0"),
            "seed": (p.seed >= 0, "0 or more"),
        }
        for name, (fits, rule) in rules.items():
            if not fits:
                seen = f"{name} is {getattr(self, name)!r}"
                raise RecipeError("use 'nola'", seen, f"It must be {rule}.")


def surest(S: Array, k: int, choices: int = 3) -> tuple[Ints, Ints, Ints]:
    """Images that teach each class: of those that have it as first choice the k surest.

    A class that nobody has as first choice takes from those with it as second, and then as third
    choice; an image taken twice teaches the class of which it is surer.

    Parameters
    ----------
    S : array, shape (N, K)
    k : int
    choices : int
        How far down it is looked.

    Returns
    -------
    rows, classes, missing : arrays of int
        Images, ascending, with the class they teach, and classes that nothing teaches.

    Examples
    --------
    >>> S = np.array([[3.0, 1.0, 0.0], [2.0, 1.5, 0.0]])
    >>> [found.tolist() for found in surest(S, 1)]
    [[0, 1], [0, 1], [2]]
    """
    N, K = (int(n) for n in S.shape)
    depth = min(choices, K)
    choice, chance = np.empty((N, depth), np.intp), np.empty((N, depth))
    for part in ops.blocks(N, _BLOCK):
        values, index = ops.topk(ops.softmax(S[part]), depth)
        choice[part], chance[part] = ops.to_numpy(index), ops.to_numpy(values)
    taught, found = np.zeros(K, np.bool_), []
    for rank in range(depth):
        rows = np.flatnonzero(~taught[choice[:, rank]])
        order = rows[np.lexsort((rows, -chance[rows, rank], choice[rows, rank]))]
        of = choice[order, rank]
        chosen = np.arange(len(of)) - np.searchsorted(of, of) < k
        found.append((order[chosen], of[chosen], chance[order[chosen], rank]))
        taught[of] = True
    rows, of, p = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.lexsort((of, -p, rows))  # of each image first what it is surest of
    rows, of = rows[order], of[order]
    once = np.append(True, rows[1:] != rows[:-1]) if len(rows) else np.zeros(0, np.bool_)
    left = np.bincount(of[once], minlength=K)
    return rows[once], of[once], np.flatnonzero(left == 0)


class Head:
    """One hidden layer of ReLU, trained with Adam on cross entropy; float64.

    The second layer starts at 0, so that the order of the classes makes no difference, and rows are
    taken in a seeded order of :func:`fixed_order`, so that theirs makes none.

    Examples
    --------
    >>> X = np.array([[1.0, 0.0], [0.0, 1.0]] * 8)
    >>> head = Head(2, 2, 8, seed=0).train(X, np.array([0, 1] * 8), lr=0.01, epochs=50, batch=4)
    >>> head.logits(X[:2]).argmax(axis=1).tolist()
    [0, 1]
    """

    def __init__(self, D: int, K: int, hidden: int, *, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        reach = 1 / math.sqrt(D)
        self.A: Floats = self._rng.uniform(-reach, reach, (D, hidden))
        self.a: Floats = self._rng.uniform(-reach, reach, hidden)
        self.B: Floats = np.zeros((hidden, K))
        self.b: Floats = np.zeros(K)

    def logits(self, X: Floats) -> Floats:
        """Logits (N, K) of rows (N, D)."""
        return np.asarray(np.maximum(X @ self.A + self.a, 0) @ self.B + self.b)

    def gradients(self, X: Floats, y: Ints) -> tuple[float, list[Floats]]:
        """Mean cross entropy, and its gradients for A, a, B and b."""
        H = np.maximum(X @ self.A + self.a, 0)
        log_p = np.asarray(ops.log_softmax(H @ self.B + self.b))
        rows = np.arange(len(X))
        G = np.exp(log_p)
        G[rows, y] -= 1
        G /= len(X)
        back = (G @ self.B.T) * (H > 0)
        found = [X.T @ back, back.sum(axis=0), H.T @ G, G.sum(axis=0)]
        return -float(log_p[rows, y].mean()), found

    def train(self, X: Floats, y: Ints, *, lr: float, epochs: int, batch: int) -> Self:
        """Learn from rows and their classes; the last epoch counts."""
        order = fixed_order(X)
        X, y = X[order], y[order]
        optimisers = [AdamW(values) for values in (self.A, self.a, self.B, self.b)]
        for _ in range(epochs):
            shuffled = self._rng.permutation(len(X))
            for rows in (shuffled[part] for part in ops.blocks(len(X), batch)):
                _, gradients = self.gradients(X[rows], y[rows])
                for optimiser, gradient in zip(optimisers, gradients, strict=True):
                    optimiser.step(gradient, lr)
        return self


@register
class Nola(Member):
    """A small head over the vectors of a second encoder, taught by the surest answers.

    Formula::

        teachers of k = the max(k, share N / K) images with argmax S = k and the largest
                        softmax(S)_k; for a class without any those with it as second, then as
                        third choice; an image for two classes goes to that it is surer of
        F  = second vectors, or X, less their mean, divided by their standard deviation
        S' = log((1 - mix) softmax(head(F)) + mix softmax(S))

    The head, F to ``hidden`` ReLUs to K, is trained by Adam on the cross entropy of the teachers,
    in batches; the last epoch counts. A class that nothing teaches is as good as never answered,
    and the report names it, with a warning. The third stage of the paper, prompt tokens inside the
    image encoder, needs the encoder and is left out.

    Assumes that every class is present, that the surest answers are mostly right, and that the
    second encoder, such as DINO, groups images by class. It keeps S, and says why, with fewer than
    2 images, with one class, where the answers of S are as mixed as fewer than 2/3 of the classes
    would be (exp of their entropy), or where ``guard`` sees neighbours agree less than before:
    those by X and, where there are second vectors, as many by these. So it does where the training
    runs off to infinity.

    Shapes: X (N, D), second (N, D2), S (N, K) to S' (N, K). For R teachers the training takes
    6 epochs R hidden (D2 + K), the answers 2 N hidden (D2 + K), in blocks beside one (N, K) array;
    ``guard`` takes the 10 nearest of each image, N^2 D.

    Source: Imam, Marew, Hassan, Fiaz, Aji and Cholakkal, "CLIP meets DINO for Tuning Zero-Shot
    Classifier using Unlabeled Image Collections", 2024 (NoLA, stages 1 and 2). The released code
    keeps the epoch that is best on labelled images, and goes only over classes that occur among the
    true ones; here the last epoch and all names count.

    Parameters
    ----------
    k : int
        Least number of teachers a class; 16 as in the code.
    share : float
        Of N / K that teaches where this is more than k; 0.2 as in the code.
    hidden : int
        256, as in the code.
    lr : float
        1e-3, the default rate of Adam.
    epochs : int
        50, as in the code.
    batch : int
        32, as in the code.
    mix : float
        Share of the text answers; 0, the head alone, as in the paper.
    seed : int
        Of the first layer and the order of the teachers.
    guard : bool
        Whether neighbours must agree as before, and classes must seem to be there.

    Attributes
    ----------
    head_ : Head or None
        None where S was kept.
    teachers_ : int
        Images that taught.
    untaught_ : tuple of str
        Ids of classes without teachers.
    reason_ : str or None
        Why S was kept.
    warning_ : str or None
        What to know where shares look uneven (:func:`byname.refine.guard.caution`).

    Raises
    ------
    RecipeError
        For a parameter that does not fit.
    UsageError
        For an image that holds NaN or infinity.

    Examples
    --------
    >>> from byname.taxonomy import Taxonomy
    >>> texts = ClassTexts(np.eye(2), np.array([0, 1]), Taxonomy.from_names(["cat", "dog"]))
    >>> X = np.array([[1.0, 0.0], [0.96, 0.28], [0.28, 0.96], [0.0, 1.0]])
    >>> state = State(W=np.eye(2), S=10 * X)
    >>> member = Nola().fit(Batch(X), texts, state)
    >>> member.apply(Batch(X), texts, state).argmax(axis=1).tolist(), member.teachers_
    ([0, 0, 1, 1], 4)
    """

    stage: ClassVar[StageName] = "refine"
    name = "nola"
    needs = frozenset({"X"})
    uses = frozenset({"second"})
    inductive = False
    Params = NolaParams
    params: NolaParams
    head_: Head | None = None
    moments_: tuple[Floats, float] | None = None
    teachers_: int = 0
    untaught_: tuple[str, ...] = ()
    reason_: str | None = "nothing was learned yet"
    warning_: str | None = None

    def fit(self, batch: Batch, texts: ClassTexts, state: State) -> Self:
        """Choose the teachers in this batch, and train the head."""
        given = () if batch.second is None else (batch.second,)
        refuse_nan(self.name, batch.X, *given, logits=state.S)
        self.head_, self.moments_, self.teachers_, self.untaught_ = None, None, 0, ()
        self.warning_ = None
        self.reason_ = too_few(state.S)
        if self.reason_ is None and self.params.guard:
            self.reason_ = uneven(state.S)
        if self.reason_ is not None:
            return self
        self._teach(batch, texts, ops.as_float(state.S))
        S2 = ops.to_numpy(self.apply(batch, texts, state))
        there = ~np.isneginf(ops.to_numpy(state.S))
        if not np.isfinite([S2.min(where=there, initial=0), S2.max(initial=0)]).all():
            self.reason_ = "the training ran off to infinity: the rate is too large"
        elif self.params.guard:
            spaces = (batch.X, *(ops.unit(F) for F in given))
            near = np.hstack([nearest(rows, NEIGHBOURS)[0] for rows in spaces])
            self.reason_, self.warning_ = doubt(near, state.S, S2), caution(near, state.S, S2)
        if self.untaught_:
            told_of = f"{len(self.untaught_)} of {texts.n_classes} names had no image to learn from"
            self.warning_ = "; ".join(filter(None, (told_of, self.warning_)))
        self.head_ = None if self.reason_ else self.head_
        return self

    def apply(self, batch: Batch, texts: ClassTexts, state: State) -> Any:
        """S' (N, K)."""
        S, mix = ops.as_float(state.S), self.params.mix
        if self.head_ is None:
            return S
        out = ops.full(S, tuple(S.shape), 0.0)
        for part in ops.blocks(len(S), _BLOCK):
            L = np.asarray(ops.log_softmax(self.head_.logits(self._features(batch, part))))
            if mix:
                p = ops.to_numpy(ops.softmax(S[part]))
                L = np.asarray(ops.log_probability((1 - mix) * np.exp(L) + mix * p))
            out[part] = ops.cast(L, S)
        return barred(out, S)

    def report(self) -> dict[str, Any]:
        """How many images taught, classes that nothing taught, and whether and why S was kept."""
        told_of = told(self.reason_, self.warning_)
        return {"teachers": self.teachers_, "untaught": list(self.untaught_), **told_of}

    def _teach(self, batch: Batch, texts: ClassTexts, S: Array) -> None:
        p, K = self.params, texts.n_classes
        rows, y, missing = surest(S, max(p.k, math.floor(p.share * len(batch) / K)))
        self.teachers_ = len(rows)
        self.untaught_ = tuple(texts.taxonomy.class_ids[k] for k in missing)
        F = batch.X if batch.second is None else batch.second
        D, total, squares = int(F.shape[1]), np.zeros(int(F.shape[1])), 0.0
        for part in ops.blocks(len(batch), _BLOCK):
            wide = ops.to_numpy(F[part]).astype(np.float64)
            total, squares = total + wide.sum(axis=0), squares + float((wide**2).sum())
        mean = total / len(batch)
        spread = math.sqrt(max(squares / len(batch) - float(mean @ mean), 0) / D)
        # Vectors that are all the same differ by rounding only, which must not be blown up.
        self.moments_ = (mean, spread if spread > 1e-6 else 1.0)
        head = Head(D, K, p.hidden, seed=p.seed)
        taught = self._features(batch, rows)
        self.head_ = head.train(taught, y, lr=p.lr, epochs=p.epochs, batch=p.batch)

    def _features(self, batch: Batch, rows: slice | Ints) -> Floats:
        assert self.moments_ is not None
        F = batch.X if batch.second is None else batch.second
        picked = F[rows] if isinstance(rows, slice) else ops.take_rows(F, rows)
        mean, spread = self.moments_
        return np.asarray((ops.to_numpy(picked).astype(np.float64) - mean) / spread)
