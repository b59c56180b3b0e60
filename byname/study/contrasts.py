"""The texts that tell two confused classes apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.margins import top2
from byname.study.subject import Subject
from byname.study.texteffects import TextsOfClasses

__all__ = ["contrast"]

NEAR = 0.97  # cosine of texts that say the same
LEAST = 1e-6  # difference of cosines that is one
Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
Flags = NDArray[np.bool_]


def contrast(
    subject: Subject, pairs: Iterable[tuple[int, int]], k: int = 3
) -> dict[tuple[int, int], list[str]]:
    """For classes (a, b), the texts that tell images of a from those of b, first the best.

    The texts of that pair, where the prompt set has any; else the texts of a of the kind
    "contrast"; else all texts of a. Those count most whose mean cosine to the surer half of the
    images answered a is further above that to those answered b; where either has no image, whose
    cosine to the vector of a is further above that to the vector of b. Texts that say the same are
    given once, and those that do not tell the two apart not at all.

    Parameters
    ----------
    subject : Subject
    pairs : iterable of (int, int)
        Numbers of classes.
    k : int
        Texts of a pair at most.

    Examples
    --------
    >>> from byname.taskfile import Task
    >>> from byname.taxonomy import Taxonomy
    >>> task = Task(np.eye(2), np.eye(2)[None], ("a {}",), Taxonomy.from_names(["cat", "dog"]))
    >>> contrast(Subject.of_task(task, "plain"), [(0, 1)])
    {(0, 1): ['a cat']}
    """
    wanted = list(dict.fromkeys(pairs))
    if not wanted:
        return {}
    texts, ids = TextsOfClasses(subject), subject.taxonomy.class_ids
    W, (means, seen) = np.asarray(ops.unit(texts.W)), _sure(subject)
    about = {(a, b): list(rows) for a, b, rows in subject.texts.pairs or ()}
    kinds = np.array(subject.texts.kind or [""] * len(texts.T), object)
    known = np.array([bool(one.strip()) for one in subject.sentences], bool)
    made: dict[tuple[int, int], list[str]] = {}
    for a, b in wanted:
        apart = means[a] - means[b] if seen[a] and seen[b] else W[a] - W[b]
        own = texts.rows[a][known[texts.rows[a]]]
        rows = np.array(about.get((ids[a], ids[b]), []), np.intp)
        rows = rows[known[rows]]
        for other in (own[kinds[own] == "contrast"], own[texts.weight[own] > 0]):
            rows = rows if len(rows) else other
        made[a, b] = _best(rows, texts.T, apart, subject.sentences, k)
    return made


def _sure(subject: Subject) -> tuple[Floats, Flags]:
    """Mean of the surer half of the images of each class (K, D), and which classes have any."""
    S, y, K = subject.S, subject.answers, subject.texts.n_classes
    margin = np.zeros(len(S))
    for part in ops.blocks(len(S), 4096):
        values = top2(S[part])[0].astype(np.float64)
        margin[part] = np.nan_to_num(values[:, 0] - values[:, 1])
    order = np.lexsort((margin, y))
    starts = np.searchsorted(y[order], np.arange(K + 1))
    seen = starts[1:] > starts[:-1]
    middle = np.where(seen, (starts[:-1] + starts[1:]) // 2, 0)
    least = margin[order][middle] if len(S) else np.zeros(K)
    used = np.where(margin >= least[y], y, -1)
    return ops.segment_mean(subject.X, used, K).astype(np.float64), seen


def _best(
    rows: Ints, T: NDArray[np.float32], apart: Floats, sentences: Sequence[str], k: int
) -> list[str]:
    """Texts that point most along ``apart``, no two alike."""
    value = T[rows].astype(np.float64) @ apart
    order = sorted(range(len(rows)), key=lambda i: (-value[i], sentences[int(rows[i])]))
    kept: list[int] = []
    words: set[str] = set()
    for i in order:
        if len(kept) == k or value[i] <= LEAST:
            break
        said = " ".join(sentences[int(rows[i])].casefold().split())
        if said not in words and (not kept or (T[kept] @ T[rows[i]]).max() < NEAR):
            kept.append(int(rows[i]))
            words.add(said)
    return [sentences[m] for m in kept]
