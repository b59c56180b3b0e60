from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from byname import ops
from byname.errors import NeedsError, PromptError, RecipeError
from byname.score.coder import Coder, Contrasts, contrasts, name_vectors, rerank
from byname.score.cosine import Cosine
from byname.stage import Batch, ClassTexts, State
from byname.taxonomy import Node, Taxonomy
from byname.weigh.mean import Mean
from byname.weigh.mean_similarity import MeanSimilarity
from tests.contract.cases import Case, arrays, make_case, permute_classes, run
from tests.reference import coder as ref

D = 16
KINDS = ("name", "template", "attribute", "analogous", "synonym", "text")


def some_texts(
    seed: int, K: int, dtype: Any = np.float64, kinds: tuple[str, ...] = KINDS
) -> ClassTexts:
    """Every class has one to six texts of random kinds, in random order."""
    rng = np.random.default_rng(seed)
    index = np.concatenate([np.arange(K), rng.integers(0, K, 3 * K)])
    vectors = ops.unit(rng.standard_normal((len(index), D)) + 0.5).astype(dtype)
    chosen = tuple(rng.choice(kinds, len(index)).tolist())
    taxonomy = Taxonomy(Node(f"c{k}", f"class {k}") for k in range(K))
    return ClassTexts(vectors, index, taxonomy, kind=chosen, scale=20, bias=-1)


def with_pairs(texts: ClassTexts, seed: int, share: float = 1.0, per_pair: int = 3) -> ClassTexts:
    """Texts of no class about the ordered pairs of classes; a share of the pairs has some."""
    rng = np.random.default_rng(seed)
    K, M = texts.n_classes, len(texts.class_index)
    ids = texts.taxonomy.class_ids
    pairs, extra = [], 0
    for a in range(K):
        for b in range(K):
            if a != b and rng.random() < share:
                count = int(rng.integers(1, per_pair + 1))
                start = M + extra
                pairs.append((ids[a], ids[b], tuple(range(start, start + count))))
                extra += count
    new = ops.unit(rng.standard_normal((extra, D)) + 0.5).astype(texts.vectors.dtype)
    return replace(
        texts,
        vectors=np.concatenate([texts.vectors, new]),
        class_index=np.concatenate([texts.class_index, np.full(extra, -1)]),
        kind=(*(texts.kind or ()), *["one-to-one"] * extra),
        pairs=tuple(pairs),
    )


def as_dict(texts: ClassTexts) -> dict[tuple[int, int], NDArray[Any]]:
    place = {i: k for k, i in enumerate(texts.taxonomy.class_ids)}
    return {(place[a], place[b]): texts.vectors[list(rows)] for a, b, rows in texts.pairs or ()}


def images(seed: int, n: int, dtype: Any = np.float64) -> NDArray[Any]:
    rng = np.random.default_rng(seed + 1000)
    return np.asarray(ops.unit(rng.standard_normal((n, D)) + 0.5)).astype(dtype)


def scores(X: Any, texts: ClassTexts, **params: Any) -> NDArray[Any]:
    batch = Batch(X)
    return np.asarray(Coder(**params).fit(batch, texts, State()).apply(batch, texts, State(W=None)))


def zero_shot(X: Any, texts: ClassTexts, weigh: Any = Mean) -> NDArray[Any]:
    batch = Batch(X)
    W = weigh().fit(batch, texts, State()).apply(batch, texts, State())
    return np.asarray(Cosine().apply(batch, texts, State(W=W)))


# -- stage one


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 7), st.integers(0, 6))
def test_stage_one_agrees_with_the_reference(seed: int, K: int, n: int) -> None:
    texts, X = some_texts(seed, K), images(seed, n)
    expected = ref.stage_one(X, texts.vectors, texts.class_index, texts.kind, K, 20, -1)
    np.testing.assert_allclose(scores(X, texts), expected, rtol=0, atol=1e-10)
    narrow = replace(texts, vectors=texts.vectors.astype(np.float32))
    found = scores(X.astype(np.float32), narrow)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kinds", [("name",), ("template",), ("name", "template")])
