"""What a report says of the texts of each class."""

from __future__ import annotations

import numpy as np

from byname import ops
from byname.diagnose import Diagnosis
from byname.report.schema import TextReport
from byname.study.subject import Subject

__all__ = ["class_texts"]

MOST = 8  # texts of a class that are shown


def class_texts(
    subject: Subject, found: Diagnosis
) -> tuple[list[list[TextReport]], dict[tuple[int, int], list[str]]]:
    """The texts of class k that count most, and for confused pairs (k, j) what tells them apart.

    Examples
    --------
    >>> from byname.taskfile import Task
    >>> from byname.diagnose import diagnose
    >>> from byname.taxonomy import Taxonomy
    >>> task = Task(np.eye(2), np.eye(2)[None], ("a {}",), Taxonomy.from_names(["cat", "dog"]))
    >>> subject = Subject.of_task(task, "plain")
    >>> found = diagnose(subject.texts, subject.batch, subject.pipeline)
    >>> class_texts(subject, found)[0][1][0]["text"]
    'a dog'
    """
    texts = subject.texts
    index = ops.to_numpy(texts.class_index)
    count = np.bincount(index[index >= 0], minlength=texts.n_classes)
    given = subject.pipeline.weight_
    weight = 1 / np.maximum(count, 1)[index] if given is None else ops.to_numpy(given)
    made: list[list[TextReport]] = []
    for k in range(texts.n_classes):
        rows = np.flatnonzero(index == k)
        rows = rows[np.argsort(-weight[rows], kind="stable")][:MOST]
        made.append(
            [
                TextReport(
                    text=subject.sentences[m],
                    kind=texts.kind[m] if texts.kind else "",
                    weight=float(weight[m]),
                    changes=None,
                    effect=None,
                )
                for m in rows.tolist()
            ]
        )
    return made, {}
