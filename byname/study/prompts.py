"""Findings about texts: those that hurt, those that decide alone, and classes with too few."""

from __future__ import annotations

import re
import shlex
from collections import defaultdict
from collections.abc import Hashable

import numpy as np

from byname import ops
from byname.advice import advice
from byname.diagnose import Diagnosis
from byname.errors import BynameError
from byname.files import names_file
from byname.promptset_io import load_prompts
from byname.study.contrasts import contrast
from byname.study.finding import SHOWN, Finding
from byname.study.subject import Subject
from byname.study.texteffects import TextEffects, agreement_without, text_effects

__all__ = ["TextEffects", "check_prompts", "contrast", "deciding", "text_effects"]

DECIDES = 0.5  # of as many images as its class is answered for, that change without a text
LEAST = 5  # of them at least
FEW = 4  # times the texts of a class, that half of the classes have
LONG = 80  # characters of a text or name inside a sentence


def check_prompts(
    subject: Subject, found: Diagnosis
) -> tuple[list[Finding], dict[str, dict[str, float | None]]]:
    """Texts that hurt or decide, and classes with few texts or the texts of another.

    Examples
    --------
    >>> from byname.taskfile import Task
    >>> from byname.diagnose import diagnose
    >>> from byname.taxonomy import Taxonomy
    >>> X = np.eye(2).repeat(5, axis=0)
    >>> P = np.array([[[0.8, 0.6], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]])
    >>> task = Task(X, P, ("a {}", "one {}", "no {}"), Taxonomy.from_names(["cat", "dog"]))
    >>> subject = Subject.of_task(task, "ensemble")
    >>> made, numbers = check_prompts(subject, diagnose(subject.texts, X, subject.pipeline))
    >>> made[0].kind, made[0].texts, numbers["prompts"]["hurting"]
    ('hurting_prompt', ('no cat',), 1.0)
    """
    effects = text_effects(subject)
    decide = deciding(subject, effects)
    made = [
        _hurting(subject, effects),
        _decide(subject, effects, decide),
        _few(subject),
        _same(subject),
    ]
    said = effects.changes[effects.has_changes]
    numbers = {
        "texts": float(len(effects.changes)),
        "hurting": float(effects.hurts.sum()),
        "deciding": float(len(decide)),
        "most_changes": float(said.max()) if len(said) else None,
        "images_looked_at": float(effects.looked_at),
    }
    return [one for one in made if one is not None], {"prompts": numbers}


def deciding(subject: Subject, effects: TextEffects) -> list[int]:
    """Rows of the texts without which many answers change, first those with most.

    Many are 5 images or more, and at least half as many as the class is answered for.
    """
    index = ops.to_numpy(subject.texts.class_index)
    n = len(subject.answers)
    count = np.bincount(subject.answers, minlength=subject.texts.n_classes)
    changed = effects.changes * n
    many = effects.has_changes & (changed > np.maximum(LEAST - 0.5, DECIDES * count[index]))
    return _by(subject, effects.changes, many)


def _by(subject: Subject, value: np.ndarray, chosen: np.ndarray) -> list[int]:
    """Chosen texts by falling value; equal ones by what they say, not by their place."""
    rows, ids = np.flatnonzero(chosen).tolist(), subject.taxonomy.class_ids
    index = ops.to_numpy(subject.texts.class_index)
    return sorted(rows, key=lambda m: (-value[m], subject.sentences[m], ids[index[m]]))


def _hurting(subject: Subject, effects: TextEffects) -> Finding | None:
    rows = _by(subject, effects.lack, effects.hurts)
    if not rows:
        return None
    ids, change = _ids(subject, rows), agreement_without(subject)
    one, better = len(rows) == 1, change is None or change >= 0
    told = (
        "" if better else "; without all of them neighbours would agree less: judge each yourself"
    )
    return Finding(
        "hurting_prompt",
        "warning",
        f"{len(rows)} of {len(effects.hurts)} texts {'makes its' if one else 'make their'} class "
        f"harder to tell, in {_classes(len(ids))}: {_told(subject, rows)}{told}.",
        next=_next(subject, rows, out=better),
        classes=tuple(ids[:SHOWN]),
        texts=_sentences(subject, rows),
        count=len(rows),
        values={
            "effect": float(effects.effect[rows[0]]),
            "lack": float(effects.lack[rows[0]]),
        }
        | ({} if change is None else {"agreement": change}),
    )


def _decide(subject: Subject, effects: TextEffects, rows: list[int]) -> Finding | None:
    if not rows:
        return None
    ids = _ids(subject, rows)
    share, one = float(effects.changes[rows[0]]), len(rows) == 1
    note = f" ({effects.note})" if effects.note else ""
    return Finding(
        "deciding_prompt",
        "note",
        f"{len(rows)} {'text decides' if one else 'texts decide'} many answers alone, in "
        f"{_classes(len(ids))}: {_told(subject, rows)}; without the first, {share:.1%} of all "
        f"answers would change{note}.",
        classes=tuple(ids[:SHOWN]),
        texts=_sentences(subject, rows),
        count=len(rows),
        values={"changes": share},
    )


