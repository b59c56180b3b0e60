from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from byname import groups, ops
from byname.answers import answer_ids, answer_table
from byname.diagnose import diagnose
from byname.embeddings import Embeddings
from byname.groups import combined, divided, hashed, sample, too_many
from byname.pipeline import Pipeline
from byname.recipes import get_recipe
from byname.stage import Batch, ClassTexts
from byname.stored import StoredVectors
from byname.taxonomy import Taxonomy
from tests.stored import on_disk

K, D, N = 4, 8, 240
RECIPES = ["transclip[guard=false]", "reclip[guard=false]", "clusters", "auto", "dpa"]


def world(n: int = N) -> tuple[np.ndarray, ClassTexts]:
    rng = np.random.default_rng(0)
    centre = rng.standard_normal((K, D))
    X = centre[rng.integers(0, K, n)] + 0.6 * rng.standard_normal((n, D))
    T = ops.unit(centre + 0.5 * rng.standard_normal((K, D)))
    known = ClassTexts(
        T, np.arange(K), Taxonomy.from_names([f"class {k}" for k in range(K)]), scale=30.0
    )
    return ops.unit(X).astype(np.float16).astype(np.float32), known


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """100 images are too many, and a group has 60 at most."""
    monkeypatch.setattr(groups, "MOST", 100)
    monkeypatch.setattr(groups, "GROUP", 60)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture
def both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Embeddings, Embeddings]:
    return on_disk(tmp_path / "x.parquet", world()[0], monkeypatch, group=50)


def member(recipe: str) -> Any:
    return get_recipe("ensemble", refine=recipe)


@pytest.mark.usefixtures("few")
def test_groups_are_equal_disjoint_and_all(
    both: tuple[Embeddings, Embeddings], monkeypatch: pytest.MonkeyPatch
) -> None:
    second = np.arange(N)[:, None] * np.ones((1, 2))
    found = []
    for given in both:
        for read in (1, 2 * 2 * D * 60, 2**20):  # one group a pass, two, all
            monkeypatch.setattr(groups, "READ", read)
            made = list(divided(Batch(given.vectors, second=second), K))
            assert [len(rows) for rows, _ in made] == [60] * 4
            for rows, batch in made:
                assert isinstance(batch.X, np.ndarray)
                np.testing.assert_array_equal(batch.X, both[0].vectors[rows])
                np.testing.assert_array_equal(batch.second[:, 0], rows)
            assert sorted(np.concatenate([rows for rows, _ in made])) == list(range(N))
            found.append([rows.tolist() for rows, _ in made])
    assert all(one == found[0] for one in found)


@pytest.mark.usefixtures("few")
def test_the_order_of_images_moves_none_to_another_group() -> None:
    X = world()[0]
    order = np.random.default_rng(1).permutation(N)
    first, second = (
        [{V[i].tobytes() for i in rows} for rows, _ in divided(Batch(V), K)] for V in (X, X[order])
    )
    assert first == second
    chosen = [{V[i].tobytes() for i in sample(Batch(V), 50)} for V in (X, X[order])]
    assert chosen[0] == chosen[1]
    assert len(chosen[0]) == 50


@pytest.mark.usefixtures("few")
def test_copies_of_an_image_are_in_one_group_in_any_order() -> None:
    X, texts = world()
    X, order = X.copy(), np.argsort(hashed(X))
    X[order[200:204]] = X[order[58]]  # now the first group ends between copies
    found = []
    for order in (np.arange(N), np.arange(N)[::-1], np.random.default_rng(1).permutation(N)):
        made = [order[rows] for rows, _ in divided(Batch(X[order]), K)]
        found.append({frozenset(rows.tolist()) for rows in made})
        assert max(map(len, made)) <= 66
        S = Pipeline(member("clusters")).fit(texts, Batch(X)).scores(Batch(X[order]))
        np.testing.assert_allclose(
            S[np.argsort(order)],
            Pipeline(member("clusters")).fit(texts, Batch(X)).scores(Batch(X)),
            atol=1e-4,
        )
    assert found[0] == found[1] == found[2]


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("limit", [1, 10**9])
def test_copies_that_fill_groups_are_divided(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "LIMIT", limit)
    batch = Batch(np.tile(world()[0][:1], (N, 1)))
    made = [rows for rows, _ in divided(batch, K)]
    assert {len(rows) for rows in made} == {60 if limit > 1 else 1}
    assert sorted(np.concatenate(made)) == list(range(N))
    assert not any(too_many(group, K) for _, group in divided(batch, K)), "or it would not end"


def test_the_hash_is_of_the_vector_alone() -> None:
    X = world()[0]
    found = hashed(X)
    assert len(np.unique(found)) == N
    np.testing.assert_array_equal(hashed(X[[7, 3]]), found[[7, 3]])
    np.testing.assert_array_equal(hashed(-0.0 * X[:1]), hashed(0.0 * X[:1]))
    # Every number of the vector counts.
    for d in range(D):
        changed = X[:1].copy()
        changed[0, d] *= -1
        assert hashed(changed)[0] != found[0]
    # Each quarter of the range holds about a quarter of the images.
    quarter = np.bincount((found >> np.uint64(62)).astype(int), minlength=4)
    assert (abs(quarter - N / 4) < 5 * np.sqrt(N * 3 / 16)).all()


def test_what_is_too_much_counts_images_width_and_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = Batch(np.zeros((100, 10), np.float32))
    assert not too_many(batch, 3)
    monkeypatch.setattr(groups, "LIMIT", 100 * 4 * (10 + 3 * 3))
    assert not too_many(batch, 3)
    assert too_many(batch, 4)
    monkeypatch.setattr(groups, "LIMIT", 10**9)
    monkeypatch.setattr(groups, "MOST", 99)
    assert too_many(batch, 3)


