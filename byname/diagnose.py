"""Which classes will fail, and what to do about it, without a label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.advice import advice
from byname.errors import UsageError
from byname.margins import cmm, rivals, worst_classes
from byname.pipeline import Pipeline
from byname.recipes import Recipe, get_recipe
from byname.stage import Batch, ClassTexts
from byname.taxonomy import Taxonomy

__all__ = [
    "ClassDiagnosis",
    "Confusion",
    "Diagnosis",
    "Signals",
    "diagnose",
    "neighbours",
    "signals",
]

Floats = NDArray[np.float64]
NEIGHBOURS = 10
SAMPLE = 20_000  # images among which neighbours are sought
WEAK = 0.5  # expected accuracy below which a class is called weak
# The constants of the expectation: fitted on made-up tasks by benchmarks/diagnose_synthetic.py,
# before real data was looked at.
CLASS = {"one": -0.2, "margin": 2.1, "share": 0.25, "precision": 0.3, "recall": 0.35}
OVERALL = (-0.7, 1.2)
FEW = 10  # images a class, below which neighbours of its own are too few to tell anything
ALONE = "one class has nothing to be told apart from: no accuracy can be expected of it"
COMPARE = (
    "expected accuracies are for ranking the classes of one run: do not compare those of different "
    "recipes, prompts or encoders, since an estimate can rise where the accuracy falls"
)
EDGE = 0.02  # shares are cut here before their logit is taken


@dataclass(frozen=True)
class Confusion:
    """A class that others are taken for, and the share of their images that it comes close to."""

    id: str
    share: float


@dataclass(frozen=True)
class ClassDiagnosis:
    """What is expected of one class.

    ``cmm`` is None, and ``expected_accuracy`` 0, where no image is predicted as the class; ``n``
    counts those images and ``predicted_share`` is their share of all. With a single class
    ``expected_accuracy`` is None. ``confusions`` are the most
    frequent second choices of these images, at most three. Without any image they are the winners
    of the 10 images in which the class comes closest to winning.
    """

    name: str
    cmm: float | None
    n: int
    predicted_share: float
    expected_accuracy: float | None
    confusions: tuple[Confusion, ...]
    flag: str
    next: str


@dataclass(frozen=True)
class Diagnosis:
    """What is expected of all classes.

    Parameters
    ----------
    recipe : str
    n_images : int
    expected_accuracy : float or None
        Share of the images whose answer is expected to be right; None with a single class.
    worst : tuple of str
        Ids of all classes, those that are expected to fail first; empty with a single class.
    classes : dict of str to ClassDiagnosis
        By id, in the order of the taxonomy.
    notes : tuple of str
        How these numbers may be read.
    members : dict of str to dict
        What the members of the recipe learned; see :meth:`byname.pipeline.Pipeline.report`.
    """

    recipe: str
    n_images: int
    expected_accuracy: float | None
    worst: tuple[str, ...]
    classes: dict[str, ClassDiagnosis]
    notes: tuple[str, ...] = ()
    members: dict[str, dict[str, Any]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The same as plain numbers, texts, lists and dictionaries, ready for JSON."""
        made = asdict(self)
        made["worst"], made["notes"] = list(self.worst), list(self.notes)
        for item in made["classes"].values():
            item["confusions"] = list(item["confusions"])
        return made


@dataclass(frozen=True)
class Signals:
    """Label-free signs of each of K classes, from N images.

    ``cmm`` in cosines, -inf where ``count`` is 0; ``margin`` the same in standard deviations of an
    image's cosines over the classes; ``share`` the count relative to the mean of the classes that
    are predicted at all, weighed by their entropy; ``precision`` and ``recall`` as the neighbours
    see them: with q_i the mean probability vector of the neighbours of image i, the mean of q_ik
    over the images predicted as k, and the sum of the same divided by the sum of q_ik over all
    images; ``mass`` that last sum as a share of N.
    """

    cmm: Floats
    count: NDArray[np.intp]
    margin: Floats
    share: Floats
    precision: Floats
    recall: Floats
    mass: Floats

    def expected(self) -> Floats:
        """Expected accuracy of each class; 0 where no image is predicted as it."""
        z = (
            CLASS["one"]
            + CLASS["margin"] * np.clip(self.margin, -1, 5)
            + CLASS["share"] * np.log(np.clip(self.share, 0.05, 20))
            + CLASS["precision"] * _logit(self.precision)
            + CLASS["recall"] * _logit(self.recall)
        )
        return np.where(self.count > 0, 1 / (1 + np.exp(-z)), 0.0)

    def overall(self) -> float:
        """Expected accuracy of all images."""
        mean = float(self.mass @ self.expected())
        return float(1 / (1 + np.exp(-(OVERALL[0] + OVERALL[1] * _logit(np.array(mean))))))


