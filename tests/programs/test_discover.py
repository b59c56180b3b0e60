"""Names out of a vocabulary: each step against loops, what is left unnamed, and the command."""

from __future__ import annotations

import csv
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from byname.commands_discover import names_found
from byname.errors import UsageError
from byname.kmeans import kmeans
from byname.ops import unit
from byname.programs.discover import (
    Discovery,
    _named,
    discover,
    estimate_clusters,
    nearest_words,
    same_words,
)
from byname.taskfile import Task
from byname.taxonomy import Node, Taxonomy
from byname.taxonomy_io import read_taxonomy
from tests.commands import Run
from tests.helpers import make_photos


def scene(
    seed: int, *, N: int = 80, true: int = 4, other: int = 30, D: int = 16, noise: float = 0.1
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.intp]]:
    """Images of some classes, and a vocabulary that begins with their names."""
    rng = np.random.default_rng(seed)
    centres = unit(rng.standard_normal((true, D)))
    labels = np.arange(N) % true
    X = unit(centres[labels] + noise * rng.standard_normal((N, D)))
    names = unit(centres + 0.1 * rng.standard_normal((true, D)))
    return X, np.vstack([names, unit(rng.standard_normal((other, D)))]), labels


@pytest.mark.parametrize("seed", range(5))
def test_the_names_of_clear_classes_are_found(seed: int) -> None:
    X, V, labels = scene(seed)
    found = discover(X, V, 4)
    assert sorted(found.words) == [0, 1, 2, 3]
    assert (found.words[found.member] == labels).all()
    assert (found.clusters, found.unnamed, found.silhouettes) == (4, 0, {})
    assert found.sizes.tolist() == [20] * 4


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 9999), st.integers(1, 4), st.integers(1, 5))
def test_the_assignment_is_the_best_of_all(seed: int, clusters: int, words: int) -> None:
    rng = np.random.default_rng(seed)
    member, votes = rng.integers(0, clusters, 20), rng.integers(0, words, 20)
    X, V = unit(rng.standard_normal((20, 3))), unit(rng.standard_normal((words, 3)))
    chosen, without = _named(X, V, member, votes)
    groups, voted = np.unique(member), np.unique(votes)
    M = np.array([[(votes[member == c] == v).mean() for v in voted] for c in groups])
    wide = np.hstack([M, np.zeros((len(groups), len(groups)))])  # a column for no word
    options = itertools.permutations(range(wide.shape[1]), len(groups))
    best = max(sum(wide[i, v] for i, v in enumerate(option)) for option in options)
    named = len(groups) - without
    assert len(chosen) == named == len(set(chosen.tolist()))
    assert set(chosen.tolist()) <= set(voted.tolist())
    mine = max(
        sum(M[i, list(voted).index(v)] for i, v in zip(rows, chosen, strict=True))
        for rows in itertools.permutations(range(len(groups)), named)
    )
    assert mine == pytest.approx(best)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 9999), st.integers(1, 3))
def test_rounds_are_what_they_say(seed: int, rounds: int) -> None:
    X, V, _ = scene(seed, noise=0.6)
    found = discover(X, V, 6, rounds=rounds, restarts=2)
    votes, member = nearest_words(X, V), kmeans(X, 6, restarts=2).member
    chosen = np.zeros(0, np.intp)
    for _ in range(rounds):
        chosen = _named(X, V, member, votes)[0]
        member = (X @ V[chosen].T).argmax(axis=1)
    assert found.words[found.member].tolist() == chosen[member].tolist()
    assert (np.diff(found.sizes) <= 0).all()
    assert (found.sizes > 0).all()


def test_fewer_voted_words_than_clusters_leave_some_unnamed() -> None:
    X, V, _ = scene(0)
    found = discover(X, V[:2], 4)
    assert sorted(found.words) == [0, 1]
    assert (found.clusters, found.unnamed) == (4, 2)
    assert found.member.tolist() == found.words.argsort()[nearest_words(X, V[:2])].tolist()
    same = discover(X, np.repeat(V[:1], 3, axis=0), 4)
    assert (same.words.tolist(), same.unnamed) == ([0], 3)


