from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from byname import ops
from byname.errors import UsageError
from byname.programs import fewshot_search
from byname.programs.alpha_sweep import right_by_alpha
from byname.programs.fewshot import FewShot
from byname.programs.fewshot_search import Asked, search
from byname.programs.shots import deals
from byname.stage import ClassTexts, Support
from byname.taskfile import Task
from byname.taxonomy import Node, Taxonomy
from tests.reference import coder as ref

D = 12


def unit_rows(rng: np.random.Generator, *shape: int) -> NDArray[Any]:
    return np.asarray(ops.unit(rng.standard_normal(shape) + 0.3))


def task(
    seed: int, K: int = 4, shots: int = 3, dtype: Any = np.float64, n: int = 12
) -> tuple[ClassTexts, NDArray[Any], list[str], NDArray[Any]]:
    """Texts, support, its ids in random order, and images."""
    rng = np.random.default_rng(seed)
    index = np.repeat(np.arange(K), 3)
    taxonomy = Taxonomy(Node(f"c{k}", f"class {k}") for k in range(K))
    kind = ("name", "attribute", "attribute") * K
    texts = ClassTexts(unit_rows(rng, 3 * K, D).astype(dtype), index, taxonomy, kind=kind, scale=20)
    of = rng.permutation(np.repeat(np.arange(K), shots))
    support = unit_rows(rng, len(of), D).astype(dtype)
    return texts, support, [f"c{k}" for k in of], unit_rows(rng, n, D).astype(dtype)


def class_vectors(texts: ClassTexts) -> NDArray[Any]:
    return np.asarray(texts.vectors[::3])


def positions(ids: list[str]) -> list[int]:
    return [int(i[1:]) for i in ids]


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(["tip", "coder"]),
    st.booleans(),
    st.integers(1, 4),
    st.integers(1, 5),
)
def test_agrees_with_the_reference(
    seed: int, features: Any, minmax: bool, shots: int, K: int
) -> None:
    texts, support, ids, X = task(seed, K, shots)
    model = FewShot(texts, features, alpha=2.5, beta=7, minmax=minmax).fit(support, ids)
    expected = ref.few_shot(
        X,
        support,
        positions(ids),
        class_vectors(texts),
        scale=20,
        alpha=2.5,
        beta=7,
        G=texts.vectors if features == "coder" else None,
        minmax=minmax,
    )
    np.testing.assert_allclose(model.decision_function(X), expected, rtol=0, atol=1e-9)
    assert model.predict(X).tolist() == [f"c{k}" for k in expected.argmax(1)]
    np.testing.assert_allclose(model.predict_proba(X).sum(1), 1)


@pytest.mark.parametrize("encoder", ["clip-rn50", "clip-vit-b-32", "clip-vit-l-14"])
@pytest.mark.parametrize("minmax", [False, True])
def test_gram_form_on_real_vectors(shared: Path, encoder: str, minmax: bool) -> None:
    with np.load(shared / "rs19" / f"{encoder}.npz") as data:
        X, T = data["images"].astype(np.float32), data["texts"][:6].astype(np.float32)
        taxonomy = Taxonomy.from_names([str(name) for name in data["classes"]])
    X, T = np.asarray(ops.unit(X)), np.asarray(ops.unit(T))
    K = len(taxonomy)
    kind = ("template",) * K + ("attribute",) * 5 * K
    index = np.tile(np.arange(K), 6)
    texts = ClassTexts(T.reshape(-1, T.shape[2]), index, taxonomy, kind=kind, scale=1)
    support, images = X[:38], X[38:1005:25]
    ids = [taxonomy.class_ids[i % K] for i in range(38)]
    model = FewShot(texts, "coder", beta=20, minmax=minmax).fit(support, ids)
    expected = ref.few_shot(
        images,
        support,
        [i % K for i in range(38)],
        T[0],
        scale=1,
        alpha=1,
        beta=0.0,
        G=texts.vectors,
    )
    # beta 0 leaves the affinity out: what is compared there is the text part.
    np.testing.assert_allclose(
        model.set_params(beta=0).decision_function(images), expected, atol=1e-5
    )
    found = model._affinity(images)
    coders = (
        ref.explicit_coder(images, texts.vectors)
        @ ref.explicit_coder(model.support_.vectors, texts.vectors).T
    )
    if minmax:
        low, high = coders.min(1, keepdims=True), coders.max(1, keepdims=True)
        # A stretched affinity is as exact as the spread of a row allows in float32.
        np.testing.assert_allclose(found, (coders - low) / (high - low), atol=1e-3)
    else:
        np.testing.assert_allclose(found, coders, rtol=0, atol=1e-5)


