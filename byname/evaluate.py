"""Recipes against labelled images: a table of metrics with intervals over one set of draws.

First every recipe answers, without a label; then the answers are scored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.classifier import Classifier
from byname.embeddings import Embeddings
from byname.errors import NeedsError, UsageError
from byname.extra import Extras
from byname.files import names_file
from byname.gathered import Gathered
from byname.pipeline import Pipeline
from byname.progress import tell
from byname.promptchoice import is_member
from byname.promptset import PromptSet
from byname.promptset_io import read_json
from byname.recipes import Recipe, get_recipe
from byname.scoring import (
    METRICS,
    Predicted,
    Table,
    check_baseline,
    check_metrics,
    ranks_for,
    score,
    split_list,
)
from byname.stage import Batch, create
from byname.taskfile import Task
from byname.taxonomy import Taxonomy

__all__ = [
    "Contender",
    "evaluate",
    "evaluate_images",
    "parse_recipes",
    "predict_images",
    "predict_task",
    "prepare_models",
]

Recipes = str | Iterable[str | Recipe] | Mapping[str, "Contender"]


@dataclass(frozen=True)
class Contender:
    """One row of the table: a recipe, and the prompt file, or texts, that it uses, if any."""

    recipe: Recipe
    prompts: str | PromptSet | None = None

    @property
    def origin(self) -> str | None:
        """Where its own texts come from."""
        given = self.prompts
        return given.provenance.generator if isinstance(given, PromptSet) else given


def parse_recipes(recipes: Recipes) -> dict[str, Contender]:
    """Recipes by the name that they have in the table.

    Parameters
    ----------
    recipes : str or iterable of str or Recipe
        Names, members with parameters, or either with ``@`` and its prompts: a prompt file, or a
        member of the prompts stage, or several of these joined by "+", as in
        ``"plain,cpe@templates+descriptors.json"``.

    Raises
    ------
    RecipeError, UsageError, PromptError
        For an unknown recipe, member or parameter, for no recipe at all, and for a prompt file
        that cannot be read.

    Examples
    --------
    >>> list(parse_recipes("plain,reject[min_probability=0.6,min_margin=0.1]"))
    ['plain', 'reject[min_probability=0.6,min_margin=0.1]']
    """
    if isinstance(recipes, Mapping):
        return dict(recipes)
    given = split_list(recipes) if isinstance(recipes, str) else list(recipes)
    found: dict[str, Contender] = {}
    for item in given:
        if isinstance(item, Recipe):
            found[item.name] = Contender(get_recipe(item))
            continue
        name, at, prompts = item.partition("@")
        prompts = prompts.strip()
        if at and not is_member(prompts):
            _check_prompts(prompts)
            found[item] = Contender(get_recipe(name), prompts)
        else:
            found[item] = Contender(get_recipe(name, prompts=prompts if at else None))
    if not found:
        raise UsageError("evaluate", "no recipe was named", "Try --recipes plain,ensemble.")
    return found


def _check_prompts(prompts: str) -> None:
    """Unknown members and files that cannot be read are errors before any work."""
    parts = [prompts] if names_file(prompts) else split_list(prompts, "+")
    for part in parts:
        if is_member(part):
            create(part, "prompts")
        else:
            read_json(Path(part), f"read the prompts in '{part}'", "Give a prompt file.")


def predict_task(
    task: Task, contender: Contender, *, ranks: int = 5, level: str | int | None = None
) -> Predicted:
    """Answers of a recipe over the vectors of a task.

    Raises
    ------
    NeedsError
        Where the recipe needs what a task does not hold.
    """
    if contender.prompts is not None:
        raise NeedsError(
            f"use '{contender.origin}' with a task",
            "a task holds vectors of its own texts only",
            "Evaluate a folder of images with an encoder.",
        )
    texts, batch = task.texts_for(contender.recipe.prompts), task.batch()
    pipeline = Pipeline(contender.recipe).fit(texts, batch)
    return _decide(pipeline, batch, texts.taxonomy, ranks, level)


def prepare_models(
    contenders: Mapping[str, Contender],
    options: Mapping[str, Any],
    text_progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Classifier | str]:
    """A classifier with encoded texts for each recipe; a text says why there is none.

    Parameters
    ----------
    contenders : mapping of str to Contender
    options : mapping
        Those of :class:`Classifier` but the recipe; a contender's own prompt file goes before
        ``prompts`` and ``templates``.
    """
    found: dict[str, Classifier | str] = {}
    if options.get("extra"):
        options = {**options, "extra": Extras.of(options["extra"])}  # opened once for all
    for name, contender in contenders.items():
        own = {} if contender.prompts is None else {"prompts": contender.prompts, "templates": None}
        model = Classifier(recipe=contender.recipe, **{**options, **own})
        try:
            found[name] = model.prepare(text_progress)
        except NeedsError as error:
            found[name] = str(error)
    return found


def predict_images(
    images: Embeddings | Gathered, model: Classifier, *, ranks: int = 5
) -> Predicted:
    """Answers of a classifier that is fitted on these very images, unlabeled.

    Raises
    ------
    NeedsError
        Where the recipe needs what there is not.
    UsageError
        Where an input of the classifier lacks some of the images.
    """
    given = model.gather(images)
    if len(given) != len(images):
        first = next(iter(given.embeddings.errors.values()), "")
        raise UsageError(
            "evaluate",
            f"{len(images) - len(given)} images lack an input ({first})",
            "Leave them out.",
        )
    model.fit_prepared(given)
    return _decide(model.pipeline_, given.batch, model.taxonomy_, ranks, model.level)


def _decide(
    pipeline: Pipeline, batch: Batch, taxonomy: Taxonomy, ranks: int, level: str | int | None
) -> Predicted:
    S: NDArray[Any] = ops.to_numpy(pipeline.scores(batch))
    answer, answered = pipeline.decide(S, k=ranks, level=level, batch=batch)
    S = ops.to_numpy(pipeline.roll_up(S, level)[0])
    return Predicted(answer, S, answered)


def evaluate(
    task: Task,
    recipes: Recipes,
    metrics: str | Iterable[str] = METRICS,
    *,
    level: str | int | None = None,
    progress: Callable[[str], None] = lambda recipe: None,
    **scoring: Any,
) -> Table:
    """Recipes against each other on a labelled task.

    Parameters
    ----------
    task : Task
    recipes, metrics
        See :func:`parse_recipes` and :func:`byname.scoring.check_metrics`.
    level : str or int, optional
        Answer, and score, with the groups of this level of the taxonomy.
    progress : callable
        Called with the name of each recipe before it runs.
    scoring
        ``draws``, ``seed``, ``confidence``, ``differences``, ``baseline`` of
        :func:`byname.scoring.score`, which says what is returned.

    Raises
    ------
    RecipeError, UsageError, TaxonomyError
        For unknown recipes, metrics, levels or a baseline, before any work; for a baseline that
        was skipped.

    Examples
    --------
    >>> task = Task(np.eye(2), np.eye(2)[None], ("a {}",), Taxonomy.from_names(["cat", "dog"]),
    ...             labels=np.array([0, 0]))
    >>> evaluate(task, "plain", "top1", draws=0)
    {'plain': {'top1': {'value': 0.5, 'low': None, 'high': None}}}
    """
    contenders, names = parse_recipes(recipes), check_metrics(metrics)
    check_baseline(scoring.get("baseline"), contenders)
    labels = task.labels
    if labels is None:
        raise UsageError("evaluate", "the task was loaded without labels", "Load it with them.")
    if level is not None:
        labels = task.taxonomy.cut(level)[1][labels]
    _some_images(len(labels))
    ranks = ranks_for(names)
    answers = _answers(
        contenders, lambda c: predict_task(task, c, ranks=ranks, level=level), progress
    )
    return score(answers, labels, names, **scoring)


def evaluate_images(
    embeddings: Embeddings | Gathered,
    labels: NDArray[np.intp],
    models: Mapping[str, Classifier | str],
    metrics: str | Iterable[str] = METRICS,
    *,
    progress: Callable[[str], None] = lambda recipe: None,
    **scoring: Any,
) -> Table:
    """Recipes against each other on embedded images.

    Parameters
    ----------
    embeddings : Embeddings or Gathered
        Of N images, all readable; with what else is known of them as :meth:`Classifier.gather`
        puts it together.
    labels : array of int, shape (N,)
        Classes, or groups where the models have a ``level``: see
        :func:`byname.labels.match_labels`.
    models : mapping of str to Classifier
        See :func:`prepare_models`; all over the same classes and level.
    metrics, progress, scoring
        As for :func:`evaluate`.

    Raises
    ------
    UsageError
        For unknown metrics, before any work; for other than N labels.
    """
    names = check_metrics(metrics)
    check_baseline(scoring.get("baseline"), models)
    errors = (embeddings.embeddings if isinstance(embeddings, Gathered) else embeddings).errors
    if len(embeddings) != len(labels) or errors:
        raise UsageError(
            "evaluate",
            f"there are {len(embeddings)} images, {len(errors)} unreadable ones and "
            f"{len(labels)} labels",
            "Keep the images that have both a vector and a label.",
        )
    _some_images(len(labels))
    ranks = ranks_for(names)
    answers = _answers(models, lambda m: predict_images(embeddings, m, ranks=ranks), progress)
    return score(answers, labels, names, **scoring)


def _some_images(n: int) -> None:
    if not n:
        raise UsageError("evaluate", "there are no labelled images", "Give at least one.")


def _answers(
    rivals: Mapping[str, Any], predict: Callable[[Any], Predicted], progress: Callable[[str], None]
) -> dict[str, Predicted | str]:
    found: dict[str, Predicted | str] = {}
    for name, rival in rivals.items():
        if isinstance(rival, str):
            found[name] = rival
            continue
        progress(name)
        try:
            found[name] = predict(rival)
        except NeedsError as error:
            found[name] = str(error)
    tell("score the answers")
    return found
