"""Findings about how the vectors lie: too narrow, texts alike, texts near to all images.

The formulas are in :mod:`byname.study.geometry`.
"""

from __future__ import annotations

import shlex

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.diagnose import Diagnosis
from byname.study.finding import SHOWN, Finding
from byname.study.geometry import NEAR, Geometry, geometry
from byname.study.subject import Subject
from byname.study.wording import classes, one_line, option

__all__ = ["check_vectors"]

# Below the least of made-up tasks, which benchmarks/names_synthetic.py prints.
NARROW, ALIKE = 0.03, 0.02  # mean distance (1 - cosine) of two images, and of two class vectors
LEAST = 10  # images
HUB = 0.7  # of the images among whose nearest a class is, every answered class counting alike
TIMES = 3.0  # chance
ANSWERED = 5  # classes, below which all images may well be near to one


def check_vectors(
    subject: Subject, found: Diagnosis
) -> tuple[list[Finding], dict[str, dict[str, float | None]]]:
    """The gap between images and texts, their spread, and class vectors near to all images.

    Examples
    --------
    >>> from byname.taskfile import Task
    >>> from byname.diagnose import diagnose
    >>> from byname.taxonomy import Taxonomy
    >>> X = np.array([[1.0, 0.0], [0.6, 0.8]])
    >>> task = Task(X, np.eye(2)[None], ("a {}",), Taxonomy.from_names(["cat", "dog"]))
    >>> subject = Subject.of_task(task, "plain")
    >>> made, numbers = check_vectors(subject, diagnose(subject.texts, X, subject.pipeline))
    >>> round(numbers["modality gap"]["gap"], 2), made
    (0.32, [])
    """
    X, W = subject.X, np.asarray(ops.to_numpy(subject.pipeline.W_))
    if not len(X) or X.shape[1] != W.shape[1]:
        return [], {}
    known = geometry(X, W, subject.answers)
    share = np.bincount(subject.answers, minlength=len(W)) / len(X)
    hubs = _hubs(subject, known) if (share > 0).sum() >= ANSWERED else []
    parts = [_narrow(subject, known), _alike(subject, known), _hub(subject, known, share, hubs)]
    scale = float(subject.texts.scale)
    numbers = {
        "gap": known.gap,
        "alignment": known.alignment,
        "relative_alignment": known.relative_alignment,
        "uniformity_images": known.uniformity_images,
        "uniformity_texts": known.uniformity_texts,
        "spread_images": known.spread_images,
        "spread_texts": known.spread_texts,
        "dimensions_images": known.dimensions,
        "separability": known.separability,
        "neighbour_purity": known.neighbour_purity,
        "logits_moved": None if known.moved is None else scale * known.moved,
        "hub_texts": float(len(hubs)),
    }
    return [one for one in parts if one is not None], {"modality gap": numbers}


def _narrow(subject: Subject, known: Geometry) -> Finding | None:
    n, width = len(subject.X), known.spread_images
    if width is None or n < LEAST or width >= NARROW:
        return None
    return Finding(
        "narrow_vectors",
        "warning",
        f"The {n:,} images look nearly all alike to this encoder: two differ by {width:.3f} "
        "on average (1 - cosine). They show one thing, or are of a kind that it was not made for.",
        next=_other_encoder(subject),
        count=n,
        values={"spread": width, "dimensions": known.dimensions or 0.0},
    )


def _alike(subject: Subject, known: Geometry) -> Finding | None:
    width = known.spread_texts
    if width is None or width >= ALIKE:
        return None
    K = subject.texts.n_classes
    return Finding(
        "texts_alike",
        "warning",
        f"The texts of the {K:,} classes say nearly the same to this encoder: two classes differ "
        f"by {width:.4f} on average (1 - cosine).",
        next="# give names that say what is seen, or texts that describe each class: "
        "byname prompts make --style descriptors",
        count=K,
        values={"spread": width},
    )


def _hubs(subject: Subject, known: Geometry) -> list[int]:
    """Classes near to the images of most classes; first those near to most."""
    many = known.near > max(HUB, TIMES * NEAR / max(1, len(known.near)))
    rows = np.flatnonzero(many).tolist()
    ids = subject.taxonomy.class_ids
    return sorted(rows, key=lambda k: (-round(float(known.near[k]), 9), ids[k]))


def _hub(
    subject: Subject, known: Geometry, share: NDArray[np.float64], rows: list[int]
) -> Finding | None:
    if not rows:
        return None
    ids = [subject.taxonomy.class_ids[k] for k in rows]
    first, chance = rows[0], NEAR / len(known.near)
    return Finding(
        "hub_texts",
        "warning",
        f"The texts of {len(ids)} {'class' if len(ids) == 1 else 'classes'} are near to most "
        f"images, whatever they show: {classes(subject, ids)}. The first is among the {NEAR} "
        f"nearest of {known.near[first]:.0%} of the images of a class (chance {chance:.0%}), and "
        f"the answer of {share[first]:.0%} of all.",
        next=_again(subject, "--refine prior"),
        classes=tuple(ids[:SHOWN]),
        count=len(ids),
        values={"near": float(known.near[first]), "chance": chance, "share": float(share[first])},
    )


def _again(subject: Subject, more: str) -> str:
    """The same command with one more option; a comment where it has one already."""
    if option(subject.command, more.split()[0]) is not None:
        return f"# give {one_line(more)} a try, in place of what is there"
    return f"{one_line(subject.command)} {more}  # draws shares of classes towards equal ones"


def _other_encoder(subject: Subject) -> str:
    if option(subject.command, "--task") is not None:
        return "# look at the images, and embed them with another encoder"
    words = shlex.split("byname list encoders")
    return f"{shlex.join(words)}  # look at the images, then diagnose with another: --encoder NAME"
