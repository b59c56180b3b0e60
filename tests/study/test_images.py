"""Images of no class, near-duplicates, doubtful answers: what is said, and when nothing is."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from byname.diagnose import diagnose
from byname.ops import unit
from byname.study import alike
from byname.study.alike import copies, neighbours, no_class
from byname.study.finding import SHOWN, Finding
from byname.study.images import check_images
from byname.study.subject import Subject
from byname.taskfile import Task
from byname.taxonomy import Taxonomy

HOSTILE = "<script>alert(1)</script>\n\x1b[31m; rm -rf 'x'.jpg"


def world(seed: int = 0, K: int = 5, n: int = 40, D: int = 32) -> tuple[Any, Any, Any]:
    """Images, texts and classes of a task that is easy."""
    rng = np.random.default_rng(seed)
    centres = unit(rng.standard_normal((K, D)))
    y = np.repeat(np.arange(K), n)
    X = unit(centres[y] + 0.09 * rng.standard_normal((K * n, D)))
    return X.astype(np.float32), centres.astype(np.float32), y


def subject_of(X: Any, W: Any, **changed: Any) -> Subject:
    names = [f"class {k}" for k in range(len(W))]
    task = Task(np.asarray(X), np.asarray(W)[None], ("a {}",), Taxonomy.from_names(names))
    return replace(Subject.of_task(task, "plain"), **changed)


def check(subject: Subject) -> dict[str, Finding]:
    found = diagnose(subject.texts, subject.batch, subject.pipeline)
    return {one.kind: one for one in check_images(subject, found)[0]}


def numbers(subject: Subject) -> dict[str, float | None]:
    found = diagnose(subject.texts, subject.batch, subject.pipeline)
    return check_images(subject, found)[1]["images"]


def foreign(n: int, D: int = 32) -> NDArray[np.float32]:
    rng = np.random.default_rng(9)
    return np.asarray(unit(rng.standard_normal((n, D))), np.float32)


def test_foreign_images_are_named_the_strangest_first() -> None:
    X, W, _ = world()
    one = check(subject_of(np.concatenate([X, foreign(10)]), W))["no_class"]
    assert set(one.images) <= {str(i) for i in range(200, 210)}
    assert 6 <= one.count <= 10
    assert one.count == len(one.images)
    assert one.level == ("warning" if one.count >= 0.04 * 210 else "note")
    assert f"{one.count} of 210 images" in one.what
    assert one.values["share"] == pytest.approx(one.count / 210)
    top, near = (X @ W.T).max(axis=1), neighbours(X)
    marked, score = no_class(top, near, (X @ W.T).argmax(axis=1))
    assert score.shape == marked.shape == (200,)


def test_the_lowest_score_comes_first() -> None:
    X, W, _ = world()
    X = np.concatenate([X, foreign(12)])
    subject = subject_of(X, W)
    near = neighbours(subject.X)
    marked, score = no_class((X @ W.T).max(axis=1), near, subject.answers)
    order = near.rows[marked][np.argsort(score[marked])]
    assert check(subject)["no_class"].images == tuple(map(str, order.tolist()))


def test_nothing_is_said_where_every_image_has_its_class() -> None:
    said = 0
    for seed in range(10):
        X, W, _ = world(seed)
        said += "no_class" in check(subject_of(X, W))
    assert said == 0


def test_nothing_is_said_of_few_images_and_few_marks() -> None:
    X, W, _ = world(n=5)
    assert "no_class" not in check(subject_of(np.concatenate([X, foreign(4)]), W))
    assert numbers(subject_of(X, W))["no_class_share"] is None
    X, W, _ = world(n=100)
    X = np.concatenate([X, foreign(4)])  # 4 of 504 are fewer than 1 %
    near = neighbours(X)
    _, score = no_class((X @ W.T).max(axis=1), near, (X @ W.T).argmax(axis=1))
    assert (score < -alike.FAR).sum() >= 3
    assert "no_class" not in check(subject_of(X, W))


def test_a_tail_on_both_sides_is_no_sign() -> None:
    """As many images unusually near as unusually far."""
    rng = np.random.default_rng(0)
    n = 200
    value = rng.uniform(-1, 1, n)
    value[:10], value[10:20] = -9, 9
    index = np.tile(np.arange(10), (n, 1))
    answer = np.arange(n) % 2
    near = alike.Neighbours(np.arange(n), index, np.tile(value[:, None], 10).astype(np.float32), 1)
    assert not no_class(value, near, answer)[0].any()
    value[10:20] = 0
    near = replace(near, cosine=np.tile(value[:, None], 10).astype(np.float32))
    assert np.flatnonzero(no_class(value, near, answer)[0]).tolist() == list(range(10))


def test_neighbours_that_agree_speak_for_an_image() -> None:
    """Twice the deviations are asked for then."""
    n = 100
    for far, marked in ((-4.0, False), (-9.0, True)):
        value = np.random.default_rng(0).uniform(-1, 1, n)
        value[:10] = far
        cosine = np.tile(value[:, None], 10).astype(np.float32)
        near = alike.Neighbours(np.arange(n), np.tile(np.arange(10), (n, 1)), cosine, 1)
        alone = no_class(value, near, np.zeros(n, np.intp))
        assert (alone[1][:10] < -alike.FAR).all()
        assert alone[0][:10].all() == marked
        assert not alone[0][10:].any()


def test_copies_are_grouped_those_with_two_answers_first() -> None:
    X, W, _ = world()
    between = unit((W[0] + W[1])[None])[0]
    either = unit(between + 0.001 * np.stack([W[0] - W[1], W[1] - W[0]]))
    X = np.concatenate([X, X[:1], X[:1], either])
    one = check(subject_of(X, W))["near_duplicates"]
    assert one.level == "warning"
    assert one.images == ("202", "203", "0", "200", "201")
    assert one.values["groups"] == 2
    assert one.values["groups_with_different_answers"] == 1
    assert one.values["extra_copies"] == 3
    assert one.count == 5
    alone = check(subject_of(X[:202], W))["near_duplicates"]
    assert alone.level == "note"
    assert alone.count == 3


def test_different_images_of_a_class_are_no_copies() -> None:
    for seed in range(5):
        X, W, _ = world(seed)
        assert "near_duplicates" not in check(subject_of(X, W))


def test_many_equal_images_are_one_group() -> None:
    X = np.concatenate([np.tile(np.eye(4)[0], (50, 1)), np.eye(4)])
    group, bound = copies(neighbours(X), len(X))
    assert set(group[:51].tolist()) == {0}
    assert (group[51:] == -1).all()
    assert 0.98 < bound < 1


def test_a_narrow_cone_has_a_narrow_bound() -> None:
    X, _, _ = world()
    common = np.zeros(32, np.float32)
    common[0] = 5
    narrow = unit(X + common)
    assert copies(neighbours(narrow), 200)[1] > copies(neighbours(X), 200)[1]
    assert (copies(neighbours(narrow), 200)[0] == -1).all()


def test_a_sample_is_compared_with_all_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    X, W, _ = world(n=100)
    X[250:500] = X[:250]
    whole = neighbours(X)
    near = neighbours(X, most=200)
    assert len(near.rows) == 200 * 200 // 500
    assert (near.index != near.rows[:, None]).all()
    place = {int(i): p for p, i in enumerate(whole.rows)}
    same = [place[int(i)] for i in near.rows]
    np.testing.assert_allclose(near.cosine, whole.cosine[same], atol=1e-6)
    assert (copies(near, 500)[0][near.rows] >= 0).all()
    monkeypatch.setattr(neighbours, "__defaults__", (200,))
    one = check(subject_of(X, W))["near_duplicates"]
    assert "among 80 of 500 that were compared with all" in one.what
    assert one.values["share"] == 1.0


def test_the_order_of_images_and_classes_does_not_matter() -> None:
    X, W, _ = world()
    X = np.concatenate([X, foreign(10), X[:3], X[:3]])
    names = tuple(f"{i}.jpg" for i in range(len(X)))
    draw = np.random.default_rng(1)
    order, classes = draw.permutation(len(X)), draw.permutation(len(W))
    first = check(subject_of(X, W, keys=names))
    second = check(subject_of(X[order], W[classes], keys=tuple(names[i] for i in order)))
    assert list(first) == list(second)
    assert {"no_class", "near_duplicates"} <= set(first)
    for kind, one in first.items():
        other = second[kind]
        assert one.what == other.what
        assert one.images == other.images
        assert one.count == other.count
        assert one.values == pytest.approx(other.values)
    for most in (50, 100):
        rows = {names[i] for i in neighbours(X, most).rows}
        moved = {names[order[i]] for i in neighbours(X[order], most).rows}
        assert {
            n for n in rows ^ moved if int(n[:-4]) not in {*range(3), *range(210, 216)}
        } == set()


def test_doubtful_images() -> None:
    W = np.eye(4, dtype=np.float32)
    sure, unsure = np.tile(W[0], (80, 1)), np.tile(unit(W[:1] + W[1:2]), (20, 1))
    unsure[3] += 1e-4 * W[0]
    one = check(subject_of(np.concatenate([sure, unsure]), W))["doubtful_images"]
    assert one.level == "note"
    assert one.count == 20
    assert one.images[-1] == "83"  # the least undecided of them
    assert len(one.images) == SHOWN
    assert "20 of 100 images (20%)" in one.what
    assert "doubtful_images" not in check(subject_of(np.concatenate([sure, unsure[:5]]), W))
    assert check(subject_of(unsure, W))["doubtful_images"].level == "warning"


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ([80, 5, 5], True),
        ([40, 35, 5], False),
        ([75, 25], False),
        ([90, 10], True),
        ([9, 1], False),
    ],
)
def test_one_answer_for_most(counts: list[int], said: bool) -> None:
    W = np.eye(4)[: len(counts)]
    found = check(subject_of(np.repeat(W, counts, axis=0), W))
    assert ("same_answer" in found) == said
    if said:
        assert found["same_answer"].classes == ("class-0",)
        assert found["same_answer"].count == counts[0]
        assert found["same_answer"].level == "note"


def test_few_images() -> None:
    X, W, _ = world(n=2)
    one = check(subject_of(X, W))["few_images"]
    assert "10 images for 5 classes" in one.what
    assert "few_images" not in check(subject_of(*world()[:2]))


@pytest.mark.parametrize("n", [0, 1, 2])
@pytest.mark.parametrize("K", [1, 2])
def test_hardly_any_images(n: int, K: int) -> None:
    subject = subject_of(np.eye(3, dtype=np.float32)[:n], np.eye(3, dtype=np.float32)[:K])
    made, told = check_images(subject, None)  # type: ignore[arg-type]
    assert ("few_images" in [one.kind for one in made]) == (n > 0 and K > 1)
    assert bool(told) == (n > 0)
    assert all(np.isfinite(x) for x in told.get("images", {}).values() if x is not None)


def test_one_class() -> None:
    X, W, _ = world()
    subject = subject_of(np.concatenate([X, X[:1]]), W[:1])
    found = check(subject)
    assert set(found) == {"near_duplicates"}
    assert numbers(subject)["doubtful_share"] is None


@pytest.mark.parametrize("kind", [np.float16, np.float64])
def test_other_types_of_number(kind: type) -> None:
    X, W, _ = world()
    X = np.concatenate([X, foreign(10), X[:1]])
    first = check(subject_of(X, W))
    second = check(subject_of(X.astype(kind), W.astype(kind)))
    assert set(first) == set(second)
    assert first["near_duplicates"].images == second["near_duplicates"].images


def test_zero_rows_are_copies_of_nothing() -> None:
    X, W, _ = world()
    X[:3] = 0
    assert "near_duplicates" not in check(subject_of(X, W))


def test_next_is_a_command_where_there_are_files() -> None:
    X, W, _ = world()
    X = np.concatenate([X, foreign(10)])
    command = "byname diagnose 'my photos' --classes c.csv"
    one = check(subject_of(X, W, command=command))["no_class"]
    assert one.next.startswith("byname classify 'my photos' --classes c.csv --decide")
    task = check(subject_of(X, W, command="byname diagnose --task a.npz"))["no_class"]
    assert task.next.startswith("# ")


def test_hostile_names_stay_in_their_place() -> None:
    X, W, _ = world()
    X = np.concatenate([X, foreign(10), X[:1]])
    keys = tuple(f"{i}{HOSTILE}" for i in range(len(X)))
    command = "byname diagnose 'a\nb' --classes c.csv"
    found = check(subject_of(X, W, keys=keys, command=command))
    assert found["no_class"].images[0] in keys
    for one in found.values():
        assert "script" not in one.what + one.next
        assert "\n" not in one.what + one.next


def test_no_label_is_needed_and_none_changes_anything() -> None:
    X, W, y = world()
    names = Taxonomy.from_names([f"class {k}" for k in range(5)])
    task = Task(X, W[None], ("a {}",), names, labels=y)
    shuffled = Task(X, W[None], ("a {}",), names, labels=y[::-1].copy())
    first, second = (check(Subject.of_task(one, "plain")) for one in (task, shuffled))
    assert first == second


@pytest.mark.slow
def test_many_images_in_little_time() -> None:
    rng = np.random.default_rng(0)
    n = 100_000
    X = unit(rng.standard_normal((n, 512), dtype=np.float32))
    X[-1000:] = X[:1000]
    start = time.monotonic()
    near = neighbours(X)
    group, _ = copies(near, n)
    assert time.monotonic() - start < 120
    assert len(near.rows) == 4_000
    assert 20 <= (group >= 0).sum() <= 400
