"""Recipes over tasks and images; above all that labels come after the answers."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from byname import evaluate as module
from byname.embeddings import Embeddings
from byname.errors import PromptError, RecipeError, TaxonomyError, UsageError
from byname.evaluate import evaluate, evaluate_images, parse_recipes, prepare_models
from byname.promptset import Prompt, PromptSet
from byname.recipes import get_recipe
from byname.scoring import METRICS, Predicted
from byname.taskfile import Task
from byname.taxonomy import Node, Taxonomy
from tests.helpers import DIM, FakeEncoder

TREE = Taxonomy(
    [
        Node("pet", "pet"),
        Node("fruit", "fruit"),
        Node("cat", "cat", "pet"),
        Node("dog", "dog", "pet"),
        Node("kiwi", "kiwi", "fruit"),
    ],
    levels=("group", "name"),
)


def make_task(n: int = 60, taxonomy: Taxonomy = TREE) -> Task:
    rng = np.random.default_rng(0)
    K = len(taxonomy)
    texts = rng.normal(size=(4, K, 16)) + 2 * rng.normal(size=(1, K, 16))
    texts /= np.linalg.norm(texts, axis=2, keepdims=True)
    labels = np.arange(n) % K
    images = texts[0, labels] + 0.6 * rng.normal(size=(n, 16))
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    names = ("a photo of a {}.", "a {}.", "the {}.", "one {}.")
    return Task(images.astype("f4"), texts.astype("f4"), names, taxonomy, labels=labels)


def test_the_table() -> None:
    table = evaluate(make_task(), "plain,ensemble", draws=50)
    assert list(table) == ["plain", "ensemble"]
    for row in table.values():
        assert tuple(row) == METRICS
        for entry in row.values():
            assert set(entry) == {"value", "low", "high"}
            assert entry["low"] <= entry["value"] <= entry["high"]
        assert row["hd1"]["value"] == pytest.approx(
            (1 - row["top1"]["value"]) * row["severity"]["value"], abs=1e-9
        )


def test_labels_change_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the labels are, each recipe answers the same, before any label is looked at."""
    seen: list[dict[str, Predicted]] = []

    def keep(answers: Any, labels: Any, *_: Any, **__: Any) -> dict[str, Any]:
        seen.append(answers)
        return {}

    monkeypatch.setattr(module, "score", keep)
    task, rng = make_task(), np.random.default_rng(1)
    known = ["plain", "ensemble", "mean_similarity", "crm", "backoff", "reject", "cpe"]
    assert task.labels is not None
    for labels in (task.labels, rng.permutation(task.labels), np.zeros_like(task.labels)):
        evaluate(dataclasses.replace(task, labels=labels), known)
    for name in known:
        first, *others = (answers[name] for answers in seen)
        for other in others:
            np.testing.assert_array_equal(first.S, other.S)
            for f in ("node", "probability", "margin", "decision"):
                a, b = (getattr(p.answer, f) for p in (first, other))
                np.testing.assert_array_equal(a, b)
    assert not {f.name for f in dataclasses.fields(Predicted)} & {"labels", "y", "true"}


def test_plain_uses_its_template_and_ensemble_all() -> None:
    task = make_task()
    alone = dataclasses.replace(task, texts=task.texts[:1], templates=task.templates[:1])
    both = evaluate(task, "plain,ensemble", "top1,nll", draws=0)
    assert both["plain"] == evaluate(alone, "plain", "top1,nll", draws=0)["plain"]
    assert both["ensemble"] != both["plain"]


def test_a_level_sums_the_classes_of_a_group() -> None:
    task = make_task()
    table = evaluate(task, "plain", "top1,nll,worst3", level="group", draws=0)["plain"]
    assert task.labels is not None
    S = 100 * task.images.astype(float) @ task.texts[0].astype(float).T
    P = np.exp(S - S.max(1, keepdims=True))
    P /= P.sum(1, keepdims=True)
    groups = np.stack([P[:, 0] + P[:, 1], P[:, 2]], axis=1)
    true = np.array([0, 0, 1])[task.labels]
    assert table["top1"]["value"] == pytest.approx((groups.argmax(1) == true).mean())
    assert table["nll"]["value"] == pytest.approx(
        -np.log(np.maximum(groups[np.arange(60), true], 1e-30)).mean(), rel=1e-4
    )
    assert evaluate(task, "plain", "top1", level=2, draws=0) == evaluate(
        task, "plain", "top1", draws=0
    )


def test_what_a_task_lacks_is_skipped(tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    PromptSet(classes={"cat": (Prompt(text="a cat"),)}).save(file)
    spec = f"plain@{file}"
    table = evaluate(make_task(), ["haprompts", "ensemble", spec], "top1,worst3_fixed", draws=0)
    assert list(table) == ["haprompts", "ensemble", spec]
    assert "a task holds" in table["haprompts"]["skipped"]
    assert "a task holds vectors of its own texts only" in table[spec]["skipped"]
    assert table["ensemble"]["top1"]["value"] > 0.5


def test_everything_is_checked_before_any_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "predict_task", lambda *a, **k: pytest.fail("work was done"))
    task = make_task()
    none = dataclasses.replace(task, images=task.images[:0], labels=np.zeros(0, np.intp))
    for error, message, arguments in (
        (RecipeError, "there is no recipe 'ensmble'", (task, "plain,ensmble")),
        (RecipeError, "no parameter 'x'", (task, "reject[x=1]")),
        (UsageError, "no recipe was named", (task, " , ")),
        (UsageError, "there is no such metric", (task, "plain", "top1,f1")),
        (PromptError, "read the prompts in", (task, f"plain@{tmp_path / 'none.json'}")),
        (PromptError, "nowhere.json': No such file", (task, "cpe@templates+nowhere.json")),
        (RecipeError, "no member 'tmplates'", (task, "cpe@tmplates+nowhere.json")),
        (UsageError, "without labels", (dataclasses.replace(task, labels=None), "plain")),
        (UsageError, "there are no labelled images", (none, "plain")),
    ):
        with pytest.raises(error, match=message):
            evaluate(*arguments)
    with pytest.raises(TaxonomyError, match="there is no such level"):
        evaluate(task, "plain", level="species")
    with pytest.raises(UsageError, match="use the baseline 'cpe': it is none of the recipes"):
        evaluate(task, "plain", baseline="cpe")


