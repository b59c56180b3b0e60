"""What a report says of the texts of each class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.diagnose import Diagnosis
from byname.report.schema import TextReport
from byname.study.prompts import contrast, text_effects
from byname.study.subject import Subject

__all__ = ["class_texts"]

MOST = 8  # texts of a class that are shown


def class_texts(
    subject: Subject, found: Diagnosis
) -> tuple[list[list[TextReport]], dict[tuple[int, int], list[str]]]:
    """The texts of class k that hurt and that count most, and for confused pairs (k, j) what tells.

    Of each class at most half of the texts shown are those that hurt, the worst first; then come
    the heaviest, and among equals those without which most answers would change.

    Examples
    --------
    >>> from byname.taskfile import Task
    >>> from byname.diagnose import diagnose
    >>> from byname.taxonomy import Taxonomy
    >>> task = Task(np.eye(2), np.eye(2)[None], ("a {}",), Taxonomy.from_names(["cat", "dog"]))
    >>> subject = Subject.of_task(task, "plain")
    >>> found = diagnose(subject.texts, subject.batch, subject.pipeline)
    >>> told, contrasts = class_texts(subject, found)
    >>> told[1][0]["text"], contrasts[1, 0]
    ('a dog', ['a dog'])
    """
    texts, effects = subject.texts, text_effects(subject)
    index = ops.to_numpy(texts.class_index)
    count = np.bincount(index[index >= 0], minlength=texts.n_classes)
    given = subject.pipeline.weight_
    weight = 1 / np.maximum(count, 1)[index] if given is None else ops.to_numpy(given)
    by_class = np.argsort(index, kind="stable")
    start = np.searchsorted(index[by_class], np.arange(texts.n_classes + 1))
    made: list[list[TextReport]] = []
    for k in range(texts.n_classes):
        rows = by_class[start[k] : start[k + 1]]
        bad = rows[effects.hurts[rows]]
        first = bad[np.argsort(-effects.lack[bad], kind="stable")][: MOST // 2]
        rest = rows[~np.isin(rows, first)]
        order = np.lexsort((-effects.changes[rest], -weight[rest]))
        shown = np.concatenate([first, rest[order]])[:MOST]
        made.append([_told(subject, m, weight) for m in shown.tolist()])
    place = {class_id: k for k, class_id in enumerate(subject.taxonomy.class_ids)}
    pairs = [
        (place[class_id], place[other.id])
        for class_id, one in found.classes.items()
        for other in one.confusions
    ]
    return made, contrast(subject, pairs)


def _told(subject: Subject, m: int, weight: NDArray[np.float64]) -> TextReport:
    texts, effects = subject.texts, text_effects(subject)
    return TextReport(
        text=subject.sentences[m],
        kind=texts.kind[m] if texts.kind else "",
        weight=float(weight[m]),
        changes=float(effects.changes[m]) if effects.has_changes[m] else None,
        effect=float(effects.effect[m]) if effects.has_effect[m] else None,
        hurts=bool(effects.hurts[m]),
    )
