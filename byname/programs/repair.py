"""The repair loop: find the worst classes, ask for their texts, weigh again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.errors import UsageError
from byname.margins import cmm, worst_classes
from byname.pipeline import Pipeline
from byname.promptset import PromptSet
from byname.recipes import Recipe, get_recipe
from byname.stage import Batch, ClassTexts

__all__ = ["Repair", "RepairStep", "ask_file", "repair"]

SETTLED = 0.001
Ask = Callable[[tuple[str, ...]], PromptSet]


@dataclass(frozen=True, eq=False)
class RepairStep:
    """One round.

    Parameters
    ----------
    asked, answered : tuple of str
        Ids of the worst classes, worst first, and of those of them that got texts.
    changed : array of int
        Numbers of the images whose answer changed.
    changed_share : float
    cmm_before, cmm_after : dict of str to float or None
        By class id, each for the answers of its time; None where no image is answered so.
    """

    asked: tuple[str, ...]
    answered: tuple[str, ...]
    changed: NDArray[np.intp]
    changed_share: float
    cmm_before: dict[str, float | None]
    cmm_after: dict[str, float | None]


@dataclass(frozen=True, eq=False)
class Repair:
    """The texts after all rounds, the pipeline fitted on them, and what each round did.

    Examples
    --------
    >>> from byname.classtexts import class_texts
    >>> from byname.taxonomy import Taxonomy
    >>> animals = Taxonomy.from_names(["cat", "dog"])
    >>> known = {"a cat": [1.0, 0.0], "a dog": [0.9, 0.2], "a dog, barking": [0.0, 1.0]}
    >>> texts_of = lambda p: class_texts(p, animals, lambda ts: np.array([known[t] for t in ts]))
    >>> better = PromptSet(classes={"dog": [{"text": "a dog, barking"}]})
    >>> start = PromptSet.from_templates(animals, ["a {}"])
    >>> found = repair(start, np.eye(2), texts_of, lambda ids: better, mode="replace", q="all")
    >>> found.prompts.texts("dog"), found.steps[0].changed_share
    (['a dog, barking'], 0.0)
    """

    prompts: PromptSet
    pipeline: Pipeline
    steps: tuple[RepairStep, ...]


def repair(
    prompts: PromptSet,
    X: Any,
    texts_of: Callable[[PromptSet], ClassTexts],
    ask: Ask,
    recipe: Recipe | str = "cpe",
    *,
    q: int | float | Literal["all"] = 0.1,
    mode: Literal["add", "replace"] = "add",
    rounds: int = 1,
) -> Repair:
    """Better texts for the classes that fail, without a label.

    Each round asks for texts of the q classes of lowest margin that were not asked for before
    (those that are never predicted first), and fits the recipe again. It ends when less than 0.1 %
    of the answers change, nobody answers, or the rounds are used up.

    Parameters
    ----------
    prompts : PromptSet
        Texts to start from.
    X : array, shape (N, D)
    texts_of : callable
        From a prompt set to its vectors: the encoder stays outside.
    ask : callable
        From class ids to a prompt set with texts for them, such as a client of an LLM, or
        :func:`ask_file`; other texts of it are ignored.
    recipe : Recipe or str
    q : int, float or "all"
        How many a round; a float is a share.
    mode : {"add", "replace"}
        Whether new texts of a class stand beside its old ones or in their place.
    rounds : int

    Raises
    ------
    UsageError
        Without images, and for a mode, q or rounds that do not fit.
    """
    _check(X, mode, rounds)
    look = partial(_look, X=X, texts_of=texts_of, recipe=get_recipe(recipe))
    now = look(prompts)
    steps: list[RepairStep] = []
    done: set[str] = set()
    while len(steps) < rounds and (asked := _worst(now, q, done)):
        done.update(asked)
        given, before = ask(asked), now
        if answered := tuple(i for i in asked if given.classes.get(i)):
            prompts = _merge(prompts, given, answered, mode)
            now = look(prompts)
        changed = np.flatnonzero(now.y != before.y)
        share = len(changed) / len(now.y)
        steps.append(RepairStep(asked, answered, changed, share, before.margins(), now.margins()))
        if share < SETTLED:
            break
    return Repair(prompts, now.pipeline, tuple(steps))


def _check(X: Any, mode: str, rounds: int) -> None:
    asked = "repair the texts"
    if mode not in ("add", "replace") or rounds < 1:
        seen = f"mode is {mode!r}, rounds {rounds}"
        raise UsageError(asked, seen, "Use the mode add or replace, and 1 round or more.")
    if not len(Batch(X)):
        raise UsageError(asked, "there are no images", "Give some, unlabeled.")


def ask_file(path: str | Path) -> Ask:
    """Texts out of a prompt file; what it lacks stays unanswered.

    Raises
    ------
    PromptError
        For a file that cannot be read.
    """
    held = PromptSet.load(path)
    return lambda class_ids: held


@dataclass(frozen=True, eq=False)
class _Look:
    """A fitted pipeline, its answers, and the margins of the classes."""

    pipeline: Pipeline
    ids: tuple[str, ...]
    y: NDArray[np.intp]
    cmm: NDArray[np.float64]
    counts: NDArray[np.intp]

    def margins(self) -> dict[str, float | None]:
        pairs = zip(self.ids, self.cmm.tolist(), strict=True)
        return {i: value if np.isfinite(value) else None for i, value in pairs}


def _look(
    prompts: PromptSet, X: Any, texts_of: Callable[[PromptSet], ClassTexts], recipe: Recipe
) -> _Look:
    texts, batch = texts_of(prompts), Batch(X)
    pipeline = Pipeline(recipe).fit(texts, batch)
    y = ops.to_numpy(ops.argmax(pipeline.scores(batch))).astype(np.intp)
    values, counts = cmm((X, ops.unit(pipeline.W_)), y)
    return _Look(pipeline, texts.taxonomy.class_ids, y, values, counts)


def _worst(now: _Look, q: int | float | Literal["all"], done: set[str]) -> tuple[str, ...]:
    """The q classes of lowest margin that are not done."""
    ranked = [now.ids[k] for k in worst_classes(now.cmm, now.counts)]
    most = len(worst_classes(now.cmm, now.counts, q))
    return tuple([i for i in ranked if i not in done][:most])


def _merge(old: PromptSet, new: PromptSet, class_ids: Sequence[str], mode: str) -> PromptSet:
    """New texts for these classes, beside the old ones or in their place."""
    classes = dict(old.classes)
    for i in class_ids:
        kept = classes.get(i, ()) if mode == "add" else ()
        known = {prompt.text for prompt in kept}
        classes[i] = (*kept, *(p for p in new.classes[i] if p.text not in known))
    return old.model_copy(update={"classes": classes})