def test_specs_may_hold_commas_and_recipes_may_be_objects() -> None:
    given = "plain, reject[min_probability=0.6,min_margin=0.1] ,plain"
    assert list(parse_recipes(given)) == ["plain", "reject[min_probability=0.6,min_margin=0.1]"]
    made = get_recipe("plain", decide="reject")
    assert parse_recipes([made])["plain + reject"].recipe.decide == "reject"
    assert parse_recipes("ensemble@templates[set=single]")[
        "ensemble@templates[set=single]"
    ].recipe.prompts.startswith("templates")
    ready = parse_recipes("plain")
    assert parse_recipes(ready) == ready


@pytest.mark.parametrize("names", [["cat"], ["cat", "dog"]])
def test_few_classes(names: list[str]) -> None:
    task = make_task(10, Taxonomy.from_names(names))
    row = evaluate(task, "plain,crm", draws=20)["crm"]
    assert 0 <= row["top1"]["value"] <= row["top5"]["value"] == 1
    if len(names) == 1:
        assert row["severity"]["value"] is None
        assert row["hd1"]["value"] == row["ece"]["value"] == row["nll"]["value"] == 0


# -- images


def vectors(n: int = 30) -> Embeddings:
    rows = np.random.default_rng(0).normal(size=(n, DIM)).astype("f4")
    return Embeddings.from_arrays(rows, [f"{i:02d}.jpg" for i in range(n)], encoder="fake")


def options(**more: Any) -> dict[str, Any]:
    return {"classes": TREE, "encoder": FakeEncoder(), "cache": False, **more}


def test_images_give_what_the_classifier_predicts() -> None:
    found, labels = vectors(), np.arange(30) % 3
    models = prepare_models(parse_recipes("plain,ensemble,crm"), options())
    table = evaluate_images(found, labels, models, "top1", draws=0)
    for name, model in models.items():
        assert not isinstance(model, str)
        right = model.predict(found) == np.array(TREE.class_ids)[labels]
        assert table[name]["top1"]["value"] == pytest.approx(right.mean())


def test_prompt_files_belong_to_a_recipe_or_to_all(tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    texts = {c: (Prompt(text=f"my own {c}"), Prompt(text=f"one {c}")) for c in TREE.class_ids}
    PromptSet(classes=texts).save(file)
    contenders = parse_recipes(f"ensemble,ensemble@{file}")
    models = prepare_models(contenders, options(templates=["the {}"]))
    found = {n: m.prompts_.texts("cat") for n, m in models.items() if not isinstance(m, str)}
    assert found == {"ensemble": ["the cat"], f"ensemble@{file}": ["my own cat", "one cat"]}


def test_templates_and_a_file_together(tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    file.write_text('{"CAT": ["my own cat"], "dog": ["my own dog"], "kiwi": ["my own kiwi"]}')
    names = [f"plain@{file}", f"cpe@templates[set=single]+{file}"]
    models = prepare_models(parse_recipes(",".join(names)), options(templates=["the {}"]))
    found = [m.prompts_.texts("cat") for m in models.values() if not isinstance(m, str)]
    assert found == [["my own cat"], ["a photo of a cat.", "my own cat"]]
    table = evaluate_images(vectors(), np.arange(30) % 3, models, "top1", draws=0)
    assert list(table) == names
    assert all("top1" in row for row in table.values())


def test_images_on_a_level() -> None:
    models = prepare_models(parse_recipes("plain"), options(level="group"))
    row = evaluate_images(vectors(), np.arange(30) % 2, models, "top1,hd1", draws=0)["plain"]
    assert row["hd1"]["value"] == pytest.approx(1 - row["top1"]["value"])


def test_labels_must_fit_the_images() -> None:
    models = prepare_models(parse_recipes("plain"), options())
    with pytest.raises(UsageError, match="there are 30 images, 0 unreadable ones and 3 labels"):
        evaluate_images(vectors(), np.zeros(3, np.intp), models)
    with pytest.raises(UsageError, match="no labelled images"):
        evaluate_images(vectors(0), np.zeros(0, np.intp), models)


# -- real vectors


MEASURED = {
    "clip-rn50": (0.7154, 0.322, 0.7085, 0.271),
    "clip-vit-b-32": (0.8129, 0.374, 0.8090, 0.357),
    "clip-vit-l-14": (0.8547, 0.441, 0.8537, 0.424),
}


@pytest.mark.parametrize("name", MEASURED)
def test_what_an_independent_reference_measured(shared: Path, name: str) -> None:
    task = Task.load(shared / "rs19" / f"{name}.npz")
    table = evaluate(task, "ensemble,mean_similarity", "top1,worst3", draws=100)
    found = [table[r][m]["value"] for r in ("ensemble", "mean_similarity") for m in table[r]]
    assert found == pytest.approx(MEASURED[name], abs=1e-3)
    assert table["ensemble"]["top1"]["low"] < MEASURED[name][0] < table["ensemble"]["top1"]["high"]
