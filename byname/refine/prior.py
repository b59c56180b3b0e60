"""Offsets of the logits that give every class its share: word-bias prior matching."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.errors import NeedsError, RecipeError
from byname.knn import agreement, nearest
from byname.refine.guard import NEIGHBOURS, doubt, told, too_few
from byname.refine.label_vectors import images_of, mixed
from byname.refine.shares import PRESENT, answered_shares, effective, named_shares, refuse_nan
from byname.refine.whole import refuse_others
from byname.stage import Batch, ClassTexts, Member, StageName, State, register

__all__ = ["Prior", "PriorParams", "match"]

Mode = Literal["match", "once", "mean_image", "null"]
_BLOCK = 2048
_LEAST = 1e-12  # smallest mean probability that counts
_FAR = 1e-3  # from its share, above which a class that match() did not bring there is told
_UNFITTED = "nothing was learned yet"
_CLEAR = 0.05  # rise of the agreement that outweighs shares far from the target


@dataclass(frozen=True)
class PriorParams:
    """Where the offsets come from, and the shares they lead to."""

    target: str = "uniform"
    mode: Mode = "match"
    tolerance: float = 1e-6
    max_steps: int = 1000
    guard: bool = True

    def __post_init__(self) -> None:
        named = ":" in self.target
        rules = {
            "target": (
                named or self.target in ("uniform", "estimated"),
                "uniform, estimated, or shares as 'id:share;id:share'",
            ),
            "mode": (self.mode in get_args(Mode), "match, once, mean_image or null"),
            "tolerance": (0 < self.tolerance < 1, "above 0 and below 1"),
            "max_steps": (1 <= self.max_steps < math.inf, "1 or more"),
        }
        for name, (fits, rule) in rules.items():
            if not fits:
                seen = f"{name} is {getattr(self, name)!r}"
                raise RecipeError("use 'prior'", seen, f"It must be {rule}.")


def match(
    S: Any, target: NDArray[np.float64], *, tolerance: float = 1e-6, max_steps: int = 1000
) -> tuple[NDArray[np.float64], int]:
    """Offsets b (K,) with mean softmax(S - b) = target, of mean 0, and the steps it took.

    Parameters
    ----------
    S : array, shape (N, K)
    target : array, shape (K,)
        Of sum 1; classes of target 0 are left alone.
    tolerance : float
        It ends where no mean is further from its target.
    max_steps : int

    Examples
    --------
    >>> S = np.array([[3.0, 0.0], [1.0, 0.0]])
    >>> b, _ = match(S, np.array([0.5, 0.5]))
    >>> b.round(4).tolist()
    [1.0, -1.0]
    """
    b, some = np.zeros(len(target)), target > 0
    for step in range(max_steps + 1):
        mean = _mean_probability(S, b)
        if step == max_steps or np.abs(mean - target)[some].max() < tolerance:
            break
        b[some] += np.log(mean[some] / target[some])
    return _centred(b, some), step


def _centred(b: NDArray[np.float64], some: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Less the mean over some classes; 0 for the others."""
    return np.where(some, b - b[some].mean(), 0.0)


