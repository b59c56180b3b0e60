from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from byname import Classifier
from byname.encoders import PrecomputedEncoder
from byname.errors import UsageError
from byname.explain import explain, explain_images
from byname.ops import unit
from byname.pipeline import Pipeline
from byname.recipes import get_recipe
from byname.stage import Batch, ClassTexts
from byname.taxonomy import Taxonomy


def problem(seed: int = 0) -> tuple[ClassTexts, list[str], Batch]:
    rng = np.random.default_rng(seed)
    index = np.array([0, 0, 0, 1, 1, 2, -1])
    texts = ClassTexts(
        unit(rng.standard_normal((7, 6)).astype(np.float32)),
        index,
        Taxonomy.from_names(["a", "b", "c"]),
        prompt_index=np.array([0, 1, 2, 0, 1, 0, -1]),
        kind=("x",) * 7,
        weight=np.array([1.0, 2, 1, 1, 3, 1, 1]),
        scale=30.0,
        bias=-2.0,
    )
    X = unit(rng.standard_normal((9, 6)).astype(np.float32))
    return texts, [f"text {i}" for i in range(7)], Batch(X)


@pytest.mark.parametrize("recipe", ["ensemble", "mean_similarity", "cpe", "describe"])
def test_the_parts_add_up_to_the_score(recipe: str) -> None:
    texts, sentences, batch = problem()
    made = get_recipe(recipe, weigh="mean_similarity") if recipe == "describe" else recipe
    pipeline = Pipeline(get_recipe(made)).fit(texts, batch)
    S = pipeline.scores(batch)
    for i, one in enumerate(explain(pipeline, texts, sentences, batch, top=99)):
        assert one.rival is not None
        order = np.argsort(-S[i])
        for side, k in ((one.answer, order[0]), (one.rival, order[1])):
            assert side.class_id == texts.taxonomy.class_ids[k]
            assert side.score == pytest.approx(S[i, k])
            assert side.texts == len(side.parts) == (texts.class_index == k).sum()
            adds = [part.part for part in side.parts if part.part is not None]
            assert sum(adds) + texts.bias == pytest.approx(side.score, abs=1e-3)


def test_members_that_do_not_add_up_say_so() -> None:
    texts, sentences, batch = problem()
    pipeline = Pipeline(get_recipe("describe[aggregate=max]")).fit(texts, batch)
    found = explain(pipeline, texts, sentences, batch)[0]
    assert {part.part for part in found.answer.parts} == {None}
    assert found.details, "the best text of each image is a detail of describe"


def test_the_rival_can_be_named_and_texts_are_counted() -> None:
    texts, sentences, batch = problem()
    pipeline = Pipeline(get_recipe("plain")).fit(texts)
    for one in explain(pipeline, texts, sentences, batch, against="a", top=1):
        assert len(one.answer.parts) == 1
        assert one.rival is not None
        assert one.rival.class_id != one.answer.class_id
        if one.answer.class_id != "a":
            assert one.rival.class_id == "a"
            assert one.rival.texts == 3


def test_one_class_has_no_rival_and_no_image_no_row() -> None:
    texts = ClassTexts(np.eye(2), np.array([0, 0]), Taxonomy.from_names(["a"]))
    pipeline = Pipeline(get_recipe("plain")).fit(texts)
    assert explain(pipeline, texts, ["x", "y"], Batch(np.eye(2)))[0].rival is None
    assert explain(pipeline, texts, ["x", "y"], Batch(np.empty((0, 2)))) == []


@pytest.mark.parametrize(
    "options, message",
    [
        ({"against": "z"}, "cannot explain against 'z': no class has this id. Ids: a, b, c."),
        ({"top": 0}, "cannot explain: top is 0. Give 1 or more."),
    ],
)
def test_what_does_not_fit(options: dict[str, Any], message: str) -> None:
    texts, sentences, batch = problem()
    with pytest.raises(UsageError) as error:
        explain(Pipeline(get_recipe("plain")).fit(texts), texts, sentences, batch, **options)
    assert str(error.value) == message


def test_a_classifier_is_left_unfitted() -> None:
    encoder = PrecomputedEncoder.from_arrays(["a cat", "a dog"], [[1.0, 0.0], [0.0, 1.0]])
    model = Classifier(["cat", "dog"], encoder, "plain", templates=["a {}"])
    found = explain_images(model, np.array([[0.9, 0.1]]))
    assert (found[0].answer.class_id, found[0].answer.parts[0].text) == ("cat", "a cat")
    assert not hasattr(model, "pipeline_")


def test_the_command(tmp_path: Path) -> None:
    from byname.embeddings import Embeddings

    encoder = PrecomputedEncoder.from_arrays(["a cat", "a dog"], [[1.0, 0.0], [0.0, 1.0]])
    assert isinstance(encoder.info.dim, int)
    Embeddings(("x.jpg",), np.array([[0.6, 0.8]], np.float32)).save(tmp_path / "e.parquet")
    words = ["explain", tmp_path / "e.parquet", "-c", "cat,dog", "-e", "nowhere:x"]
    made = subprocess.run(
        [sys.executable, "-m", "byname", *words], capture_output=True, text=True, check=False
    )
    assert made.returncode == 2
    assert "error: cannot" in made.stderr


@pytest.mark.slow
def test_the_command_on_photos(tmp_path: Path) -> None:
    pytest.importorskip("skimage")
    run = [sys.executable, "-m", "byname"]
    subprocess.run([*run, "demo", "--keep", tmp_path / "demo"], check=True, capture_output=True)
    folder = tmp_path / "demo"
    words = [folder / "photos", "-c", folder / "classes.csv", "-e", "mini", "-q"]
    output = tmp_path / "why.jsonl"
    subprocess.run([*run, "explain", *words, "-o", output], check=True, capture_output=True)
    rows = [json.loads(line) for line in output.read_text("utf-8").splitlines()]
    assert rows
    assert all(row["answer"]["parts"][0]["text"] for row in rows)
    assert all(row["answer"]["class_id"] == row["class_id"] for row in rows)


def test_the_answer_is_that_of_the_decide_stage() -> None:
    texts, sentences, batch = problem()
    pipeline = Pipeline(get_recipe("reject[min_probability=0.999]")).fit(texts, batch)
    answer, _ = pipeline.decide(pipeline.scores(batch), batch=batch)
    found = explain(pipeline, texts, sentences, batch)
    assert [one.decision for one in found] == answer.decision.tolist()
    assert "reject" in answer.decision
    pipeline = Pipeline(get_recipe("crm")).fit(texts, batch)
    answer, taxonomy = pipeline.decide(pipeline.scores(batch), batch=batch)
    found = explain(pipeline, texts, sentences, batch)
    assert [one.class_id for one in found] == [taxonomy.nodes[n].id for n in answer.node[:, 0]]
    assert [one.probability for one in found] == pytest.approx(answer.probability[:, 0])
