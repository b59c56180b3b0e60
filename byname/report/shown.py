"""Which images a report shows, and what it shows of each."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from byname import ops
from byname.errors import BynameError
from byname.explain import Part, explain
from byname.images.decode import decode, to_rgb
from byname.pipeline import batch_take
from byname.report.schema import ImageReport, Piece
from byname.study.subject import Subject

__all__ = ["choose", "describe", "thumbnail"]

SIDE = 112  # pixels
MOST = 400  # images of a report
FIRST = 24  # classes that show more
MANY, FEW = 3, 1
TOP = 5
TEXTS = 4
Ints = NDArray[np.intp]


def choose(subject: Subject, order: Sequence[int]) -> tuple[dict[int, list[str]], list[Ints]]:
    """Images to show, with the reasons; and the typical and doubtful ones of each class.

    Parameters
    ----------
    subject : Subject
    order : sequence of int
        Classes, the most important first.

    Returns
    -------
    dict of int to list of str
        Reasons by place of the image, at most 400 images. An image belongs to the class that it
        is decided to be; if that is a group, to the class of its highest score.
    list of array
        Typical and doubtful images of class k, at 2 k and 2 k + 1.
    """
    K = subject.texts.n_classes
    each: list[Ints] = [np.zeros(0, np.intp)] * (2 * K)
    reasons: dict[int, list[str]] = {}
    if not len(subject.answers):
        return reasons, each
    margin = _margins(subject)
    own_class = _listed(subject)
    by_class = np.lexsort((-margin, own_class))
    start = np.searchsorted(own_class[by_class], np.arange(K + 1))
    seen = [k for k in order if start[k] < start[k + 1]]
    for place, k in enumerate(seen):
        own = by_class[start[k] : start[k + 1]]
        n = MANY if place < FIRST else FEW
        if len(reasons) + 2 * n > MOST:
            break
        typical, doubtful = own[:n], own[n:][::-1][:n]
        each[2 * k], each[2 * k + 1] = typical, doubtful
        for reason, images in (("typical", typical), ("doubtful", doubtful)):
            for i in images.tolist():
                reasons.setdefault(i, []).append(reason)
    return reasons, each


def _listed(subject: Subject) -> Ints:
    """Class under which each image is shown."""
    leaf = np.asarray(subject.taxonomy.leaf_index)
    class_of = np.full(len(subject.taxonomy.nodes), -1, np.intp)
    class_of[leaf] = np.arange(len(leaf))
    found = class_of[subject.nodes]
    return np.where(found < 0, subject.answers, found)


def _margins(subject: Subject) -> NDArray[np.float64]:
    found = np.zeros(len(subject.S))
    for rows in ops.blocks(len(found), 4096):
        P = np.asarray(ops.softmax(subject.S[rows]), np.float64)
        if P.shape[1] > 1:
            two = np.partition(P, -2, axis=1)[:, -2:]
            found[rows] = two[:, 1] - two[:, 0]
        else:
            found[rows] = 1
    return found


def describe(
    subject: Subject,
    reasons: dict[int, list[str]],
    true_ids: Sequence[str | None] | None = None,
    *,
    thumbnails: bool = True,
    advance: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> list[ImageReport]:
    """What a report says of these images, in the order of ``reasons``.

    ``true_ids`` are the labels of all images, only to be shown. ``advance`` is called with
    "images", and how many of how many are done.
    """
    rows = np.array(list(reasons), np.intp)
    if not len(rows):
        return []
    S = subject.S[rows]
    told = explain(
        subject.pipeline,
        subject.texts,
        subject.sentences,
        batch_take(subject.batch, rows),
        names=[subject.keys[i] for i in rows],
        top=TEXTS,
        S=S,
    )
    P, ids = np.asarray(ops.softmax(S), np.float64), subject.taxonomy.class_ids
    answer, answered = subject.decided  # of all images: a decider may look at them together
    made: list[ImageReport] = []
    for place, i in enumerate(rows.tolist()):
        one, best = told[place], np.argsort(-P[place], kind="stable")[:TOP]
        node = answered.nodes[answer.node[i, 0]]
        made.append(
            ImageReport(
                file_name=one.file_name,
                class_id=node.id,
                label=node.name,
                probability=float(answer.probability[i, 0]),
                margin=float(answer.margin[i]),
                decision=str(answer.decision[i]),
                outcome=_outcome(subject, node.id, None if true_ids is None else true_ids[i]),
                top=[[ids[k], float(P[place, k])] for k in best.tolist()],
                why=_pieces(one.answer.parts),
                against=None if one.rival is None else one.rival.class_id,
                why_not=[] if one.rival is None else _pieces(one.rival.parts),
                thumbnail=thumbnail(subject, subject.keys[i]) if thumbnails else None,
                true_id=None if true_ids is None else true_ids[i],
                about=reasons[i],
            )
        )
        advance("images", place + 1, len(rows))
    return made


def _outcome(
    subject: Subject, said: str, true: str | None
) -> Literal["right", "above", "wrong"] | None:
    if true is None:
        return None
    if said == true:
        return "right"
    taxonomy = subject.taxonomy
    return "above" if said in (taxonomy.nodes[0].id, *taxonomy.path(true)) else "wrong"


def _pieces(parts: Sequence[Part]) -> list[Piece]:
    return [Piece(text=p.text, weight=p.weight, cosine=p.cosine, part=p.part) for p in parts]


def thumbnail(subject: Subject, key: str, side: int = SIDE) -> str | None:
    """The image as a data URI of a small JPEG; None where its pixels cannot be had."""
    if subject.read is None:
        return None
    try:
        image = to_rgb(decode(subject.read(key), target=side))
        image.thumbnail((side, side), Image.Resampling.BICUBIC)
        out = io.BytesIO()
        image.save(out, "JPEG", quality=72, optimize=True)
    except (BynameError, OSError, ValueError):
        return None
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode("ascii")
