"""What each text does to the answers: which hurts, and without which they would change.

Formula, with t_m the texts of class k, weights w_m that sum to w, W_k the vector of the class, and
W_k' what it becomes without text m (the others keep their proportions; brought to unit length where
W_k is)::

    changes_m  share of the images whose best class is another with W_k' for W_k
    v_k      = mean of the images answered k - mean over the answered classes of such means
    effect_m = <W_k', v_k> - <W_k, v_k>
    lack_m   = effect_m (w - w_m) / (w_m <W_k, v_k>)

``effect`` is how much better the class vector tells the images of its class from those of others
once the text is gone: above 0 the text hurts. It shrinks with the number of texts; ``lack`` does
not: about 0 for a text that tells its class as well as all of them do, 1 for one that says what all
classes have in common, more for one that speaks for others. (Without anything in common, and unit
length, a text that is far from all images takes nothing away, and its lack is about 0.) A text
hurts where its lack is above 0.5, in a class of 5 images or more.

Assumes that more of the answers are right than wrong. Needs only one mean a class, whatever the
number of images. ``changes`` is counted on up to 5,000 images, chosen by their vectors and not by
their order, and at least 10 of each answered class.

Source: byname's own. Score and constants were chosen on made-up tasks with texts made bad
(``benchmarks/prompt_effects.py``) before real data was looked at.
"""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.errors import PromptError
from byname.knn import agreement, nearest
from byname.margins import pseudo_labels, top2
from byname.pipeline import batch_take
from byname.study.subject import Subject
from byname.weigh.mean import class_weights

__all__ = ["TextEffects", "TextsOfClasses", "agreement_without", "text_effects"]

SAMPLE = 5_000  # images that answers are counted on
CELLS = 20_000_000  # of them, times classes
EACH = 10  # of them of each answered class
NEIGHBOURS = 10
HURTS = 0.5  # lack above which a text hurts
LEAST = 5  # images of a class, below which none of its texts is said to hurt
TIE = 1e-6  # cosines that differ less are the same
TOLERANCE = 1e-3  # in logits, of float32 products at a scale of 100
Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
Flags = NDArray[np.bool_]
_KNOWN: WeakKeyDictionary[Subject, TextEffects] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class TextEffects:
    """What each of M texts does.

    ``changes``, ``effect`` and ``lack`` (M,) as the formula has them, 0 where nothing can be said;
    ``has_changes`` and ``has_effect`` (M,) say where something can: not of the only text of a
    class, of a text of no class, and of a class vector that is no sum of its texts; no effect where
    no image is answered so, and no changes where scores are not cosines to the class vectors.
    ``hurts`` (M,) holds the texts that hurt; ``looked_at`` is the number of images on which changes
    were counted, and ``note`` says in what they differ from the answers given, "" where they do
    not.
    """

    changes: Floats
    effect: Floats
    lack: Floats
    has_changes: Flags
    has_effect: Flags
    hurts: Flags
    looked_at: int
    note: str


def text_effects(subject: Subject) -> TextEffects:
    """What each text does to the answers; computed once for a subject.

    Examples
    --------
    >>> from byname.taskfile import Task
    >>> from byname.taxonomy import Taxonomy
    >>> texts = np.array([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]])
    >>> task = Task(np.eye(2), texts, ("a {}", "one {}"), Taxonomy.from_names(["cat", "dog"]))
    >>> found = text_effects(Subject.of_task(task, "ensemble"))
    >>> found.effect.round(2).tolist()
    [-0.5, 0.5, 0.0, 0.0]
    """
    if subject not in _KNOWN:
        _KNOWN[subject] = _measure(subject)
    return _KNOWN[subject]


def agreement_without(subject: Subject) -> float | None:
    """Change of the agreement of neighbours where all texts that hurt are taken out at once.

    Each text is judged by itself, and with all of a class gone it may win or lose too many images;
    neighbours notice (:func:`byname.knn.agreement`). On the images on which changes are counted.
    None where no text hurts, and where scores are no sums over the texts.

    Examples
    --------
    >>> from byname.taskfile import Task
    >>> from byname.taxonomy import Taxonomy
    >>> task = Task(np.eye(2), np.eye(2)[None], ("a {}",), Taxonomy.from_names(["cat", "dog"]))
    >>> agreement_without(Subject.of_task(task, "plain")) is None
    True
    """
    effects = text_effects(subject)
    if not effects.hurts.any() or not effects.looked_at:
        return None
    texts = TextsOfClasses(subject)
    X = subject.X[_sample(subject)].astype(np.float32, copy=False)
    beside, K = nearest(X, NEIGHBOURS)[0], len(texts.W)
    now, then = (
        agreement(beside, pseudo_labels(X, W.astype(np.float32)), K)
        for W in (texts.W, texts.without_all(effects.hurts))
    )
    return then - now