def test_names_alone_are_plain_zero_shot(kinds: tuple[str, ...]) -> None:
    texts, X = some_texts(0, 5, kinds=kinds), images(0, 20)
    np.testing.assert_allclose(scores(X, texts), zero_shot(X, texts), rtol=0, atol=1e-10)
    narrow = replace(texts, vectors=texts.vectors.astype(np.float32))
    X = X.astype(np.float32)
    np.testing.assert_allclose(scores(X, narrow) / 20, zero_shot(X, narrow) / 20, atol=1e-6)


@pytest.mark.parametrize("kinds", [("attribute",), ("analogous", "text")])
def test_attributes_alone_are_mean_similarity(kinds: tuple[str, ...]) -> None:
    texts, X = some_texts(1, 5, kinds=kinds), images(1, 20)
    expected = zero_shot(X, texts, MeanSimilarity)
    np.testing.assert_allclose(scores(X, texts), expected, rtol=0, atol=1e-10)
    assert not name_vectors(texts)[1].any()


def test_the_best_of_name_and_synonyms_is_one_item() -> None:
    eye = np.eye(4)
    taxonomy = Taxonomy([Node("a", "a")])
    kind = ("name", "synonym", "synonym", "attribute")
    texts = ClassTexts(eye, np.zeros(4, int), taxonomy, kind=kind, scale=1)
    x = np.array([[0.1, 0.7, 0.2, 0.3]])
    assert scores(x, texts).tolist() == [[pytest.approx((0.7 + 0.3) / 2)]]
    only = ClassTexts(eye[:2], np.zeros(2, int), taxonomy, kind=("synonym",) * 2, scale=1)
    assert scores(x, replace(only)).tolist() == [[pytest.approx(0.7)]]


def test_synonyms_of_one_class_do_not_touch_the_others() -> None:
    texts, X = some_texts(2, 4, kinds=("name", "attribute")), images(2, 9)
    more = replace(
        texts,
        vectors=np.concatenate([texts.vectors, images(3, 2)]),
        class_index=np.append(texts.class_index, [2, 2]),
        kind=(*(texts.kind or ()), "synonym", "synonym"),
    )
    before, after = scores(X, texts), scores(X, more)
    np.testing.assert_allclose(after[:, [0, 1, 3]], before[:, [0, 1, 3]], rtol=0, atol=1e-12)
    assert (np.abs(after[:, 2] - before[:, 2]) > 1e-6).any()


def test_given_weights() -> None:
    taxonomy = Taxonomy([Node("a", "a")])
    kind = ("name", "synonym", "attribute", "attribute")
    texts = ClassTexts(np.eye(4), np.zeros(4, int), taxonomy, kind=kind, scale=1)
    texts = replace(texts, weight=np.array([1.0, 0.0, 2.0, 0.0]))
    x = np.array([[0.1, 0.9, 0.3, 0.8]])
    assert scores(x, texts)[0, 0] == pytest.approx((0.1 + 2 * 0.3) / 3)


def test_duplicate_texts_and_a_class_with_a_single_text() -> None:
    v = ops.unit(np.random.default_rng(0).standard_normal((3, D)))
    taxonomy = Taxonomy([Node("a", "a"), Node("b", "b")])
    vectors = np.stack([v[0], v[1], v[1], v[2]])
    kind = ("name", "attribute", "attribute", "attribute")
    texts = ClassTexts(vectors, np.array([0, 0, 0, 1]), taxonomy, kind=kind, scale=1)
    X = images(0, 3)
    expected = np.stack([(X @ v[0] + 2 * X @ v[1]) / 3, X @ v[2]], axis=1)
    np.testing.assert_allclose(scores(X, texts), expected, atol=1e-12)


def test_a_class_without_texts_is_named() -> None:
    texts = replace(some_texts(0, 3), class_index=np.zeros(12, int))
    with pytest.raises(PromptError, match="no text for the classes 'c1', 'c2'"):
        scores(images(0, 1), texts)


def test_kinds_are_needed() -> None:
    texts = replace(some_texts(0, 3), kind=None)
    with pytest.raises(NeedsError, match="it needs 'kind'"):
        Coder().check_needs(Batch(images(0, 1)), texts)


