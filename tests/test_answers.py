"""Rows as they come: in order, with the unreadable images in their places."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from byname import embeddings as module
from byname import groups
from byname.answers import answer_ids, answer_table, answer_tables, scored_table
from byname.commands_classify import Tally, classify
from byname.commands_study import run_diagnose
from byname.console import Counter
from byname.embeddings import Embeddings
from byname.pipeline import Pipeline
from byname.recipes import get_recipe
from byname.rows import SCHEMA, read_rows, write_rows
from byname.stage import Batch, ClassTexts
from byname.stored import StoredVectors
from byname.taxonomy import Taxonomy
from tests.stored import make_run, unit_vectors

NAMES = ["cat", "dog", "cow"]
N = 23


def texts() -> ClassTexts:
    return ClassTexts(unit_vectors(3, seed=9), np.arange(3), Taxonomy.from_names(NAMES))


def images(order: Any = None, errors: Any = None) -> Embeddings:
    made = Embeddings.from_arrays(unit_vectors(N), [f"{i:02d}.jpg" for i in range(N)])
    rows = np.arange(N) if order is None else order
    keys = tuple(made.keys[i] for i in rows)
    return replace(made, keys=keys, vectors=made.vectors[rows], errors=errors or {})


def fitted(recipe: Any = "ensemble") -> Pipeline:
    return Pipeline(get_recipe(recipe)).fit(texts())


BAD = {"00a.jpg": "torn", "07z.jpg": "empty", "0.jpg": "locked", "9.jpg": "gone", "07y.jpg": "x"}


@pytest.mark.parametrize("block", [1, 4, 100])
@pytest.mark.parametrize("order", [None, np.random.default_rng(2).permutation(N)])
@pytest.mark.parametrize("decide", [None, "multilabel"])
def test_rows_come_sorted_whatever_the_order(block: int, order: Any, decide: str | None) -> None:
    recipe = get_recipe("ensemble", decide=decide) if decide else "ensemble"
    pipeline = fitted(recipe)
    tables = list(answer_tables(pipeline, images(order, BAD), k=2, block=block))
    assert all(table.schema == SCHEMA for table in tables)
    table = pa.concat_tables(tables)
    keys = list(zip(table["file_name"].to_pylist(), table["rank"].to_pylist(), strict=True))
    assert keys == sorted(keys)
    assert len(set(keys)) == len(keys)
    failed = {r["file_name"]: r["error"] for r in table.to_pylist() if r["error"] is not None}
    assert failed == BAD
    plain = answer_table(pipeline, images(), k=2)
    good = table.filter(pa.compute.is_null(table["error"]))
    close = ["probability", "margin"]
    assert good.drop_columns(close).equals(plain.drop_columns(close))
    for name in close:
        np.testing.assert_allclose(good[name].to_numpy(), plain[name].to_numpy(), atol=1e-5)


def test_all_images_unreadable_or_none_at_all() -> None:
    pipeline = fitted()
    nothing = replace(images(), keys=(), vectors=np.zeros((0, 8), np.float32))
    assert answer_table(pipeline, nothing).num_rows == 0
    assert answer_ids(pipeline, Batch(nothing.vectors), None).tolist() == []
    table = answer_table(pipeline, replace(nothing, errors=BAD))
    assert table["file_name"].to_pylist() == sorted(BAD)


def test_scores_of_something_else_get_the_same_rows() -> None:
    given, pipeline = images(np.arange(N)[::-1], BAD), fitted()
    S = pipeline.scores(Batch(given.vectors))
    found = scored_table(pipeline, given, S, k=2)
    assert found.equals(answer_table(pipeline, given, k=2))


def test_the_tally_is_that_of_the_rows() -> None:
    tally = Tally()
    table = pa.concat_tables(tally.of(answer_tables(fitted(), images(None, BAD), k=2, block=5)))
    assert (tally.images, tally.errors, tally.rows) == (N + 5, 5, len(table))
    assert pa.concat_tables(tally.first).equals(table.slice(0, 50))
    assert tally.counts(Counter())["from_cache"] == N


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_tables_are_written_as_they_come(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("byname.rows.ROW_GROUP", 8)
    given = images(None, BAD)
    tables = list(answer_tables(fitted(), given, block=3))
    one, many = (tmp_path / f"{name}.{kind}" for name in ("one", "many"))
    write_rows(pa.concat_tables(tables), one, {"a": 1})
    write_rows(iter(tables), many, lambda: {"a": 1})
    assert read_rows(many).equals(read_rows(one))
    assert json.loads((tmp_path / f"many.{kind}.run.json").read_text()) == {"a": 1}
    if kind != "parquet":
        assert many.read_bytes() == one.read_bytes()


def test_an_error_on_the_way_leaves_no_file(tmp_path: Path) -> None:
    def broken() -> Any:
        yield answer_table(fitted(), images())
        raise module.EmbeddingsError("read the rest", "it is gone")

    with pytest.raises(module.EmbeddingsError, match="it is gone"):
        write_rows(broken(), tmp_path / "o.csv", {})
    assert not list(tmp_path.iterdir())


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A run by an encoder of ready vectors, which is a folder beside it."""
    encoder = tmp_path / "encoder"
    encoder.mkdir()
    np.save(encoder / "texts.npy", unit_vectors(3, seed=9))
    (encoder / "texts.txt").write_text("\n".join(f"a photo of a {name}." for name in NAMES))
    keys = [f"{i:02d}.jpg" for i in range(N)]
    make_run(tmp_path / "run", keys, unit_vectors(N), {"03.jpg": "torn"}, shard=5)
    return tmp_path / "run"


