"""The one dictionary of a report, from what is studied; see :mod:`byname.report.schema`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byname.diagnose import ClassDiagnosis, Diagnosis, diagnose
from byname.report.joint import OnTree, expected_joint, labelled_joint, with_mean
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
from byname.report.verdict import verdict
from byname.study.checks import study
from byname.study.finding import Finding, by_level
from byname.study.subject import Subject

__all__ = ["make_report"]

UNREADABLE = 100  # files that are named
DEEP = 50  # levels of the tree; what reads it may nest no deeper than a few hundred
Labels = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class _Known:
    """Everything that was found, before it is put in order."""

    subject: Subject
    found: Diagnosis
    labels: Labels | None
    expected: OnTree | None
    true: OnTree | None
    joint: Any  # sparse (K, K) of the highest scores and labels, or None
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
    found = _diagnosed(subject)
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
        interval=_pair(found.interval),
        worst=list(found.worst),
        summary=_summary(known),
        findings=[one.to_dict() for one in by_level(findings)],
        classes=_classes(known),
        tree=_tree(known),
        heights=_heights(known),
        images=images,
        unreadable=_unreadable(subject),
        numbers=numbers,
        members=found.members,
        notes=[*found.notes, *_notes(subject)],
        provenance=dict(provenance or {}),
    )


def _diagnosed(subject: Subject) -> Diagnosis:
    """What is expected of all images; image by image only of those that are studied."""
    studied = diagnose(subject.texts, subject.batch, subject.pipeline, command=subject.command)
    if subject.whole is None:
        return studied
    found = diagnose(subject.texts, subject.whole, subject.pipeline, command=subject.command)
    chances = studied.chances
    if chances is not None:
        share = subject.n_images / max(len(subject.batch), 1)
        chances = replace(chances, weight=chances.weight * share)
    return replace(found, chances=chances)


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
    K, joint, true = len(ids), None, None
    if labels is not None:
        joint = labelled_joint(subject.answers, labels, (K, K))
        said = labelled_joint(subject.nodes, labels, (len(subject.taxonomy.nodes), K))
        true = OnTree(said, subject.taxonomy)
    known = _Known(
        subject,
        found,
        labels,
        _expected(subject, found),
        true,
        joint,
        pictures,
        {i: place for place, i in enumerate(reasons)},
    )
    return known, reasons


def _pair(interval: Any) -> list[float] | None:
    return None if interval is None else [float(interval[0]), float(interval[1])]


def _expected(subject: Subject, found: Diagnosis) -> OnTree | None:
    """Answers and classes as expected; None with a single class."""
    if found.expected_accuracy is None or found.chances is None:
        return None
    rows, weight = found.chances.rows, found.chances.weight
    right = with_mean(found.chances.right, weight, found.expected_accuracy)
    best, said, n = subject.answers[rows], subject.nodes[rows], len(subject.taxonomy.nodes)
    joint = expected_joint(subject.S[rows], best, right, weight, said, n)
    return OnTree(joint, subject.taxonomy)


def _summary(known: _Known) -> Summary:
    subject, true, expected = known.subject, known.true, known.expected
    decision = subject.decided[0].decision
    accepted = decision == "accept"
    share = known.found.expected_accuracy
    if expected is not None and subject.otherwise:
        share = float(expected.heights[0] / expected.heights.sum())
    above = None if expected is None else float(expected.above / expected.heights.sum())
    n, right = None, np.zeros(0, np.bool_)
    if known.labels is not None:
        seen = known.labels >= 0
        n, accepted_seen = int(seen.sum()), accepted[seen]
        leaf = np.asarray(subject.taxonomy.leaf_index)
        right = subject.nodes[seen] == leaf[known.labels[seen]]
    return Summary(
        n_unreadable=len(subject.errors),
        n_classes=len(subject.taxonomy),
        n_otherwise=subject.otherwise,
        coverage=float(accepted.mean()),
        expected_accuracy=share,
        expected_above=above,
        n_labelled=n,
        accuracy=float(right.mean()) if n else None,
        above=None if true is None or not n else true.above / n,
        accuracy_accepted=float(right[accepted_seen].mean()) if n and accepted_seen.any() else None,
        severity=None if true is None else true.severity(),
        expected_severity=None if expected is None else expected.severity(),
        decisions=dict(Counter(decision.tolist())),
        verdict=verdict(known.found, share if subject.otherwise else None, above or 0.0),
    )


def _notes(subject: Subject) -> list[str]:
    """What else a reader must know: what the numbers are about, and what was left out."""
    made, n, levels = [], subject.otherwise, int(np.max(subject.taxonomy.depths))
    if subject.whole is not None:
        made.append(
            "checks of images, decisions, tree, heights and labels looked at "
            f"{len(subject.keys):,} of {subject.n_images:,} images, drawn by their vectors alone; "
            "the numbers of classes (images, share, expected accuracy, confusions) are about all"
        )
    if n:
        made.append(
            f"the decide stage ({subject.pipeline.decider.name}) answers {n:,} of "
            f"{len(subject.nodes):,} images otherwise than with the class of their highest score: "
            "summary, tree, heights and labels of images are about its answers; the numbers of "
            "classes (images, share, expected and true accuracy, confusions) are about the scores"
        )
    if levels > DEEP:
        made.append(
            f"the taxonomy has {levels:,} levels: the tree is shown down to level {DEEP}, and the "
            "classes below it hang on their group there"
        )
    return made


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
            interval=_pair(one.interval),
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
    depths, parents = np.asarray(taxonomy.depths), np.asarray(taxonomy.parents)
    n = np.bincount(known.subject.nodes, minlength=len(taxonomy.nodes))
    leaves = (np.asarray(taxonomy.heights) == 0).astype(int)
    group = leaves == 0
    for i in range(len(n) - 1, 0, -1):
        n[parents[i]] += n[i]
        leaves[parents[i]] += leaves[i]
    made: dict[int, NodeReport] = {}
    above = parents.copy()
    for i, node in enumerate(taxonomy.nodes):
        if i and depths[above[i]] > DEEP:  # parents come before their children
            above[i] = above[above[i]]
        if group[i] and depths[i] > DEEP:
            continue
        made[i] = NodeReport(
            id=node.id,
            name=node.name,
            level=int(depths[i]),
            n=int(n[i]),
            classes=int(leaves[i]),
            expected_precision=_ratio(expected, i),
            truth=None
            if true is None
            else Truth(
                n=int(true.true[i]),
                accuracy=float(true.both[i] / true.true[i]) if true.true[i] else None,
                precision=float(true.both[i] / true.said[i]) if true.said[i] else None,
            ),
            children=[],
        )
        if i:
            made[int(above[i])]["children"].append(made[i])
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