class TextsOfClasses:
    """Texts by class, with their weights, and the class vectors without each."""

    def __init__(self, subject: Subject) -> None:
        texts, K = subject.texts, subject.texts.n_classes
        self.T = ops.to_numpy(ops.as_float(texts.vectors))
        self.index = ops.to_numpy(texts.class_index)
        self.W = ops.to_numpy(subject.pipeline.W_).astype(np.float64)
        count = np.bincount(self.index[self.index >= 0], minlength=K)
        given = subject.pipeline.weight_
        equal = np.where(self.index >= 0, 1 / np.maximum(count, 1)[self.index], 0.0)
        self.weight = equal if given is None else ops.to_numpy(given).astype(np.float64)
        order = np.argsort(self.index, kind="stable")
        self.rows = np.split(order, np.searchsorted(self.index[order], np.arange(K + 1)))[1:-1]

    def without(self, k: int, scale: float) -> tuple[Ints, Floats, Flags] | None:
        """Rows of class k, its vector without each of them, and whether one can be taken out.

        None where the class vector is not the sum of its texts, but for its length.
        """
        rows = self.rows[k]
        T, w = self.T[rows].astype(np.float64), self.weight[rows]
        mean, total = w @ T, float(w.sum())
        length, own = float(np.linalg.norm(mean)), float(np.linalg.norm(self.W[k]))
        factor = own / length if length else 0.0
        if not len(rows) or np.abs(self.W[k] - factor * mean).max() * scale > TOLERANCE:
            return None
        can = total - w > 1e-9 * abs(total)
        left = (mean - w[:, None] * T) * (total / np.where(can, total - w, 1.0))[:, None]
        unit = abs(own - 1) < 1e-4
        return rows, np.asarray(ops.unit(left)) if unit else factor * left, can

    def without_all(self, out: Flags) -> Floats:
        """Class vectors (K, D) without some texts; of a class without any other, as it is."""
        W = self.W.copy()
        for k in np.unique(self.index[out & (self.index >= 0)]).tolist():
            T, w = self.T[self.rows[k]].astype(np.float64), self.weight[self.rows[k]]
            kept = np.where(out[self.rows[k]], 0, w)
            before, left = np.linalg.norm(w @ T), kept @ T
            if kept.sum() > 1e-9 * w.sum() and before and np.linalg.norm(left):
                own = np.linalg.norm(W[k])
                unit = abs(own - 1) < 1e-4
                W[k] = left * (1 / np.linalg.norm(left) if unit else
                               own / before * w.sum() / kept.sum())  # fmt: skip
        return W


def _measure(subject: Subject) -> TextEffects:
    M, texts = len(subject.texts.vectors), TextsOfClasses(subject)
    changes, effect, lack = np.zeros((3, M))
    has_changes, has_effect, enough = np.zeros((3, M), bool)
    count = np.bincount(subject.answers, minlength=subject.texts.n_classes)
    means = ops.segment_mean(subject.X, subject.answers, len(count)).astype(np.float64)
    seen = count > 0
    apart = means - means[seen].mean(axis=0) if seen.any() else means
    looked, note = _Looked.at(subject, texts.W)
    for k in range(len(count)):
        made = texts.without(k, subject.texts.scale)
        if made is None:
            continue
        rows, left, can = made
        if looked is not None:
            has_changes[rows] = can
            changes[rows] = np.where(can, looked.changes(k, left), 0)
        if seen[k] and seen.sum() > 1:
            has_effect[rows], enough[rows] = can, count[k] >= LEAST
            now = float(texts.W[k] @ apart[k])
            w = texts.weight[rows]
            effect[rows] = np.where(can & (w != 0), left @ apart[k] - now, 0)
            # Where the class vector tells nothing either, no text can be blamed.
            used = can & (w > 0) & (now > TIE)
            share = np.where(used, (w.sum() - w) / np.where(used, w * now, 1), 0)
            lack[rows] = effect[rows] * share
    hurts = has_effect & enough & (lack > HURTS)
    n = 0 if looked is None else len(looked.X)
    return TextEffects(changes, effect, lack, has_changes, has_effect, hurts, n, note)


