"""Findings about classes: never answered, weak, or with a name that others share."""

from __future__ import annotations

from byname.diagnose import Diagnosis
from byname.study.finding import SHOWN, Finding, Level
from byname.study.subject import Subject
from byname.study.wording import listed, quoted

__all__ = ["check_classes"]

# By flag: kind, level, and what is said of one class and of several.
TOLD: dict[str, tuple[str, Level, str, str]] = {
    "ambiguous name": (
        "ambiguous_name",
        "warning",
        "shares a name or an alias with another class",
        "share a name or an alias with another class",
    ),
    "never predicted": ("never_predicted", "problem", "wins no image", "win no image"),
    "weak": (
        "weak_class",
        "problem",
        "is expected to be right in fewer than half of the cases",
        "are expected to be right in fewer than half of the cases",
    ),
}


def check_classes(
    subject: Subject, found: Diagnosis
) -> tuple[list[Finding], dict[str, dict[str, float | None]]]:
    """One finding for each kind of flag, with the first class's command.

    Examples
    --------
    >>> import numpy as np
    >>> from byname.taskfile import Task
    >>> from byname.diagnose import diagnose
    >>> from byname.taxonomy import Taxonomy
    >>> texts, names = np.eye(3)[None], ["cat", "dog", "cow"]
    >>> task = Task(np.eye(3)[:2], texts, ("a {}",), Taxonomy.from_names(names))
    >>> subject = Subject.of_task(task, "plain")
    >>> found = diagnose(subject.texts, subject.batch, subject.pipeline)
    >>> [(one.kind, one.classes) for one in check_classes(subject, found)[0]]
    [('never_predicted', ('cow',))]
    """
    made = []
    for flag, (kind, level, one, several) in TOLD.items():
        ids = [i for i in found.worst if found.classes[i].flag == flag]
        if not ids:
            continue
        first = found.classes[ids[0]]
        names = listed([quoted(found.classes[i].name) for i in ids])
        says = one if len(ids) == 1 else several
        made.append(
            Finding(
                kind,
                level,
                f"{len(ids)} of {len(found.classes)} classes {says}: {names}.",
                next=first.next,
                classes=tuple(ids[:SHOWN]),
                count=len(ids),
            )
        )
    return made, {}