# -- rerank


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 7),
    st.sampled_from([2, 3, 5]),
    st.sampled_from([0.0, 0.3, 1.0]),
    st.sampled_from([0.3, 0.6, 1.0]),
    st.sampled_from(["linked", "zero"]),
)
def test_rerank_agrees_with_the_reference(
    seed: int, K: int, candidates: int, gap: float, share: float, missing: str
) -> None:
    texts, X = with_pairs(some_texts(seed, K), seed, share), images(seed, 6)
    one = ref.stage_one(X, texts.vectors, texts.class_index, texts.kind, K, 20, -1)
    expected = ref.rerank(one, X, as_dict(texts), candidates, gap, missing)
    found = scores(X, texts, rerank=candidates, gap=gap, missing=missing)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("encoder", ["clip-rn50", "clip-vit-b-32", "clip-vit-l-14"])
def test_real_vectors(shared: Path, encoder: str) -> None:
    """Templates 0-3 are the name, 4-15 stand for attributes, 16-19 for texts about pairs."""
    with np.load(shared / "rs19" / f"{encoder}.npz") as task:
        X, T = task["images"][::20].astype(np.float32), task["texts"].astype(np.float32)
        names = [str(name) for name in task["classes"]]
    T, K = np.asarray(ops.unit(T)), len(names)
    X = np.asarray(ops.unit(X))
    taxonomy = Taxonomy.from_names(names)
    ids = taxonomy.class_ids
    # The texts about a against b lean from b's texts to a's: their sum would be the same both ways.
    ordered = [(a, b) for a in range(K) for b in range(K) if a != b]
    lean = np.concatenate([ops.unit(T[16:20, a] - 0.5 * T[16:20, b]) for a, b in ordered])
    texts = ClassTexts(
        vectors=np.concatenate([T[:16].reshape(-1, T.shape[2]), lean]),
        class_index=np.append(np.tile(np.arange(K), 16), np.full(len(lean), -1)),
        taxonomy=taxonomy,
        kind=("template",) * 4 * K + ("attribute",) * 12 * K + ("one-to-one",) * len(lean),
        pairs=tuple(
            (ids[a], ids[b], tuple(range(16 * K + 4 * i, 16 * K + 4 * i + 4)))
            for i, (a, b) in enumerate(ordered)
        ),
    )
    one = ref.stage_one(X, texts.vectors, texts.class_index, texts.kind, K, 1)
    found = scores(X, replace(texts, scale=1.0), rerank=0)
    np.testing.assert_allclose(found, one, rtol=0, atol=1e-6)
    expected = ref.rerank(100 * one, X, as_dict(texts), 5, 0.9)
    found = scores(X, texts, gap=0.9)
    np.testing.assert_allclose(found / 100, expected / 100, rtol=0, atol=1e-5)
    assert (expected.argmax(1) != one.argmax(1)).any()


def test_preferences_sum_to_zero_and_win() -> None:
    texts = with_pairs(some_texts(4, 6), 4)
    X = images(4, 30)
    S, found = scores(X, texts, rerank=0), scores(X, texts, gap=1)
    changed = 0
    for i, row in enumerate(S):
        top = sorted(range(6), key=lambda k: -row[k])[:5]
        r = ref.preference(X[i], top, as_dict(texts))
        assert sum(r) == pytest.approx(0, abs=1e-12)
        assert found[i].argmax() == top[int(np.argmax(r))]
        assert sorted(found[i]) == sorted(row)
        rest = [k for k in range(6) if k not in top]
        assert found[i, rest].tolist() == row[rest].tolist()
        changed += found[i].argmax() != row.argmax()
    assert changed


def test_what_leaves_stage_one_as_it_is() -> None:
    texts, X = with_pairs(some_texts(5, 6), 5), images(5, 30)
    one = scores(X, texts, rerank=0)
    assert (scores(X, texts, gap=0) == one).all()
    assert (scores(X, replace(texts, pairs=None)) == one).all()
    assert (scores(X, replace(texts, pairs=())) == one).all()
    assert (scores(X, texts, gap=1) != one).any()
    one_way = tuple(p for p in texts.pairs or () if p[0] < p[1])
    assert (scores(X, replace(texts, pairs=one_way), gap=1) == one).all()


def test_only_uncertain_images_are_touched() -> None:
    texts, X = with_pairs(some_texts(6, 6), 6), images(6, 200)
    one, found = scores(X, texts, rerank=0), scores(X, texts, gap=0.2)
    p = np.sort(ops.softmax(one), axis=1)
    moved = (one != found).any(axis=1)
    assert moved.any()
    assert not moved[p[:, -1] - p[:, -2] >= 0.2].any()