def test_alpha_zero_is_zero_shot() -> None:
    texts, support, ids, X = task(0)
    found = FewShot(texts, alpha=0).fit(support, ids).decision_function(X)
    np.testing.assert_allclose(found, 20 * X @ class_vectors(texts).T, atol=1e-12)


def test_identity_texts_give_tip_adapter() -> None:
    _, support, ids, X = task(1, K=3)
    taxonomy = Taxonomy(Node(f"c{k}", "x") for k in range(3))
    index = np.arange(D) % 3
    texts = ClassTexts(np.eye(D), index, taxonomy, kind=("attribute",) * D, scale=20)
    tip, coder = (
        FewShot(texts, features, beta=3).fit(support, ids).decision_function(X)  # type: ignore[arg-type]
        for features in ("tip", "coder")
    )
    np.testing.assert_allclose(coder, tip, atol=1e-12)


def test_synonyms_are_left_out_of_the_features() -> None:
    texts, support, ids, X = task(2)
    more = replace(
        texts,
        vectors=np.concatenate([texts.vectors, unit_rows(np.random.default_rng(9), 2, D)]),
        class_index=np.append(texts.class_index, [0, -1]),
        kind=(*(texts.kind or ()), "synonym", "one-to-one"),
    )
    a, b = (FewShot(t, "coder").fit(support, ids).decision_function(X) for t in (texts, more))
    np.testing.assert_allclose(a, b, atol=1e-12)


def test_a_class_without_names_uses_all_its_texts() -> None:
    texts, support, ids, X = task(3)
    bare = replace(texts, kind=("text",) * 12)
    found = FewShot(bare, alpha=0).fit(support, ids).decision_function(X)
    W = ops.unit(texts.vectors.reshape(4, 3, D).mean(1))
    np.testing.assert_allclose(found, 20 * X @ W.T, atol=1e-12)
    unknown = FewShot(replace(texts, kind=None), alpha=0).fit(support, ids)
    np.testing.assert_allclose(unknown.decision_function(X), found, atol=1e-12)


@pytest.mark.parametrize("features", ["tip", "coder"])
def test_constant_affinities(features: Any) -> None:
    texts, support, ids, X = task(4, shots=1)
    same = np.repeat(support[:1], 4, axis=0)
    model = FewShot(texts, features, minmax=True, alpha=3).fit(same, ids)
    assert (model._affinity(X) == 1).all()
    expected = 20 * X @ class_vectors(texts).T + 3
    np.testing.assert_allclose(model.decision_function(X), expected, atol=1e-12)
    lone = FewShot(texts, features, minmax=True).fit(support[:1], ids[:1])
    assert np.isfinite(lone.decision_function(X)).all()


def test_classes_in_another_order() -> None:
    texts, support, ids, X = task(5)
    order = np.array([2, 0, 3, 1])
    taxonomy = Taxonomy(texts.taxonomy.classes[i] for i in order)
    other = replace(texts, taxonomy=taxonomy, class_index=np.argsort(order)[texts.class_index])
    a, b = (FewShot(t, "coder").fit(support, ids) for t in (texts, other))
    np.testing.assert_allclose(b.decision_function(X), a.decision_function(X)[:, order], atol=1e-12)
    assert a.predict(X).tolist() == b.predict(X).tolist()


@pytest.mark.parametrize("n", [0, 1, 2050])
def test_sizes_and_blocks(n: int) -> None:
    texts, support, ids, _ = task(6, dtype=np.float32)
    X = unit_rows(np.random.default_rng(7), n, D).astype(np.float32)
    model = FewShot(texts, "coder").fit(support, ids)
    found = model.decision_function(X)
    assert found.shape == (n, 4)
    assert found.dtype == np.float32
    assert model.predict(X).shape == (n,)
    if n > 2000:
        np.testing.assert_allclose(model.decision_function(X[1500:1501]), found[1500:1501], 1e-5)


def test_a_class_without_support_is_scored_by_its_texts() -> None:
    texts, support, ids, X = task(8)
    kept = [i for i, node_id in enumerate(ids) if node_id != "c2"]
    model = FewShot(texts, alpha=5).fit(support[kept], [ids[i] for i in kept])
    found = model.decision_function(X)
    np.testing.assert_allclose(found[:, 2], 20 * X @ class_vectors(texts)[2], atol=1e-12)


