from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from byname import ops
from byname.classifier import Classifier
from byname.embeddings import Embeddings
from byname.encoders import PrecomputedEncoder
from byname.errors import EmbeddingsError, TaxonomyError, UsageError
from byname.pipeline import Pipeline
from byname.programs.mode_gate import mode_weights
from byname.programs.router import EncoderEnsemble
from byname.recipes import get_recipe
from byname.stage import Batch, ClassTexts, SecondTexts
from byname.taskfile import Task
from byname.taxonomy import Node, Taxonomy
from tests.reference import encoders as ref

NAMES = ["cat", "dog", "cow", "hen"]
CLOSE = 2e-4  # 1e-5 of the scale of 20; given arrays become float32


def unit_rows(rng: np.random.Generator, *shape: int) -> NDArray[Any]:
    return np.asarray(ops.unit(rng.standard_normal(shape) + 0.2))


def experts(
    seed: int = 0, dims: tuple[int, ...] = (6, 5, 7), scales: tuple[float, ...] = (20, 20, 20),
    N: int = 11,
) -> tuple[list[ClassTexts], list[NDArray[Any]]]:  # fmt: skip
    rng = np.random.default_rng(seed)
    taxonomy = Taxonomy.from_names(NAMES)
    index = np.repeat(np.arange(4), 2)
    texts = [
        ClassTexts(unit_rows(rng, 8, d), index, taxonomy, scale=s)
        for d, s in zip(dims, scales, strict=True)
    ]
    return texts, [unit_rows(rng, N, d) for d in dims]


def logits(texts: list[ClassTexts], X: list[NDArray[Any]]) -> list[NDArray[Any]]:
    found = []
    for t, x in zip(texts, X, strict=True):
        W = ref.class_vectors(t.vectors, t.class_index, np.ones(len(t.vectors)), t.n_classes)
        found.append(t.scale * x @ W.T + t.bias)
    return found


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 999),
    st.sampled_from(["equal", "zpe", (0.2, 0.5, 1.3), "mode"]),
    st.sampled_from(["logits", "probabilities"]),
    st.sampled_from([(20, 20, 20), (20, 5, 80)]),
    st.floats(0.3, 3),
)
def test_it_is_the_plain_formula(
    seed: int, weights: Any, combine: Any, scales: Any, temperature: float
) -> None:
    texts, X = experts(seed, scales=scales)
    rng = np.random.default_rng(seed)
    names, centres = rng.standard_normal((4, 3)), [rng.standard_normal((2, 3)) for _ in range(3)]
    model = EncoderEnsemble(
        texts, weights, combine=combine, temperature=temperature,
        class_vectors=names, centres=centres,
    ).fit(X)  # fmt: skip
    given: Any = weights
    if weights != "zpe":
        given = {"equal": np.ones(3) / 3, "mode": ref.mode_weights(names, centres)}.get(
            weights, np.array([0.1, 0.25, 0.65])
        )
    S, w = ref.ensemble(
        logits(texts, X), given, combine=combine, match=len(set(scales)) > 1,
        temperature=temperature,
    )  # fmt: skip
    np.testing.assert_allclose(model.weights_, w, atol=1e-5)
    np.testing.assert_allclose(model.decision_function(X), S, rtol=0, atol=CLOSE)
    top = np.sort(S, axis=1)
    clear = top[:, -1] - top[:, -2] > 2 * CLOSE  # in float32 others may go either way
    best = np.array(NAMES)[S.argmax(axis=1)]
    assert (model.predict(X)[clear] == best[clear]).all()
    np.testing.assert_allclose(model.predict_proba(X).sum(axis=1), 1, rtol=1e-6)
    without = EncoderEnsemble(**model.get_params())
    np.testing.assert_allclose(without.decision_function(X), S, rtol=0, atol=CLOSE)
    assert not hasattr(without, "weights_")


def test_two_experts_are_the_score_member() -> None:
    texts, X = experts(1, (6, 5), (20, 60))
    for weights, share in (("equal", "0.5"), ("zpe", "zpe")):
        model = EncoderEnsemble(texts, weights).fit(X)  # type: ignore[arg-type]
        joined = replace(texts[0], second_texts=SecondTexts(texts[1].vectors, 60.0))
        batch = Batch(X[0], second=X[1])
        pipeline = Pipeline(get_recipe(f"encoders[weight={share}]")).fit(joined, batch)
        np.testing.assert_allclose(model.decision_function(X), pipeline.scores(batch), atol=CLOSE)


@given(st.integers(0, 999), st.sampled_from(["equal", "zpe", (3.0, 1.0)]))
def test_the_same_expert_twice_is_the_single_model(seed: int, weights: Any) -> None:
    texts, X = experts(seed, (6,), (20,))
    model = EncoderEnsemble(texts * 2, weights).fit(X * 2)
    np.testing.assert_allclose(model.decision_function(X * 2), logits(texts, X)[0], atol=CLOSE)
    single = EncoderEnsemble(texts).decision_function(X)
    np.testing.assert_allclose(single, logits(texts, X)[0], atol=CLOSE)


