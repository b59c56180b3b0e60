"""Findings about images from their vectors and scores: those of no class, copies, doubtful ones.

The formulas of the first two are in :mod:`byname.study.alike`.
"""

from __future__ import annotations

import shlex

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.decide.unknown import largest_cosine
from byname.diagnose import FEW, Diagnosis
from byname.margins import top2
from byname.study.alike import LEAST, Neighbours, copies, neighbours, no_class
from byname.study.finding import SHOWN, Finding, Level
from byname.study.subject import Subject

__all__ = ["check_images"]

MANY = 0.04  # of all images that fit no class, above which they are a warning
DOUBT = 0.1  # between the two highest probabilities
DOUBTFUL = 0.1  # of all images, from which it is worth a note
VERY_DOUBTFUL = 0.3  # from which it is a warning
HALF, USUAL = 0.5, 10  # of all images, or times the mean share, answered the same
TIMES = 4  # the share of the next class: twice what it would be by Zipf's law
BLOCK = 4096

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
Found = tuple[Finding | None, dict[str, float | None]]


def check_images(
    subject: Subject, found: Diagnosis
) -> tuple[list[Finding], dict[str, dict[str, float | None]]]:
    """Images that fit no class, near-duplicates, doubtful answers, one answer for most, too few.

    Examples
    --------
    >>> from byname.taskfile import Task
    >>> from byname.diagnose import diagnose
    >>> from byname.taxonomy import Taxonomy
    >>> X = np.array([[1.0, 0, 0], [1.0, 0, 0], [0, 1.0, 0]])
    >>> task = Task(X, np.eye(3)[None, :2], ("a {}",), Taxonomy.from_names(["cat", "dog"]))
    >>> subject = Subject.of_task(task, "plain")
    >>> made, _ = check_images(subject, diagnose(subject.texts, X, subject.pipeline))
    >>> [(one.kind, one.count, sorted(one.images)) for one in made]
    [('near_duplicates', 2, ['0', '1']), ('few_images', 3, [])]
    """
    if not len(subject.answers):
        return [], {}
    near = neighbours(subject.X)
    parts = [
        _no_class(subject, near),
        _near_duplicates(subject, near),
        _doubtful(subject),
        _same_answer(subject),
        _few(subject),
    ]
    numbers: dict[str, float | None] = {"looked_at": float(len(near.rows))}
    for _, measured in parts:
        numbers |= measured
    return [one for one, _ in parts if one is not None], {"images": numbers}


def _no_class(subject: Subject, near: Neighbours) -> Found:
    W = ops.to_numpy(subject.pipeline.W_)
    if W.shape[1] != subject.X.shape[1] or not np.isfinite(W).all():
        return None, {"no_class_share": None}
    top = largest_cosine(subject.X, W)
    marked, score = no_class(top, near, subject.answers)
    share = float(marked.mean())
    numbers: dict[str, float | None] = {"no_class_share": share if len(marked) >= LEAST else None}
    if not marked.any():
        return None, numbers
    rows = near.rows[marked]
    order = _by_key(subject, rows, score[marked])
    level: Level = "warning" if share >= MANY else "note"
    what = (
        f"{_of(len(rows), len(near.rows), subject)} seem to fit no class ({share:.1%}): they are "
        "unusually far from the texts of their class and from other images. More may be hidden."
    )
    then = _again(subject, "classify", "--decide unknown_distance  # rejects unusual images")
    then = then or "# look at them: leave them out, or name the classes they show"
    return _about("no_class", level, what, then, subject, order, {"share": share}), numbers


def _near_duplicates(subject: Subject, near: Neighbours) -> Found:
    group, bound = copies(near, len(subject.keys))
    in_one, answer = np.flatnonzero(group >= 0), subject.answers
    # The share is that of the images compared with all others; partners would count double.
    share = float((group[near.rows] >= 0).mean())
    if not len(in_one):
        return None, {"near_duplicate_share": share}
    n = int(group.max()) + 1
    each = np.unique(np.column_stack([group[in_one], answer[in_one]]), axis=0)[:, 0]
    differ = np.bincount(each, minlength=n) > 1
    order = _by_group(subject, group, differ)
    what = f"{_count(len(in_one), 'image')} in {_count(n, 'group')} of near-identical ones"
    if len(near.rows) < len(answer):
        what += f", among {len(near.rows):,} of {len(answer):,} that were compared with all"
    what += f" (cosine {bound:.3f} or more)"
    apart = int(differ.sum())
    what += f"; {apart} of the groups have more than one answer." if apart else "."
    then = "# keep one image of each group: copies count double in every share and average"
    values = {
        "groups": float(n),
        "groups_with_different_answers": float(apart),
        "extra_copies": float(len(in_one) - n),
        "share": share,
        "least_cosine": bound,
    }
    level: Level = "warning" if apart else "note"
    made = _about("near_duplicates", level, what, then, subject, order, values)
    return made, {"near_duplicate_share": share}


