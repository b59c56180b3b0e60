from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from byname import Classifier
from byname.errors import NeedsError, PromptError, RecipeError
from byname.ops import unit
from byname.score.two_state import STATES, TwoState
from byname.stage import Batch, ClassTexts, State, create
from byname.taskfile import Task
from byname.taxonomy import Taxonomy
from tests.helpers import FakeEncoder
from tests.reference import two_state as reference

SETS = sorted(STATES)
SCALE = 20.0


def sigmoid(S: Any) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-np.asarray(S, np.float64)))


def make(
    seed: int, chosen: str, K: int = 3, *, D: int = 6, dtype: Any = np.float64, lengths: bool = True
) -> tuple[NDArray[Any], ClassTexts]:
    """Images, and three texts of the first and two of the second state of each class."""
    rng = np.random.default_rng(seed)
    kinds = tuple(STATES[chosen][s] for s in (0, 1, 0, 1, 0)) * K
    vectors = unit(rng.standard_normal((5 * K, D)))
    if lengths:
        vectors = vectors * rng.uniform(0.5, 2, (5 * K, 1))
    taxonomy = Taxonomy.from_names([f"n{k}" for k in range(K)])
    X = unit(rng.standard_normal((9, D))).astype(dtype)
    index = np.repeat(np.arange(K), 5)
    return X, ClassTexts(vectors.astype(dtype), index, taxonomy, kind=kinds, scale=SCALE)


def score(X: Any, texts: ClassTexts, state: State | None = None, **params: Any) -> Any:
    return TwoState(**params).apply(Batch(X), texts, state or State())


@pytest.mark.parametrize("chosen", SETS)
@given(seed=st.integers(0, 999), K=st.integers(1, 4))
def test_it_is_the_plain_formula(chosen: str, seed: int, K: int) -> None:
    X, texts = make(seed, chosen, K)
    assert texts.kind is not None
    tau = {"presence": 1 / SCALE, "anomaly": 0.07}[chosen]
    expected = reference.probabilities(
        X, texts.vectors, texts.class_index, texts.kind, K, STATES[chosen], tau,
        unit_texts=chosen == "presence",
    )  # fmt: skip
    np.testing.assert_allclose(sigmoid(score(X, texts)), expected, atol=1e-9)


@pytest.mark.parametrize("chosen", SETS)
@pytest.mark.parametrize("unit_texts", [True, False])
def test_the_mean_of_texts_as_they_come_or_of_length_one(chosen: str, unit_texts: bool) -> None:
    X, texts = make(1, chosen)
    assert texts.kind is not None
    expected = reference.probabilities(
        X, texts.vectors, texts.class_index, texts.kind, 3, STATES[chosen], 0.3,
        unit_texts=unit_texts,
    )  # fmt: skip
    found = score(X, texts, tau=0.3, unit_texts=unit_texts)
    np.testing.assert_allclose(sigmoid(found), expected, atol=1e-9)
    assert np.abs(found - score(X, texts, tau=0.3, unit_texts=not unit_texts)).max() > 1e-3


@pytest.mark.parametrize("chosen", SETS)
@given(seed=st.integers(0, 999))
def test_swapping_the_groups_gives_one_minus_p(chosen: str, seed: int) -> None:
    X, texts = make(seed, chosen)
    assert texts.kind is not None
    first, second = STATES[chosen]
    other = {first: second, second: first}
    swapped = replace(texts, kind=tuple(other[kind] for kind in texts.kind))
    p, q = sigmoid(score(X, texts)), sigmoid(score(X, swapped))
    np.testing.assert_allclose(p + q, 1, atol=1e-12)
    assert np.ptp(p) > 0.01


def test_the_difference_of_cosines_ranks_alike_at_any_temperature() -> None:
    X, texts = make(2, "presence")
    a, b = score(X, texts, tau=0.01), score(X, texts, tau=3.0)
    np.testing.assert_allclose(a * 0.01, b * 3.0, atol=1e-12)


def test_float32_and_half_on_real_vectors(shared: Path) -> None:
    task = Task.load(shared / "rs19" / "clip-vit-b-32.npz")
    texts = task.texts_for("templates")
    assert texts.prompt_index is not None
    for chosen, tau in (("presence", 0.01), ("anomaly", 0.07)):
        kinds = tuple(STATES[chosen][int(p % 3 == 0)] for p in texts.prompt_index)
        told = replace(texts, kind=kinds)
        X = task.images[:30]
        S = score(X, told)
        assert S.dtype == np.float32
        expected = reference.probabilities(
            X, told.vectors, told.class_index, kinds, 19, STATES[chosen], tau,
            unit_texts=chosen == "presence",
        )  # fmt: skip
        np.testing.assert_allclose(sigmoid(S), expected, atol=1e-5)


def test_texts_of_the_first_state_alone_are_read_by_the_sigmoid() -> None:
    X, texts = make(3, "presence", lengths=False)
    texts = replace(texts, kind=("present",) * 15, bias=-2.0)
    expected = reference.sigmoid(X, texts.vectors, texts.class_index, 3, SCALE, -2.0)
    np.testing.assert_allclose(sigmoid(score(X, texts)), expected, atol=1e-12)
    absent = replace(texts, kind=("absent",) * 15)
    np.testing.assert_allclose(score(X, absent), -score(X, texts), atol=1e-12)