def test_classes_are_matched_by_id_and_images_by_key() -> None:
    texts, X = experts(2, (6, 5), (20, 20))
    expected = EncoderEnsemble(texts).decision_function(X)
    order = [2, 0, 3, 1]
    taxonomy = Taxonomy(Node(NAMES[k], "another name") for k in order)
    place = np.argsort(order)
    other = replace(texts[1], taxonomy=taxonomy, class_index=place[texts[1].class_index])
    keys = [f"{i}.jpg" for i in range(11)]
    turned = np.random.default_rng(0).permutation(11)
    held = [
        Embeddings.from_arrays(X[0], keys),
        Embeddings.from_arrays(X[1][turned], [keys[i] for i in turned]),
    ]
    model = EncoderEnsemble([texts[0], other]).fit(held)
    assert model.classes_.tolist() == NAMES
    np.testing.assert_allclose(model.decision_function(held), expected, atol=1e-4)


def test_classes_and_images_that_differ_are_named() -> None:
    texts, X = experts(3, (6, 5), (20, 20))
    other = replace(texts[1], taxonomy=Taxonomy.from_names(["cat", "dog", "cow", "fox"]))
    with pytest.raises(TaxonomyError, match="same classes: 'fox', 'hen'"):
        EncoderEnsemble([texts[0], other]).predict(X)
    model = EncoderEnsemble(texts)
    with pytest.raises(EmbeddingsError, match="expert 0 has 11, expert 1 has 10"):
        model.predict([X[0], X[1][1:]])
    a, b = (Embeddings.from_arrays(x, [f"{n}{i}" for i in range(11)]) for x, n in zip(X, "ab"))  # noqa: B905
    with pytest.raises(EmbeddingsError, match="not have the same images: 'a0'"):
        model.predict([a, b])
    with pytest.raises(EmbeddingsError, match="images of one have keys"):
        model.predict([a, X[1]])
    with pytest.raises(UsageError, match="there are 2 experts, and not one X for each"):
        model.predict(X[0])


def models(folder: Path, files: list[str]) -> list[Classifier]:
    """Two classifiers over "images" whose vectors are stored under the names of files."""
    rng, found = np.random.default_rng(4), []
    for d in (4, 6):
        own = folder / str(d)
        own.mkdir()
        texts = unit_rows(rng, 4, d)
        images = ops.unit(texts[np.arange(len(files)) % 4] + 0.2 * unit_rows(rng, len(files), d))
        for name, rows, keys in (("texts", texts, NAMES), ("images", images, files)):
            np.save(own / f"{name}.npy", rows.astype(np.float32))
            (own / f"{name}.txt").write_text("\n".join(keys))
        encoder = PrecomputedEncoder.from_path(own)
        found.append(Classifier(NAMES, encoder, "plain", templates=["{}"], cache=False))
    return found


def test_classifiers_as_experts(tmp_path: Path) -> None:
    files = [f"{i}.jpg" for i in range(6)]
    for name in files:
        (tmp_path / name).write_bytes(b"its vector is stored")
    pair = models(tmp_path, files)
    asked = [str(tmp_path / name) for name in ("4.jpg", "0.jpg", "5.jpg")]
    single = [m.decision_function(asked) for m in pair]
    ensemble = EncoderEnsemble(pair).fit(asked)
    expected = (single[0] + single[1]) / 2
    np.testing.assert_allclose(ensemble.decision_function(asked), expected, rtol=1e-5)
    assert ensemble.predict(asked).tolist() == ["cat", "cat", "dog"], "in the order that was asked"
    assert not hasattr(pair[0], "pipeline_"), "the user's own classifier is left as it was"
    held = [model.embed(str(tmp_path)) for model in pair]
    assert ensemble.predict(held).tolist() == [NAMES[i % 4] for i in range(6)]


def test_settings_and_report() -> None:
    texts, X = experts(5)
    model = EncoderEnsemble(texts, "zpe")
    with pytest.raises(UsageError, match="learned nothing yet"):
        model.report()
    report = model.fit(X).report()
    assert sum(report["weights"]) == pytest.approx(1)
    assert report["temperatures"] == [1, 1, 1]
    assert 1 <= report["effective_experts"] <= 3
    assert len(report["scores"]) == 3
    model.set_params(weights="equal")
    assert not hasattr(model, "weights_"), "what was learned with other settings is forgotten"
    assert model.fit(X).report()["scores"] is None
    equal = EncoderEnsemble(texts).fit()
    assert equal.weights_.tolist() == [1 / 3] * 3
    with pytest.raises(UsageError, match="labels were given"):
        model.fit(X, [0] * 11)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "params, message",
    [
        ({"experts": []}, "there is no expert"),
        ({"weights": "best"}, "weights is 'best'. Known: equal, zpe, mode"),
        ({"weights": "mode"}, "without class_vectors and centres"),
        ({"weights": (1.0, 2.0)}, "Give 3 numbers, none negative"),
        ({"weights": (1.0, 2.0, -1.0)}, "Give 3 numbers, none negative"),
        ({"weights": (0.0, 0.0, 0.0)}, "all weights are 0"),
        ({"combine": "votes"}, "combine is 'votes'. Known: logits, probabilities"),
        ({"match": "yes"}, "match is 'yes'. Known: auto, spread, none"),
        ({"temperature": 0}, "temperature is 0"),
        ({"temperature": "1"}, "temperature is '1'"),
        ({"experts": None}, "there is no expert"),
        ({"experts": ["x"]}, "expert 0 is of the type str"),
        ({"weights": ["a", "b", "c"]}, "Give 3 numbers, none negative"),
    ],
)
def test_bad_settings(params: dict[str, Any], message: str) -> None:
    texts, X = experts()
    with pytest.raises(UsageError, match=f"cannot average encoders: .*{message}"):
        EncoderEnsemble(**{"experts": texts, **params}).fit(X)