def _mean_probability(S: Any, b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over images of softmax(S - b), no less than 1e-12, (K,)."""
    total = np.zeros(len(b))
    for part in ops.blocks(len(S), _BLOCK):
        rows = ops.as_float(S[part])
        P = ops.softmax(rows - ops.cast(b, rows))
        total += ops.to_numpy(P).sum(axis=0, dtype=np.float64)
    return np.asarray(np.maximum(total / len(S), _LEAST))


def _possible(S: Any) -> NDArray[np.bool_]:
    """Classes (K,) with a logit above -inf for some image."""
    some = np.zeros(int(S.shape[1]), np.bool_)
    for part in ops.blocks(len(S), _BLOCK):
        some |= (ops.to_numpy(S[part]) > -np.inf).any(axis=0)
    return some


@register
class Prior(Member):
    """Class shares of the answers moved onto given ones, by one offset a class.

    Formula::

        S' = S - b,  b of mean 0, by ``mode``:
        "match"       mean over i of softmax(S_i - b)_k = target_k
                      b_k <- b_k + log(mean_i softmax(S_i - b)_k / target_k), until no mean is
                      further than ``tolerance`` from its target
        "once"        b_k = log(mean_i softmax(S_i)_k / target_k): the first step alone
        "mean_image"  b_k = mean_i S_ik: the logits of the mean image
        "null"        b_k = scale * mean_j <null_j, w_k>: the logits of texts that name no class
        b <- N / (N + 5 K) b  where N < 5 K, except by "null"

    ``target`` is "uniform"; "estimated", (n_k + 1) / (N + K) with n_k the images that class vectors
    mixed with their nearest images answer k (:mod:`byname.refine.label_vectors`); or given, as
    ``target=cat:0.5;dog:0.3``, where classes not named share the rest. A share of 0 counts as
    1e-6. "mean_image" and "null" do not look at it. The problem of "match" is convex: b is unique.
    A class whose logits are all -inf has no share and the offset 0.

    Assumes that the target is right: uniform shares are a guess, and wrong for folders where
    classes are rare or absent. It keeps S, and says why, with fewer than 2 images, with one class,
    and where ``guard`` sees neighbours agree less than before. Uniform shares count as doubtful
    where the answers of S are only as mixed as fewer than 2/3 of the classes would be (exp of their
    entropy); then it also keeps S if the agreement does not rise by 0.05, which it does where the
    scores, and not the images, prefer few classes.

    Shapes: S (N, K) to S' (N, K). A step is N K exponentials, in blocks; "guard" takes the 10
    nearest of each image, N^2 D. Once learned, each image is treated by itself.

    Source: Liusie, Manakul and Gales, "Mitigating Word Bias in Zero-shot Prompt-based
    Classifiers", IJCNLP-AACL 2023. There the offsets are looked for on a grid.

    Parameters
    ----------
    target : str
        "uniform" as in the paper, "estimated" (ours), or shares by class id.
    mode : str
        "match" as in the paper; "once" and "null" are its cheaper forms; "mean_image" is that of
        "null" for images.
    tolerance : float
        1e-6, ours.
    max_steps : int
        1000, ours; a few hundred were needed at most.
    guard : bool
        Whether neighbours must agree as before.

    Attributes
    ----------
    offset_ : array, shape (K,), float64, or None
        b; None where S is kept.
    target_ : array, shape (K,), float64, or None
    steps_ : int
    deviation_ : float
        The largest distance of a mean probability from its target, by "match"; NaN otherwise.
    reason_ : str or None
        Why S was kept.

    Raises
    ------
    RecipeError
        For a parameter that does not fit, or shares that do not fit the classes.
    UsageError
        For an image that holds NaN or infinity.

    Examples
    --------
    >>> from byname.taxonomy import Taxonomy
    >>> texts = ClassTexts(np.eye(2), np.array([0, 1]), Taxonomy.from_names(["cat", "dog"]))
    >>> S = np.repeat([[3.0, 0.0], [1.0, 0.0]], 5, axis=0)
    >>> member = Prior(guard=False).fit(Batch(S), texts, State(W=np.eye(2), S=S))
    >>> member.apply(Batch(S), texts, State(S=S))[::5].round(3).tolist()
    [[2.0, 1.0], [0.0, 1.0]]
    """

    stage: ClassVar[StageName] = "refine"
    name = "prior"
    needs = frozenset({"X"})
    uses = frozenset({"null"})
    Params = PriorParams
    params: PriorParams
    offset_: NDArray[np.float64] | None = None
    target_: NDArray[np.float64] | None = None
    steps_: int = 0
    deviation_: float = float("nan")
    reason_: str | None = _UNFITTED

    def check_needs(
        self, batch: Batch, texts: ClassTexts, skip: frozenset[str] = frozenset()
    ) -> None:
        """Raise NeedsError: null texts are needed, and images are not, for the mode "null"."""
        if self.params.mode != "null":
            super().check_needs(batch, texts, skip)
        elif texts.null is None:
            raise NeedsError(
                "run the refine member 'prior[mode=null]'",
                "it needs 'null', which this run does not have",
                "Give texts that name no class, or choose another mode.",
            )

    def fit(self, batch: Batch, texts: ClassTexts, state: State) -> Self:
        """Learn the offsets from the unlabeled images, or from the null texts."""
        self.offset_, self.target_, self.steps_ = None, None, 0
        self.deviation_ = float("nan")
        if self.params.mode == "null":
            self._fit_null(texts, state)
        else:
            refuse_nan(self.name, batch.X, logits=state.S)
            if reason := too_few(state.S):
                self.reason_ = reason
                return self
            self._fit_images(batch, texts, state)
        if self.offset_ is not None and self.params.guard and len(batch) > 1:
            self.reason_ = self._doubt(batch, texts, state)
            self.offset_ = None if self.reason_ else self.offset_
        return self

    def apply(self, batch: Batch, texts: ClassTexts, state: State) -> Any:
        """S' (N, K)."""
        S = ops.as_float(state.S)
        if self.reason_ == _UNFITTED and len(batch):
            refuse_others(self.name, None, batch.X)
        return S if self.offset_ is None else S - ops.cast(self.offset_, S)

    def report(self) -> dict[str, Any]:
        """Offsets and target by class, steps, what is left, and whether and why S was kept."""
        b, target, left = self.offset_, self.target_, self.deviation_
        warning = None
        if left >= max(self.params.tolerance, _FAR):
            warning = (
                f"after {self.steps_} steps a class is still {left:.2g} from its share: "
                "give more max_steps, or a larger tolerance"
            )
        return {
            "offset": None if b is None else b.round(6).tolist(),
            "target": None if target is None else target.round(6).tolist(),
            "steps": self.steps_,
            "deviation": None if math.isnan(left) else left,
            **told(self.reason_, warning),
        }

    def _fit_null(self, texts: ClassTexts, state: State) -> None:
        refuse_nan(self.name, texts.null, state.W)
        null = ops.to_numpy(ops.matmul_t(texts.null, state.W)).astype(np.float64)
        self.reason_ = None if null.shape[1] > 1 else "there is one class"
        if self.reason_ is None:
            b = texts.scale * null.mean(axis=0)
            self.offset_ = b - b.mean()

    def _fit_images(self, batch: Batch, texts: ClassTexts, state: State) -> None:
        p, S = self.params, ops.as_float(state.S)
        N, K, some = len(batch), texts.n_classes, _possible(S)
        target = np.where(some, self._target(batch, texts, state), 0)
        self.reason_, self.target_ = None, target / target.sum()
        if p.mode == "match":
            b, self.steps_ = match(S, self.target_, tolerance=p.tolerance, max_steps=p.max_steps)
            mean = _mean_probability(S, b)
            self.deviation_ = float(np.abs(mean - self.target_)[some].max())
        elif p.mode == "once":
            b = np.zeros(K)
            b[some] = np.log(_mean_probability(S, b)[some] / self.target_[some])
        else:
            b = np.zeros(K)
            for part in ops.blocks(N, _BLOCK):
                b += ops.to_numpy(S[part]).sum(axis=0, dtype=np.float64) / N
        # With few images of each class the means say little about the classes.
        self.offset_ = _centred(b, some) * (N / (N + 5 * K) if N < 5 * K else 1)

    def _target(self, batch: Batch, texts: ClassTexts, state: State) -> NDArray[np.float64]:
        N, K = len(batch), texts.n_classes
        if self.params.target == "uniform":
            return np.full(K, 1 / K)
        if self.params.target != "estimated":
            return named_shares(self.name, self.params.target, texts.taxonomy)
        W = mixed(batch.X, state.W, images_of(N, K))
        counts = np.zeros(K)
        for part in ops.blocks(N, _BLOCK):
            answer = ops.to_numpy(ops.argmax(ops.matmul_t(batch.X[part], W)))
            counts += np.bincount(answer, minlength=K)
        return (counts + 1) / (N + K)

    def _doubt(self, batch: Batch, texts: ClassTexts, state: State) -> str | None:
        near, S = nearest(batch.X, NEIGHBOURS)[0], state.S
        S2 = self.apply(batch, texts, state)
        if reason := doubt(near, S, S2):
            return reason
        K, seen = texts.n_classes, effective(answered_shares(S))
        guessed = self.params.target == "uniform" and self.params.mode in ("match", "once")
        if not guessed or seen >= PRESENT * K:
            return None
        old, new = (agreement(near, ops.to_numpy(ops.argmax(s)), K) for s in (S, S2))
        if new >= old + _CLEAR:
            return None
        return (
            f"uniform shares are doubtful: the answers are as mixed as {seen:.1f} of the {K} "
            f"classes, and neighbours hardly agree more than before"
        )
