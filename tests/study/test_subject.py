"""What is studied: the same from a task and from a classifier, decided once, without a label."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from byname import Classifier, groups
from byname.encoders import PrecomputedEncoder
from byname.ops import softmax
from byname.recipes import get_recipe
from byname.report.data import make_report
from byname.study.subject import Subject
from tests.report.worlds import subject_of, world
from tests.stored import on_disk

BACKOFF = get_recipe("ensemble", decide="backoff[threshold=0.8, calibrate=off]")


def test_of_a_task() -> None:
    task, _ = world(n=3)
    subject = subject_of(task)
    assert subject.keys == tuple(str(i) for i in range(36))
    assert subject.sentences[:3] == ("a class 0", "one class 0", "a class 1")
    assert subject.command == "byname diagnose --task F.npz"
    assert subject.taxonomy is subject.texts.taxonomy
    np.testing.assert_allclose(subject.P, softmax(subject.S))
    assert subject.answers.tolist() == subject.S.argmax(axis=1).tolist()
    assert subject.S is subject.S, "computed once"


def test_labels_are_left_behind() -> None:
    task, truth = world(n=3)
    with_labels, without = (subject_of(replace(task, labels=one)) for one in (truth, None))
    for name in ("X", "S", "answers", "nodes"):
        np.testing.assert_array_equal(getattr(with_labels, name), getattr(without, name))
    assert not any("label" in name for name in vars(with_labels))


@pytest.mark.parametrize("recipe", ["ensemble", "crm", BACKOFF], ids=["argmax", "crm", "backoff"])
def test_nodes_are_what_the_decide_stage_answers(recipe: Any) -> None:
    subject = subject_of(world()[0], recipe)
    answer, taxonomy = subject.pipeline.decide(subject.S, k=1, batch=subject.batch)
    assert [n.id for n in taxonomy.nodes] == [n.id for n in subject.taxonomy.nodes]
    assert subject.nodes.tolist() == answer.node[:, 0].tolist()
    best = [subject.taxonomy.class_ids[k] for k in subject.answers]
    other = sum(
        subject.taxonomy.nodes[i].id != name for i, name in zip(subject.nodes, best, strict=True)
    )
    assert subject.otherwise == other
    assert (other == 0) == (recipe == "ensemble")


def test_of_a_classifier() -> None:
    task, _ = world(n=3)
    names = task.taxonomy.class_ids
    vectors = task.texts[0]
    texts = ([f"a {name}" for name in names], vectors)
    encoder = PrecomputedEncoder(texts)
    model = Classifier(list(names), encoder=encoder, templates=["a {}"], recipe="plain")
    subject = Subject.of_classifier(model, task.images)
    assert subject.sentences == tuple(f"a {name}" for name in names)
    assert len(subject.keys) == len(task.images)
    assert subject.read is None
    wanted = (task.images @ vectors.T).argmax(axis=1)
    assert subject.answers.tolist() == wanted.tolist()
    assert not hasattr(model, "pipeline_"), "the given classifier stays as it was"


@pytest.mark.parametrize("stored", [True, False])
def test_of_many_images_a_sample_is_studied(
    stored: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, _ = world()
    names, width = task.taxonomy.class_ids, task.images.shape[1]
    encoder = PrecomputedEncoder(([f"a {name}" for name in names], task.texts[0]))
    model = Classifier(list(names), encoder=encoder, templates=["a {}"], recipe="ensemble")
    held, kept = on_disk(tmp_path / "x.parquet", task.images, monkeypatch, group=50)
    row = dict(zip(held.keys, held.vectors, strict=True))
    if not stored:
        monkeypatch.setattr(groups, "MOST", len(held) - 1)
    X = kept if stored else held
    for most, limit in ((40, 10**9), (10**6, 4 * width * 40)):
        monkeypatch.setattr("byname.study.subject.LIMIT", limit)
        subject = Subject.of_classifier(model, X, most=most)
        assert (len(subject.keys), subject.n_images) == (40, len(held))
        np.testing.assert_array_equal(subject.X, np.stack([row[key] for key in subject.keys]))
        report = make_report(subject)
        assert report["n_images"] == len(held)
        assert sum(one["n"] for one in report["classes"].values()) == len(held)
        assert any(f"looked at 40 of {len(held)} images" in note for note in report["notes"])
    monkeypatch.setattr("byname.study.subject.LIMIT", 10**9)
    every = Subject.of_classifier(model, X, most=10**6 if stored else None)
    assert every.n_images == len(held)