@pytest.mark.parametrize("recipe", RECIPES)
def test_each_group_is_a_batch_of_its_own(
    recipe: str, few: None, both: tuple[Embeddings, Embeddings]
) -> None:
    texts = world()[1]
    X = both[0].vectors
    by_hand = np.zeros((N, K), np.float32)
    for rows, group in divided(Batch(X), K):
        by_hand[rows] = Pipeline(member(recipe)).fit(texts, group).scores(group)
    for given in both:
        batch = Batch(given.vectors)
        pipeline = Pipeline(member(recipe)).fit(texts, batch)
        np.testing.assert_allclose(pipeline.scores(batch), by_hand, rtol=1e-5, atol=1e-4)
        table = answer_table(pipeline, given, block=37)
        assert table["file_name"].to_pylist() == list(both[0].keys)
        ids = [texts.taxonomy.class_ids[k] for k in by_hand.argmax(axis=1)]
        assert table["class_id"].to_pylist() == ids
        assert answer_ids(pipeline, batch, None).tolist() == ids


@pytest.mark.parametrize("recipe", RECIPES)
def test_nothing_changes_below_the_limit(recipe: str, both: tuple[Embeddings, Embeddings]) -> None:
    texts, found = world()[1], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for given in both:
            batch = Batch(given.vectors)
            found.append(Pipeline(member(recipe)).fit(texts, batch).scores(batch))
    np.testing.assert_array_equal(found[0], found[1])


def test_a_warning_says_how_many_groups_there_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "MOST", 100)
    monkeypatch.setattr(groups, "GROUP", 60)
    X, texts = world()
    pipeline = Pipeline(member("transclip[guard=false]")).fit(texts, Batch(X))
    with pytest.warns(UserWarning, match="transclip: 240 images .* 4 groups of about 60"):
        pipeline.scores(Batch(X))
    assert pipeline.report()["transclip"]["groups"] == 4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Pipeline(get_recipe("ensemble")).fit(texts, Batch(X)).scores(Batch(X))


def test_members_that_learn_once_learn_from_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    X, texts = world()
    monkeypatch.setattr(groups, "MOST", 100)
    monkeypatch.setattr(groups, "GROUP", 60)
    recipe = get_recipe("ensemble", refine="prior[guard=false]")
    with pytest.warns(UserWarning, match="prior: learned what images tell from 60 of 240"):
        found = Pipeline(recipe).fit(texts, Batch(X))
    some = Batch(X[sample(Batch(X), 60)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        by_hand = Pipeline(recipe).fit(texts, some)
    np.testing.assert_allclose(found.scores(some), by_hand.scores(some), rtol=1e-6)
    plain = Pipeline(get_recipe("ensemble")).fit(texts).scores(some)
    assert np.abs(found.scores(some) - plain).max() > 0.01, "something was learned"


def test_reports_of_groups_become_one() -> None:
    stepped = {"stepped_back": True, "reason": "too few"}
    went = {"stepped_back": False, "reason": None, "warning": "uneven"}
    assert combined([stepped, stepped])["stepped_back"]
    mixed = combined([stepped, went, went])
    assert not mixed["stepped_back"]
    assert mixed["warning"] == "changed nothing in 1 of 3 groups: too few"
    assert combined([went, went])["warning"] == "in 2 of 2 groups: uneven"


@pytest.mark.parametrize("recipe", ["ensemble", "mean_similarity", "labeldesc"])
def test_answers_of_stored_vectors_are_those_in_memory(
    recipe: str, both: tuple[Embeddings, Embeddings]
) -> None:
    texts = world()[1]
    tables = []
    for given in both:
        pipeline = Pipeline(get_recipe(recipe)).fit(texts, Batch(given.vectors))
        tables.append(answer_table(pipeline, given, k=2, block=31).to_pydict())
    for name in ("file_name", "rank", "class_id", "decision", "error"):
        assert tables[0][name] == tables[1][name]
    np.testing.assert_allclose(tables[0]["probability"], tables[1]["probability"], atol=1e-5)


@pytest.mark.parametrize("recipe", ["ensemble", "transclip[guard=false]"])
@pytest.mark.parametrize("looked", [1000, 50])
def test_diagnosis_of_stored_vectors_is_that_in_memory(
    recipe: str, looked: int, both: tuple[Embeddings, Embeddings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("byname.expectation.SAMPLE", looked)
    texts = world()[1]
    chosen = get_recipe("ensemble") if recipe == "ensemble" else member(recipe)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        held, kept = (diagnose(texts, Batch(given.vectors), chosen) for given in both)
    assert isinstance(both[1].vectors, StoredVectors)
    one, other = held.to_dict(), kept.to_dict()
    assert one["worst"] == other["worst"]
    assert one["expected_accuracy"] == pytest.approx(other["expected_accuracy"], abs=1e-5)
    for a, b in zip(one["classes"].values(), other["classes"].values(), strict=True):
        assert (a["n"], a["flag"], a["confusions"]) == (b["n"], b["flag"], b["confusions"])
        assert a["cmm"] == pytest.approx(b["cmm"], abs=1e-6)
        assert a["expected_accuracy"] == pytest.approx(b["expected_accuracy"], abs=1e-4)
    assert held.chances is not None
    assert kept.chances is not None
    np.testing.assert_array_equal(held.chances.rows, kept.chances.rows)
