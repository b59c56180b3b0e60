"""Findings about names: an audit of the list with its tree, and what each name tells of the images.

Words are compared in :mod:`byname.study.namewords`, vectors in :mod:`byname.study.concepts`. What
needs WordNet is said only where the library ``wn`` and its data are installed. Two names that are
the same are a finding of :mod:`byname.study.classes`.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.diagnose import Diagnosis
from byname.errors import NeedsError
from byname.margins import top2
from byname.prompts.wordnet import Lookup
from byname.study.concepts import astray, near_pairs, one_sided, specificity
from byname.study.finding import SHOWN, Finding, Level
from byname.study.namewords import (
    Pair,
    broader,
    group_names,
    installed,
    nearly_same,
    no_words,
    several_senses,
)
from byname.study.subject import Subject
from byname.study.wording import classes, listed, one_line, option, quoted

__all__ = ["check_names"]

NOTHING = 0.05  # specificity up to which a name describes nothing in the images
ASTRAY = 0.3  # of the usual distance of neighbouring class vectors
LOOKED_UP = 2_000  # classes whose names are looked up in WordNet
BLOCK = 4096

Numbers = dict[str, float | None]
Parts = tuple[list[Finding | None], Numbers]


def check_names(
    subject: Subject, found: Diagnosis
) -> tuple[list[Finding], dict[str, dict[str, float | None]]]:
    """Names that clash, say nothing or mean several things; texts against the tree; odd pairs.

    Examples
    --------
    >>> from byname.taskfile import Task
    >>> from byname.diagnose import diagnose
    >>> from byname.taxonomy import Taxonomy
    >>> X, names = np.eye(3), ["hot dog", "Hot-dogs", "part-17"]
    >>> task = Task(X, X[None], ("a {}",), Taxonomy.from_names(names))
    >>> subject = Subject.of_task(task, "plain")
    >>> made, _ = check_names(subject, diagnose(subject.texts, X, subject.pipeline))
    >>> [(one.kind, one.classes) for one in made]
    [('similar_names', ('hot-dog', 'hot-dogs')), ('empty_name', ('part-17',))]
    """
    parts = [_words(subject), _senses(subject), _vectors(subject), _concepts(subject)]
    made = [one for told, _ in parts for one in told if one is not None]
    if (unchecked := _descriptors(subject)) is not None:
        made.append(unchecked)
    numbers: Numbers = {}
    for _, measured in parts:
        numbers |= measured
    return made, {"names": numbers}


def _words(subject: Subject) -> Parts:
    tree = subject.taxonomy
    same, groups, empty = nearly_same(tree), group_names(tree), no_words(tree)
    file = "# give each class a name of its own, in the file of the classes"
    made: list[Finding | None] = [
        _pairs(subject, "similar_names", "warning", same, _SAME, file),
        _pairs(
            subject, "group_name", "note", groups, _GROUP, "# say in the name what sets it apart"
        ),
    ]
    if empty:
        what = (
            f"{_classes(len(empty))} {_have(len(empty))} a name that says nothing of what is seen: "
            f"{classes(subject, empty)}."
        )
        then = "# write names that a stranger would use for what is seen"
        then += _fewshot(subject)
        made.append(_of("empty_name", "warning", what, then, empty))
    return made, {
        "similar_names": float(len(same)),
        "group_names": float(len(groups)),
        "empty_names": float(len(empty)),
    }


_SAME = "with names that differ in case, accents, plural or punctuation only"
_GROUP = "and groups with the same name, where the group holds other classes too"
_BROADER = "of which the first may be broader, so that both are right"


def _senses(subject: Subject) -> Parts:
    tree = subject.taxonomy
    look_up = installed() if len(tree) <= LOOKED_UP else None
    try:
        pairs, several = _looked_up(subject, look_up)
    except NeedsError:  # its data are damaged: the names alone must do
        look_up = None
        pairs, several = broader(tree), []
    then = "# leave out the broader class, or make it the group of the others"
    made = [_pairs(subject, "broader_name", "note", pairs, _BROADER, then)]
    if several:
        what = (
            f"{_classes(len(several))} {_have(len(several))} a name with two common meanings that "
            f"have nothing in common: {classes(subject, several)}."
        )
        then = "# say which is meant in the name, as in 'crane (bird)', or put it below a group"
        made.append(_of("several_meanings", "note", what, then, several))
    known = None if look_up is None else float(len(several))
    return made, {"broader_names": float(len(pairs)), "several_meanings": known}


def _looked_up(subject: Subject, look_up: Lookup | None) -> tuple[list[Pair], list[str]]:
    tree = subject.taxonomy
    return broader(tree, look_up), [] if look_up is None else several_senses(tree, look_up)


def _vectors(subject: Subject) -> Parts:
    """Class vectors too near to each other, and those that the tree puts elsewhere."""
    W, ids = np.asarray(ops.to_numpy(subject.pipeline.W_)), subject.taxonomy.class_ids
    if len(W) < 3:
        return [], {"near_pairs": None, "astray_share": None}
    same = _same_names(subject)
    pairs = [one for one in near_pairs(W) if same[one[0]].isdisjoint(same[one[1]])]
    near = []
    for a, b in (sorted((ids[k], ids[j])) for k, j, _ in pairs):
        near.append(Pair(a, b, subject.taxonomy.node(a).name, subject.taxonomy.node(b).name))
    says = "with texts that are far closer to each other than those of other classes are"
    then = "# give both texts that tell them apart: byname prompts make --style contrast"
    first = {"distance": pairs[0][2]} if pairs else {}
    made = [_pairs(subject, "near_texts", "warning", near, says, then, first)]
    value, other = astray(W, subject.taxonomy)
    known = ~np.isnan(value)
    if not known.any():
        return made, {"near_pairs": float(len(near)), "astray_share": None}
    share = float((value[known] > 0).mean())
    far = np.flatnonzero(known & (np.nan_to_num(value) > ASTRAY)).tolist()
    rows = sorted(far, key=lambda k: (-round(float(value[k]), 6), ids[k]))
    if rows:
        named = [(ids[k], ids[int(other[k])]) for k in rows]
        said = listed([f"{_name(subject, a)} (nearer to {_name(subject, b)})" for a, b in named])
        what = (
            f"The texts of {_classes(len(rows))} lie nearer to a class of another branch than to "
            f"any of {'its' if len(rows) == 1 else 'their'} own: {said}."
        )
        then = _check_tree(subject)
        values = {"nearer": float(value[rows[0]]), "share": share}
        made.append(_of("texts_against_tree", "note", what, then, [a for a, _ in named], values))
    return made, {"near_pairs": float(len(near)), "astray_share": share}


def _concepts(subject: Subject) -> Parts:
    """Names that describe nothing in the images, and pairs that are entangled on one side."""
    X, W, ids = subject.X, np.asarray(ops.to_numpy(subject.pipeline.W_)), subject.taxonomy.class_ids
    numbers: Numbers = {"specificity": None, "undescribed": None, "one_sided_pairs": None}
    K = subject.S.shape[1]
    if K < 2 or not len(X):
        return [], numbers
    made: list[Finding | None] = []
    told = specificity(X, W, subject.answers) if X.shape[1] == W.shape[1] else None
    if told is not None:
        count = np.bincount(subject.answers, minlength=K)
        won = count > 0
        few = np.flatnonzero(won & (told <= NOTHING)).tolist()
        # Among equals the class with more answers first: more depends on it.
        rows = sorted(few, key=lambda k: (told[k], -count[k], ids[k]))
        made.append(_undescribed(subject, [ids[k] for k in rows], told[rows], count[rows]))
        numbers |= {"specificity": float(told[won].mean()), "undescribed": float(len(rows))}
    made_pairs, n = _one_sided(subject)
    return [*made, made_pairs], numbers | {"one_sided_pairs": n}


def _undescribed(
    subject: Subject, ids: list[str], told: NDArray[np.float64], count: NDArray[np.intp]
) -> Finding | None:
    if not ids:
        return None
    n = int(count.sum())
    what = (
        f"{_classes(len(ids))} {_have(len(ids))} a name that seems to describe nothing in these "
        f"images, though {n:,} {'is' if n == 1 else 'are'} answered so: {classes(subject, ids)}. "
        "The images nearest to the texts of such a class lie among images of others."
    )
    values = {"specificity": float(told[0]), "images": float(n)}
    return _of("undescribed", "warning", what, _describe(subject, ids), ids, values)


def _one_sided(subject: Subject) -> tuple[Finding | None, float]:
    first, second = np.zeros((2, len(subject.S)), np.intp)
    for part in ops.blocks(len(subject.S), BLOCK):
        first[part], second[part] = np.asarray(top2(subject.S[part])[1]).T
    ids = subject.taxonomy.class_ids
    found = one_sided(first, second, subject.S.shape[1])
    found.sort(key=lambda p: (-round(p.lift, 9), -p.share, ids[p.of], ids[p.to]))
    if not found:
        return None, 0.0
    top = found[0]
    said = listed([f"{_name(subject, ids[p.of])} to {_name(subject, ids[p.to])}" for p in found])
    what = (
        f"The images of {_classes(len({p.of for p in found}))} are drawn to another class that is "
        f"not drawn back: {said}. Of the first, {top.share:.0%} have that runner-up, "
        f"{top.lift:.0f} times chance. The other class may be broader, or show what is often seen "
        "with this one."
    )
    named = list(dict.fromkeys(ids[k] for p in found for k in (p.of, p.to)))
    values = {"share": top.share, "lift": top.lift, "back": top.back}
    then = "# look at the doubtful images of the first, and give both texts that tell them apart"
    return _of("one_sided_pair", "note", what, then, named, values, len(found)), float(len(found))


def _descriptors(subject: Subject) -> Finding | None:
    """Descriptors may help by their number alone: WaffleCLIP's controls tell, with labels."""
    rows = [m for m, kind in enumerate(subject.texts.kind or ()) if kind == "descriptor"]
    if not rows or option(subject.command, "--task") is not None:
        return None
    # Several prompt files may be joined by "+"; the controls want the one with the descriptors.
    held = option(subject.command, "--prompts") or ""
    files = [one for one in held.split("+") if one.endswith(".json")]
    then = ["byname", "controls", *_images(subject)]
    then += [
        "--descriptors",
        files[0] if len(files) == 1 else "FILE.json",
        "--labels",
        "LABELS.csv",
    ]
    return Finding(
        "unchecked_descriptors",
        "note",
        f"{len(rows):,} of {len(subject.texts.kind or ()):,} texts are descriptors. Random words "
        "in their place may do as well: labels of some images would tell.",
        next=one_line(shlex.join(then)) + "  # LABELS.csv: file_name, class_id",
        texts=tuple(filter(None, sorted({subject.sentences[m] for m in rows})))[:SHOWN],
        count=len(rows),
    )


