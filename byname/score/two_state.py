"""Two states of each class, such as present and absent: which of the two, class by class."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.errors import NeedsError, PromptError, RecipeError
from byname.stage import Batch, ClassTexts, Member, StageName, State, register

__all__ = ["STATES", "TwoState", "TwoStateParams"]

STATES: dict[str, tuple[str, str]] = {
    "presence": ("present", "absent"),
    "anomaly": ("anomalous", "normal"),
}
"""Kinds of the texts of each set: the state that is asked for, and the other."""
_TAU_ANOMALY = 0.07
_LEAST_TAU = 1e-30


@dataclass(frozen=True)
class TwoStateParams:
    """Which states, and how two similarities become log odds."""

    set: Literal["auto", "presence", "anomaly"] = "auto"
    mode: Literal["pair", "sigmoid"] = "pair"
    tau: float | Literal["auto"] = "auto"
    unit_texts: bool | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        tau, bare = self.tau, isinstance(self.tau, int | float) and not isinstance(self.tau, bool)
        rules = {
            "set": (self.set in ("auto", *STATES), "'auto', 'presence' or 'anomaly'"),
            "mode": (self.mode in ("pair", "sigmoid"), "'pair' or 'sigmoid'"),
            "tau": (
                tau == "auto" or (bare and float(tau) > 0 and math.isfinite(tau)),
                "a number above 0, or 'auto'",
            ),
            "unit_texts": (self.unit_texts in ("auto", True, False), "true, false or 'auto'"),
        }
        for name, (fits, rule) in rules.items():
            if not fits:
                seen = f"{name} is {getattr(self, name)!r}"
                raise RecipeError("use 'two_state'", seen, f"It must be {rule}.")


@register
class TwoState(Member):
    """Log odds that a class is in the state asked for: present, or anomalous.

    Formula, with t+ and t- of length one along the weighted means of a class's texts in the state
    asked for and in the other::

        S[i,k] = (<x_i, t+_k> - <x_i, t-_k>) / tau          sigmoid(S) = softmax([.., ..] / tau)[0]

    Where a class has texts of the first state only, and with ``mode="sigmoid"`` everywhere::

        S[i,k] = scale * <x_i, t+_k> + bias                 the encoder's own sigmoid

    and where it has texts of the other state only, minus that of t-. Each class is a question of
    its own: sigmoid(S[i,k]) is its probability, classes do not compete, and several may be true of
    an image. ``multilabel`` reads S so; a softmax over classes, as ``argmax`` takes it, only ranks
    them.

    Kinds "present" and "anomalous" are asked for, "absent" and "normal" are their others. A class
    without texts of these kinds is asked with all its texts, as if they were of the first state. A
    text of weight 0 does not count; a state whose texts all weigh 0, or that has none, is not
    there, and a class with neither has S = bias.

    Shapes: X (N, D), texts (M, D) with their ``kind`` to S (N, K). O(N K D + M D): both states are
    one product.

    Source: Jeong et al., "WinCLIP: Zero-/Few-Shot Anomaly Classification and Segmentation", CVPR
    2023, image level only, after two re-implementations, since no official code was seen; for
    presence the usual protocol of zero-shot radiology; the sigmoid is that of Zhai et al.,
    "Sigmoid Loss for Language Image Pre-Training", ICCV 2023.

    Parameters
    ----------
    set : {"auto", "presence", "anomaly"}
        Whose kinds are read; "auto" takes those that are there, and refuses a mixture.
    mode : {"pair", "sigmoid"}
        ``sigmoid`` is for encoders that were trained with one: with a bias of 0, as CLIP has, it
        says yes to everything.
    tau : float or "auto"
        Temperature of a pair. "auto" is 0.07 for anomaly, as in both re-implementations of
        WinCLIP, and 1 / scale for presence, which is what the encoder was trained with. Neither
        was tuned here.
    unit_texts : bool or "auto"
        Whether each text is brought to length one before the mean. "auto" does so for presence and
        not for anomaly, as the sources do. byname's encoders answer with unit rows, for which both
        are the same; it matters for vectors that were made elsewhere.

    Attributes
    ----------
    None: nothing is learned.

    Raises
    ------
    PromptError
        For texts of both sets under "auto".
    NeedsError
        For no text of either set, or none of a named one.
    RecipeError
        For a parameter that does not fit.

    Examples
    --------
    >>> from byname.taxonomy import Taxonomy
    >>> texts = ClassTexts(np.eye(2), np.array([0, 0]), Taxonomy.from_names(["edema"]),
    ...                    kind=("present", "absent"), scale=10.0)
    >>> TwoState().apply(Batch(np.array([[0.8, 0.6]])), texts, State()).round(6).tolist()
    [[2.0]]
    """

    stage: ClassVar[StageName] = "score"
    name = "two_state"
    needs = frozenset({"kind"})
    reads_states: ClassVar[bool] = True  # texts of two states are not mixed up here
    Params = TwoStateParams
    params: TwoStateParams

    def check_needs(
        self, batch: Batch, texts: ClassTexts, skip: frozenset[str] = frozenset()
    ) -> None:
        """Raise NeedsError also where no text is of a state."""
        super().check_needs(batch, texts, skip)
        if texts.kind is not None:
            self._set(texts)

    def apply(self, batch: Batch, texts: ClassTexts, state: State) -> Any:
        """S (N, K)."""
        W, offset = self.once(texts, state, lambda: self._differences(texts, state))
        S = ops.matmul_t(batch.X, W)
        return S + ops.cast(offset, S) if offset.any() else S

    def _differences(self, texts: ClassTexts, state: State) -> tuple[Any, NDArray[np.float64]]:
        """What an image is compared with (K, D), and what is added (K,)."""
        chosen = self._set(texts)
        weight = _weights(texts, state)
        side = _sides(texts, chosen, weight)
        K, index = texts.n_classes, ops.to_numpy(texts.class_index)
        group = np.where((side >= 0) & (index >= 0), 2 * index + side, -1)
        vectors = ops.as_float(texts.vectors)
        auto = self.params.unit_texts == "auto"
        if chosen == "presence" if auto else self.params.unit_texts:
            vectors = ops.unit(vectors)
        means = ops.unit(ops.segment_mean(vectors, group, 2 * K, weight))
        counted = np.bincount(group[(group >= 0) & (weight > 0)], minlength=2 * K) > 0
        factor, offset = self._factors(texts, counted.reshape(K, 2), chosen)
        W = means[0::2] * _column(factor[:, 0], means) + means[1::2] * _column(factor[:, 1], means)
        return W, offset

    def _set(self, texts: ClassTexts) -> str:
        kinds = set(texts.kind or ())
        found = [name for name, own in STATES.items() if kinds & set(own)]
        if self.params.set != "auto":
            if self.params.set not in found:
                seen = f"no text is of the kinds {' or '.join(map(repr, STATES[self.params.set]))}"
                do = f"Make such texts with --prompts 'states[set={self.params.set}]'."
                raise NeedsError(f"use 'two_state[set={self.params.set}]'", seen, do)
            return self.params.set
        if len(found) > 1:
            raise PromptError(
                "use 'two_state'",
                "there are texts of both sets of states, presence and anomaly",
                "Choose one: two_state[set=presence] or two_state[set=anomaly].",
            )
        if not found:
            raise NeedsError(
                "use 'two_state'",
                "no text is of one of two states, such as 'present' and 'absent'",
                "Make such texts with --prompts 'states[set=presence]' or 'states[set=anomaly]'.",
            )
        return found[0]

    def _factors(
        self, texts: ClassTexts, has: NDArray[np.bool_], chosen: str
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """What the means of the two states (K, 2) are multiplied by, and what is added (K,)."""
        tau = self.params.tau
        if tau == "auto":
            tau = _TAU_ANOMALY if chosen == "anomaly" else 1 / texts.scale
        pair = has[:, 0] & has[:, 1] & (self.params.mode == "pair")
        other = ~has[:, 0] & has[:, 1]
        sign = np.where(other, -1.0, 1.0)
        single = texts.scale * np.stack([~other, -1.0 * other], axis=1)
        # 1 / tau has to fit in float32, differences of cosines at a time.
        factor = np.where(pair[:, None], np.array([1.0, -1.0]) / max(tau, _LEAST_TAU), single)
        return factor, np.where(pair, 0.0, sign * texts.bias)


def _column(values: NDArray[np.float64], reference: Any) -> Any:
    return ops.cast(values[:, None], reference)


def _weights(texts: ClassTexts, state: State) -> NDArray[np.float64]:
    """Weight (M,) of each text: that of the weigh stage, else that which came with it, else 1."""
    given = state.weight if state.weight is not None else texts.weight
    weight = np.ones(len(texts.class_index)) if given is None else ops.to_numpy(given)
    return weight.astype(np.float64)


def _sides(texts: ClassTexts, chosen: str, weight: NDArray[np.float64]) -> NDArray[np.intp]:
    """State (M,) of each text: 0 for the one asked for, 1 for the other, -1 for neither."""
    kinds, index = np.asarray(texts.kind, dtype=object), ops.to_numpy(texts.class_index)
    first, second = STATES[chosen]
    side = np.where(kinds == first, 0, np.where(kinds == second, 1, -1))
    stateless = ~np.isin(kinds.astype(str), [kind for own in STATES.values() for kind in own])
    told = np.bincount(index[(side >= 0) & (index >= 0) & (weight > 0)], minlength=texts.n_classes)
    return np.where(stateless & (index >= 0) & (told[index] == 0), 0, side)
