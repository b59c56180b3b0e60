"""The dictionary of a report, its numbers computed again in another way."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import spearmanr

from byname.diagnose import diagnose
from byname.errors import UsageError
from byname.ops import softmax
from byname.recipes import get_recipe
from byname.report.data import make_report
from byname.report.schema import Report
from byname.stage import Batch
from byname.study.subject import Subject
from byname.taskfile import Task
from byname.taxonomy import Node, Taxonomy
from tests.report.worlds import nodes_of, subject_of, world

BACKOFF = get_recipe("ensemble", decide="backoff[threshold=0.8, calibrate=off]")
REJECT = get_recipe("ensemble", decide="reject[min_probability=0.6]")


def made(recipe: Any = "ensemble", **options: Any) -> tuple[Subject, Report, NDArray[Any]]:
    task, truth = world(**options)
    subject = subject_of(task, recipe)
    return subject, make_report(subject, labels=truth), truth


def up(taxonomy: Taxonomy, i: int) -> list[int]:
    way = [i]
    while way[-1]:
        way.append(int(taxonomy.parents[way[-1]]))
    return way


def test_a_class_on_the_tree_has_the_mean_chance_of_its_own_answers() -> None:
    """Not its recall, which is a number of the class and stands there."""
    subject, report, _ = made()
    found = diagnose(subject.texts, subject.batch, subject.pipeline)
    assert found.chances is not None
    assert found.chances.rows.tolist() == list(range(len(subject.keys)))
    z = np.log(found.chances.right / (1 - found.chances.right))
    shifts = np.linspace(-3, 3, 60001)
    means = np.array([(1 / (1 + np.exp(-z - d))).mean() for d in shifts[::100]])
    near = shifts[::100][np.abs(means - found.expected_accuracy).argmin()]
    right = 1 / (1 + np.exp(-z - near))
    nodes = nodes_of(report["tree"])
    for k, class_id in enumerate(subject.taxonomy.class_ids):
        own = right[subject.answers == k]
        if len(own):
            assert nodes[class_id]["expected_precision"] == pytest.approx(own.mean(), abs=5e-3)
        else:
            assert nodes[class_id]["expected_precision"] is None
    assert "expected_accuracy" not in nodes[""]
    assert "expected_precision" not in report["classes"]["class 0"]


def test_expected_precision_goes_with_the_precision() -> None:
    found = []
    for seed in range(4):
        _, report, _ = made(seed=seed)
        nodes = [nodes_of(report["tree"])[i] for i in report["classes"]]
        pairs = [(n["expected_precision"], n["truth"]["precision"]) for n in nodes if n["n"]]
        found.append(spearmanr(*zip(*pairs, strict=True))[0])
    assert np.mean(found) > 0.6


def test_nodes_roll_up() -> None:
    subject, report, truth = made()
    taxonomy, nodes = subject.taxonomy, nodes_of(report["tree"])
    leaf = np.asarray(taxonomy.leaf_index)
    said, true = leaf[subject.answers], leaf[truth]
    for i, node in enumerate(taxonomy.nodes):
        here = np.array([i in up(taxonomy, a) for a in said])
        there = np.array([i in up(taxonomy, b) for b in true])
        told = nodes[node.id]
        assert told["n"] == here.sum()
        assert told["truth"]["n"] == there.sum()
        assert told["truth"]["accuracy"] == pytest.approx((here & there).sum() / there.sum())
        if here.any():
            assert told["truth"]["precision"] == pytest.approx((here & there).sum() / here.sum())
    assert nodes[""]["expected_precision"] == pytest.approx(1)
    assert nodes[""]["classes"] == 12
    assert [n["classes"] for n in report["tree"]["children"]] == [4, 4, 4]


def test_truth_of_classes_and_confusions() -> None:
    subject, report, truth = made()
    y = subject.answers
    for k, one in enumerate(report["classes"].values()):
        assert one["n"] == (y == k).sum()
        assert one["truth"]["accuracy"] == pytest.approx((y[truth == k] == k).mean())
        if one["n"]:
            assert one["truth"]["precision"] == pytest.approx((truth[y == k] == k).mean())
        for pair in one["confusions"]:
            j = int(pair["id"].split()[1])
            assert pair["true_share"] == pytest.approx((y[truth == k] == j).mean())


@pytest.mark.parametrize("recipe", ["crm", BACKOFF, REJECT], ids=["crm", "backoff", "reject"])
def test_the_summary_is_about_the_answers_given(recipe: Any) -> None:
    subject, report, truth = made(recipe)
    taxonomy, head = subject.taxonomy, report["summary"]
    answer, _ = subject.pipeline.decide(subject.S, batch=subject.batch)
    said, true = answer.node[:, 0], np.asarray(taxonomy.leaf_index)[truth]
    common = [
        next(i for i in up(taxonomy, a) if i in up(taxonomy, b))
        for a, b in zip(said.tolist(), true.tolist(), strict=True)
    ]
    height = np.asarray(taxonomy.heights)[common]
    accepted = answer.decision == "accept"
    assert head["accuracy"] == pytest.approx((said == true).mean())
    assert head["above"] == pytest.approx(((common == said) & (said != true)).mean())
    assert head["coverage"] == pytest.approx(accepted.mean())
    assert head["accuracy_accepted"] == pytest.approx((said == true)[accepted].mean())
    assert head["severity"] == pytest.approx(height[height > 0].mean())
    for one in report["heights"]:
        assert one["true_share"] == pytest.approx((height == one["height"]).mean())
    nodes = nodes_of(report["tree"])
    assert nodes["g1"]["n"] == sum(taxonomy.index("g1") in up(taxonomy, a) for a in said.tolist())


def test_backoff_is_not_the_plain_answer() -> None:
    subject, report, _ = made(BACKOFF)
    _, plain, _ = made()
    head = report["summary"]
    groups = int((np.asarray(subject.taxonomy.heights)[subject.nodes] > 0).sum())
    assert head["decisions"] == {"accept": len(subject.keys) - groups, "backoff": groups}
    assert head["n_otherwise"] == subject.otherwise >= groups > 0
    assert head["expected_accuracy"] < plain["summary"]["expected_accuracy"]
    assert head["expected_above"] > 0.05
    expected = head["expected_accuracy"] + sum(one["expected_share"] for one in report["heights"])
    assert expected == pytest.approx(1)
    assert "the decide stage (backoff) answers" in report["notes"][-1]
    assert {one["outcome"] for one in report["images"]} >= {"right", "above"}
    for name in ("n", "predicted_share", "expected_accuracy", "truth"):
        for one, two in zip(report["classes"].values(), plain["classes"].values(), strict=True):
            assert one[name] == two[name]


def test_rejected_answers_are_counted_and_stay() -> None:
    subject, report, truth = made(REJECT)
    head = report["summary"]
    kept = softmax(subject.S).max(axis=1) >= 0.6
    assert head["coverage"] == pytest.approx(kept.mean())
    assert 0.1 < head["coverage"] < 0.95
    assert head["n_otherwise"] == 0
    assert head["accuracy"] == pytest.approx((subject.answers == truth).mean())
    assert head["accuracy_accepted"] == pytest.approx((subject.answers == truth)[kept].mean())


def test_the_highest_score_changes_nothing() -> None:
    subject, report, truth = made()
    head, found = report["summary"], diagnose(subject.texts, subject.batch, subject.pipeline)
    assert head["n_otherwise"] == 0
    assert head["coverage"] == 1
    assert head["expected_accuracy"] == report["expected_accuracy"] == found.expected_accuracy
    assert head["expected_above"] == head["above"] == 0
    assert head["accuracy"] == head["accuracy_accepted"]
    assert head["accuracy"] == pytest.approx((subject.answers == truth).mean())
    assert report["notes"] == list(found.notes)
    shares = sum(one["expected_share"] for one in report["heights"])
    assert 1 - shares == pytest.approx(found.expected_accuracy, abs=1e-6)


def without_truth(value: Any) -> Any:
    """A report without what labels add."""
    added = {"truth", "true_share", "true_id", "outcome", "n_labelled", "severity"}
    added |= {"accuracy", "above", "accuracy_accepted"}
    if isinstance(value, dict):
        return {key: without_truth(one) for key, one in value.items() if key not in added}
    return [without_truth(one) for one in value] if isinstance(value, list) else value


@pytest.mark.parametrize("recipe", ["ensemble", BACKOFF], ids=["argmax", "backoff"])
def test_labels_change_nothing_else(recipe: Any) -> None:
    task, truth = world()
    subject = subject_of(task, recipe)
    bare = make_report(subject)
    mixed = np.random.default_rng(0).permutation(truth)
    part = np.where(np.arange(len(truth)) % 2 == 0, truth, -1)
    for labels in (truth, mixed, part, np.full(len(truth), -1)):
        given = make_report(subject, labels=labels)
        assert without_truth(given) == without_truth(bare)
        assert given["summary"]["n_labelled"] == (labels >= 0).sum()
    assert given["summary"]["accuracy"] is None
    assert bare["summary"]["accuracy"] is None
    assert bare["tree"]["truth"] is None


@pytest.mark.parametrize("recipe", ["ensemble", "crm", BACKOFF], ids=["argmax", "crm", "backoff"])
def test_strict_json(recipe: Any) -> None:
    _, report, _ = made(recipe)
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_the_order_of_images_and_classes_does_not_matter() -> None:
    task, truth = world(n=12)
    first = make_report(subject_of(task, BACKOFF), labels=truth)
    rng = np.random.default_rng(5)
    order, places = rng.permutation(len(truth)), rng.permutation(12)
    inner = [node for node in task.taxonomy.nodes if node.id.startswith("g")]
    leaves = [task.taxonomy.classes[k] for k in places]
    other = replace(
        task,
        images=task.images[order],
        texts=task.texts[:, places],
        taxonomy=Taxonomy([*inner, *leaves]),
    )
    place_of = np.argsort(places)
    second = make_report(subject_of(other, BACKOFF), labels=place_of[truth[order]])
    a, b = nodes_of(first["tree"]), nodes_of(second["tree"])
    assert a.keys() == b.keys()
    for key, node in a.items():
        assert node["n"] == b[key]["n"]
        assert node["truth"] == b[key]["truth"]
        assert (node["expected_precision"] is None) == (b[key]["expected_precision"] is None)
        if node["expected_precision"] is not None:
            assert b[key]["expected_precision"] == pytest.approx(
                node["expected_precision"], abs=1e-3
            )
    for name in ("accuracy", "above", "coverage", "severity", "expected_accuracy"):
        assert second["summary"][name] == pytest.approx(first["summary"][name], abs=1e-3)
    for key, one in first["classes"].items():
        assert second["classes"][key]["n"] == one["n"]


def test_one_class() -> None:
    task = Task(np.eye(2), np.ones((1, 1, 2)) / 2**0.5, ("a {}",), Taxonomy.from_names(["cat"]))
    report = make_report(Subject.of_task(task, "plain"), labels=np.zeros(2, np.intp))
    assert report["expected_accuracy"] is None
    assert report["summary"]["expected_accuracy"] is None
    assert report["summary"]["accuracy"] == 1
    assert report["heights"] == []
    assert nodes_of(report["tree"])["cat"]["expected_precision"] is None
    assert "no accuracy can be expected" in report["summary"]["verdict"]


def test_one_image() -> None:
    task, truth = world()
    one = replace(task, images=task.images[:1])
    report = make_report(subject_of(one, BACKOFF), labels=truth[:1])
    json.dumps(report, allow_nan=False)
    assert report["n_images"] == 1
    assert "hardly more than a guess, from 1 image for 12 classes" in report["summary"]["verdict"]


def test_all_unreadable() -> None:
    subject, _, _ = made(n=2)
    none = replace(
        subject, batch=Batch(subject.X[:0]), keys=(), errors={"b.jpg": "torn", "a.jpg": "empty"}
    )
    with pytest.raises(UsageError, match="there are no images"):
        make_report(none)


def test_unreadable_files_come_by_name() -> None:
    subject, _, _ = made(n=2)
    bad = {f"{i:03}.jpg": "torn" for i in reversed(range(120))}
    report = make_report(replace(subject, errors=bad))
    assert report["summary"]["n_unreadable"] == 120
    assert [one["file_name"] for one in report["unreadable"]] == [f"{i:03}.jpg" for i in range(100)]


@pytest.mark.parametrize("levels", [40, 400, 1500])
def test_a_chain_of_many_levels_is_cut_and_holds_all_classes(levels: int) -> None:
    nodes = [Node("g0", "g0")]
    nodes += [Node(f"g{i}", f"g{i}", f"g{i - 1}") for i in range(1, levels)]
    nodes += [Node(f"c{k}", f"c{k}", f"g{levels - 1}") for k in range(3)]
    nodes += [Node("high", "high", "g2")]
    rng = np.random.default_rng(0)
    W = rng.standard_normal((4, 8))
    X = W[rng.integers(0, 4, 30)] + 0.1 * rng.standard_normal((30, 8))
    task = Task(
        (X / np.linalg.norm(X, axis=1, keepdims=True)).astype(np.float32),
        (W / np.linalg.norm(W, axis=1, keepdims=True))[None].astype(np.float32),
        ("a {}",),
        Taxonomy(nodes),
    )
    report = make_report(subject_of(task, "plain"))
    assert json.loads(json.dumps(report, indent=1)) == report
    found = nodes_of(report["tree"])
    assert {"c0", "c1", "c2", "high"} <= found.keys()
    assert report["tree"]["classes"] == 4
    deepest = max(one["level"] for one in found.values() if one["children"])
    assert deepest == min(levels - 1, 50)
    last = next(one for one in found.values() if one["level"] == deepest and one["children"])
    assert sorted(child["id"] for child in last["children"]) == ["c0", "c1", "c2"]
    assert last["n"] == sum(found[f"c{k}"]["n"] for k in range(3))
    assert any("is shown down to level 50" in note for note in report["notes"]) == (levels > 50)
