"""Which images are shown, under which class, and what is said of them."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from byname.errors import ImageError
from byname.ops import softmax
from byname.recipes import get_recipe
from byname.report import shown
from byname.report.shown import choose, describe, thumbnail
from tests.report.worlds import subject_of, world

BACKOFF = get_recipe("ensemble", decide="backoff[threshold=0.8, calibrate=off]")


def margins(S: Any) -> Any:
    two = np.sort(softmax(S), axis=1)[:, -2:]
    return two[:, 1] - two[:, 0]


def test_typical_are_sure_and_doubtful_are_not() -> None:
    task, _ = world()
    subject = subject_of(task)
    reasons, each = choose(subject, range(12))
    margin = margins(subject.S)
    for k in range(12):
        own = np.flatnonzero(subject.answers == k)
        typical, doubtful = each[2 * k], each[2 * k + 1]
        assert set(typical) | set(doubtful) <= set(own)
        best, least = np.sort(margin[own])[::-1], np.sort(margin[own])
        assert margin[typical] == pytest.approx(best[: len(typical)])
        if len(own) >= 6:
            assert len(typical) == len(doubtful) == 3
            assert margin[doubtful] == pytest.approx(least[:3])
        for i in typical.tolist():
            assert "typical" in reasons[i]
        assert not set(typical) & set(doubtful)


def test_images_lie_under_the_class_that_they_are_decided_as() -> None:
    task, _ = world()
    subject = subject_of(task, "crm")
    assert subject.otherwise > 0
    leaf = np.asarray(subject.taxonomy.leaf_index)
    _, each = choose(subject, range(12))
    for k in range(12):
        for i in (*each[2 * k], *each[2 * k + 1]):
            assert subject.nodes[i] == leaf[k]


def test_images_of_a_group_lie_under_their_best_class_and_say_so() -> None:
    task, truth = world()
    subject = subject_of(task, BACKOFF)
    reasons, each = choose(subject, range(12))
    ids = subject.taxonomy.class_ids
    told = describe(subject, reasons, [ids[k] for k in truth], thumbnails=False)
    by_place = dict(zip(reasons, told, strict=True))
    groups = 0
    for k in range(12):
        for i in (*each[2 * k].tolist(), *each[2 * k + 1].tolist()):
            one, node = by_place[i], subject.taxonomy.nodes[subject.nodes[i]]
            assert (one["class_id"], one["label"]) == (node.id, node.name)
            if node.id not in ids:
                groups += 1
                assert subject.answers[i] == k
                assert one["decision"] == "backoff"
    assert groups > 0


def test_outcomes() -> None:
    task, truth = world()
    subject = subject_of(task, BACKOFF)
    taxonomy, ids = subject.taxonomy, subject.taxonomy.class_ids
    rows = {i: ["all"] for i in range(0, len(truth), 3)}
    told = describe(subject, rows, [ids[k] for k in truth], thumbnails=False)
    seen = set()
    for i, one in zip(rows, told, strict=True):
        true = ids[truth[i]]
        if one["class_id"] == true:
            wanted = "right"
        elif one["class_id"] in (taxonomy.nodes[0].id, *taxonomy.path(true)):
            wanted = "above"
        else:
            wanted = "wrong"
        assert one["outcome"] == wanted
        assert one["true_id"] == true
        seen.add(wanted)
    assert seen >= {"right", "above"}
    some = describe(subject, rows, [None] * len(truth), thumbnails=False)
    assert {one["outcome"] for one in some} == {None}
    assert {one["outcome"] for one in describe(subject, rows, thumbnails=False)} == {None}


def test_no_more_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shown, "MOST", 20)
    monkeypatch.setattr(shown, "FIRST", 2)
    task, _ = world()
    order = [7, 3, *(k for k in range(12) if k not in (3, 7))]
    reasons, each = choose(subject_of(task), order)
    assert len(reasons) <= 20
    assert len(each[14]) == 3
    assert max(len(each[2 * k]) for k in order[2:]) == 1


def test_top_and_progress() -> None:
    task, _ = world(n=3)
    subject = subject_of(task)
    steps: list[Any] = []
    told = describe(subject, {4: ["a"], 2: ["b"]}, advance=lambda *step: steps.append(step))
    assert steps == [("images", 1, 2), ("images", 2, 2)]
    P = softmax(subject.S)
    assert [one["file_name"] for one in told] == ["4", "2"]
    assert [share for _, share in told[0]["top"]] == pytest.approx(np.sort(P[4])[::-1][:5])
    assert told[0]["thumbnail"] is None
    assert describe(subject, {}) == []


def test_thumbnails_are_small_and_may_be_missing() -> None:
    task, _ = world(n=2)
    out = io.BytesIO()
    Image.new("RGB", (900, 300), "red").save(out, "PNG")

    def read(key: str) -> bytes:
        if key == "1":
            raise ImageError("read '1'", "it is gone", "Look for it.")
        return out.getvalue() if key == "0" else b"no picture"

    subject = replace(subject_of(task), read=read)
    made = thumbnail(subject, "0")
    assert made is not None
    assert made.startswith("data:image/jpeg;base64,")
    assert Image.open(io.BytesIO(base64.b64decode(made.partition(",")[2]))).size == (112, 37)
    assert thumbnail(subject, "1") is None
    assert thumbnail(subject, "2") is None
    assert thumbnail(subject_of(task), "0") is None