def _pairs(
    subject: Subject,
    kind: str,
    level: Level,
    pairs: Sequence[Pair],
    says: str,
    then: str,
    values: dict[str, float] | None = None,
) -> Finding | None:
    if not pairs:
        return None
    said = listed([f"{quoted(p.name_a)} and {quoted(p.name_b)}" for p in pairs])
    what = f"{len(pairs)} {'pair' if len(pairs) == 1 else 'pairs'} of classes {says}: {said}."
    known = set(subject.taxonomy.class_ids)
    ids = list(dict.fromkeys(i for p in pairs for i in (p.a, p.b) if i in known))
    return _of(kind, level, what, then, ids, values, len(pairs))


def _of(
    kind: str,
    level: Level,
    what: str,
    then: str,
    ids: Sequence[str],
    values: dict[str, float] | None = None,
    count: int | None = None,
) -> Finding:
    n = len(ids) if count is None else count
    return Finding(kind, level, what, then, tuple(ids[:SHOWN]), count=n, values=values or {})


def _same_names(subject: Subject) -> list[set[str]]:
    """Names and aliases of each class as they are compared for equality."""
    return [
        {name.casefold() for name in (node.name, *node.aliases)}
        for node in subject.taxonomy.classes
    ]


def _name(subject: Subject, class_id: str) -> str:
    return quoted(subject.taxonomy.node(class_id).name)


