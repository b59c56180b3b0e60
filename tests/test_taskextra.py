"""The optional arrays of a task file: each is checked, named in its error, and handed on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from byname.errors import EmbeddingsError
from byname.evaluate import evaluate
from byname.taskfile import Task
from tests.test_taskfile import NAMES, write

N, D, P, K = 7, 4, 2, 3


def normal(*shape: int) -> Any:
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float16)


def everything() -> dict[str, Any]:
    probs = np.random.default_rng(0).dirichlet(np.ones(6), N).astype(np.float16)
    return {
        "views": normal(N, 5, D),
        "tokens": normal(N, 9, D),
        "text_tokens": normal(P, K, 6, D),
        "second": normal(N, 8),
        "second_texts": normal(P, K, 8),
        "second_scale": np.float64(12.5),
        "log_var": normal(N, D),
        "text_log_var": normal(P, K, D),
        "class_probs": probs,
        "class_vectors": normal(6, D),
        "captions": normal(N, 2, D),
        "reference": normal(11, D),
        "support": normal(4, D),
        "support_class": np.array(["dog", "cat", "dog", "Red Apple"]),
        "support_captions": normal(4, D),
        "null": normal(3, D),
        "kinds": np.array(["template", "attribute"]),
        "contexts": np.array(["", "night"]),
        "levels": np.array([0, -1]),
        "groups": np.array([["", "pug", ""], ["tabby", "pug", "gala"]]),
    }


def test_a_batch_holds_what_the_file_holds(tmp_path: Path) -> None:
    given = everything()
    batch = Task.load(write(tmp_path, **given)).batch()
    shapes = {"views": (N, 5, D), "tokens": (N, 9, D), "second": (N, 8), "captions": (N, 2, D)}
    for name, shape in {**shapes, "reference": (11, D)}.items():
        rows = getattr(batch, name)
        assert (rows.shape, rows.dtype) == (shape, np.float32), name
        np.testing.assert_allclose(np.linalg.norm(rows, axis=-1), 1, atol=1e-6)
        np.testing.assert_allclose(
            rows * np.linalg.norm(given[name].astype(np.float32), axis=-1, keepdims=True),
            given[name],
            atol=2e-3,
        )
    np.testing.assert_array_equal(batch.log_var, given["log_var"].astype(np.float32))
    assert batch.class_probs is not None
    np.testing.assert_array_equal(batch.class_probs[0], given["class_probs"].astype(np.float32))
    assert batch.class_probs[1].shape == (6, D)
    assert batch.support is not None
    assert batch.support.class_index.tolist() == [1, 0, 1, 2]
    assert batch.support.kind == "generated"
    assert batch.support.captions.shape == (4, D)
    assert not hasattr(batch, "labels")


def test_texts_are_class_by_class(tmp_path: Path) -> None:
    given = everything()
    task = Task.load(write(tmp_path, **given))
    texts = task.texts_for("templates[set=imagenet]")
    assert texts.kind == ("template", "attribute") * K
    assert texts.level is not None
    assert texts.level.tolist() == [0, -1] * K
    assert texts.context is not None
    assert (texts.context.tolist(), texts.context_names) == ([-1, 0] * K, ("night",))
    assert texts.group is not None
    assert texts.group.tolist() == [-1, 0, 1, 1, -1, 2]
    assert texts.group_names == ("tabby", "pug", "gala")
    assert texts.null.shape == (3, D)
    assert texts.second_texts is not None
    assert texts.second_texts.scale == 12.5
    for k in range(K):
        for p in range(P):
            row = k * P + p
            np.testing.assert_array_equal(
                texts.text_log_var[row], given["text_log_var"][p, k].astype(np.float32)
            )
            np.testing.assert_array_equal(texts.vectors[row], task.texts[p, k])
            second = given["second_texts"][p, k].astype(np.float64)
            np.testing.assert_allclose(
                texts.second_texts.vectors[row], second / np.linalg.norm(second), atol=1e-6
            )
    assert texts.text_tokens.shape == (K * P, 6, D)
    one = task.texts_for("templates[set=single]")  # "a photo of a {}." is the second template
    assert one.kind == ("attribute",) * K
    assert one.context is not None
    assert one.context.tolist() == [0] * K
    np.testing.assert_array_equal(one.text_log_var, texts.text_log_var[1::2])


def test_a_task_without_them_is_as_before(tmp_path: Path) -> None:
    task = Task.load(write(tmp_path))
    assert [name for name, value in vars(task.batch()).items() if value is not None] == ["X"]
    texts = task.texts_for("templates[set=imagenet]")
    assert texts.kind == ("template",) * (P * K)
    assert texts.second_texts is texts.null is texts.level is texts.context is texts.group is None


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"views": normal(6, 5, D)}, r"'views' has the shape \(6, 5, 4\).* \(N, V, D\).*N = 7"),
        ({"views": normal(N, 5, 3)}, r"'views' .* with N = 7 and D = 4"),
        ({"views": np.ones((N, 5, D), int)}, "'views' has the shape .* and the type int64"),
        ({"tokens": normal(N, D)}, "'tokens' has the shape"),
        ({"captions": normal(N, 2, D) * np.float16(np.nan)}, r"'captions' holds 56 NaN or inf"),
        ({"text_tokens": normal(K, P, 6, D)}, r"'text_tokens' .*P = 2 and K = 3 and D = 4"),
        ({"second_texts": normal(P, K, 8)}, "'second_texts' is there, but 'second' is not"),
        (
            {"second": normal(N, 8), "second_texts": normal(P, K, 9)},
            "'second_texts' has the shape .*D2 = 8",
        ),
        (
            {"second": normal(N, 8), "second_texts": normal(P, K, 8), "second_scale": np.zeros(1)},
            r"'second_scale' is \[0.0\]",
        ),
        ({"log_var": normal(N, 3)}, "'log_var' has the shape"),
        ({"text_log_var": np.full((P, K, D), np.nan)}, "'text_log_var' holds 24 NaN"),
        ({"class_probs": np.ones((N, 2)) / 2}, "'class_probs' is there, but 'class_vectors' is n"),
        (
            {"class_probs": np.ones((N, 2)), "class_vectors": normal(2, D)},
            "'class_probs' has values down to 1 and rows that sum to 2",
        ),
        (
            {"class_probs": np.ones((N, 2)) / 2, "class_vectors": normal(3, D)},
            r"'class_probs' has the shape \(7, 2\).*K0 = 3",
        ),
        ({"reference": normal(5, 5)}, "'reference' has the shape"),
        ({"support": normal(5, D)}, "'support' is there, but 'support_class' is not"),
        (
            {"support": normal(2, D), "support_class": np.array([0, 3])},
            "'support_class' goes from 0 to 3.*counts the 3 classes",
        ),
        (
            {"support": normal(2, D), "support_class": np.array(["dog", "cow"])},
            "'support_class' holds 1 names of no class, the first is 'cow'",
        ),
        (
            {"support": normal(2, D), "support_class": np.array([0, 1, 1])},
            "'support_class' has the shape",
        ),
        (
            {
                "support": normal(2, D),
                "support_class": np.array([0, 1]),
                "support_kind": np.array("true"),
            },
            "'support_kind' is 'true'. Use generated, pseudo, labelled",
        ),
        ({"kinds": np.array(["a"])}, r"'kinds' has the shape \(1,\).*P = 2"),
        ({"contexts": np.array([1, 2])}, "'contexts' has .*the type int64.*texts"),
        ({"levels": np.array([0, -2])}, "'levels' goes down to -2"),
        ({"groups": np.array([["a", "b"]])}, r"'groups' .*P = 2 and K = 3"),
        ({"null": normal(2, 3)}, "'null' has the shape"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, changes: Any, message: str) -> None:
    with pytest.raises(EmbeddingsError, match=message):
        Task.load(write(tmp_path, **changes))


def test_support_of_numbers_and_a_kind(tmp_path: Path) -> None:
    marked = {"support_class": np.array([2, 0]), "support_kind": np.array("labelled")}
    support = Task.load(write(tmp_path, support=normal(2, D), **marked)).batch().support
    assert support is not None
    assert (support.class_index.tolist(), support.kind) == ([2, 0], "labelled")
    assert support.captions is None


def test_a_second_task_is_matched_by_name(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    task = Task.load(write(tmp_path))
    rng = np.random.default_rng(5)
    texts, images = rng.standard_normal((P, K, 6)), rng.standard_normal((N, 6))
    other = write(
        tmp_path / "b",
        images=images,
        texts=texts[:, [2, 0, 1]],
        classes=np.array(NAMES)[[2, 0, 1]],
        scale=np.array(7.0),
    )
    both = task.with_second(Task.load(other, with_labels=False))
    np.testing.assert_allclose(
        both.batch().second, images / np.linalg.norm(images, axis=1, keepdims=True), atol=1e-6
    )
    found = both.texts_for("templates[set=imagenet]").second_texts
    assert found is not None
    assert found.scale == 7
    wanted = texts / np.linalg.norm(texts, axis=-1, keepdims=True)
    np.testing.assert_allclose(found.vectors[3], wanted[1, 1], atol=1e-6)
    assert both.labels is task.labels


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"images": normal(6, D), "labels": np.zeros(6, int)}, "it has 6 images, and not 7"),
        ({"classes": np.array(["cat", "dog", "cow"])}, "its classes differ: 'Red Apple', 'cow'"),
        ({"templates": np.array(["a {}", "b {}"])}, "its templates differ"),
    ],
)
def test_a_second_task_of_something_else(tmp_path: Path, changes: Any, message: str) -> None:
    (tmp_path / "b").mkdir()
    other = Task.load(write(tmp_path / "b", **changes))
    with pytest.raises(EmbeddingsError, match=message):
        Task.load(write(tmp_path)).with_second(other)


def test_a_recipe_that_needs_what_is_not_there_is_skipped(tmp_path: Path) -> None:
    table = evaluate(Task.load(write(tmp_path)), "plain,conse", "top1", draws=0)
    assert "class_probs" in table["conse"]["skipped"]
    full = Task.load(write(tmp_path, **everything()))
    table = evaluate(full, "plain,conse", "top1", draws=0)
    assert 0 <= table["conse"]["top1"]["value"] <= 1