def signals(X: Any, W: Any, S: Any) -> Signals:
    """Label-free signs of each class.

    Parameters
    ----------
    X : array, shape (N, D)
        Unit rows.
    W : array, shape (K, D)
        Class vectors; brought to length one.
    S : array, shape (N, K)
        Logits of the answers.

    Examples
    --------
    >>> found = signals(np.eye(2), np.eye(2), 100 * np.eye(2))
    >>> found.cmm.tolist(), found.count.tolist()
    ([1.0, 1.0], [1, 1])
    """
    W = ops.unit(W)
    n, K = int(S.shape[0]), int(S.shape[1])
    y = ops.to_numpy(ops.argmax(S))
    values, count = cmm((X, W), y)
    pick = _sample(y)
    near = ops.take_rows(X, pick)
    P = ops.to_numpy(ops.softmax(ops.take_rows(S, pick))).astype(np.float64)
    spread, own, votes = 0.0, np.zeros(len(pick)), np.zeros(len(pick))
    m = min(NEIGHBOURS, len(pick) - 1)
    for part in ops.blocks(len(pick), 2048):
        spread += float(ops.to_numpy(ops.matmul_t(near[part], W)).astype(np.float64).std(1).sum())
        beside = neighbours(near, part, m)
        own[part] = P[beside, y[pick[part], None]].mean(axis=1)
        votes += np.bincount(beside.reshape(-1), minlength=len(pick))
    seen = np.bincount(y[pick], minlength=K)
    agreed = np.bincount(y[pick], own, minlength=K)
    mass = (votes / votes.sum()) @ P
    precision = agreed / np.maximum(seen, 1)
    recall = np.minimum(1, agreed / np.maximum(mass * len(pick), 1e-9))
    p = count[count > 0] / n
    effective = float(np.exp(-(p * np.log(p)).sum()))
    width = spread / len(pick)
    return Signals(
        cmm=values,
        count=count,
        margin=np.where(count > 0, values, -1) / (width or 1.0),
        share=count / n * effective,
        precision=precision,
        recall=recall,
        mass=mass,
    )


def diagnose(
    texts: ClassTexts,
    X: Any,
    pipeline: Pipeline | Recipe | str = "ensemble",
    *,
    command: str = "byname diagnose IMAGES --classes CLASSES",
) -> Diagnosis:
    """What to expect of each class on these unlabeled images.

    Parameters
    ----------
    texts : ClassTexts
    X : array, shape (N, D), or Batch
        Unit rows; a batch for recipes that look at more than these.
    pipeline : Pipeline, Recipe or str
        Fitted; or a recipe, that is then fitted on X.
    command : str
        The command of which this is the answer, for the commands that say what to do next.

    Raises
    ------
    UsageError
        Without images.
    NeedsError, EmbeddingsError, PromptError, RecipeError
        As the pipeline raises them.

    Examples
    --------
    >>> texts = ClassTexts(np.eye(3), np.arange(3), Taxonomy.from_names(["cat", "dog", "cow"]))
    >>> found = diagnose(texts, np.eye(3)[[0, 0, 1, 1]], "plain")
    >>> found.worst[0], found.classes["cow"].flag
    ('cow', 'never predicted')
    """
    batch = X if isinstance(X, Batch) else Batch(X)
    X = batch.X
    if not len(batch):
        raise UsageError("diagnose the classes", "there are no images", "Give some, unlabeled.")
    if not isinstance(pipeline, Pipeline):
        pipeline = Pipeline(get_recipe(pipeline)).fit(texts, batch)
    S = pipeline.scores(batch)
    found = signals(X, pipeline.W_, S)
    near = _confusions(X, ops.unit(pipeline.W_), ops.to_numpy(ops.argmax(S)), texts.taxonomy)
    flags = _flags(texts.taxonomy, found)
    ids = texts.taxonomy.class_ids
    todo = [advice(flag, i, command, pipeline.recipe) for flag, i in zip(flags, ids, strict=True)]
    order = worst_classes(found.expected(), found.count)
    return Diagnosis(
        recipe=pipeline.recipe.name,
        n_images=len(batch),
        expected_accuracy=found.overall() if len(ids) > 1 else None,
        worst=tuple(ids[k] for k in order) if len(ids) > 1 else (),
        classes=_classes(texts.taxonomy, found, near, flags, todo),
        notes=_notes(len(batch), texts.n_classes),
        members=pipeline.report(),
    )


def _notes(n: int, K: int) -> tuple[str, ...]:
    if K == 1:
        return (ALONE,)
    if n >= FEW * K:
        return (COMPARE,)
    count, are = ("1 image", "is") if n == 1 else (f"{n} images", "are")
    few = f"{count} for {K} classes {are} fewer than {FEW} a class: expected accuracies can be far"
    return (f"{few} off; give more images", COMPARE)