def test_a_support_object() -> None:
    texts, support, ids, X = task(9)
    of = Support(support, np.array(positions(ids)), "labelled")
    a, b = FewShot(texts).fit(of), FewShot(texts).fit(support, ids)
    assert (a.decision_function(X) == b.decision_function(X)).all()
    with pytest.raises(UsageError, match="it is pseudo"):
        FewShot(texts).fit(replace(of, kind="pseudo"))
    with pytest.raises(UsageError, match="do not count these classes"):
        FewShot(texts).fit(replace(of, class_index=of.class_index + 1))


# -- search


def accuracy(model: FewShot, X: Any, ids: list[str]) -> float:
    return float((model.predict(X) == np.array(ids)).mean())


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_all_alphas_at_once(seed: int, whole: bool) -> None:
    """Whole numbers make ties, which the class of the lower index wins."""
    rng = np.random.default_rng(seed)
    text, votes = rng.normal(0, 1, (2, 15, 4))
    alphas = np.linspace(0, 3, 13)
    if whole:
        text, votes, alphas = np.round(2 * text), np.round(2 * votes), np.arange(4.0)
    index = rng.integers(0, 4, 15)
    expected = [int(((text + a * votes).argmax(1) == index).sum()) for a in alphas]
    assert right_by_alpha(text, votes, index, alphas).tolist() == expected


@pytest.mark.parametrize("features", ["tip", "coder"])
def test_search_finds_the_best_of_the_grid(features: Any) -> None:
    texts, support, ids, X = task(10, n=60)
    truth = [f"c{k}" for k in np.random.default_rng(0).integers(0, 4, 60)]
    model = FewShot(texts, features).fit(support, ids)
    betas, alphas = [0.5, 3.0, 20.0], [0.0, 1.0, 5.0, 50.0]
    found = model.search(betas, alphas, validation=(X, truth), rounds=1)
    table = {
        (b, a): accuracy(model.set_params(alpha=a, beta=b), X, truth) for b in betas for a in alphas
    }
    assert found.accuracy == pytest.approx(max(table.values()))
    assert (found.beta, found.alpha) == max(table, key=lambda key: table[key])
    assert found.tried == 12
    again = model.search(betas, alphas, validation=(X, truth), test=X + 1, rounds=3)
    assert again.accuracy >= found.accuracy
    assert again.tried == 36
    assert (model.alpha, model.beta) == (again.alpha, again.beta)
    assert accuracy(model, X, truth) == pytest.approx(again.accuracy)


def test_search_wants_a_validation_part_of_its_own() -> None:
    texts, support, ids, X = task(11)
    model = FewShot(texts).fit(support, ids)
    truth = ["c0"] * len(X)
    with pytest.raises(UsageError, match="12 of the 12 validation images are among the test"):
        model.search(validation=(X, truth), test=X)
    with pytest.raises(UsageError, match=r"1 of the 12 .* test images, the first in row 3"):
        model.search(validation=(X, truth), test=X[3:4])
    with pytest.raises(UsageError, match="among the support"):
        model.search(validation=(support, ids))
    with pytest.raises(UsageError, match="1 of the 12 support images are among the test images"):
        model.search(test=np.concatenate([X, support[:1]]))
    with pytest.raises(UsageError, match="the validation part is empty"):
        model.search(validation=(X[:0], []))
    with pytest.raises(UsageError, match="Call fit"):
        FewShot(texts).search()
    assert (model.alpha, model.beta) == (1.0, 5.5)


@pytest.mark.parametrize("features", ["tip", "coder"])
@pytest.mark.parametrize("minmax", [False, True])
def test_the_split_of_the_support_is_that_of_loops(features: Any, minmax: bool) -> None:
    """Every image of a class with three or more is asked once, of a model without its fold."""
    texts, support, ids, _ = task(12, shots=5)
    keep = [n for n, i in enumerate(ids) if i != "c2"] + [ids.index("c2")]  # one image of c2
    support, ids = support[keep], [ids[n] for n in keep]
    betas, alphas = [0.5, 3.0, 20.0], [0.0, 1.0, 5.0, 50.0]
    model = FewShot(texts, features, minmax=minmax).fit(support, ids)
    kept = model.support_
    dealt = deals(kept.class_index, np.asarray(kept.vectors), seed=3)
    right = {(b, a): 0 for b in betas for a in alphas}
    asked = 0
    for fold, f in itertools.product(dealt, range(5)):
        others = fold != f
        less = FewShot(texts, features, minmax=minmax).fit(
            Support(kept.vectors[others], kept.class_index[others], "labelled")
        )
        mine = (fold == f) & (kept.class_index != 2)
        truth = [f"c{k}" for k in kept.class_index[mine]]
        asked += len(truth)
        for (b, a), so_far in right.items():
            said = less.set_params(alpha=a, beta=b).predict(kept.vectors[mine])
            right[b, a] = so_far + int((said == np.array(truth)).sum())
    found = model.search(betas, alphas, rounds=1, seed=3)
    assert asked == 45
    assert found.accuracy == pytest.approx(max(right.values()) / 45)
    assert (found.beta, found.alpha) == max(right, key=lambda key: right[key])
    assert (model.alpha, model.beta, found.on) == (found.alpha, found.beta, "the support, split")


