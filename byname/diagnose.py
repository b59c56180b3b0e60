"""Which classes will fail, and what to do about it, without a label."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.advice import advice
from byname.errors import UsageError
from byname.expectation import Signals, looked_at, signals
from byname.groups import batch_take, too_many
from byname.margins import rivals, worst_classes
from byname.pipeline import Pipeline
from byname.recipes import Recipe, get_recipe
from byname.stage import Batch, ClassTexts
from byname.taxonomy import Taxonomy

__all__ = [
    "Chances",
    "ClassDiagnosis",
    "Confusion",
    "Diagnosis",
    "diagnose",
]

NEIGHBOURS = 10  # images in which a class comes closest to winning
WEAK = 0.5  # expected accuracy below which a class is called weak
FEW = 10  # images a class, below which neighbours of its own are too few to tell anything
ALONE = "one class has nothing to be told apart from: no accuracy can be expected of it"
COMPARE = (
    "expected accuracies are for ranking the classes of one run: do not compare those of different "
    "recipes, prompts or encoders, since an estimate can rise where the accuracy falls"
)


@dataclass(frozen=True)
class Confusion:
    """A class that others are taken for, and the share of their images that it comes close to."""

    id: str
    share: float


@dataclass(frozen=True)
class ClassDiagnosis:
    """What is expected of one class.

    ``cmm`` and ``interval`` are None, and ``expected_accuracy`` 0, where no image is predicted as
    the class; ``n`` counts those images and ``predicted_share`` is their share of all. ``interval``
    holds the true accuracy 9 of 10 times; see :mod:`byname.expectation`. With a single class it and
    ``expected_accuracy`` are None. ``confusions`` are the most
    frequent second choices of these images, at most three. Without any image they are the winners
    of the 10 images in which the class comes closest to winning.
    """

    name: str
    cmm: float | None
    n: int
    predicted_share: float
    expected_accuracy: float | None
    interval: tuple[float, float] | None
    confusions: tuple[Confusion, ...]
    flag: str
    next: str


@dataclass(frozen=True, eq=False)
class Chances:
    """Of the images that were looked at: their places, the chance that the answer (the class of the
    highest score) is right, and how many of all images each stands for.
    """

    rows: NDArray[np.intp]
    right: NDArray[np.float64]
    weight: NDArray[np.float64]


@dataclass(frozen=True)
class Diagnosis:
    """What is expected of all classes.

    Parameters
    ----------
    recipe : str
    n_images : int
    expected_accuracy : float or None
        Share of the images whose answer is expected to be right; None with a single class.
    interval : tuple of two floats or None
        Low and high, between which the true share lies 9 of 10 times.
    worst : tuple of str
        Ids of all classes, those that are expected to fail first; empty with a single class.
    classes : dict of str to ClassDiagnosis
        By id, in the order of the taxonomy.
    notes : tuple of str
        How these numbers may be read.
    members : dict of str to dict
        What the members of the recipe learned; see :meth:`byname.pipeline.Pipeline.report`.
    chances : Chances, optional
        Image by image; None with a single class. Not in :meth:`to_dict`.
    """

    recipe: str
    n_images: int
    expected_accuracy: float | None
    interval: tuple[float, float] | None
    worst: tuple[str, ...]
    classes: dict[str, ClassDiagnosis]
    notes: tuple[str, ...] = ()
    members: dict[str, dict[str, Any]] = field(default_factory=dict)
    chances: Chances | None = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """The same as plain numbers, texts, lists and dictionaries, ready for JSON."""
        made = asdict(replace(self, chances=None))
        del made["chances"]
        made["worst"], made["notes"] = list(self.worst), list(self.notes)
        for item in made["classes"].values():
            item["confusions"] = list(item["confusions"])
        for item in (made, *made["classes"].values()):
            item["interval"] = None if item["interval"] is None else list(item["interval"])
        return made


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
    y, found = _looked(pipeline, batch, texts.n_classes)
    near = _confusions(X, ops.unit(pipeline.W_), y, texts.taxonomy)
    flags = _flags(texts.taxonomy, found)
    ids = texts.taxonomy.class_ids
    todo = [advice(flag, i, command, pipeline.recipe) for flag, i in zip(flags, ids, strict=True)]
    order = worst_classes(found.expected(), found.count.astype(np.intp))
    return Diagnosis(
        recipe=pipeline.recipe.name,
        n_images=len(batch),
        expected_accuracy=found.overall() if len(ids) > 1 else None,
        interval=found.interval() if len(ids) > 1 else None,
        worst=tuple(ids[k] for k in order) if len(ids) > 1 else (),
        classes=_classes(texts.taxonomy, found, near, flags, todo),
        notes=_notes(len(batch), texts.n_classes, int((found.count > 0).sum())),
        members=pipeline.report(),
        chances=_chances(found, y) if len(ids) > 1 else None,
    )


def _chances(found: Signals, y: NDArray[np.intp]) -> Chances:
    weight = found.weight * found.n
    return Chances(looked_at(y, len(found.count)), found.right(), weight)


def _looked(pipeline: Pipeline, batch: Batch, K: int) -> tuple[NDArray[np.intp], Signals]:
    """The answers, and their signs. Of many images, the logits of a sample alone are held."""
    X = batch.X
    if not (ops.is_stored(X) or too_many(batch, K)):
        S = pipeline.scores(batch)
        y = ops.to_numpy(ops.argmax(S))
        return y, signals(X, pipeline.W_, _before_refining(pipeline, batch, S), y)
    y = np.zeros(len(batch), np.intp)
    for place, _, S in pipeline.parts(batch):
        y[place] = ops.to_numpy(ops.argmax(S))
    rows = looked_at(y, K)
    apart = copy.copy(pipeline)
    apart.refine = None
    return y, signals(X, pipeline.W_, apart.scores(batch_take(batch, rows)), y, rows)


def _before_refining(pipeline: Pipeline, batch: Batch, S: Any) -> Any:
    """Logits at the encoder's own scale, that no other image has changed."""
    if pipeline.refine is None:
        return S
    pipeline = copy.copy(pipeline)
    pipeline.refine = None
    return pipeline.scores(batch)


def _notes(n: int, K: int, answered: int) -> tuple[str, ...]:
    if K == 1:
        return (ALONE,)
    if answered < K / 2:
        absent = (
            f"{K - answered} of {K} classes win no image: if they are there, far fewer answers "
        )
        return (f"{absent}are right than expected", *_notes(n, K, K))
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
    n, expected, spans = found.count, found.expected(), found.intervals().tolist()
    return {
        node.id: ClassDiagnosis(
            name=node.name,
            cmm=float(found.cmm[k]) if n[k] else None,
            n=int(n[k]),
            predicted_share=float(n[k] / n.sum()),
            expected_accuracy=float(expected[k]) if len(n) > 1 else None,
            interval=(spans[k][0], spans[k][1]) if len(n) > 1 and n[k] else None,
            confusions=near[k],
            flag=flags[k],
            next=todo[k],
        )
        for k, node in enumerate(taxonomy.classes)
    }


def _confusions(
    X: Any, W: Any, y: NDArray[np.intp], taxonomy: Taxonomy
) -> list[tuple[Confusion, ...]]:
    K = len(taxonomy)
    counts: list[Counter[int]] = [Counter() for _ in range(K)]
    second = rivals(X, W, y)
    pairs, times = np.unique((y * K + second)[second >= 0], return_counts=True)
    for pair, n in zip(pairs.tolist(), times.tolist(), strict=True):
        counts[pair // K][pair % K] = n
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