def _classes(
    taxonomy: Taxonomy,
    found: Signals,
    near: Sequence[tuple[Confusion, ...]],
    flags: Sequence[str],
    todo: Sequence[str],
) -> dict[str, ClassDiagnosis]:
    n, expected = found.count, found.expected()
    return {
        node.id: ClassDiagnosis(
            name=node.name,
            cmm=float(found.cmm[k]) if n[k] else None,
            n=int(n[k]),
            predicted_share=float(n[k] / n.sum()),
            expected_accuracy=float(expected[k]) if len(n) > 1 else None,
            confusions=near[k],
            flag=flags[k],
            next=todo[k],
        )
        for k, node in enumerate(taxonomy.classes)
    }


def _logit(p: Floats) -> Floats:
    p = np.clip(p, EDGE, 1 - EDGE)
    logit: Floats = np.log(p / (1 - p))
    return logit


def _sample(y: NDArray[np.intp]) -> NDArray[np.intp]:
    """All images; of many, some at even distances, and some of every predicted class."""
    if len(y) <= SAMPLE:
        return np.arange(len(y))
    even = np.linspace(0, len(y) - 1, SAMPLE).astype(np.intp)
    order = np.argsort(y, kind="stable")
    ends = np.flatnonzero(np.diff(y[order], prepend=-1))
    place = np.arange(len(y)) - np.repeat(ends, np.diff([*ends, len(y)]))
    return np.union1d(even, order[place < NEIGHBOURS])


def neighbours(X: Any, part: slice, m: int) -> NDArray[np.intp]:
    """The m most similar other images of each image of a block; itself where there is no other."""
    rows = np.arange(part.start, part.stop)
    if m < 1:
        return rows[:, None]
    G = ops.to_numpy(ops.matmul_t(X[part], X)).copy()
    G[np.arange(len(rows)), rows] = -np.inf
    found: NDArray[np.intp] = np.argpartition(-G, m - 1, axis=1)[:, :m]
    return found


def _confusions(
    X: Any, W: Any, y: NDArray[np.intp], taxonomy: Taxonomy
) -> list[tuple[Confusion, ...]]:
    K = len(taxonomy)
    counts: list[Counter[int]] = [Counter() for _ in range(K)]
    for k, j in zip(y.tolist(), rivals(X, W, y).tolist(), strict=True):
        if j >= 0:
            counts[k][j] += 1
    never = np.setdiff1d(np.arange(K), y)
    for k, images in zip(never.tolist(), _closest(X, W, y, never).T, strict=True):
        counts[k] = Counter(y[images].tolist())
    made = []
    for some in counts:
        most = sorted(some.items(), key=lambda item: (-item[1], item[0]))[:3]
        total = some.total()
        made.append(tuple(Confusion(taxonomy.class_ids[j], n / total) for j, n in most))
    return made


def _closest(X: Any, W: Any, y: NDArray[np.intp], classes: NDArray[np.intp]) -> NDArray[np.intp]:
    """The images (10, C) in which each of these classes is least behind the winner."""
    rows = np.zeros((0, len(classes)), np.intp)
    behind = np.zeros(rows.shape)
    for part in ops.blocks(len(y) if len(classes) else 0, 4096):
        S = ops.to_numpy(ops.matmul_t(X[part], W)).astype(np.float64)
        gap = S[np.arange(len(S)), y[part], None] - S[:, classes]
        here = np.broadcast_to(np.arange(part.start, part.start + len(S))[:, None], gap.shape)
        gap, here = np.vstack([behind, gap]), np.vstack([rows, here])
        best = np.argsort(gap, axis=0, kind="stable")[:NEIGHBOURS]
        behind = np.take_along_axis(gap, best, axis=0)
        rows = np.take_along_axis(here, best, axis=0)
    return rows


def _flags(taxonomy: Taxonomy, found: Signals) -> list[str]:
    """What is wrong with each class; "" where nothing is."""
    if len(taxonomy) == 1:
        return [""]
    shared, expected = _ambiguous(taxonomy), found.expected()
    flags = np.where(expected < WEAK, "weak", "").astype(object)
    flags[found.count == 0] = "never predicted"
    flags[[node.id in shared for node in taxonomy.classes]] = "ambiguous name"
    return [str(flag) for flag in flags]


def _ambiguous(taxonomy: Taxonomy) -> set[str]:
    """Ids of classes that share a name or an alias with another class."""
    bearers: dict[str, set[str]] = {}
    for node in taxonomy.classes:
        for name in (node.name, *node.aliases):
            bearers.setdefault(name.casefold(), set()).add(node.id)
    return {i for ids in bearers.values() if len(ids) > 1 for i in ids}