def test_among_equals_the_smallest_is_chosen() -> None:
    """Also against later rounds, which are as good."""
    sure = Asked(np.array([[9.0, 0.0]]), np.array([0]), lambda beta: np.zeros((1, 2)))
    for rounds in (1, 3):
        found = search([sure], [3.0, 1.0, 2.0], [7.0, 5.0], rounds)
        assert (found.alpha, found.beta, found.accuracy) == (5.0, 1.0, 1.0)


def test_rounds_search_from_half_to_one_and_a_half_times_the_best(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Right is only what is nearest to beta 4 and alpha 10."""
    grids: list[tuple[float, list[float]]] = []

    def right(text: Any, votes: Any, index: Any, alphas: Any) -> Any:
        grids.append((float(votes), alphas.tolist()))
        return (100 - 10 * abs(votes - 4) - abs(alphas - 10)).astype(np.intp)

    monkeypatch.setattr(fewshot_search, "right_by_alpha", right)
    part = Asked(np.zeros((1, 2)), np.zeros(1, np.intp), np.asarray)
    found = fewshot_search.search([part], [6.0, 3.0, 1.0], [8.0, 40.0], 3)
    assert [beta for beta, _ in grids] == [1, 3, 6, 1.5, 3, 4.5, 2.25, 4.5, 6.75]
    assert [alphas for _, alphas in grids[::3]] == [[8, 40], [4, 12], [6, 18]]
    assert (found.beta, found.alpha, found.tried) == (4.5, 12.0, 18)


def test_a_grid_of_one_value_is_held_in_all_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[float, list[float]]] = []

    def right(text: Any, votes: Any, index: Any, alphas: Any) -> Any:
        seen.append((float(votes), alphas.tolist()))
        return (100 - abs(votes - 4) - abs(alphas - 11)).astype(np.intp)

    monkeypatch.setattr(fewshot_search, "right_by_alpha", right)
    part = Asked(np.zeros((1, 2)), np.zeros(1, np.intp), np.asarray)
    found = fewshot_search.search([part], [7.0], [8.0, 40.0], 3)
    assert ({beta for beta, _ in seen}, found.beta, found.tried) == ({7.0}, 7.0, 6)
    assert [alphas for _, alphas in seen] == [[8, 40], [4, 12], [6, 18]]
    seen.clear()
    found = fewshot_search.search([part], [6.0, 3.0], [2.0], 3)
    assert ({tuple(alphas) for _, alphas in seen}, found.alpha) == ({(2.0,)}, 2.0)
    assert len({beta for beta, _ in seen}) > 2


def test_wrong_searches_are_named() -> None:
    texts, support, ids, _ = task(0)
    model = FewShot(texts).fit(support, ids)
    for name, value in (("rounds", 0), ("rounds", 1.5), ("rounds", "2"), ("seed", -1)):
        with pytest.raises(UsageError, match=f"{name} is {value!r}. Give [01] or more, a whole"):
            model.search(**{name: value})  # type: ignore[arg-type]
    for wrong in ("high", [[1.0], [2.0, 3.0]], [-1.0], None):
        with pytest.raises(UsageError, match="search: betas are"):
            model.search(wrong)  # type: ignore[arg-type]
    assert (model.alpha, model.beta) == (1.0, 5.5)


@pytest.mark.parametrize("shots", [1, 2])
def test_too_few_shots_leave_the_setting_as_it_is_and_say_so(shots: int) -> None:
    texts, support, ids, _ = task(13, shots=shots)
    model = FewShot(texts).fit(support, ids)
    found = model.search()
    assert (found.alpha, found.beta, found.tried) == (model.alpha, model.beta, 0) == (1.0, 5.5, 0)
    assert np.isnan(found.accuracy)
    assert found.reason is not None
    assert "fewer than two classes have 3 labelled images" in found.reason


def test_labels_of_one_class_choose_nothing() -> None:
    """Whatever favours that class would look best."""
    texts, support, _, _ = task(14, shots=3)
    assert FewShot(texts).fit(support, ["c1"] * len(support)).search().tried == 0


def test_searching_helps_on_images_that_play_no_part(shared: Path) -> None:
    held = Task.load(shared / "rs19" / "clip-vit-b-32.npz")
    texts, X = held.texts_for("templates"), np.asarray(ops.unit(held.batch().X))
    y, ids = np.asarray(held.labels), np.array(texts.taxonomy.class_ids)
    order = np.random.default_rng(0).permutation(len(X))
    mine = np.concatenate([order[y[order] == k][:4] for k in range(19)])
    rest = np.setdiff1d(np.arange(len(X)), mine)
    model = FewShot(texts).fit(X[mine], ids[y[mine]].tolist())
    before = accuracy(model, X[rest], ids[y[rest]].tolist())
    model.search(np.linspace(0.1, 200, 50).tolist(), test=X[rest])
    assert accuracy(model, X[rest], ids[y[rest]].tolist()) > before + 0.03


# -- bad input


@pytest.mark.parametrize(
    "ids, seen",
    [
        (["c0", "c9"], "use the class 'c9' of the support.*no class has this id"),
        ([0, 1], "no class has this id"),
        (["c0"], "there are 2 images and 1 ids"),
    ],
)
def test_bad_ids(ids: Any, seen: str) -> None:
    texts, support, _, _ = task(0)
    with pytest.raises(UsageError, match=seen):
        FewShot(texts).fit(support[:2], ids)


def test_bad_arguments() -> None:
    texts, support, ids, X = task(0)
    with pytest.raises(UsageError, match="features is 'sift'"):
        FewShot(texts, "sift").fit(support, ids)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="alpha is -1"):
        FewShot(texts, alpha=-1).fit(support, ids)
    with pytest.raises(UsageError, match="no class ids were given"):
        FewShot(texts).fit(support)
    with pytest.raises(UsageError, match="the support has no image"):
        FewShot(texts).fit(support[:0], [])
    with pytest.raises(UsageError, match="no support yet"):
        FewShot(texts).predict(X)
    with pytest.raises(UsageError, match="the text vectors are 12 wide"):
        FewShot(texts).fit(support[:, :5], ids)
    with pytest.raises(UsageError, match="no such parameter"):
        FewShot(texts).set_params(gamma=1)
    with pytest.raises(UsageError, match="betas are"):
        FewShot(texts).fit(support, ids).search([], validation=(X, ["c0"] * len(X)))


def test_parameters_are_those_of_the_constructor() -> None:
    model = FewShot(task(0)[0], "coder", 2.0, 3.0, True)
    params = model.get_params()
    assert {k: v for k, v in params.items() if k != "texts"} == {
        "features": "coder",
        "alpha": 2.0,
        "beta": 3.0,
        "minmax": True,
    }


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_vectors_that_are_no_numbers_are_named_by_row(bad: float) -> None:
    texts, support, ids, X = task(0)
    spoilt, model = X.copy(), FewShot(texts)
    spoilt[2, 1] = bad
    broken = support.copy()
    broken[1, 0] = bad
    with pytest.raises(UsageError, match="use the support: row 1 holds NaN or infinity"):
        model.fit(broken, ids)
    model.fit(support, ids)
    with pytest.raises(UsageError, match="use the images: row 2 holds NaN or infinity"):
        model.predict(spoilt)
    with pytest.raises(UsageError, match="use the validation part: row 2 holds"):
        model.search(validation=(spoilt, ["c0"] * len(X)))


@pytest.mark.parametrize("value", ["1", None, [1.0], float("nan")])
def test_settings_that_are_no_numbers(value: Any) -> None:
    texts, support, ids, _ = task(0)
    with pytest.raises(UsageError, match=r"alpha is .*Give a number, 0 or more"):
        FewShot(texts, alpha=value).fit(support, ids)


@pytest.mark.parametrize("change", [lambda v: v * (1 + 1e-6), lambda v: v.astype(np.float16)])
def test_an_image_rounded_otherwise_is_the_same_image(change: Any) -> None:
    texts, support, ids, X = task(11)
    model, truth = FewShot(texts).fit(support, ids), ["c0"] * len(X)
    with pytest.raises(UsageError, match=r"1 of the 12 .* test images, the first in row 3"):
        model.search(validation=(X, truth), test=change(X[3:4]))
    with pytest.raises(UsageError, match="among the support"):
        model.search(validation=(change(support), ids))
    near = ops.unit(X + 0.002 * ops.unit(np.random.default_rng(0).standard_normal(X.shape)))
    assert model.search([1.0], [1.0], validation=(X, truth), test=near).tried
