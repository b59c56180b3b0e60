"""As specific an answer as the probabilities allow: a class, or a group that it belongs to."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.decide.argmax import most_probable
from byname.errors import RecipeError
from byname.stage import Answer, Batch, ClassTexts, Member, StageName, State, register

__all__ = ["Backoff", "BackoffParams", "prompt_agreement", "temperature_for"]

_BLOCK = 4096
_ROWS = 10_000  # images that the temperature is learned from, at most
_PROMPTS = 16  # prompts whose agreement is counted, at most
_ROUNDING = 1e-12  # sums of probabilities are that exact


@dataclass(frozen=True)
class BackoffParams:
    """Probability that an answer must have, and how the probabilities are calibrated."""

    threshold: float = 0.9
    calibrate: Literal["agreement", "off"] = "agreement"

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise RecipeError(
                "use 'backoff'", f"threshold is {self.threshold}", "Give a number from 0 to 1."
            )
        if self.calibrate not in ("agreement", "off"):
            raise RecipeError(
                "use 'backoff'", f"calibrate is '{self.calibrate}'", "Known: agreement, off."
            )


def prompt_agreement(X: Any, texts: ClassTexts) -> float:
    """How often two prompts by themselves predict the same class; NaN where it cannot be said.

    Prompt p takes from each class its text number p (by template where texts have one, starting
    again where a class has fewer); at most 16 of them, evenly spaced. The mean goes over images and
    pairs of prompts. It is NaN without an image, or where no class has two texts.

    Examples
    --------
    >>> from byname.taxonomy import Taxonomy
    >>> texts = ClassTexts(np.array([[1, 0], [1, 0], [0, 1], [0.6, 0.8]]),
    ...                    np.array([0, 0, 1, 1]), Taxonomy.from_names(["cat", "dog"]))
    >>> prompt_agreement(np.array([[0.8, 0.6], [0.7, 0.72]]), texts)
    0.5
    """
    index = ops.to_numpy(texts.class_index)
    counts = np.bincount(index[index >= 0], minlength=texts.n_classes)
    P = int(counts.max(initial=0))
    if not len(X) or P < 2 or not counts.all():
        return float("nan")
    template = np.zeros(len(index)) if texts.prompt_index is None else texts.prompt_index
    order = np.lexsort((ops.to_numpy(template), index))
    starts = np.searchsorted(index[order], np.arange(texts.n_classes))
    votes = np.zeros((len(X), texts.n_classes), np.int32)
    chosen = np.unique(np.linspace(0, P - 1, min(P, _PROMPTS)).round().astype(np.intp))
    for p in chosen:
        vectors = ops.take_rows(texts.vectors, order[starts + p % counts])
        best = ops.to_numpy(ops.argmax(ops.matmul_t(X, vectors)))
        votes[np.arange(len(X)), best] += 1
    pairs = len(chosen) * (len(chosen) - 1)
    return float((votes * (votes - 1)).sum() / (len(X) * pairs))


def temperature_for(S: NDArray[Any], confidence: float) -> float:
    """The T for which the mean of the largest softmax(S / T) is ``confidence``; 0.05 to 20.

    Examples
    --------
    >>> round(temperature_for(np.log([[0.8, 0.2]]), 2 / 3), 3)
    2.0
    """
    S = S.astype(np.float64) - S.max(axis=1, keepdims=True)
    low, high = np.log(0.05), np.log(20.0)
    for _ in range(40):
        middle = (low + high) / 2
        sure = (1 / np.exp(S / np.exp(middle)).sum(axis=1)).mean()
        low, high = (middle, high) if sure > confidence else (low, middle)
    return float(np.exp((low + high) / 2))


@register
class Backoff(Member):
    """Answer the most specific node of the taxonomy that is probable enough.

    Formula, with T = 1 or as below::

        p = softmax(S / T);  p(node) = sum of p over its classes;  p(root) = 1
        answer = the node of least height with p(node) >= threshold; among equals the likeliest

    Height is the longest way down to a class: a class has 0. For a threshold above 0.5 the nodes
    that clear it lie on one path, and the answer is the deepest of them; for one of 0 it is the
    answer of ``argmax``. ``decision`` is "accept" for a class and "backoff" for a group, which may
    be the root, with an empty path: then nothing is known. Rank 1 is the answer with its own
    probability; after a group follow the likeliest classes, with theirs. ``margin`` is p1 - p2.

    Calibration without labels can only soften. T is chosen so that the mean of the largest class
    probability equals the rate at which two prompts by themselves agree on the class, and is
    max(1, T): that rate estimates the accuracy where prompts err about as independently of each
    other as of the truth (Jiang et al., "Assessing Generalization of SGD via Disagreement", ICLR
    2022, for networks). Prompts that disagree show that the probabilities are too sure; prompts
    that agree prove nothing, since all compare with the same image vector, and may be wrong
    together. See docs/recipes/backoff.md for figures. T stays 1 without images, where no class has
    two texts, and on another level than that of the classes. After a refine member, which is
    usually more accurate than single prompts, the answers are more cautious than they need be.

    Shapes: S (N, K) to an Answer with min(k, K) columns. O(N n_nodes), and 16 N K D to calibrate,
    on 10,000 images at most.

    Source: Deng et al., "Hedging Your Bets: Optimizing Accuracy-Specificity Trade-offs in Large
    Scale Visual Recognition", CVPR 2012, without its labelled validation set; the calibration is
    byname's own.

    Parameters
    ----------
    threshold : float
        Probability that an answer must have. 0.9 is fixed beforehand: one answer in ten may be
        wrong, as far as the probabilities are right.
    calibrate : {"agreement", "off"}
        Whether T, 1 or more, is learned from the unlabeled images, or is 1.

    Attributes
    ----------
    temperature_, agreement_ : float
        After ``fit``; NaN for an agreement that is not known.

    Raises
    ------
    RecipeError
        For a threshold outside 0 to 1.

    Examples
    --------
    >>> from byname.taxonomy import Node, Taxonomy
    >>> tree = Taxonomy([Node("f", "fruit"), Node("a", "apple", "f"), Node("p", "pear", "f"),
    ...                  Node("m", "milk")])
    >>> texts = ClassTexts(np.eye(3), np.arange(3), tree)
    >>> state = State(S=np.log([[0.5, 0.45, 0.05], [0.95, 0.03, 0.02]]))
    >>> answer = Backoff(calibrate="off").apply(Batch(np.eye(3)), texts, state)
    >>> [tree.nodes[n].id for n in answer.node[:, 0]], answer.decision.tolist()
    (['f', 'a'], ['backoff', 'accept'])
    """

    stage: ClassVar[StageName] = "decide"
    name = "backoff"
    Params = BackoffParams
    params: BackoffParams
    temperature_: float = 1.0
    agreement_: float = float("nan")

    def fit(self, batch: Batch, texts: ClassTexts, state: State) -> Self:
        """Learn T from the unlabeled images."""
        self.temperature_, self.agreement_ = 1.0, float("nan")
        seen = batch.X.shape[1] == texts.vectors.shape[1] and state.S is not None
        if self.params.calibrate == "off" or not seen:
            return self
        rows = np.unique(np.linspace(0, max(len(batch) - 1, 0), min(len(batch), _ROWS)).astype(int))
        self.agreement_ = prompt_agreement(ops.take_rows(batch.X, rows), texts)
        if np.isfinite(self.agreement_):
            S = ops.to_numpy(ops.take_rows(ops.as_float(state.S), rows))
            # Prompts may agree for a shared reason, so agreement is no ground to be surer.
            self.temperature_ = max(1.0, temperature_for(S, self.agreement_))
        return self

    def report(self) -> dict[str, Any]:
        """The temperature, and the agreement that it comes from; None where it is not known."""
        known = np.isfinite(self.agreement_)
        return {
            "temperature": self.temperature_,
            "agreement": self.agreement_ if known else None,
        }

    def apply(self, batch: Batch, texts: ClassTexts, state: State) -> Answer:
        """Answer with ``decision`` "accept" or "backoff"."""
        taxonomy = texts.taxonomy
        S = ops.to_numpy(ops.as_float(state.S)) / np.float64(self.temperature_)
        leaves = most_probable(texts, dataclasses.replace(state, S=S))
        node, own = leaves.node.copy(), leaves.probability.copy()
        floor = self.params.threshold - _ROUNDING
        for rows in ops.blocks(len(S), _BLOCK):
            mass = taxonomy.rollup(ops.softmax(S[rows]))
            mass[:, 0] = 1  # whatever the sum was rounded to
            # Heights are whole numbers and probabilities below 2: one key for both orders.
            best = np.where(mass >= floor, taxonomy.heights - mass / 2, np.inf).argmin(axis=1)
            back = np.flatnonzero(taxonomy.heights[best] > 0)
            at = back + rows.start
            node[at, 1:], own[at, 1:] = leaves.node[at, :-1], leaves.probability[at, :-1]
            node[at, 0], own[at, 0] = best[back], mass[back, best[back]]
        group = taxonomy.heights[node[:, 0]] > 0
        return Answer(node, own, leaves.margin, np.where(group, "backoff", "accept"))
