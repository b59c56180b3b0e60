"""The texts of a report: which are shown, in what order, with what numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from byname.diagnose import Diagnosis, diagnose
from byname.ops import unit
from byname.report.texts import MOST, class_texts
from byname.study.prompts import text_effects
from byname.study.subject import Subject
from byname.taskfile import Task
from byname.taxonomy import Node, Taxonomy

NAMES = ("cat", "dog", "cow")
P = 12


def made(recipe: str = "ensemble", bad: tuple[int, ...] = (10, 11)) -> Subject:
    """Three classes of 12 texts; the last of "dog" are about "cow"."""
    rng = np.random.default_rng(0)
    centre = unit(rng.standard_normal((3, 16)))
    T = unit(centre + 0.2 * rng.standard_normal((P, 3, 16)))
    for p in bad:
        T[p, 1] = unit(centre[2] - centre[1] + 0.1 * rng.standard_normal(16))
    X = unit(centre[np.repeat(np.arange(3), 20)] + 0.15 * rng.standard_normal((60, 16)))
    task = Task(
        np.asarray(X, np.float32),
        np.asarray(T, np.float32),
        tuple(f"template {p} of a {{}}" for p in range(P)),
        Taxonomy(Node(name, name) for name in NAMES),
    )
    return Subject.of_task(task, recipe)


def found_of(subject: Subject) -> Diagnosis:
    return diagnose(subject.texts, subject.batch, subject.pipeline)


def test_those_that_hurt_come_first() -> None:
    subject = made()
    told, _ = class_texts(subject, found_of(subject))
    assert [len(one) for one in told] == [MOST] * 3
    assert {one["text"] for one in told[1][:2]} == {
        "template 10 of a dog",
        "template 11 of a dog",
    }
    assert all((one["effect"] or 0) > 0 for one in told[1][:2])
    assert len({one["text"] for one in told[1]}) == MOST


def test_at_most_half_are_those_that_hurt() -> None:
    subject = made(bad=(0, 1, 2, 3, 4))
    effects = text_effects(subject)
    assert effects.hurts[P : 2 * P].sum() == 5
    told, _ = class_texts(subject, found_of(subject))
    effect = [one["effect"] for one in told[1][: MOST // 2]]
    assert all(one > 0 for one in effect)
    bad = {f"template {p} of a dog" for p in range(5)}
    assert [one["text"] in bad for one in told[1][: MOST // 2]] == [True] * (MOST // 2)


def test_then_the_heaviest() -> None:
    subject = made(bad=())
    weight = np.ones(3 * P)
    weight[[3, 7]] = 9, 5
    subject = replace(subject, texts=replace(subject.texts, weight=weight))
    subject.pipeline.fit(subject.texts, subject.batch)
    told, _ = class_texts(subject, found_of(subject))
    assert [one["text"] for one in told[0][:2]] == ["template 3 of a cat", "template 7 of a cat"]
    assert told[0][0]["weight"] == pytest.approx(9 / 24)


def test_numbers_are_those_of_the_study() -> None:
    subject = made()
    effects = text_effects(subject)
    told, _ = class_texts(subject, found_of(subject))
    place = {text: m for m, text in enumerate(subject.sentences)}
    for one in (one for some in told for one in some):
        m = place[one["text"]]
        assert one["changes"] == effects.changes[m]
        assert one["effect"] == effects.effect[m]
        assert one["kind"] == "template"


def test_nothing_is_said_of_the_only_text_of_a_class() -> None:
    subject = made("plain")
    told, _ = class_texts(subject, found_of(subject))
    assert [(len(one), one[0]["changes"], one[0]["effect"]) for one in told] == [
        (1, None, None)
    ] * 3


def test_contrasts_of_all_confusions() -> None:
    subject = made()
    found = found_of(subject)
    _, contrasts = class_texts(subject, found)
    pairs = {
        (NAMES.index(a), NAMES.index(other.id))
        for a, one in found.classes.items()
        for other in one.confusions
    }
    assert set(contrasts) == pairs
    assert pairs
    for (a, _), some in contrasts.items():
        assert 0 < len(some) <= 3
        assert all(text.endswith(NAMES[a]) for text in some)


def test_the_order_of_images_does_not_matter() -> None:
    subject = made()
    told = class_texts(subject, found_of(subject))[0]
    order = np.random.default_rng(1).permutation(60)
    turned = replace(subject, batch=replace(subject.batch, X=subject.batch.X[order]))
    again = class_texts(turned, found_of(turned))[0]
    assert [[one["text"] for one in some] for some in told] == [
        [one["text"] for one in some] for some in again
    ]
