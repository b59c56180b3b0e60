"""One class list under one recipe: fitted once, and shown in parts."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byname.diagnose import FEW, Diagnosis, diagnose
from byname.errors import ImageError
from byname.explain import Side, explain
from byname.pipeline import Pipeline, batch_take
from byname.progress import tell
from byname.promptchoice import chosen_prompts
from byname.promptset import PromptSet
from byname.recipes import Recipe
from byname.serve.encoder import SharedEncoder
from byname.serve.pictures import Shot
from byname.serve.problems import Problem
from byname.stage import Batch
from byname.study.subject import Subject
from byname.taxonomy import Taxonomy
from byname.textvectors import inputs_of, texts_of

__all__ = ["Run", "chosen", "differ", "make_run", "order_of", "rows_of", "summary_of", "why_of"]

NEW_TEXTS = 40_000  # that one request may have encoded: minutes on a small machine
CELLS = 50_000_000  # images x classes: 200 MB of scores
JUDGED = 2_000  # images from which accuracies are expected after each edit; the report takes all
TOP, TEXTS = 5, 8
# Members are made anew each time they are asked; what they look at stays the same.
_inputs_of = functools.lru_cache(maxsize=64)(inputs_of)


@dataclass(frozen=True, eq=False)
class Run:
    """Answers of one recipe for all images, and what is expected of them."""

    recipe: str
    shot: Shot
    subject: Subject
    found: Diagnosis | None  # None without images


def make_run(
    shot: Shot,
    taxonomy: Taxonomy,
    recipe: Recipe,
    encoder: SharedEncoder,
    *,
    template: str | None = None,
) -> Run:
    """Texts, pipeline, answers, and what to expect of them; only new texts are encoded.

    Raises
    ------
    Problem
        413 where it would be too much for one request.
    NeedsError, PromptError, and others
        As the recipe raises them.
    """
    if len(shot.X) * len(taxonomy) > CELLS:
        seen = f"{len(shot.X)} images x {len(taxonomy)} classes are too many at once"
        do = "Use 'byname classify', which works in blocks, or fewer images or classes."
        raise Problem(413, "score the images", seen, do)
    prompts = (
        chosen_prompts(recipe.prompts, taxonomy)
        if template is None
        else PromptSet.from_templates(taxonomy, [template])
    )
    sentences = [p.text for given in prompts.classes.values() for p in given]
    _check_amount(sentences, encoder)
    texts = texts_of(
        prompts,
        taxonomy,
        encoder,
        *_inputs_of(recipe),
        cache=False,  # what a user tries is kept in memory only
        progress=lambda done, total: None,
    )
    batch = Batch(shot.X)
    M = len(texts.class_index)
    tell("fit the recipe")  # who listens may end the work here
    subject = Subject(
        texts=texts,
        sentences=tuple((sentences + [""] * M)[:M]),
        batch=batch,
        pipeline=Pipeline(recipe).fit(texts, batch),
        keys=shot.keys(),
        read=_reader(shot),
    )
    return Run(recipe.name, shot, subject, _expected(subject))


def _check_amount(sentences: Sequence[str], encoder: SharedEncoder) -> None:
    different = list(dict.fromkeys(sentences))
    new = len(different) - encoder.known(different)
    if new > NEW_TEXTS:
        raise Problem(
            413,
            "score the images",
            f"{new:,} new texts would have to be encoded, more than {NEW_TEXTS:,}",
            "Use the recipe 'plain' or one template, add names in steps, or give them with "
            "--classes at the start.",
        )


def _reader(shot: Shot) -> Callable[[str], bytes]:
    """Bytes by key, of the files that were given at the start; uploads are not kept."""
    known = dict(zip(shot.keys(), shot.pictures, strict=True))

    def read(key: str) -> bytes:
        ref = known[key].ref
        if ref is None:
            raise ImageError(f"read '{key}'", "the bytes of an upload are not kept")
        return ref.read()

    return read


def _expected(subject: Subject) -> Diagnosis | None:
    """What to expect; of many images, from a sample that has some of every answered class."""
    n = len(subject.S)
    if not n:
        return None
    tell("expect accuracies")
    batch = subject.batch
    if n <= JUDGED or not subject.pipeline.inductive:
        return diagnose(subject.texts, batch, subject.pipeline, command=subject.command)
    some = _sample(subject.answers, JUDGED)
    batch = batch_take(batch, some)
    found = diagnose(subject.texts, batch, subject.pipeline, command=subject.command)
    # Whether there are enough images is a matter of all.
    few = f"{len(some)} images for"
    enough = n >= FEW * len(subject.taxonomy)
    notes = [one for one in found.notes if not (enough and one.startswith(few))]
    told = f"expected accuracies come from a sample of {len(some):,} of the {n:,} images"
    return replace(found, notes=(*(one.replace(few, f"{n} images for") for one in notes), told))


def _sample(answers: NDArray[np.intp], most: int) -> NDArray[np.intp]:
    """Places of about so many images, at even distances within each answered class."""
    n = len(answers)
    by_class = np.argsort(answers, kind="stable")
    even = by_class[np.linspace(0, n - 1, most).astype(np.intp)]
    _, first = np.unique(answers, return_index=True)
    return np.union1d(even, first)


def _flag(flag: str, n: int) -> str:
    """The flag of a class with n images: a rounding error may turn a tie in the sample."""
    return "" if n and flag == "never predicted" else flag


def summary_of(run: Run) -> dict[str, Any]:
    """The run as it is sent: what is expected, overall and of each class."""
    taxonomy, found = run.subject.taxonomy, run.found
    count = np.bincount(run.subject.answers, minlength=len(taxonomy)).tolist()
    classes = []
    for node, n in zip(taxonomy.classes, count, strict=True):
        one = None if found is None else found.classes[node.id]
        classes.append(
            {
                "id": node.id,
                "name": node.name,
                "n": n,
                "expected_accuracy": None if one is None else _plain(one.expected_accuracy),
                "flag": "" if one is None else _flag(one.flag, n),
            }
        )
    interval = getattr(found, "interval", None)
    return {
        "recipe": run.recipe,
        "expected_accuracy": None if found is None else _plain(found.expected_accuracy),
        "interval": None if interval is None else [_plain(x) for x in interval],
        "classes": classes,
        "notes": [] if found is None else [*_warned(found), *found.notes],
    }


def _warned(found: Diagnosis) -> list[str]:
    """What members that looked at the images warn of; the terminal hears it, and the page too."""
    told = []
    for name, said in found.members.items():
        if said.get("stepped_back"):
            told.append(f"{name} changed nothing: {said.get('reason')}")
        if text := said.get("warning"):
            told.append(f"{name}: {text}")
    return told


def order_of(run: Run | None, shot: Shot, order: str) -> NDArray[np.intp]:
    """Places of the images: the most doubtful first, by class, or by name.

    Names, then ids, settle what is equal, so that the order of arrival does not matter.
    """
    numbers = [int(picture.id[1:]) for picture in shot.pictures]
    names = [picture.name for picture in shot.pictures]
    by_name = sorted(range(len(names)), key=lambda i: (names[i], numbers[i]))
    place = np.array(by_name, np.intp)
    if run is None or order == "name" or not len(place):
        return place
    answer = run.subject.decided[0]
    margin = np.nan_to_num(np.asarray(answer.margin, np.float64)).round(6)
    keys: list[NDArray[Any]] = [margin[place]]
    if order == "class":
        keys.append(np.asarray(answer.node)[:, 0][place])
    return np.asarray(place[np.lexsort(keys)], np.intp)


def differ(runs: Sequence[Run | None], n: int) -> NDArray[np.bool_]:
    """Whether the runs, as far as there are any, answer each of n images differently."""
    ids = [_answered(run) for run in runs if run is not None]
    found = np.zeros(n, bool)
    for other in ids[1:]:
        found |= np.array([a != b for a, b in zip(ids[0], other, strict=True)], bool)
    return found


def _answered(run: Run) -> list[str]:
    """Ids of the answered nodes; those of a decider need not be classes."""
    answer, taxonomy = run.subject.decided
    return [taxonomy.nodes[i].id for i in np.asarray(answer.node)[:, 0].tolist()]


def chosen(
    runs: Sequence[Run | None],
    shot: Shot,
    *,
    only_class: str | None,
    only_differ: NDArray[np.bool_] | None,
    only: set[str] | None,
    find: str,
) -> NDArray[np.bool_]:
    """Whether each image is wanted: by the first run's answer, by id, by part of its name."""
    keep = np.ones(len(shot.pictures), bool)
    first = next((run for run in runs if run is not None), None)
    if only_class is not None and first is not None:
        keep &= np.array([i == only_class for i in _answered(first)], bool)
    if only_differ is not None:
        keep &= only_differ
    if only is not None:
        keep &= np.array([picture.id in only for picture in shot.pictures], bool)
    if find:
        part = find.casefold()
        keep &= np.array([part in picture.name.casefold() for picture in shot.pictures], bool)
    return keep


