"""What is studied: the same from a task and from a classifier, decided once, without a label."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from byname import Classifier
from byname.encoders import PrecomputedEncoder
from byname.ops import softmax
from byname.recipes import get_recipe
from byname.study.subject import Subject
from tests.report.worlds import subject_of, world

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
