"""Task files: what is read, what is refused, and that labels stay behind."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from byname.errors import EmbeddingsError, NeedsError, TaxonomyError, UnsafeFileError
from byname.pipeline import Pipeline
from byname.recipes import get_recipe
from byname.taskfile import Task
from byname.taxonomy import Node, Taxonomy

NAMES = ["cat", "dog", "Red Apple"]
TEMPLATES = ["a blurry photo of a {}.", "a photo of a {}."]


def arrays(**changes: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    made: dict[str, Any] = {
        "images": rng.standard_normal((7, 4)).astype(np.float16),
        "texts": rng.standard_normal((2, 3, 4)).astype(np.float16),
        "labels": np.arange(7) % 3,
        "classes": np.array(NAMES),
        "templates": np.array(TEMPLATES),
    } | changes
    return {key: value for key, value in made.items() if value is not None}


def write(folder: Path, **changes: Any) -> Path:
    path = folder / "t.npz"
    np.savez_compressed(path, **arrays(**changes))
    return path


def test_reads_unit_rows_class_by_class(tmp_path: Path) -> None:
    task = Task.load(write(tmp_path))
    texts = task.texts_for("templates[set=imagenet]")
    assert task.taxonomy.class_ids == tuple(NAMES)
    assert task.scale == texts.scale == 100
    assert task.images.dtype == task.texts.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(task.images, axis=1), 1, rtol=1e-6)
    assert texts.class_index.tolist() == [0, 0, 1, 1, 2, 2]
    assert texts.prompt_index is not None
    assert texts.prompt_index.tolist() == [0, 1] * 3
    np.testing.assert_array_equal(texts.vectors[3], task.texts[1, 1])
    assert texts.node_id == ("cat", "cat", "dog", "dog", "Red Apple", "Red Apple")
    assert task.labels is not None
    assert task.labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert not hasattr(task.batch(), "labels")
    assert Task.load(write(tmp_path, scale=np.float32(20))).scale == 20


def test_plain_takes_the_plain_template_or_the_first(tmp_path: Path) -> None:
    task = Task.load(write(tmp_path))
    plain = get_recipe("plain").prompts
    np.testing.assert_array_equal(task.texts_for(plain).vectors, task.texts[1])
    other = Task.load(write(tmp_path, templates=np.array(["x {}", "y {}"])))
    np.testing.assert_array_equal(other.texts_for(plain).vectors, other.texts[0])
    texts = task.texts_for(plain)
    assert texts.prompt_index is not None
    assert texts.prompt_index.tolist() == [0, 0, 0]


def test_other_prompts_are_not_to_be_had(tmp_path: Path) -> None:
    with pytest.raises(NeedsError, match="vectors of templates only"):
        Task.load(write(tmp_path)).texts_for("haprompts[variant=full]")


def test_it_runs_through_a_pipeline(tmp_path: Path) -> None:
    task = Task.load(write(tmp_path))
    texts, batch = task.texts_for("templates"), task.batch()
    S = Pipeline(get_recipe("ensemble")).fit(texts, batch).scores(batch)
    assert S.shape == (7, 3)


def test_without_labels_they_are_not_read(tmp_path: Path) -> None:
    path = write(tmp_path, labels=np.array([object()]))
    assert Task.load(path, with_labels=False).labels is None
    assert Task.load(write(tmp_path, labels=None), with_labels=False).labels is None
    with pytest.raises(UnsafeFileError, match="'labels' holds Python objects"):
        Task.load(write(tmp_path, labels=np.array([object()])))


@pytest.mark.parametrize("key", ["images", "texts", "classes", "templates", "scale"])
def test_objects_are_refused(tmp_path: Path, key: str) -> None:
    path = write(tmp_path, **{key: np.array([{"a": 1}], dtype=object)})
    with pytest.raises(UnsafeFileError, match=f"'{key}' holds Python objects"):
        Task.load(path)


NAN = np.ones((7, 4))
NAN[[2, 5], 1] = np.nan
INF = np.ones((2, 3, 4))
INF[1, 2, 0] = np.inf
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no texts": ({"texts": None}, r"it lacks texts \(it holds images, labels"),
    "no labels": ({"labels": None}, "it lacks labels"),
    "flat texts": ({"texts": np.ones((3, 4))}, r"'texts' has the shape \(3, 4\)"),
    "whole numbers": ({"images": np.ones((7, 4), int)}, "'images' has .* type int64"),
    "widths": ({"images": np.ones((7, 5))}, "images are 5 wide, texts 4"),
    "templates": ({"templates": np.array(["a"])}, "texts are 2 x 3, but there are 1 templates"),
    "classes": ({"classes": np.array(["a", "b"])}, "and 2 classes"),
    "no classes": ({"classes": np.array([], "U3")}, r"'classes' has the shape \(0,\)"),
    "numbers": ({"classes": np.arange(3)}, "'classes' has the shape .* type int64"),
    "twice": ({"classes": np.array(["a", "b", "a"])}, "1 class names stand twice: 'a'"),
    "NaN image": ({"images": NAN}, "2 vectors hold NaN .* the first is image 2"),
    "inf text": ({"texts": INF}, r"the first is class 'Red Apple' in template 'a photo of a {}.'"),
    "labels too high": ({"labels": np.full(7, 3)}, "labels go from 3 to 3"),
    "labels too few": ({"labels": np.zeros(6, int)}, r"labels have the shape \(6,\)"),
    "labels of floats": ({"labels": np.zeros(7)}, "type float64"),
    "scale": ({"scale": np.array(-1.0)}, "scale is -1.0"),
    "scales": ({"scale": np.ones(2)}, r"scale is \[1.0, 1.0\]"),
}


@pytest.mark.parametrize(("changes", "message"), WRONG.values(), ids=WRONG)
def test_what_does_not_fit_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(EmbeddingsError, match=message):
        Task.load(write(tmp_path, **changes))


def test_no_file_and_no_npz(tmp_path: Path) -> None:
    with pytest.raises(EmbeddingsError, match="there is no such file"):
        Task.load(tmp_path / "no.npz")
    (tmp_path / "t.npz").write_text("hello")
    with pytest.raises(EmbeddingsError, match=r"not a readable \.npz file"):
        Task.load(tmp_path / "t.npz")
    whole = write(tmp_path).read_bytes()
    (tmp_path / "t.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(EmbeddingsError, match=r"not a readable \.npz file"):
        Task.load(tmp_path / "t.npz")


def test_headers_that_lie_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    huge = parts["images.npy"].replace(b"(7, 4), }", b"(70000000000, 4), }")
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, huge if name == "images.npy" else data)
    with pytest.raises(UnsafeFileError, match="'images' claims 560000000000 bytes"):
        Task.load(path)


def test_a_taxonomy_beside_the_file(tmp_path: Path) -> None:
    path = write(tmp_path)
    tree = {"name": "all", "children": [{"name": "pets", "children": ["dog", "cat"]}, "Red Apple"]}
    path.with_suffix(".json").write_text(json.dumps(tree))
    taxonomy = Task.load(path).taxonomy
    assert taxonomy.class_ids == tuple(NAMES)
    assert taxonomy.siblings("cat") == ("dog",)
    assert taxonomy.lca_heights().tolist() == [[0, 1, 2], [1, 0, 2], [2, 2, 0]]
    flat = Task.load(path, taxonomy=Taxonomy.from_names(reversed(NAMES)))
    assert flat.taxonomy.height == 1
    assert flat.taxonomy.class_ids == tuple(NAMES)


def test_a_group_may_be_called_as_a_class_is(tmp_path: Path) -> None:
    groups = [Node("cat", "cats"), Node("1", "cat", "cat"), Node("2", "dog"), Node("3", NAMES[2])]
    taxonomy = Task.load(write(tmp_path), taxonomy=Taxonomy(groups)).taxonomy
    assert taxonomy.ancestors("cat") == ("cat (group)",)
    assert taxonomy.node("cat (group)").name == "cats"


def test_a_taxonomy_of_other_classes_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path)
    other = Taxonomy.from_names(["cat", "dog", "cow"])
    seen = "no leaf for the classes 'Red Apple' and no class for the leaves 'cow'"
    with pytest.raises(TaxonomyError, match=seen):
        Task.load(path, taxonomy=other)
    csv = path.with_suffix(".csv")
    csv.write_text("id,name\n1,cat\n2,dog\n")
    with pytest.raises(TaxonomyError, match=r"It was read from '.*csv'"):
        Task.load(path)


def test_real_tasks(shared: Path) -> None:
    for name, dim in (("clip-rn50", 1024), ("clip-vit-b-32", 512), ("clip-vit-l-14", 768)):
        task = Task.load(shared / "rs19" / f"{name}.npz")
        assert task.images.shape == (1005, dim)
        assert task.texts.shape == (107, 19, dim)
        assert task.labels is not None
        texts, batch = task.texts_for("templates"), task.batch()
        S = Pipeline(get_recipe("ensemble")).fit(texts, batch).scores(batch)
        top1 = 100 * float((S.argmax(1) == task.labels).mean())
        assert top1 == pytest.approx({1024: 71.54, 512: 81.29, 768: 85.47}[dim], abs=0.15)


@pytest.mark.parametrize(
    "left",
    [
        "",
        "  \n",
        '{\n "format": "byname-report/1",\n "title": "x"}',
        '{"format":"byname-report/9"}',
    ],
)
def test_a_report_beside_it_is_no_taxonomy(tmp_path: Path, left: str) -> None:
    path = write(tmp_path)
    path.with_suffix(".json").write_text(left)
    assert Task.load(path).taxonomy.height == 1
    rows = "".join(f"{name},{name},g\n" for name in NAMES)
    path.with_suffix(".csv").write_text(f"id,name,parent\ng,g,\n{rows}dot,dot,\n")
    with pytest.raises(TaxonomyError, match="no class for the leaves"):
        Task.load(path)  # the next file is looked at


def test_any_other_file_beside_it_is_read(tmp_path: Path) -> None:
    path = write(tmp_path)
    path.with_suffix(".json").write_text('{"format": "something-else/1"}')
    with pytest.raises(TaxonomyError):
        Task.load(path)
