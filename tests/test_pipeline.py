from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from byname import ops, stage
from byname.errors import EmbeddingsError, NeedsError, PromptError, UsageError
from byname.pipeline import Pipeline
from byname.recipes import Recipe, get_recipe
from byname.stage import Batch, ClassTexts, Member, StageName, State, register
from byname.taxonomy import Node, Taxonomy

K, P, D = 5, 3, 8
PLAIN = get_recipe("plain")


def case(seed: int, N: int = 20, k: int = K) -> tuple[Batch, ClassTexts]:
    rng = np.random.default_rng(seed)
    X, T = (ops.unit(rng.standard_normal((n, D)).astype(np.float32)) for n in (N, k * P))
    taxonomy = Taxonomy.from_names([f"class {i}" for i in range(k)])
    index = np.repeat(np.arange(k), P)
    return Batch(X), ClassTexts(T, index, taxonomy, prompt_index=np.tile(np.arange(P), k))


def run(batch: Batch, texts: ClassTexts, recipe: str = "ensemble", **options: Any) -> Any:
    pipeline = Pipeline(get_recipe(recipe)).fit(texts, batch)
    return pipeline.scores(batch, **options)


@given(st.integers(0, 2**32 - 1))
def test_plain_is_the_nearest_class_by_hand(seed: int) -> None:
    rng = np.random.default_rng(seed)
    X, T = (ops.unit(rng.standard_normal((n, D))) for n in (9, K))
    taxonomy = Taxonomy.from_names(list("abcde"))
    pipeline = Pipeline(PLAIN).fit(ClassTexts(T, np.arange(K), taxonomy))
    answer, same = pipeline.decide(pipeline.scores(Batch(X)))
    assert same is taxonomy
    by_hand = (X @ T.T).argmax(axis=1)
    assert (answer.node[:, 0] == taxonomy.leaf_index[by_hand]).all()


@given(st.integers(0, 2**32 - 1), st.integers(1, 30))
def test_the_size_of_a_block_changes_nothing(seed: int, block: int) -> None:
    batch, texts = case(seed)
    expected = run(batch, texts)
    np.testing.assert_allclose(run(batch, texts, block=block), expected, rtol=1e-6, atol=1e-5)


@given(st.integers(0, 2**32 - 1), st.permutations(range(K)))
def test_the_order_of_classes_and_texts_changes_nothing(seed: int, order: list[int]) -> None:
    batch, texts = case(seed)
    shuffled = np.random.default_rng(seed).permutation(K * P)
    place = np.argsort(order)
    other = ClassTexts(
        texts.vectors[shuffled],
        place[texts.class_index[shuffled]],
        Taxonomy(texts.taxonomy.classes[i] for i in order),
    )
    for recipe in ("ensemble", "mean_similarity"):
        expected = run(batch, texts, recipe)[:, order]
        np.testing.assert_allclose(run(batch, other, recipe), expected, rtol=1e-5, atol=1e-4)


@given(st.integers(0, 2**32 - 1), st.permutations(range(20)))
def test_the_order_of_images_changes_nothing(seed: int, order: list[int]) -> None:
    batch, texts = case(seed)
    expected = run(batch, texts)[order]
    found = run(Batch(batch.X[order]), texts)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)


@given(st.integers(0, 2**32 - 1))
def test_mean_similarity_is_the_ensemble_times_the_length_of_the_mean(seed: int) -> None:
    batch, texts = case(seed)
    length = np.linalg.norm(texts.vectors.reshape(K, P, D).mean(axis=1), axis=1)
    expected = run(batch, texts) * length
    np.testing.assert_allclose(run(batch, texts, "mean_similarity"), expected, rtol=1e-4, atol=1e-4)


def test_what_fit_leaves() -> None:
    batch, texts = case(0)
    pipeline = Pipeline(PLAIN)
    assert pipeline.fit(texts) is pipeline
    assert pipeline.inductive
    assert pipeline.weight_.tolist() == [1 / 3] * K * P
    assert pipeline.W_.shape == (K, D)
    assert [member.name for member in pipeline.members] == ["mean", "cosine", "argmax"]
    assert (pipeline.scores(batch) == run(batch, texts)).all()


def test_no_images() -> None:
    batch, texts = case(0, N=0)
    pipeline = Pipeline(PLAIN).fit(texts, batch)
    S = pipeline.scores(batch)
    assert S.shape == (0, K)
    answer, _ = pipeline.decide(S, k=2)
    assert answer.node.shape == (0, 2)


# -- levels