def options(folder: Path, **more: Any) -> dict[str, Any]:
    spec = f"precomputed:{folder.parent / 'encoder'}"
    made = {"classes": ",".join(NAMES), "encoder": spec, "recipe": "plain", "cache": False}
    return made | more


@pytest.mark.parametrize("refine", [None, "transclip[guard=false]"])
def test_classify_takes_a_run_folder(
    run_folder: Path, tmp_path: Path, refine: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for limit in (2**30, 0):  # in memory, and on disk
        monkeypatch.setattr(module, "IN_MEMORY", limit)
        output = tmp_path / f"{limit}.parquet"
        how = {"k": 2, "image_column": None, "quiet": True}
        classify(str(run_folder), str(output), **how, options=options(run_folder, refine=refine))
        found.append(read_rows(output))
    assert found[0].equals(found[1])
    assert found[0]["error"].to_pylist().count("torn") == 1
    told = json.loads((tmp_path / "0.parquet.run.json").read_text())
    assert told["counts"]["images"] == N
    assert told["counts"]["errors"] == 1


def test_diagnose_of_many_images_says_what_was_looked_at(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "IN_MEMORY", 0)
    monkeypatch.setattr("byname.commands_study.STUDIED", 10)
    monkeypatch.setattr(groups, "MOST", 15)
    defaults = dict.fromkeys(("lineage", "templates", "prompts", "extra", "weigh", "score"))
    more = defaults | {"allow_missing": False, "refine": None, "batch_size": 32, "threads": None}
    more |= {"device": "cpu", "precision": None}
    labels = tmp_path / "labels.csv"
    labels.write_text("file_name,class\n" + "".join(f"{i:02d}.jpg,cat\n" for i in range(N)))
    reports = []
    for output, studied in ((tmp_path / "some.json", 10), (tmp_path / "all.json", 100)):
        monkeypatch.setattr("byname.commands_study.STUDIED", studied)
        run_diagnose(
            str(run_folder),
            task=None,
            taxonomy=None,
            labels=str(labels),
            with_labels=False,
            output=output,
            as_json=False,
            show_all=False,
            image_column=None,
            quiet=True,
            options=options(run_folder, **more),
        )
        reports.append(json.loads(output.read_text()))
    some, every = reports
    note = "checks of images, decisions, tree, heights and labels looked at 10 of 22 images"
    assert [text.startswith(note) for text in some["notes"]].count(True) == 1
    assert not any(text.startswith("checks of images") for text in every["notes"])
    assert some["n_images"] == every["n_images"] == N - 1
    assert (some["summary"]["n_labelled"], every["summary"]["n_labelled"]) == (10, N - 1)
    for a, b in zip(some["classes"].values(), every["classes"].values(), strict=True):
        assert (a["n"], a["cmm"]) == (b["n"], b["cmm"])
        pairs = [[(c["id"], c["share"]) for c in one["confusions"]] for one in (a, b)]
        assert pairs[0] == pairs[1]
    assert some["expected_accuracy"] == pytest.approx(every["expected_accuracy"], abs=1e-6)


def test_stored_vectors_stay_on_disk(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IN_MEMORY", 0)
    monkeypatch.setattr("byname.stored.LIMIT", 0)
    given = Embeddings.load(run_folder)
    assert isinstance(given.vectors, StoredVectors)
    pipeline = Pipeline(get_recipe("ensemble")).fit(texts(), Batch(given.vectors))
    assert answer_table(pipeline, given).num_rows == N