def named(member: list[int], votes: list[int]) -> tuple[list[int], int]:
    """Where no vector says anything."""
    X, V = np.ones((len(member), 2)), np.ones((9, 2))
    chosen, without = _named(X, V, np.array(member), np.array(votes))
    return chosen.tolist(), without


def test_no_cluster_gets_a_word_that_none_of_its_images_voted_for() -> None:
    assert named([0, 0, 0, 1, 1], [7, 7, 5, 7, 7]) == ([5, 7], 0)
    assert named([0, 0, 1, 1], [7, 7, 7, 7]) == ([7], 1)
    chosen, without = named([0, 0, 1, 1, 2, 2], [7, 7, 7, 7, 5, 6])
    assert (len(chosen), without) == (2, 1), "5 and 6 are both free, and voted for by one cluster"
    assert 7 in chosen


def test_shares_count_and_not_votes() -> None:
    """A small cluster that is sure of a word gets it from a large one that has another choice."""
    assert named([0] * 10 + [1] * 2, [1] * 7 + [2] * 3 + [1] * 2) == ([1, 2], 0)


def test_equal_sums_go_to_the_words_nearest_to_the_clusters() -> None:
    X, V = np.array([[1.0, 0.0], [0.8, 0.6]]), np.array([[0.9, -0.4], [0.6, 0.8]])
    for order in ([0, 1], [1, 0]):
        votes = np.argsort(order)[np.array([0, 1])]
        chosen, _ = _named(X, V[order], np.zeros(2, np.intp), votes)
        assert np.array(order)[chosen].tolist() == [1]


def test_synonyms_share_their_votes() -> None:
    X, V, labels = scene(1)
    rng = np.random.default_rng(0)
    doubled = np.vstack([V, unit(V[:4] + 0.01 * rng.standard_normal((4, 16)))])
    votes = nearest_words(X, doubled)
    assert len(np.unique(votes)) > 4, "synonyms split the votes"
    merged, alike = same_words(doubled, votes, 0.95)
    assert len(np.unique(merged)) == 4
    for head, others in alike.items():
        counts = [(votes == w).sum() for w in (head, *others)]
        assert counts[0] == max(counts)
        assert all(doubled[head] @ doubled[w] > 0.95 for w in others)
    found = discover(X, doubled, 4, merge=0.95)
    assert dict(found.alike) == alike
    assert ((found.words % 34)[found.member] == labels).all()
    assert same_words(doubled, votes, 1.0)[0].tolist() == votes.tolist()


def test_merging_goes_through_words_between() -> None:
    angles = np.radians([0, 15, 30, 90])
    V = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    votes = np.array([0, 1, 2, 2, 3])
    assert same_words(V, votes, np.cos(np.radians(16)))[0].tolist() == [2, 2, 2, 2, 3]
    alone, none = same_words(V, np.array([0, 2, 2]), np.cos(np.radians(16)))
    assert alone.tolist() == [0, 2, 2], "only words with votes are compared"
    assert none == {}


def test_the_number_of_clusters_is_estimated() -> None:
    X, V, labels = scene(2, true=7, N=140, D=32, noise=0.05)
    found = discover(X, V)
    assert found.clusters == 7
    assert (found.words[found.member] == labels).all()
    assert max(found.silhouettes, key=lambda k: found.silhouettes[k]) == 7
    k, tried = estimate_clusters(X, (2, 60))
    assert k == 7
    assert len(tried) <= 9, "bisection, and not all numbers"
    assert set(tried) >= {2, 31, 60}
    assert estimate_clusters(X, (5, 5))[0] == 5