def _by_group(subject: Subject, group: Ints, differ: NDArray[np.bool_]) -> list[int]:
    """Images group by group: those with different answers first, then the larger ones."""
    members: list[list[int]] = [[] for _ in differ]
    for i in sorted(np.flatnonzero(group >= 0).tolist(), key=lambda i: subject.keys[i]):
        members[group[i]].append(i)
    told = sorted(
        zip(differ.tolist(), members, strict=True),
        key=lambda one: (not one[0], -len(one[1]), subject.keys[one[1][0]]),
    )
    return [i for _, rows in told for i in rows]


def _doubtful(subject: Subject) -> Found:
    n, K = subject.S.shape
    if K < 2:
        return None, {"doubtful_share": None}
    margin = np.zeros(n)
    for part in ops.blocks(n, BLOCK):
        two = top2(np.asarray(ops.softmax(subject.S[part]), np.float64))[0]
        margin[part] = two[:, 0] - two[:, 1]
    rows = np.flatnonzero(margin < DOUBT)
    share = len(rows) / n
    numbers: dict[str, float | None] = {
        "doubtful_share": share,
        "mean_margin": float(margin.mean()),
    }
    if share < DOUBTFUL:
        return None, numbers
    what = (
        f"{len(rows):,} of {_count(n, 'image')} ({share:.0%}) are nearly undecided: the two "
        f"highest probabilities are less than {DOUBT:g} apart."
    )
    then = _again(subject, "explain", " # says what each text adds, and what the runner-up lacks")
    then = then or "# give the confused classes better texts: see the findings about classes"
    level: Level = "warning" if share >= VERY_DOUBTFUL else "note"
    order = _by_key(subject, rows, margin[rows])
    return _about("doubtful_images", level, what, then, subject, order, {"share": share}), numbers


def _same_answer(subject: Subject) -> Found:
    n, K = subject.S.shape
    count = np.bincount(subject.answers, minlength=K)
    share = float(count.max() / n)
    numbers: dict[str, float | None] = {"largest_share": share if K > 1 else None}
    second = int(np.partition(count, -2)[-2]) if K > 1 else 0
    far = share >= min(HALF, USUAL / K) and count.max() >= TIMES * max(second, 1)
    if K < 2 or n < LEAST or not far:
        return None, numbers
    k = int(count.argmax())
    what = (
        f"One class takes {count[k]:,} of {n:,} images ({share:.0%}), the next one "
        f"{second:,}: either the images are so, or its texts draw images of other classes."
    )
    then = "# look at its doubtful images; if they are of other classes, make its texts narrower"
    made = Finding(
        "same_answer",
        "note",
        what,
        next=then,
        classes=(subject.taxonomy.class_ids[k],),
        count=int(count[k]),
        values={"share": share, "next_share": second / n},
    )
    return made, numbers


def _few(subject: Subject) -> Found:
    n, K = len(subject.answers), subject.texts.n_classes
    if K < 2 or n >= max(LEAST, FEW * K):
        return None, {}
    what = (
        f"{_count(n, 'image')} for {K} classes: with fewer than {max(LEAST, FEW * K):,}, what is "
        "expected of a class, and what all images together tell, is uncertain."
    )
    then = "# give more unlabeled images of the same kind"
    return Finding("few_images", "note", what, next=then, count=n), {}


def _about(
    kind: str,
    level: Level,
    what: str,
    then: str,
    subject: Subject,
    order: list[int],
    values: dict[str, float],
) -> Finding:
    images = tuple(subject.keys[i] for i in order[:SHOWN])
    return Finding(kind, level, what, then, images=images, count=len(order), values=values)


def _by_key(subject: Subject, rows: Ints, value: Floats) -> list[int]:
    """Rows by ascending value; among equals, by file name."""
    known = zip(np.round(value, 9).tolist(), rows.tolist(), strict=True)
    return [i for _, i in sorted(known, key=lambda pair: (pair[0], subject.keys[pair[1]]))]


def _again(subject: Subject, verb: str, more: str) -> str:
    """The same command with another verb, on one line; "" where it has none for tasks."""
    words = shlex.split(subject.command)
    if words[:2] != ["byname", "diagnose"] or "--task" in words:
        return ""
    return " ".join(f"{shlex.join(['byname', verb, *words[2:]])} {more}".splitlines())


def _of(n: int, of: int, subject: Subject) -> str:
    every = len(subject.answers)
    return f"{n:,} of {of:,} images" + (f" (a sample of {every:,})" if of < every else "")


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}" + ("" if n == 1 else "s")