def test_a_missing_pair_counts_zero() -> None:
    """Of three candidates only b and c have texts: a keeps r = 0, between the other two."""
    taxonomy = Taxonomy([Node(i, i) for i in "abc"])
    vectors = np.array([[1.0, 0], [1, 0], [1, 0], [0, 1], [0, -1]])
    texts = ClassTexts(
        vectors,
        np.array([0, 1, 2, -1, -1]),
        taxonomy,
        kind=("name",) * 3 + ("one-to-one",) * 2,
        scale=1,
        pairs=(("c", "b", (3,)), ("b", "c", (4,)), ("a", "b", (3,))),
    )
    X = np.array([[0.6, 0.8]])
    S = np.array([[0.62, 0.61, 0.6]])
    pairs = contrasts(texts)
    assert pairs is not None
    assert pairs.codes.tolist() == [1 * 3 + 2]
    assert rerank(S, X, pairs, 5, 1.0, "zero").tolist() == [[0.61, 0.6, 0.62]]
    assert rerank(S, X, pairs, 5, 1.0).tolist() == S.tolist(), "nothing is said of a"
    assert S.tolist() == [[0.62, 0.61, 0.6]]


def test_sides_of_one_pair_may_come_in_parts() -> None:
    texts = with_pairs(some_texts(7, 4), 7)
    split = tuple((a, b, (row,)) for a, b, rows in texts.pairs or () for row in rows)
    X = images(7, 20)
    np.testing.assert_allclose(
        scores(X, replace(texts, pairs=split), gap=1), scores(X, texts, gap=1), atol=1e-12
    )


@pytest.mark.parametrize("seed", range(3))
def test_order_of_classes_and_of_images(seed: int) -> None:
    base = with_pairs(some_texts(seed, 6), seed)
    case = Case(Batch(images(seed, 20)), base, make_case(K=6, N=20).state)
    order = np.random.default_rng(seed).permutation(6)
    other = permute_classes(case, order)
    member = Coder(gap=1.0)
    whole = run(member, case)
    np.testing.assert_allclose(run(member, other), whole[:, order], atol=1e-9)
    one = [run(member, replace(case, batch=Batch(case.batch.X[[i]]))) for i in range(20)]
    np.testing.assert_allclose(np.concatenate(one), whole, atol=1e-9)


@pytest.mark.parametrize("K", [1, 2, 4, 6])
@pytest.mark.parametrize("n", [0, 1, 300])
def test_sizes_with_pairs(K: int, n: int) -> None:
    texts, X = with_pairs(some_texts(K, K, np.float32), K), images(K, n, np.float32)
    for array in arrays(texts):
        array.flags.writeable = False
    found = scores(X, texts, gap=1)
    assert found.shape == (n, K)
    assert found.dtype == np.float32
    one = scores(X, texts, rerank=0)
    assert (np.sort(found, axis=1) == np.sort(one, axis=1)).all()


def test_float16_vectors() -> None:
    texts, X = with_pairs(some_texts(0, 5, np.float16), 0), images(0, 50, np.float16)
    wide = replace(texts, vectors=texts.vectors.astype(np.float32))
    found = scores(X, texts, gap=1)
    assert (found == scores(X.astype(np.float32), wide, gap=1)).all()


def test_contrasts_hold_the_difference_of_the_means() -> None:
    texts = with_pairs(some_texts(8, 3), 8)
    pairs = contrasts(texts)
    assert isinstance(pairs, Contrasts)
    held = as_dict(texts)
    for code, vector in zip(pairs.codes.tolist(), pairs.vectors, strict=True):
        a, b = divmod(code, 3)
        np.testing.assert_allclose(vector, held[a, b].mean(0) - held[b, a].mean(0), atol=1e-12)


@pytest.mark.parametrize(
    "pair, seen",
    [
        (("c0", "zebra", (0,)), "no class has the id 'zebra'"),
        (("c0", "c0", (0,)), "it is one class twice"),
        (("c0", "c1", (99,)), r"its rows \[99\] are not all among the 12 texts"),
        (("c0", "c1", (-1,)), r"its rows \[-1\] are not all among"),
    ],
)
def test_bad_pairs(pair: Any, seen: str) -> None:
    texts = replace(some_texts(0, 3), pairs=(pair,))
    with pytest.raises(PromptError, match=seen):
        scores(images(0, 1), texts)