def test_of_very_many_images_a_part_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    from byname.programs import discover as module

    X, _, _ = scene(0, N=200)
    seen: list[int] = []

    def few_is_best(X: Any, found: Any) -> float:
        seen.append(len(X))
        return -float(len(found))

    monkeypatch.setattr(module, "_SAMPLE", 60)
    monkeypatch.setattr(module, "silhouette", few_is_best)
    assert estimate_clusters(X, (2, 4))[0] == 2
    assert set(seen) == {100}


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 9999))
def test_the_order_of_images_does_not_matter(seed: int) -> None:
    X, V, _ = scene(seed, noise=0.4)
    order = np.random.default_rng(seed).permutation(len(X))
    a, b = discover(X, V, 5, restarts=2), discover(X[order], V, 5, restarts=2)
    assert a.words[a.member][order].tolist() == b.words[b.member].tolist()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 9999), st.booleans())
def test_the_order_of_the_vocabulary_does_not_matter(seed: int, merged: bool) -> None:
    """Small clusters and noise: votes are often equal."""
    X, V, _ = scene(seed, N=24, noise=0.7)
    rng = np.random.default_rng(seed)
    if merged:
        V = np.vstack([V, unit(V + 0.01 * rng.standard_normal(V.shape))])
    order, merge = rng.permutation(len(V)), 0.95 if merged else None
    a, b = (discover(X, words, 9, restarts=2, merge=merge) for words in (V, V[order]))
    assert a.words[a.member].tolist() == order[b.words][b.member].tolist()
    assert sorted(a.sizes) == sorted(b.sizes)
    assert a.alike.keys() == {int(order[w]) for w in b.alike}


def test_which_part_of_many_images_is_looked_at_follows_from_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from byname.programs import discover as module

    X, _, _ = scene(3, N=200, noise=0.5)
    monkeypatch.setattr(module, "_SAMPLE", 60)
    order = np.random.default_rng(0).permutation(200)
    assert estimate_clusters(X[order], (2, 9)) == estimate_clusters(X, (2, 9))
    assert estimate_clusters(X, (2, 9), seed=1) != estimate_clusters(X, (2, 9))