def _images(subject: Subject) -> list[str]:
    """IMAGES, --classes and --lineage of the command, for another verb."""
    words = shlex.split(subject.command)
    tree = option(subject.command, "--lineage")
    images = words[2] if len(words) > 2 and not words[2].startswith("-") else "IMAGES"
    made = [images, "--classes", option(subject.command, "--classes") or "CLASSES"]
    made += ["--lineage", tree] if tree else []
    encoder = option(subject.command, "--encoder")
    return made + (["--encoder", encoder] if encoder else [])


def _describe(subject: Subject, ids: Sequence[str]) -> str:
    """Descriptors for these classes; or a few labelled images."""
    if option(subject.command, "--task") is not None:
        about = one_line(", ".join(ids[:3]))
        return f"# write the task again, with texts that describe what is seen of: {about}"
    rest = _images(subject)
    rest = rest[1 : rest.index("--encoder")] if "--encoder" in rest else rest[1:]
    # A comma parts the ids of --only: classes with one in their id are for the reader to add.
    only = [i for i in ids[:SHOWN] if "," not in i]
    make = ["byname", "prompts", "make", "--style", "descriptors", *rest]
    make += ["--only", ",".join(only)] if only else []
    make += ["--emit", "queries.jsonl"]
    return one_line(shlex.join(make)) + _fewshot(subject)


def _fewshot(subject: Subject) -> str:
    if option(subject.command, "--task") is not None:
        return ""
    words = shlex.join(["byname", "fewshot", *_images(subject), "--support", "LABELLED.csv"])
    return f"  # or label a few images of each, then: {one_line(words)}"


def _check_tree(subject: Subject) -> str:
    """The check of the tree; a comment where the command names no file of it."""
    task = option(subject.command, "--task") is not None
    file = option(subject.command, "--taxonomy" if task else "--classes")
    if file is None:
        return "# see whether these classes hang in the right place of the tree"
    tree = option(subject.command, "--lineage")
    words = ["byname", "taxonomy", "check", file, *(["--lineage", tree] if tree else [])]
    return one_line(shlex.join(words)) + "  # do they hang in the right place?"


def _classes(n: int) -> str:
    return "1 class" if n == 1 else f"{n:,} classes"


def _have(n: int) -> str:
    return "has" if n == 1 else "have"