def test_the_mode_sigmoid_looks_at_the_first_state_alone() -> None:
    X, texts = make(4, "anomaly", lengths=False)
    texts = replace(texts, bias=-3.0)
    assert texts.kind is not None
    keep = np.array([kind == "anomalous" for kind in texts.kind])
    expected = reference.sigmoid(X, texts.vectors[keep], texts.class_index[keep], 3, SCALE, -3.0)
    np.testing.assert_allclose(sigmoid(score(X, texts, mode="sigmoid")), expected, atol=1e-12)


def test_a_class_without_states_is_asked_with_all_its_texts() -> None:
    X, texts = make(5, "presence", lengths=False)
    assert texts.kind is not None
    mixed = replace(texts, kind=(*texts.kind[:10], *["template"] * 5))
    S = score(X, mixed)
    np.testing.assert_allclose(S[:, :2], score(X, texts)[:, :2])
    plain = reference.sigmoid(X, texts.vectors, texts.class_index, 3, SCALE, 0.0)
    np.testing.assert_allclose(sigmoid(S[:, 2]), plain[:, 2], atol=1e-12)
    # Beside states, other texts do not count.
    among = replace(texts, kind=(*texts.kind[:14], "template"))
    without = replace(texts, class_index=np.append(texts.class_index[:14], -1))
    np.testing.assert_allclose(score(X, among), score(X, without), atol=1e-12)


def test_weights_count_and_a_weight_of_zero_takes_a_text_out() -> None:
    X, texts = make(6, "anomaly")
    weight = np.tile([1.0, 1.0, 3.0, 2.0, 0.0], 3)
    twice = np.repeat(np.arange(15), weight.astype(int))
    assert texts.kind is not None
    longer = replace(
        texts,
        vectors=texts.vectors[twice],
        class_index=texts.class_index[twice],
        kind=tuple(texts.kind[m] for m in twice),
    )
    expected = score(X, longer)
    np.testing.assert_allclose(score(X, texts, State(weight=weight)), expected, atol=1e-9)
    np.testing.assert_allclose(score(X, replace(texts, weight=weight)), expected, atol=1e-9)


def test_a_class_without_any_text_is_not_known() -> None:
    X, texts = make(7, "presence")
    index = np.where(texts.class_index == 1, -1, texts.class_index)
    assert (score(X, replace(texts, class_index=index))[:, 1] == 0).all()


def test_texts_of_both_sets_need_a_choice() -> None:
    X, texts = make(8, "presence")
    assert texts.kind is not None
    both = replace(texts, kind=(*texts.kind[:10], "normal", "anomalous", "normal", "normal",
                                "normal"))  # fmt: skip
    with pytest.raises(PromptError, match=r"texts of both sets of states.*two_state\[set=presence"):
        score(X, both)
    np.testing.assert_allclose(
        score(X, both, set="presence")[:, :2], score(X, texts)[:, :2], atol=1e-12
    )
    with pytest.raises(NeedsError, match=r"no text is of the kinds 'anomalous' or 'normal'. Make"):
        score(X, texts, set="anomaly")


def test_texts_without_kinds_are_refused() -> None:
    X, texts = make(0, "presence")
    with pytest.raises(NeedsError, match="'two_state': it needs 'kind'"):
        TwoState().check_needs(Batch(X), replace(texts, kind=None))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("two_state[tau=0]", "tau is 0.0. It must be a number above 0, or 'auto'"),
        ("two_state[tau=nan]", "tau is nan"),
        ("two_state[tau=inf]", "tau is inf"),
        ("two_state[set=both]", "set='both' does not fit"),
        ("two_state[mode=softmax]", "mode='softmax' does not fit"),
        ("two_state[unit_texts=maybe]", "unit_texts='maybe' does not fit"),
    ],
)
def test_wrong_parameters_are_named(spec: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        create(spec, "score")


@pytest.mark.parametrize("name", ["set", "mode", "unit_texts"])
def test_wrong_values_in_python(name: str) -> None:
    with pytest.raises(RecipeError, match=f"{name} is 'x'. It must be"):
        TwoState(**{name: "x"})


@pytest.mark.parametrize("names", [["bottle"], ["bottle", "cable", "edema"]])
@pytest.mark.parametrize("chosen", SETS)
def test_through_the_classifier(chosen: str, names: list[str]) -> None:
    encoder = FakeEncoder()
    X = unit(np.random.default_rng(0).standard_normal((20, encoder.info.dim)).astype(np.float32))
    model = Classifier(
        names, encoder, prompts=f"states[set={chosen}]", score="two_state", decide="multilabel",
        cache=False,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the texts of two states are not mixed up here
        S = model.decision_function(X)
    prompts = [p for k in names for p in model.prompts_.classes[k]]
    vectors = encoder.encode_texts([p.text for p in prompts])
    index = np.repeat(np.arange(len(names)), len(prompts) // len(names))
    tau = {"presence": 1 / encoder.info.logit_scale, "anomaly": 0.07}[chosen]
    expected = reference.probabilities(
        X, vectors, index, [p.kind for p in prompts], len(names), STATES[chosen], tau
    )
    np.testing.assert_allclose(sigmoid(S), expected, atol=1e-5)
    rows = model.classify(X)
    said = [[] for _ in range(20)]  # type: list[list[str | None]]
    for row in rows:
        said[int(row.file_name)].append(row.class_id)
        assert row.probability is not None
        own = expected[int(row.file_name), names.index(str(row.class_id))]
        assert row.probability == pytest.approx(own, abs=1e-5)
        assert (row.decision == "accept") == (own >= 0.5)
    for i, (chosen_ids, _) in enumerate(reference.multilabel(expected, [0.5] * len(names))):
        assert sorted(map(str, said[i])) == sorted(names[k] for k in chosen_ids)