@pytest.mark.parametrize("peak", [2, 5, 9])
def test_of_those_tried_the_best_and_then_the_least(
    peak: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from byname.programs import discover as module

    X, _, _ = scene(0)
    monkeypatch.setattr(module, "silhouette", lambda X, found: -abs(len(found) - peak))
    assert estimate_clusters(X, (2, 9))[0] == peak
    monkeypatch.setattr(module, "silhouette", lambda X, found: 0.5)
    k, tried = estimate_clusters(X, (2, 9))
    assert k == 2
    assert len(tried) > 2


def test_images_of_zeros_have_no_name() -> None:
    X, V, _ = scene(0)
    expected = discover(X, V, 4)
    wide = np.insert(X, [0, 7, 80], 0, axis=0)
    with pytest.warns(UserWarning, match="3 images are left out: a vector of zeros"):
        found = discover(wide, V, 4)
    zero = ~wide.any(axis=1)
    assert zero.sum() == 3
    assert (found.member[zero] == -1).all()
    assert found.words.tolist() == expected.words.tolist()
    assert found.member[~zero].tolist() == expected.member.tolist()
    assert found.sizes.tolist() == expected.sizes.tolist()
    with pytest.warns(UserWarning, match="1 image is left out"):
        assert discover(wide[:5], V, 2).member[0] == -1
    with pytest.raises(UsageError, match="the vectors of all images are zeros"):
        discover(np.zeros((3, 16)), V)


def test_odd_inputs() -> None:
    X, V, _ = scene(0)
    one = discover(X[:1], V, 1)
    assert (one.words.tolist(), one.member.tolist()) == ([int((V @ X[0]).argmax())], [0])
    same = discover(np.repeat(X[:1], 5, axis=0), V, 3)
    assert (same.clusters, same.member.tolist()) == (1, [0] * 5)
    half = discover(X.astype(np.float16), V.astype(np.float16), 4)
    assert sorted(half.words) == [0, 1, 2, 3]
    X = X.copy()
    X[3, 0] = np.nan
    with pytest.raises(UsageError, match="row 3 of the images holds NaN or infinity"):
        discover(X, V, 2)
    with pytest.raises(UsageError, match="row 0 of the vocabulary holds NaN"):
        discover(V, np.full((1, 16), np.inf), 2)


@pytest.mark.parametrize(
    ("options", "seen"),
    [
        ({"k": 0}, "k is 0. Give 1 to 80, the number of images"),
        ({"k": 81}, "k is 81. Give 1 to 80"),
        ({"bounds": (1, 5)}, "the bounds are 1 and 5. Give two numbers of clusters, from 2 to 80"),
        ({"bounds": (6, 5)}, "the bounds are 6 and 5"),
        ({"rounds": 0}, "rounds is 0. Give 1 or more"),
        ({"merge": 0.0}, "merge is 0.0. Give a cosine above 0, up to 1"),
        ({"merge": 1.1}, "merge is 1.1"),
        ({"merge": float("nan")}, "merge is nan"),
        ({"merge": "0.9"}, "merge is '0.9'"),
        ({"merge": True}, "merge is True"),
        ({"k": 2.0}, "k is 2.0"),
        ({"k": "2"}, "k is '2'. Give 1 to 80, the number of images"),
        ({"k": 2, "bounds": (2, 3)}, "both k and bounds are given"),
        ({"bounds": 3}, "bounds is 3. Give the least and the largest number"),
        ({"bounds": (2,)}, r"bounds is \(2,\)"),
        ({"bounds": (2, None)}, "the bounds are 2 and None"),
        (
            {"bounds": (2, 81)},
            "the bounds are 2 and 81. Give two numbers of clusters, from 2 to 80",
        ),
        ({"rounds": "3"}, "rounds is '3'. Give 1 or more, a whole number"),
        ({"restarts": 0}, "restarts is 0. Give 1 or more"),
        ({"seed": -1}, "seed is -1. Give 0 or more"),
    ],
)
def test_wrong_settings_are_named(options: Any, seen: str) -> None:
    X, V, _ = scene(0)
    with pytest.raises(UsageError, match=seen):
        discover(X, V, **options)
    with pytest.raises(UsageError, match=r"the shapes \(80, 16\) and \(0, 16\)"):
        discover(X, V[:0], 2)
    with pytest.raises(UsageError, match=r"the shapes \(80, 16\) and \(34, 8\)"):
        discover(X, V[:, :8], 2)


def test_real_vectors(shared: Path) -> None:
    """The 19 names among 400 others, half of them near to a true one: most are found."""
    task = Task.load(shared / "rs19" / "clip-vit-l-14.npz")
    texts, X = task.texts_for("templates"), np.asarray(task.batch().X, np.float32)
    W = unit(np.asarray(texts.vectors, np.float32).reshape(19, -1, X.shape[1]).mean(axis=1))
    if not (texts.class_index.reshape(19, -1) == np.arange(19)[:, None]).all():
        W = unit(np.stack([np.asarray(texts.vectors, np.float32)[texts.class_index == k].mean(0)
                           for k in range(19)]))  # fmt: skip
    rng = np.random.default_rng(0)
    base, cosine = W[rng.integers(0, 19, 400)], rng.uniform(0.5, 0.9, (400, 1))
    off = rng.standard_normal(base.shape)
    off = unit(off - (off * base).sum(1, keepdims=True) * base)
    V = np.vstack([W, cosine * base + np.sqrt(1 - cosine**2) * off]).astype(np.float32)
    found = discover(X, V, 19)
    assert (found.words < 19).sum() >= 15
    plain = (nearest_words(X, V) == task.labels).mean()
    assert (found.words[found.member] == task.labels).mean() >= plain


# -- the command


WORDS = ("cat", "dog", "owl", "kitty", "stone")


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, Path]:
    """Photos, and an encoder that knows them: four of each of three kinds."""
    photos = make_photos(tmp_path / "photos", 12)
    keys = sorted(p.relative_to(photos).as_posix() for p in photos.rglob("*.png"))
    rng = np.random.default_rng(0)
    E = np.eye(6)
    lean = np.outer(np.arange(12) == 0, 0.1 * E[4])  # the first cat is a kitty
    images = unit(E[np.arange(12) % 3] + lean + 0.01 * rng.standard_normal((12, 6)))
    words = unit(np.stack([E[0], E[1], E[2], E[0] + 0.1 * E[4], E[5]]))
    folder = tmp_path / "encoder"
    folder.mkdir()
    np.save(folder / "texts.npy", words.astype(np.float32))
    (folder / "texts.json").write_text(json.dumps([f"a {w}" for w in WORDS]))
    np.save(folder / "images.npy", images.astype(np.float32))
    (folder / "images.json").write_text(json.dumps(keys))
    return photos, folder