def test_no_images() -> None:
    texts, X = experts(6)
    none = [x[:0] for x in X]
    model = EncoderEnsemble(texts, "zpe").fit(none)
    assert model.weights_ == pytest.approx([1 / 3] * 3)
    assert model.predict(none).shape == (0,)


def test_mode_weights_are_used_as_they_are() -> None:
    texts, _ = experts(7, (6, 5), (20, 20))
    names, centres = np.eye(4), [np.eye(4)[:1], np.eye(4)[1:]]
    model = EncoderEnsemble(texts, "mode", class_vectors=names, centres=centres).fit()
    np.testing.assert_array_equal(model.weights_, mode_weights(names, centres))


def test_three_real_encoders(shared: Path) -> None:
    tasks = [
        Task.load(shared / "rs19" / f"clip-{n}.npz", with_labels=False)
        for n in ("rn50", "vit-b-32", "vit-l-14")
    ]
    texts = [t.texts_for("templates[set=single]") for t in tasks]
    X = [t.images[::25] for t in tasks]
    for weights in ("equal", "zpe"):
        given: Any = weights if weights == "zpe" else [1 / 3] * 3
        S, w = ref.ensemble(logits(texts, X), given)
        model = EncoderEnsemble(texts, weights).fit(X)
        np.testing.assert_allclose(model.weights_, w, atol=1e-5)
        np.testing.assert_allclose(model.decision_function(X) / 100, S / 100, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", [np.asarray, Batch, Embeddings.from_arrays])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_row_that_is_not_finite_is_named(kind: Any, value: float) -> None:
    texts, X = experts()
    spoilt = [x.astype(np.float32) for x in X]
    given = [kind(x) for x in spoilt]
    spoilt[1][3, 2] = value
    if kind is Batch:
        given = [Batch(x) for x in spoilt]
    elif kind is np.asarray:
        given = spoilt
    else:  # Embeddings are checked when made; what they hold can still be written to
        held = given[1].vectors.copy()
        held[3, 2] = value
        given[1] = replace(given[1])
        object.__setattr__(given[1], "vectors", held)
    for model in (EncoderEnsemble(texts), EncoderEnsemble(texts, "zpe")):
        with pytest.raises(EmbeddingsError, match="row 3 of expert 1 holds"):
            model.fit(given)
        with pytest.raises(EmbeddingsError, match="row 3 of expert 1 holds"):
            model.predict(given)


def test_what_is_learned_from_images_needs_images() -> None:
    texts, X = experts()
    needy: tuple[dict[str, Any], ...] = ({"weights": "zpe"}, {"match": "spread"})
    for params in needy:
        with pytest.raises(UsageError, match="there are no images"):
            EncoderEnsemble(texts, **params).fit()
        assert EncoderEnsemble(texts, **params).fit(X).weights_.sum() == pytest.approx(1)
    assert EncoderEnsemble(texts, match="none").fit().weights_.tolist() == [1 / 3] * 3


def test_weights_and_centres_may_be_arrays() -> None:
    texts, X = experts(7, (6, 5), (20, 20))
    given = np.array([0.25, 0.75])
    model = EncoderEnsemble(texts, given).fit(X)  # type: ignore[arg-type]
    np.testing.assert_array_equal(model.weights_, [0.25, 0.75])
    given[:] = 0.5
    np.testing.assert_array_equal(
        model.decision_function(X), EncoderEnsemble(texts).decision_function(X)
    )
    centres: Any = np.eye(4)[:2, None]
    mode = EncoderEnsemble(texts, "mode", class_vectors=np.eye(4), centres=centres).fit()
    np.testing.assert_array_equal(mode.weights_, mode_weights(np.eye(4), centres))


def test_the_gate_takes_one_vector_a_class() -> None:
    texts, _ = experts(7, (6, 5), (20, 20))
    centres = [np.eye(4)[:1], np.eye(4)[1:]]
    for C in (3, 5):
        model = EncoderEnsemble(texts, "mode", class_vectors=np.ones((C, 4)), centres=centres)
        with pytest.raises(UsageError, match=rf"shape \({C}, 4\), for 4 classes"):
            model.fit()