def _few(subject: Subject) -> Finding | None:
    index = ops.to_numpy(subject.texts.class_index)
    count = np.bincount(index[index >= 0], minlength=subject.texts.n_classes)
    usual = float(np.median(count))
    rows = np.flatnonzero(count * FEW <= usual)
    if not len(rows):
        return None
    ids = [i for _, i in sorted((int(count[k]), subject.taxonomy.class_ids[k]) for k in rows)]
    return Finding(
        "few_texts",
        "note",
        f"{_classes(len(ids))} {'has' if len(ids) == 1 else 'have'} {int(count[rows].max())} "
        f"{'text' if count[rows].max() == 1 else 'texts'} or fewer, half of all have {usual:g} or "
        f"more: {_names(subject, ids)}.",
        next=advice("weak", ids[0], subject.command, subject.pipeline.recipe),
        classes=tuple(ids[:SHOWN]),
        count=len(ids),
    )


def _same(subject: Subject) -> Finding | None:
    index, T = ops.to_numpy(subject.texts.class_index), ops.to_numpy(subject.texts.vectors)
    own: list[set[Hashable]] = [set() for _ in range(subject.texts.n_classes)]
    for m in np.flatnonzero(index >= 0).tolist():
        words = " ".join(subject.sentences[m].casefold().split())
        # Texts that are not known are the same where their vectors are.
        own[index[m]].add(words or np.round(T[m].astype(np.float64), 5).tobytes())
    groups: defaultdict[frozenset[Hashable], list[str]] = defaultdict(list)
    for class_id, said in zip(subject.taxonomy.class_ids, own, strict=True):
        if said:
            groups[frozenset(said)].append(class_id)
    ids = [i for group in sorted(map(sorted, groups.values())) if len(group) > 1 for i in group]
    if not ids:
        return None
    return Finding(
        "same_texts",
        "warning",
        f"{_classes(len(ids))} have exactly the texts of another class, and cannot be told from "
        f"it: {_names(subject, ids)}.",
        next=advice("weak", ids[0], subject.command, subject.pipeline.recipe),
        classes=tuple(ids[:SHOWN]),
        count=len(ids),
    )


def _next(subject: Subject, rows: list[int], *, out: bool) -> str:
    """Where the texts are in a file and may go, take them out; else give the class more."""
    ids, words = _ids(subject, rows), shlex.split(subject.command)
    if out and "--prompts" in words[:-1]:
        again = " ".join(subject.command.splitlines())
        for file in _files(words[words.index("--prompts") + 1]):
            n = _held(subject, rows, file)
            if n:
                where = shlex.quote(" ".join(file.splitlines()))
                them = "them" if n == len(rows) else f"the {n} of them that it holds"
                return f"# take {them} out of {where}, then: {again}"
    return advice("weak", ids[0], subject.command, subject.pipeline.recipe)


def _files(spec: str) -> list[str]:
    """The prompt files of ``--prompts``: members and files, joined by "+"."""
    parts = [spec] if names_file(spec) else re.split(r"\+(?![^\[]*\])", spec)
    return [part.strip() for part in parts if part.strip().lower().endswith(".json")]


def _held(subject: Subject, rows: list[int], file: str) -> int:
    """How many of these texts stand in a file, for their class."""
    try:
        held = load_prompts(file, subject.taxonomy).classes
    except (BynameError, OSError):
        return 0
    index, ids = ops.to_numpy(subject.texts.class_index), subject.taxonomy.class_ids
    said = {class_id: {one.text for one in prompts} for class_id, prompts in held.items()}
    return sum(subject.sentences[m] in said.get(ids[index[m]], ()) for m in rows)


def _classes(n: int) -> str:
    return "1 class" if n == 1 else f"{n} classes"


def _ids(subject: Subject, rows: list[int]) -> list[str]:
    index = ops.to_numpy(subject.texts.class_index)
    return list(dict.fromkeys(subject.taxonomy.class_ids[index[m]] for m in rows))


def _sentences(subject: Subject, rows: list[int]) -> tuple[str, ...]:
    return tuple(subject.sentences[m] for m in rows if subject.sentences[m])[:SHOWN]


def _told(subject: Subject, rows: list[int]) -> str:
    index, classes = ops.to_numpy(subject.texts.class_index), subject.taxonomy.classes
    said = []
    for m in rows[:3]:
        text, name = _short(subject.sentences[m]), _short(classes[index[m]].name)
        said.append(f"'{text}' of '{name}'" if text else f"one of '{name}'")
    return ", ".join(said) + (f" and {len(rows) - 3} more" if len(rows) > 3 else "")


def _names(subject: Subject, ids: list[str]) -> str:
    names = {node.id: node.name for node in subject.taxonomy.classes}
    more = f" and {len(ids) - 3} more" if len(ids) > 3 else ""
    return ", ".join(f"'{_short(names[i])}'" for i in ids[:3]) + more


def _short(text: str) -> str:
    """On one line."""
    words = " ".join(text.split())
    return words if len(words) <= LONG else f"{words[: LONG - 3]}..."