def command(made: tuple[Path, Path]) -> list[object]:
    photos, folder = made
    options = ["--vocabulary", ",".join(WORDS), "-e", f"precomputed:{folder}"]
    return ["discover", photos, *options, "--template", "a {}"]


def test_the_command(tmp_path: Path, run: Run, made: tuple[Path, Path]) -> None:
    names, each = tmp_path / "classes.csv", tmp_path / "labels.csv"
    done = run(*command(made), "--merge", "0.95", "-o", names, "--assignments", each)
    assert done.code == 0, done.err
    told = done.out + done.err
    assert "12 images, 3 clusters (estimated from" in told
    assert "3 names" in told
    found = read_taxonomy(names)
    assert {node.name for node in found.classes} == {"cat", "dog", "owl"}
    (feline,) = (n for n in found.classes if n.name == "cat")
    assert feline.aliases == ("kitty",)
    rows = list(csv.DictReader(each.open(encoding="utf-8")))
    assert len(rows) == 12
    assert {r["class_id"] for r in rows} == set(found.class_ids)
    groups = [{rows[i]["class_id"] for i in range(start, 12, 3)} for start in range(3)]
    assert all(len(group) == 1 for group in groups)
    assert groups[0] == {feline.id}
    record = json.loads((tmp_path / "classes.csv.run.json").read_text())
    assert record["discovered"]["clusters"] == 3
    assert record["discovered"]["sizes"] == dict.fromkeys(found.class_ids, 4)
    assert record["parameters"]["merge"] == 0.95
    assert record["counts"]["names"] == 3
    again = run("classify", made[0], "-c", names, "-e", f"precomputed:{made[1]}",
                "--template", "a {}", "-o", "-", "-q")  # fmt: skip
    assert [r["class_id"] for r in csv.DictReader(again.out.splitlines())] == [
        r["class_id"] for r in rows
    ]


def test_the_command_says_what_is_doubtful(run: Run, made: tuple[Path, Path]) -> None:
    few = run(*command(made), "-k", 6)
    assert few.code == 0
    assert "12 images, 6 clusters (given), 4 names" in few.out + few.err
    assert "note: no name was left for 2 clusters" in few.out + few.err
    coarse = run(*command(made), "--low", 3)
    assert "3, the least that was tried" in coarse.out + coarse.err
    assert "--low" in coarse.out + coarse.err


@pytest.mark.parametrize(
    ("more", "seen"),
    [
        (["-k", 13], "k is 13. Give 1 to 12"),
        (["--low", 5, "--high", 3], "the bounds are 5 and 3"),
        (["--low", 13], "the bounds are 13 and 13. Give two numbers of clusters, from 2 to 12"),
        (["-k", 3, "--low", 2], "Give -k, or --low and --high"),
        (["-k", 3, "--high", 9], "Give -k, or --low and --high"),
        (["--merge", 2], "merge is 2.0"),
        (["-o", "names.parquet"], "its ending is '.parquet'"),
        (["--assignments", "a.json"], "its ending is '.json'"),
        (["-o", "a.csv", "--assignments", "a.csv"], "to hold the names and the assignments"),
    ],
)
def test_the_command_refuses(
    more: list[object], seen: str, run: Run, made: tuple[Path, Path]
) -> None:
    done = run(*command(made), *more)
    assert done.code == 2
    assert seen in done.err


