"""The one dictionary of a report, from what is studied; see :mod:`byname.report.schema`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byname.diagnose import ClassDiagnosis, Diagnosis, diagnose
from byname.report.joint import OnTree, expected_joint, labelled_joint, right_of_each
from byname.report.schema import (
    FORMAT,
    ClassReport,
    Confused,
    Height,
    NodeReport,
    Report,
    Summary,
    Truth,
)
from byname.report.shown import choose, describe
from byname.report.texts import class_texts
from byname.study.checks import study
from byname.study.finding import Finding, by_level
from byname.study.subject import Subject

__all__ = ["make_report"]

UNREADABLE = 100  # files that are named
Labels = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class _Known:
    """Everything that was found, before it is put in order."""

    subject: Subject
    found: Diagnosis
    labels: Labels | None
    expected: OnTree | None
    true: OnTree | None
    joint: Any  # sparse (K, K) of the labels, or None
    pictures: Sequence[NDArray[np.intp]]
    places: Mapping[int, int]  # of the images that are shown


def make_report(
    subject: Subject,
    *,
    labels: Labels | None = None,
    title: str = "byname report",
    provenance: Mapping[str, Any] | None = None,
    thumbnails: bool = True,
    advance: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Report:
    """Everything that a report shows; a ``UsageError`` without images.

    Parameters
    ----------
    subject : Subject
    labels : array of int, shape (N,), optional
        Class of each image, -1 where it is not known: only set beside what is expected.
    title : str
    provenance : mapping, optional
        How the answers came about.
    thumbnails : bool
        Whether small pictures of the images go with it.
    advance : callable, optional
        Called with what is being done, and how much of how much.

    Examples
    --------
    >>> from byname.taskfile import Task
    >>> from byname.taxonomy import Taxonomy
    >>> task = Task(np.eye(2), np.eye(2)[None], ("a {}",), Taxonomy.from_names(["cat", "dog"]))
    >>> report = make_report(Subject.of_task(task, "plain"))
    >>> report["n_images"], list(report["classes"]), report["summary"]["accuracy"]
    (2, ['cat', 'dog'], None)
    """
    found = diagnose(subject.texts, subject.batch, subject.pipeline, command=subject.command)
    findings, numbers = study(subject, found, advance)
    known, reasons = _known(subject, found, labels, findings)
    true_ids = _true_ids(subject, labels)
    images = describe(subject, reasons, true_ids, thumbnails=thumbnails, advance=advance)
    return Report(
        format=FORMAT,
        title=title,
        recipe=found.recipe,
        n_images=found.n_images,
        expected_accuracy=found.expected_accuracy,
        interval=_pair(getattr(found, "interval", None)),
        worst=list(found.worst),
        summary=_summary(known, findings),
        findings=[one.to_dict() for one in by_level(findings)],
        classes=_classes(known),
        tree=_tree(known),
        heights=_heights(known),
        images=images,
        unreadable=_unreadable(subject),
        numbers=numbers,
        members=found.members,
        notes=list(found.notes),
        provenance=dict(provenance or {}),
    )


def _true_ids(subject: Subject, labels: Labels | None) -> list[str | None] | None:
    if labels is None:
        return None
    ids = subject.taxonomy.class_ids
    return [ids[k] if k >= 0 else None for k in labels.tolist()]


def _unreadable(subject: Subject) -> list[dict[str, str]]:
    bad = sorted(subject.errors.items())[:UNREADABLE]
    return [{"file_name": key, "error": why} for key, why in bad]


def _known(
    subject: Subject, found: Diagnosis, labels: Labels | None, findings: Sequence[Finding]
) -> tuple[_Known, dict[int, list[str]]]:
    """What was found, and the images to show with the reasons."""
    ids = list(subject.taxonomy.class_ids)
    order = [ids.index(i) for i in found.worst] if found.worst else list(range(len(ids)))
    reasons, pictures = choose(subject, order)
    place_of = {key: i for i, key in enumerate(subject.keys)}
    for one in findings:
        for key in one.images:
            reasons.setdefault(place_of[key], []).append(one.kind.replace("_", " "))
    joint = None if labels is None else labelled_joint(subject.answers, labels, len(ids))
    known = _Known(
        subject,
        found,
        labels,
        _expected(subject, found),
        None if joint is None else OnTree(joint, subject.taxonomy),
        joint,
        pictures,
        {i: place for place, i in enumerate(reasons)},
    )
    return known, reasons


def _pair(interval: Any) -> list[float] | None:
    return None if interval is None else [float(interval[0]), float(interval[1])]


def _expected(subject: Subject, found: Diagnosis) -> OnTree | None:
    """Answers and classes as expected; None with a single class."""
    if found.expected_accuracy is None:
        return None
    each = np.array([one.expected_accuracy or 0.0 for one in found.classes.values()])
    right = right_of_each(each, subject.answers, found.expected_accuracy)
    return OnTree(expected_joint(subject.S, subject.answers, right), subject.taxonomy)


def _summary(known: _Known, findings: Sequence[Finding]) -> Summary:
    n = None if known.labels is None else int((known.labels >= 0).sum())
    true = known.true
    return Summary(
        n_unreadable=len(known.subject.errors),
        n_classes=len(known.subject.taxonomy),
        n_labelled=n,
        accuracy=None if true is None or not n else float(true.heights[0] / n),
        severity=None if true is None else true.severity(),
        expected_severity=None if known.expected is None else known.expected.severity(),
        decisions=dict(Counter(known.subject.decided[0].decision.tolist())),
        verdict=_verdict(known.found, findings),
    )


def _verdict(found: Diagnosis, findings: Sequence[Finding]) -> str:
    if found.expected_accuracy is None:
        return "With one class there is nothing to tell apart: no accuracy can be expected."
    said = f"About {found.expected_accuracy:.0%} of the answers are expected to be right"
    weak = [found.classes[i] for i in found.worst if found.classes[i].flag]
    if not weak:
        return f"{said}, and no class stands out as failing."
    names = ", ".join(f"'{one.name}'" for one in weak[:3])
    rest = len(weak) - 3
    more = f" and {rest} more" if rest > 0 else ""
    fail = "is expected to fail" if len(weak) == 1 else "are expected to fail"
    return f"{said}; {names}{more} {fail}: begin with the first."


def _truth(joint: Any, k: int) -> Truth | None:
    if joint is None:
        return None
    right = float(joint[k, k])
    n, said = float(joint[:, [k]].sum()), float(joint[[k]].sum())
    return Truth(
        n=int(n),
        accuracy=right / n if n else None,
        precision=right / said if said else None,
    )


def _classes(known: _Known) -> dict[str, ClassReport]:
    made, taxonomy = {}, known.subject.taxonomy
    joint = None if known.joint is None else known.joint.tocsc()
    told, contrasts = class_texts(known.subject, known.found)
    for k, (class_id, one) in enumerate(known.found.classes.items()):
        typical, doubtful = (
            [known.places[i] for i in known.pictures[2 * k + side].tolist()] for side in (0, 1)
        )
        made[class_id] = ClassReport(
            name=one.name,
            path=[*taxonomy.path(class_id)],
            n=one.n,
            predicted_share=one.predicted_share,
            cmm=one.cmm,
            expected_accuracy=one.expected_accuracy,
            interval=_pair(getattr(one, "interval", None)),
            confusions=_confusions(one, k, joint, known.subject, contrasts),
            flag=one.flag,
            next=one.next,
            texts=told[k],
            typical=typical,
            doubtful=doubtful,
            truth=_truth(joint, k),
        )
    return made


def _confusions(
    one: ClassDiagnosis,
    k: int,
    joint: Any,
    subject: Subject,
    contrasts: Mapping[tuple[int, int], list[str]],
) -> list[Confused]:
    place = {class_id: j for j, class_id in enumerate(subject.taxonomy.class_ids)}
    made = []
    for pair in one.confusions:
        j = place[pair.id]
        item = Confused(id=pair.id, share=pair.share, contrast=contrasts.get((k, j), []))
        if joint is not None and (n := float(joint[:, [k]].sum())):
            item["true_share"] = float(joint[j, k]) / n
        made.append(item)
    return made


def _tree(known: _Known) -> NodeReport:
    taxonomy, expected, true = known.subject.taxonomy, known.expected, known.true
    n = np.bincount(
        np.asarray(taxonomy.leaf_index)[known.subject.answers], minlength=len(taxonomy.nodes)
    )
    leaves = (np.asarray(taxonomy.heights) == 0).astype(int)
    for i in range(len(n) - 1, 0, -1):
        n[taxonomy.parents[i]] += n[i]
        leaves[taxonomy.parents[i]] += leaves[i]
    made: list[NodeReport] = []
    for i, node in enumerate(taxonomy.nodes):
        made.append(
            NodeReport(
                id=node.id,
                name=node.name,
                level=int(taxonomy.depths[i]),
                n=int(n[i]),
                classes=int(leaves[i]),
                expected_accuracy=_ratio(expected, i),
                truth=None
                if true is None
                else Truth(
                    n=int(true.true[i]),
                    accuracy=float(true.both[i] / true.true[i]) if true.true[i] else None,
                    precision=float(true.both[i] / true.said[i]) if true.said[i] else None,
                ),
                children=[],
            )
        )
        if i:
            made[taxonomy.parents[i]]["children"].append(made[i])
    return made[0]


def _ratio(tree: OnTree | None, i: int) -> float | None:
    """Share of the images answered below a node whose class is below it too."""
    if tree is None or not tree.said[i]:
        return None
    return float(tree.both[i] / tree.said[i])


def _heights(known: _Known) -> list[Height]:
    if known.expected is None:
        return []
    expected = known.expected.heights / max(known.expected.heights.sum(), 1)
    true = None if known.true is None else known.true.heights / max(known.true.heights.sum(), 1)
    return [
        Height(
            height=h,
            expected_share=float(expected[h]),
            true_share=None if true is None else float(true[h]),
        )
        for h in range(1, len(expected))
    ]