TREE = Taxonomy(
    [
        Node("f", "Fruit"),
        Node("m", "Milk"),
        Node("a", "Apple", "f"),
        Node("s", "Sour milk", "m"),
        Node("p", "Pear", "f"),
    ]
)


def test_a_level_sums_probabilities() -> None:
    p = np.array([[0.35, 0.4, 0.25], [0.1, 0.7, 0.2]])
    texts = ClassTexts(np.eye(4, 3), np.array([0, 1, 2, -1]), TREE)
    pipeline = Pipeline(PLAIN).fit(texts)
    answer, cut = pipeline.decide(np.log(p), k=2, level=1)
    assert cut.class_ids == ("f", "m")
    assert [[cut.nodes[n].id for n in row] for row in answer.node] == [["f", "m"], ["m", "f"]]
    np.testing.assert_allclose(answer.probability, [[0.6, 0.4], [0.7, 0.3]], rtol=1e-6)
    np.testing.assert_allclose(answer.margin, [0.2, 0.4], rtol=1e-5)
    leaf, same = pipeline.decide(np.log(p))
    assert same is TREE
    assert TREE.nodes[leaf.node[0, 0]].id == "s"


def test_reject_looks_at_the_level_that_is_answered() -> None:
    pipeline = Pipeline(get_recipe("reject")).fit(ClassTexts(np.eye(3), np.arange(3), TREE))
    S = np.log([[0.35, 0.4, 0.25]])
    assert pipeline.decide(S)[0].decision.tolist() == ["reject"]
    assert pipeline.decide(S, level=1)[0].decision.tolist() == ["accept"]


def test_a_level_that_is_all_classes_changes_nothing() -> None:
    batch, texts = case(0)
    # A small scale: probabilities below 1e-30 are one to log(max(p, 1e-30)).
    pipeline = Pipeline(PLAIN).fit(dataclasses.replace(texts, scale=10.0))
    S = pipeline.scores(batch)
    found, expected = pipeline.decide(S, k=3, level=1)[0], pipeline.decide(S, k=3)[0]
    assert (found.node == expected.node).all()
    np.testing.assert_allclose(found.probability, expected.probability, rtol=1e-5, atol=1e-7)


# -- bad input


def test_before_fit() -> None:
    message = "cannot score images: the pipeline has no class texts yet. Call fit()."
    for call in (lambda p: p.scores(Batch(np.eye(2))), lambda p: p.decide(np.eye(2))):
        with pytest.raises(UsageError) as error:
            call(Pipeline(PLAIN))
        assert str(error.value) == message


def test_ranks_below_one() -> None:
    pipeline = Pipeline(PLAIN).fit(case(0)[1])
    with pytest.raises(UsageError, match="answer with 0 ranks: the number is below 1"):
        pipeline.decide(np.zeros((1, K)), k=0)


@pytest.mark.parametrize("X", [np.zeros((2, D + 1)), np.zeros(D)])
def test_vectors_of_another_width(X: NDArray[np.float64]) -> None:
    texts = case(0)[1]
    message = (
        f"cannot compare the images with the class texts: the image vectors have the shape "
        f"{X.shape}, the text vectors are {D} wide. Both must come from one encoder"
    )
    with pytest.raises(EmbeddingsError) as error:
        Pipeline(PLAIN).fit(texts, Batch(X))
    assert str(error.value).startswith(message)
    with pytest.raises(EmbeddingsError):
        Pipeline(PLAIN).fit(texts).scores(Batch(X))


@pytest.mark.parametrize(
    "vectors, index, message",
    [
        (np.eye(2), [0], r"their vectors have the shape \(2, 2\), their classes \(1,\). Give"),
        (np.ones(2), [0, 1], r"their vectors have the shape \(2,\), their classes \(2,\). Give"),
        (np.eye(2), [0, 9], "class indices go from 0 to 9. They count 3 classes from 0; -1 is"),
        (np.eye(2), [-2, 0], "class indices go from -2 to 0. They count 3 classes from 0; -1"),
        (
            np.eye(3)[:0],
            np.empty(0, int),
            "no text, or only texts of weight 0, for the classes 'a'",
        ),
    ],
)
def test_texts_that_do_not_fit(vectors: Any, index: Any, message: str) -> None:
    texts = ClassTexts(vectors, np.asarray(index), Taxonomy.from_names(list("abc")))
    with pytest.raises(PromptError, match=message):
        Pipeline(PLAIN).fit(texts)


