"""How vectors lie: as plain loops say, whatever the order, and what is said of it."""

from __future__ import annotations

import shlex
from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from byname.ops import unit
from byname.pipeline import Pipeline
from byname.recipes import get_recipe
from byname.stage import Batch, ClassTexts
from byname.study import geometry as module
from byname.study.geometry import geometry, sample, spread, uniformity
from byname.study.subject import Subject
from byname.study.vectors import check_vectors
from byname.taxonomy import Node, Taxonomy
from tests.reference import geometry as reference


def with_hub() -> tuple[Any, Any]:
    """Images of 30 classes, and class vectors of which the fourth lies near to all images."""
    rng = np.random.default_rng(0)
    W, mean = unit(rng.standard_normal((30, 64))), unit(rng.standard_normal(64))
    X = unit(np.repeat(W, 6, axis=0) + 0.05 * rng.standard_normal((180, 64)) + 0.5 * mean)
    W[3] = unit(mean + 0.3 * W[3])
    return X, W


def world(seed: int = 0, n: int = 12, K: int = 6, D: int = 8) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    W = unit(rng.standard_normal((K, D)))
    X = unit(W[np.repeat(np.arange(K), n)] + 0.5 * rng.standard_normal((n * K, D)) + 0.3)
    return X, W, (X @ W.T).argmax(axis=1)


def subject_of(X: Any, W: Any, command: str = "byname diagnose photos -c c.csv") -> Subject:
    taxonomy = Taxonomy(Node(f"c{k}", f"class {k}") for k in range(len(W)))
    texts = ClassTexts(np.asarray(W, np.float32), np.arange(len(W)), taxonomy)
    batch = Batch(np.asarray(X, np.float32))
    return Subject(
        texts=texts,
        sentences=tuple(f"text {k}" for k in range(len(W))),
        batch=batch,
        pipeline=Pipeline(get_recipe("ensemble")).fit(texts, batch),
        keys=tuple(str(i) for i in range(len(X))),
        command=command,
    )


def check(subject: Subject) -> tuple[dict[str, Any], dict[str, float | None]]:
    """Findings by kind, and the numbers; the diagnosis is not looked at."""
    made, numbers = check_vectors(subject, None)  # type: ignore[arg-type]
    return {one.kind: one for one in made}, numbers.get("modality gap", {})


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_against_plain_loops(seed: int) -> None:
    X, W, y = world(seed)
    found, expected = geometry(X, W, y), reference.geometry(X, W, y)
    for name, value in expected.items():
        assert np.asarray(getattr(found, name)) == pytest.approx(np.asarray(value)), name


def test_class_vectors_are_brought_to_unit_length() -> None:
    X, W, y = world()
    long = geometry(X, W * np.arange(1, 7)[:, None], y)
    assert long.alignment == pytest.approx(geometry(X, W, y).alignment)


def test_blocks_do_not_change_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    X, W, y = world()
    before = geometry(X, W, y)
    monkeypatch.setattr(module, "BLOCK", 5)
    monkeypatch.setattr(module, "CELLS", 40)
    after = geometry(X, W, y)
    for field in fields(before):
        value = np.asarray(getattr(after, field.name))
        assert value == pytest.approx(np.asarray(getattr(before, field.name))), field.name


def test_a_sample_does_not_depend_on_the_order_and_is_near(monkeypatch: pytest.MonkeyPatch) -> None:
    X, W, y = world(n=80)
    every = geometry(X, W, y)
    monkeypatch.setattr(module, "PAIRS", 200)
    monkeypatch.setattr(module, "LOOKED", 200)
    order = np.random.default_rng(1).permutation(len(X))
    some, turned = geometry(X, W, y), geometry(X[order], W, y[order])
    assert some.uniformity_images != every.uniformity_images
    assert some.uniformity_images == pytest.approx(every.uniformity_images, abs=0.1)
    assert some.neighbour_purity == pytest.approx(every.neighbour_purity, abs=0.1)
    for field in fields(some):
        value = np.asarray(getattr(turned, field.name))
        assert value == pytest.approx(np.asarray(getattr(some, field.name))), field.name
    assert X[sample(X, 9)].tolist() == X[order][sample(X[order], 9)].tolist()


def test_no_and_few_vectors() -> None:
    none = np.zeros((0, 4))
    assert spread(np.eye(1)) is None
    assert uniformity(none) is None
    empty = geometry(none, np.eye(4), np.zeros(0, np.intp))
    assert (empty.gap, empty.alignment, empty.neighbour_purity) == (None, None, None)
    one = geometry(np.eye(4)[:1], np.eye(4)[:1], np.zeros(1, np.intp))
    assert (one.gap, one.relative_alignment, one.separability) == (0.0, None, None)
    dead = geometry(np.eye(4), np.zeros((2, 4)), np.zeros(4, np.intp))
    assert (dead.gap, dead.near.tolist()) == (None, [0.0, 0.0])


def test_equal_vectors_lie_on_one_point() -> None:
    found = geometry(np.ones((30, 4)) / 2, np.ones((3, 4)) / 2, np.zeros(30, np.intp))
    assert found.uniformity_images == pytest.approx(0)
    assert found.spread_images == pytest.approx(0)
    assert found.dimensions is None


def test_nothing_is_found_in_sound_vectors() -> None:
    made, numbers = check(subject_of(*world()[:2]))
    assert made == {}
    assert numbers["hub_texts"] == 0
    assert numbers["logits_moved"] == pytest.approx(100 * (geometry(*world()).moved or 0), rel=1e-3)


def test_narrow_images() -> None:
    X, W, _ = world()
    made, numbers = check(subject_of(unit(X.mean(axis=0) + 0.02 * X), W))
    assert (numbers["spread_images"] or 0) == pytest.approx(0, abs=0.01)
    assert made["narrow_vectors"].count == len(X)
    assert made["narrow_vectors"].next.startswith("byname list encoders")
    # The same few images: too few to say so.
    assert "narrow_vectors" not in check(subject_of(unit(X.mean(axis=0) + 0.02 * X)[:9], W))[0]


def test_texts_alike() -> None:
    X, W, _ = world()
    made, _ = check(subject_of(X, unit(W.mean(axis=0) + 0.02 * W)))
    assert set(made) == {"texts_alike"}
    assert made["texts_alike"].values["spread"] < 0.01


def test_a_hub_is_near_to_all_images_and_not_only_to_its_own() -> None:
    X, W = with_hub()
    found = check(subject_of(X, W))[0]["hub_texts"]
    assert (found.classes, found.count) == (("c3",), 1)
    assert found.values["near"] > 0.7 > 3 * found.values["chance"]
    assert (
        found.next == "byname diagnose photos -c c.csv --refine prior  " + found.next.split("  ")[1]
    )
    # A class that most images show is near to them all by right.
    most = np.repeat(W[:1], 300, axis=0) + 0.05 * np.random.default_rng(5).normal(size=(300, 64))
    assert "hub_texts" not in check(subject_of(unit(most), np.delete(W, 3, axis=0)))[0]


def test_the_command_has_each_option_once_and_stays_on_one_line() -> None:
    X, W = with_hub()
    command = shlex.join(["byname", "diagnose", "my\nphotos", "--refine", "auto"])
    found = check(subject_of(X, W, command))[0]["hub_texts"]
    assert found.next.startswith("#")
    assert "\n" not in found.next