def rows_of(
    runs: Sequence[Run | None], shot: Shot, places: Sequence[int], corrected: dict[str, str]
) -> list[dict[str, Any]]:
    """Rows as they are sent; ``answers`` has one entry for each run, None where it failed."""
    first = next((run for run in runs if run is not None), None)
    made = []
    for i in places:
        picture = shot.pictures[i]
        made.append(
            {
                "image": picture.id,
                "name": picture.name,
                "answers": [None if run is None else _answer(run, i) for run in runs],
                "top": [] if first is None else _top(first, i),
                "corrected": corrected.get(picture.id),
            }
        )
    return made


def _answer(run: Run, i: int) -> dict[str, Any]:
    answer, taxonomy = run.subject.decided
    node = taxonomy.nodes[answer.node[i, 0]]
    return {
        "class_id": node.id,
        "label": node.name,
        "probability": _plain(answer.probability[i, 0]),
        "margin": _plain(answer.margin[i]),
        "decision": str(answer.decision[i]),
    }


def _top(run: Run, i: int) -> list[list[Any]]:
    P, ids = run.subject.P[i], run.subject.taxonomy.class_ids
    return [[ids[k], _plain(P[k])] for k in np.argsort(-P, kind="stable")[:TOP].tolist()]


def why_of(run: Run, i: int) -> dict[str, Any]:
    """What the texts of the answered class, and of the runner-up, add for one image."""
    subject = run.subject
    rows = np.array([i], np.intp)
    told = explain(
        subject.pipeline,
        subject.texts,
        subject.sentences,
        batch_take(subject.batch, rows),
        names=[subject.keys[i]],
        top=TEXTS,
        S=subject.S[rows],
    )[0]
    return {**_side(told.answer), "against": None if told.rival is None else _side(told.rival)}


def _side(side: Side) -> dict[str, Any]:
    return {
        "class_id": side.class_id,
        "label": side.label,
        "score": _plain(side.score),
        "texts": [
            {
                "text": part.text,
                "weight": _plain(part.weight),
                "cosine": _plain(part.cosine),
                "part": _plain(part.part),
            }
            for part in side.parts
        ],
    }


def _plain(value: Any) -> float | None:
    """A number for JSON; None for what is none."""
    if value is None or not math.isfinite(value):
        return None
    return round(float(value), 6)