# -- members that learn, made up for these tests


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two refine members and a deciding one; the list notes their calls."""
    stage.members()
    monkeypatch.setattr(stage, "_REGISTRY", dict(stage._REGISTRY))
    calls: list[str] = []

    class Noting(Member):
        def fit(self, batch: Batch, texts: ClassTexts, state: State) -> Self:
            calls.append(f"{self.name}.fit {len(batch)}")
            self.mean_ = ops.to_numpy(state.S).mean(axis=0) if state.S is not None else None
            return self

        def apply(self, batch: Batch, texts: ClassTexts, state: State) -> Any:
            calls.append(f"{self.name}.apply {len(batch)}")
            return state.S - self.mean_

    @register
    class Whole(Noting):
        stage: ClassVar[StageName] = "refine"
        name = "whole"
        inductive = False
        needs = frozenset({"X"})

    @register
    class Stream(Noting):
        stage: ClassVar[StageName] = "refine"
        name = "stream"
        needs = frozenset({"X"})

    @register
    class Views(Noting):
        stage: ClassVar[StageName] = "refine"
        name = "views_needed"
        inductive = False
        needs = frozenset({"views"})

    @register
    class Calibrated(Noting):
        stage: ClassVar[StageName] = "decide"
        name = "calibrated"

        def apply(self, batch: Batch, texts: ClassTexts, state: State) -> Any:
            calls.append(f"{self.name}.apply")
            return self.mean_

    return calls


def recipe(**stages: str) -> Recipe:
    return dataclasses.replace(PLAIN, **stages)


def test_a_whole_batch_member_sees_every_image_at_once(made_up: list[str]) -> None:
    batch, texts = case(0)
    pipeline = Pipeline(recipe(refine="whole")).fit(texts, batch)
    assert not pipeline.inductive
    assert made_up == []
    S = pipeline.scores(batch, block=3)
    assert made_up == ["whole.fit 20", "whole.apply 20"]
    np.testing.assert_allclose(S.mean(axis=0), 0, atol=1e-4)
    other = Batch(batch.X[:7])
    pipeline.scores(other, block=3)
    np.testing.assert_allclose(pipeline.scores(batch), S)
    assert not hasattr(pipeline.refine, "mean_")  # a batch that is scored leaves no trace


def test_a_whole_batch_member_with_no_images(made_up: list[str]) -> None:
    batch, texts = case(0, N=0)
    pipeline = Pipeline(recipe(refine="whole")).fit(texts)
    assert pipeline.scores(batch).shape == (0, K)
    assert made_up == []


def test_an_inductive_member_learns_once_and_is_streamed(made_up: list[str]) -> None:
    batch, texts = case(0)
    pipeline = Pipeline(recipe(refine="stream")).fit(texts, batch)
    assert made_up == ["stream.fit 20"]
    pipeline.scores(Batch(batch.X[:5]), block=3)
    assert made_up[1:] == ["stream.apply 3", "stream.apply 2"]


def test_a_deciding_member_learns_from_refined_scores(made_up: list[str]) -> None:
    batch, texts = case(0)
    pipeline = Pipeline(recipe(refine="whole", decide="calibrated")).fit(texts, batch)
    assert made_up == ["whole.fit 20", "whole.apply 20", "calibrated.fit 20"]
    answer, _ = pipeline.decide(np.zeros((2, K)))
    np.testing.assert_allclose(answer, np.zeros(K), atol=1e-4)
    answer, _ = pipeline.decide(np.zeros((2, K)), level=1)
    np.testing.assert_allclose(answer, np.log(np.full(K, 1 / K)), atol=1e-6)
    np.testing.assert_allclose(pipeline.decide(np.zeros((2, K)))[0], np.zeros(K), atol=1e-4)


def test_unmet_needs_are_told_before_any_work(made_up: list[str]) -> None:
    batch, texts = case(0)
    with pytest.raises(NeedsError, match="run the refine member 'stream': it needs 'X'"):
        Pipeline(recipe(refine="stream")).fit(texts)
    with pytest.raises(NeedsError, match="run the refine member 'views_needed': it needs 'views'"):
        Pipeline(recipe(refine="views_needed")).fit(texts, batch)
    pipeline = Pipeline(recipe(refine="views_needed")).fit(texts)
    with pytest.raises(NeedsError, match="it needs 'views'"):
        pipeline.scores(batch)
    assert pipeline.scores(Batch(batch.X, views=batch.X[:, None])).shape == (20, K)


def test_a_level_moves_the_texts_to_its_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = Pipeline(PLAIN).fit(ClassTexts(np.eye(4, 3), np.array([0, 1, 2, -1]), TREE))
    seen: list[ClassTexts] = []
    decide = type(pipeline.decider).apply

    def looking(self: Any, batch: Batch, texts: ClassTexts, state: State) -> Any:
        seen.append(texts)
        return decide(self, batch, texts, state)

    monkeypatch.setattr(type(pipeline.decider), "apply", looking)
    pipeline.decide(np.zeros((1, 3)), level=1)
    assert [seen[0].taxonomy.class_ids[i] if i >= 0 else "" for i in seen[0].class_index] == [
        "f",
        "m",
        "f",
        "",
    ]


def test_every_field_of_a_batch_is_cut_with_its_images(monkeypatch: pytest.MonkeyPatch) -> None:
    stage.members()
    monkeypatch.setattr(stage, "_REGISTRY", dict(stage._REGISTRY))
    seen: list[Batch] = []

    @register
    class Looking(Member):
        stage: ClassVar[StageName] = "score"
        name = "looking"

        def apply(self, batch: Batch, texts: ClassTexts, state: State) -> Any:
            seen.append(batch)
            return batch.X @ state.W.T

    batch, texts = case(0, N=3)
    full = Batch(
        batch.X,
        views=np.zeros((3, 2, D)),
        tokens=np.zeros((3, 4, D)),
        second=np.zeros((3, 2)),
        log_var=np.zeros((3, D)),
        class_probs=(np.zeros((3, 6)), np.zeros((6, D))),
        captions=("a", "b", "c"),
        reference=np.zeros((9, D)),
    )
    Pipeline(recipe(score="looking")).fit(texts).scores(full, block=2)
    last = seen[1]
    lengths = [len(v) for v in (last.views, last.tokens, last.second, last.log_var, last.X)]  # type: ignore[arg-type]
    assert lengths == [1] * 5
    assert last.captions == ("c",)
    assert [len(part) for part in last.class_probs or ()] == [1, 6]
    assert len(last.reference) == 9  # type: ignore[arg-type]
    assert last.support is None


# -- real vectors


@pytest.mark.parametrize(
    "name, mean, mean_similarity",
    [
        ("clip-rn50", 0.7154, 0.7085),
        ("clip-vit-b-32", 0.8129, 0.8090),
        ("clip-vit-l-14", 0.8547, 0.8537),
    ],
)
def test_rs19(shared: Path, name: str, mean: float, mean_similarity: float) -> None:
    with np.load(shared / "rs19" / f"{name}.npz", allow_pickle=False) as data:
        images, vectors, labels = data["images"], data["texts"], data["labels"]
        taxonomy = Taxonomy.from_names(data["classes"].tolist())
    prompts, k, width = vectors.shape
    texts = ClassTexts(
        vectors.reshape(-1, width),
        np.tile(np.arange(k), prompts),
        taxonomy,
        prompt_index=np.repeat(np.arange(prompts), k),
        scale=100.0,
    )
    for spec, expected in (("ensemble", mean), ("mean_similarity", mean_similarity)):
        pipeline = Pipeline(get_recipe(spec)).fit(texts)
        answer, _ = pipeline.decide(pipeline.scores(Batch(images), block=500))
        top1 = (answer.node[:, 0] == taxonomy.leaf_index[labels]).mean()
        assert top1 == pytest.approx(expected, abs=0.001)


@pytest.mark.torch
@settings(deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_torch_gives_what_numpy_gives(seed: int) -> None:
    torch = pytest.importorskip("torch")
    batch, texts = case(seed)
    other = dataclasses.replace(texts, vectors=torch.from_numpy(texts.vectors))
    found = run(Batch(torch.from_numpy(batch.X)), other, block=7)
    assert ops.is_torch(found)
    np.testing.assert_allclose(found.numpy(), run(batch, texts), rtol=1e-4, atol=1e-4)
    pipeline = Pipeline(PLAIN).fit(other)
    assert pipeline.decide(found, level=1)[0].node.shape == (20, 1)


@pytest.mark.parametrize("spec", ["transclip", "prior", "zlap[mode=inductive]", "anchor"])
def test_who_changes_nothing_says_so(spec: str) -> None:
    """Members that learn once and members that learn from each batch alike."""
    texts = ClassTexts(np.eye(3), np.arange(3), Taxonomy.from_names(["cat", "dog", "cow"]))
    batch = Batch(np.eye(3)[:1])
    with pytest.warns(UserWarning, match=r"changed nothing: there is 1 image"):
        Pipeline(get_recipe("ensemble", refine=spec)).fit(texts, batch).scores(batch)


def test_who_has_not_looked_yet_says_nothing(recwarn: pytest.WarningsRecorder) -> None:
    batch, texts = case(0)
    Pipeline(get_recipe("ensemble", refine="dpa")).fit(texts, batch)
    assert not recwarn.list