@dataclass(frozen=True, eq=False)
class _Looked:
    """The images on which answers are counted, with the weight of each and its two best classes."""

    X: NDArray[np.float32]
    weight: Floats
    best: Ints
    first: NDArray[np.float32]
    second: NDArray[np.float32]

    @classmethod
    def at(cls, subject: Subject, W: Floats) -> tuple[_Looked | None, str]:
        """None where scores are no sum over the texts; and in what they differ from the answers."""
        pick = _sample(subject)
        if not len(pick):
            return None, "there are no images"
        X, y = subject.X[pick].astype(np.float32, copy=False), subject.answers[pick]
        C = X @ W.T.astype(np.float32)
        if not _linear(subject, pick, C):
            name = subject.pipeline.score.name
            return None, f"'{name}' scores otherwise than by the sum over the texts of a class"
        count = np.bincount(subject.answers, minlength=len(W))
        share = count / np.maximum(np.bincount(y, minlength=len(W)), 1) / len(subject.answers)
        values, places = top2(C)
        return cls(X, share[y], places[:, 0], values[:, 0], values[:, 1]), _note(subject)

    def changes(self, k: int, left: Floats) -> Floats:
        """Share of the images with another best class, for each vector of class k (M_k, D)."""
        own, made = self.best == k, np.zeros(len(left))
        other = np.where(own, self.second, self.first)[:, None]
        for part in ops.blocks(len(left), max(1, 4_000_000 // len(self.X))):
            cosine = self.X @ left[part].T.astype(np.float32)
            lost, won = own[:, None] & (cosine < other - TIE), cosine > other + TIE
            made[part] = self.weight @ (lost | (won & ~own[:, None]))
        return made


def _sample(subject: Subject) -> Ints:
    """All images; of many, those whose vectors have the lowest digests, and some of every class."""
    most = min(SAMPLE, max(CELLS // subject.texts.n_classes, SAMPLE // EACH))
    y = subject.answers
    if len(y) <= most:
        return np.arange(len(y))
    rows = (np.ascontiguousarray(subject.X[i], np.float32).tobytes() for i in range(len(y)))
    drawn = [int.from_bytes(hashlib.blake2b(r, digest_size=8).digest()) >> 1 for r in rows]
    order = np.argsort(np.array(drawn, np.int64), kind="stable")
    by_class = order[np.argsort(y[order], kind="stable")]
    starts = np.flatnonzero(np.diff(y[by_class], prepend=-1))
    place = np.arange(len(y)) - np.repeat(starts, np.diff([*starts, len(y)]))
    return np.union1d(order[:most], by_class[place < EACH])


def _linear(subject: Subject, pick: Ints, C: NDArray[np.float32]) -> bool:
    """Whether scores, before images are pooled, are scaled cosines to the class vectors."""
    pipeline, texts = subject.pipeline, subject.texts
    if pipeline.refine is None:
        S = subject.S[pick]
    else:
        pipeline, some = copy.copy(pipeline), pick[:256]
        pipeline.refine = None
        S = ops.to_numpy(pipeline.scores(batch_take(subject.batch, some)))
        C = C[: len(some)]
    return bool(np.abs(texts.scale * C + texts.bias - S).max(initial=0) < TOLERANCE)


def _note(subject: Subject) -> str:
    pipeline, said = subject.pipeline, []
    if pipeline.refine is not None:
        said.append(f"counted on the scores before '{pipeline.refine.name}'")
    try:
        given = class_weights(subject.texts)
    except PromptError:
        given = np.zeros(0)
    used = pipeline.weight_
    if used is not None and (len(given) != len(used) or not np.allclose(ops.to_numpy(used), given)):
        said.append(f"with the weights that '{pipeline.weigh.name}' gave, in proportion")
    return "; ".join(said)