@pytest.mark.parametrize(
    "params, seen",
    [
        ({"rerank": 1}, "rerank is 1"),
        ({"rerank": -1}, "rerank is -1"),
        ({"gap": 1.5}, "gap is 1.5"),
        ({"missing": "none"}, "missing is 'none'.*'zero' for the rule of the released code"),
    ],
)
def test_bad_parameters(params: dict[str, Any], seen: str) -> None:
    with pytest.raises(RecipeError, match=seen):
        Coder(**params)


@pytest.mark.torch
def test_rerank_of_tensors() -> None:
    torch = pytest.importorskip("torch")
    texts, X = with_pairs(some_texts(9, 6, np.float32), 9), images(9, 30, np.float32)
    expected = scores(X, texts, gap=1)
    tensors = replace(texts, vectors=torch.from_numpy(texts.vectors))
    batch = Batch(torch.from_numpy(X))
    found = Coder(gap=1.0).fit(batch, tensors, State()).apply(batch, tensors, State())
    assert torch.is_tensor(found)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)


def test_the_threshold_itself_is_certain() -> None:
    """Here p1 - p2 is 1 to the last bit, which is not below a gap of 1."""
    texts = with_pairs(replace(some_texts(10, 4), scale=1e6), 10)
    X = images(10, 40)
    one = scores(X, texts, rerank=0)
    p = np.sort(ops.softmax(one), axis=1)
    sure = p[:, -1] - p[:, -2] == 1
    assert sure.sum() > 30
    assert (scores(X, texts, gap=1)[sure] == one[sure]).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 7), st.sampled_from([2, 3, 5]))
def test_with_all_pairs_both_rules_are_one(seed: int, K: int, candidates: int) -> None:
    texts, X = with_pairs(some_texts(seed, K), seed), images(seed, 8)
    found = {rule: scores(X, texts, rerank=candidates, gap=1, missing=rule)
             for rule in ("linked", "zero")}  # fmt: skip
    assert (found["linked"] == found["zero"]).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_new_winner_was_compared_with_the_old_one_over_pairs_with_texts(seed: int) -> None:
    texts, X = with_pairs(some_texts(seed, 7), seed, share=0.5), images(seed, 20)
    one, found = scores(X, texts, rerank=0), scores(X, texts, gap=1)
    for before, after in zip(one, found, strict=True):
        top = sorted(range(7), key=lambda k: -before[k])[:5]
        linked = {top[j] for j in ref.linked(top, as_dict(texts))}
        assert {k for k in range(7) if before[k] != after[k]} <= linked


def test_candidates_may_be_linked_over_others() -> None:
    """b is linked to a, c to b, d to c and e to d: all change places, without a and e compared."""
    ids = "abcde"
    taxonomy = Taxonomy([Node(i, i) for i in ids])
    ways = list(pairwise(ids))
    texts = ClassTexts(
        np.array([[1.0, 0]] * 5 + [[0, 1], [0, -1]]),
        np.array([0, 1, 2, 3, 4, -1, -1]),
        taxonomy,
        kind=("name",) * 5 + ("one-to-one",) * 2,
        pairs=(*((b, a, (5,)) for a, b in ways), *((a, b, (6,)) for a, b in ways)),
    )
    pairs = contrasts(texts)
    assert pairs is not None
    S = np.array([[5.0, 4, 3, 2, 1]])
    found = rerank(S, np.array([[0.6, 0.8]]), pairs, 5, 1.0)
    assert found.tolist() == [[1.0, 4, 3, 2, 5]], "r is -2, 0, 0, 0, 2"
    assert rerank(S, np.array([[0.6, 0.8]]), pairs, 5, 1.0, "zero").tolist() == found.tolist()


def test_a_direction_without_rows_is_no_contrast() -> None:
    texts = with_pairs(some_texts(11, 3), 11)
    emptied = tuple((a, b, () if (a, b) == ("c1", "c0") else rows) for a, b, rows in texts.pairs)  # type: ignore[union-attr]
    pairs = contrasts(replace(texts, pairs=emptied))
    assert pairs is not None
    assert pairs.codes.tolist() == [0 * 3 + 2, 1 * 3 + 2]
    assert contrasts(replace(texts, pairs=(("c0", "c1", ()), ("c1", "c0", (0,))))) is None