@pytest.mark.parametrize(
    ("more", "seen"),
    [
        (["--merge", 2], "merge is 2.0"),
        (["--low", 5, "--high", 3], "the bounds are 5 and 3"),
        (["-k", 3, "--low", 2], "Give -k, or --low and --high"),
        (["-k", 13], "k is 13. Give 1 to 12"),
    ],
)
def test_settings_are_checked_before_any_work(
    more: list[object], seen: str, run: Run, made: tuple[Path, Path]
) -> None:
    """The encoder, which is not there, is not asked for, nor photos unless for their number."""
    photos = made[0] if "-k" in more and 13 in more else "gone"
    done = run("discover", photos, "--vocabulary", "cat,dog", "-e", "precomputed:gone", *more)
    assert done.code == 2
    assert seen in done.err


def test_images_without_a_name_are_rows_with_an_error(
    tmp_path: Path, run: Run, made: tuple[Path, Path]
) -> None:
    _, folder = made
    keys = json.loads((folder / "images.json").read_text())
    vectors = np.load(folder / "images.npy")
    vectors[4] = 0
    np.save(folder / "images.npy", np.delete(vectors, 7, axis=0))
    (folder / "images.json").write_text(json.dumps([*keys[:7], *keys[8:]]))
    each = tmp_path / "labels.csv"
    done = run(*command(made), "-k", 3, "--assignments", each)
    assert done.code == 0, done.err
    assert "1 image is left out: a vector of zeros" in done.err
    assert "12 images -> " in done.err
    rows = list(csv.DictReader(each.open(encoding="utf-8")))
    assert [r["file_name"] for r in rows] == keys
    assert [i for i, r in enumerate(rows) if r["error"]] == [4, 7]
    assert [(r["class_id"] == "", r["label"] == "") for r in rows] == [
        (i in (4, 7),) * 2 for i in range(12)
    ]
    assert rows[4]["error"] == "its vector is all zeros"
    record = json.loads((tmp_path / "labels.csv.run.json").read_text())
    assert record["counts"]["errors"] == 1
    assert sum(record["discovered"]["sizes"].values()) == 10
    assert any("1 image is left out" in text for text in record["warnings"])


def test_words_that_stand_twice_are_told(run: Run, made: tuple[Path, Path]) -> None:
    photos, folder = made
    words = photos.parent / "words.csv"
    words.write_text("id,name\n" + "".join(f"{i},{w}\n" for i, w in enumerate([*WORDS, "dog"])))
    done = run("discover", photos, "--vocabulary", words, "-e", f"precomputed:{folder}",
               "--template", "a {}", "-k", 3)  # fmt: skip
    assert done.code == 0, done.err
    assert "some words stand more than once in the vocabulary: 'dog'" in done.err
    once = run(*command(made), "-k", 3)
    assert "more than once" not in once.err


def test_one_image_is_one_name(run: Run, made: tuple[Path, Path]) -> None:
    photos = made[0]
    for path in sorted(photos.rglob("*.png"))[1:]:
        path.unlink()
    done = run(*command(made), "-o", photos / "names.txt")
    assert done.code == 0
    assert (photos / "names.txt").read_text() == "kitty\n"
    assert "1 image, 1 cluster (given), 1 name\n" in done.out + done.err
    assert "1 name -> " in done.err


def test_names_keep_their_ids_and_aliases() -> None:
    words = Taxonomy(
        [Node("x", "group"), Node("a", "cat", "x", aliases=("tom",)), Node("b", "tom")]
    )
    found = Discovery(np.array([0]), np.array([0, 0]), 1, 0, alike={0: (1,)})
    (node,) = names_found(found, words).classes
    assert (node.id, node.name, node.aliases, node.parent) == ("a", "cat", ("tom",), None)
