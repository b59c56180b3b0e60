"""What users have and no method expects: every refine member that is registered, one by one."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from byname import cli, commands
from byname.embeddings import Embeddings
from byname.errors import BynameError, EmbeddingsError
from byname.ops import softmax, unit
from byname.pipeline import Pipeline
from byname.recipes import get_recipe
from byname.stage import State, create, members
from tests.helpers import FakeEncoder
from tests.refine import cases

MEMBERS = sorted(members("refine"))
SAMES = ("no image", "one image", "one class")  # nothing can be learned: S stays


def with_templates(case: cases.Given) -> cases.Given:
    """Two texts a class, for members that compare halves of them."""
    batch, texts, state = case
    K = len(texts.vectors)
    near = unit(texts.vectors + 0.01 * np.random.default_rng(1).standard_normal((K, 1)))
    vectors = np.concatenate([texts.vectors, near]).astype(texts.vectors.dtype)
    index = np.tile(np.arange(K), 2)
    return batch, replace(texts, vectors=vectors, class_index=index, prompt_index=index // K), state


def own_pieces() -> cases.Given:
    """Three groups at right angles, of 12 images each: no edge of a graph goes between them."""
    rng = np.random.default_rng(0)
    X = np.zeros((36, 16), np.float32)
    for group in range(3):
        rows = slice(12 * group, 12 * group + 12)
        X[rows, 4 * group : 4 * group + 4] = np.abs(rng.standard_normal((12, 4))) + 0.1
    return cases.with_images(cases.given(0, counts=(12, 12, 12)), unit(X).astype(np.float32))


CASES = {**cases.BAD, "at right angles": own_pieces}


def check(name: str, case: cases.Given) -> tuple[Any, dict[str, Any]]:
    """Scores and report of a member by default, after what must hold of any."""
    batch, texts, state = case
    before: Any = state.S
    member = create(name, "refine")
    if len(batch):
        member.fit(batch, texts, state)
    S = np.asarray(member.apply(batch, texts, state))
    assert S.shape == before.shape
    assert S.dtype == np.float32
    assert np.isfinite(S).all()
    np.testing.assert_allclose(np.asarray(softmax(S)).sum(axis=1), 1, atol=1e-5)
    told = member.report()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    if told.get("stepped_back"):
        assert told["reason"]
        np.testing.assert_array_equal(S, before)
    return S, told


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("name", MEMBERS)
def test_whatever_the_folder_holds_there_is_an_answer(name: str, kind: str) -> None:
    case = with_templates(CASES[kind]())
    before: Any = case[2].S
    S, told = check(name, case)
    if kind in SAMES:
        np.testing.assert_array_equal(S.argmax(axis=1), before.argmax(axis=1))
        assert told.get("stepped_back", True)


@pytest.mark.parametrize("name", MEMBERS)
def test_equal_images_get_equal_probabilities(name: str) -> None:
    """Ten of each: which of them is another's neighbour is a tie, hence the tolerance."""
    case = cases.BAD["duplicates"]()
    P = np.asarray(softmax(check(name, with_templates(case))[0]))
    _, first, inverse = np.unique(case[0].X, axis=0, return_index=True, return_inverse=True)
    np.testing.assert_allclose(P, P[first][inverse.ravel()], atol=1e-3)


@pytest.mark.parametrize("name", MEMBERS)
def test_an_image_without_a_direction_does_not_spoil_the_others(name: str) -> None:
    batch, texts, state = with_templates(cases.given(0))
    X = np.concatenate([batch.X, np.zeros_like(batch.X[:1])])
    _, told = check(name, cases.with_images((batch, texts, state), X))
    before = check(name, (batch, texts, state))[1]
    assert told.get("stepped_back") == before.get("stepped_back")


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", sorted({*MEMBERS} - {"temperature"}))
def test_what_is_no_number_is_refused_by_its_row(name: str, value: float) -> None:
    """Not by ``temperature``, which computes nothing with the images but the answers of halves."""
    batch, texts, state = cases.poisoned(value)
    S: Any = state.S
    with pytest.raises(BynameError, match="row 7"):
        create(name, "refine").fit(batch, texts, State(W=state.W, S=np.nan_to_num(S)))


@pytest.mark.parametrize("name", MEMBERS)
def test_logits_that_are_no_numbers_are_refused_by_their_row(name: str) -> None:
    batch, texts, state = with_templates(cases.given(0))
    S = np.array(state.S)
    S[7, 2] = np.nan
    with pytest.raises(BynameError, match=f"'{name}': row 7 holds NaN"):
        create(name, "refine").fit(batch, texts, State(W=state.W, S=S))


@pytest.mark.parametrize("name", MEMBERS)
def test_a_pipeline_refuses_it_before_any_work(name: str) -> None:
    batch, texts, _ = with_templates(cases.poisoned())
    pipeline = Pipeline(get_recipe("ensemble", refine=name))
    with pytest.raises(EmbeddingsError, match="row 7 of 'X' holds NaN or infinity"):
        pipeline.fit(texts, batch)
    with pytest.raises(EmbeddingsError, match="row 7 of 'X' holds NaN or infinity"):
        pipeline.fit(texts, with_templates(cases.given(0))[0]).scores(batch)


@pytest.mark.parametrize("name", sorted({*MEMBERS} - {"prior", "temperature"}))
def test_uneven_shares_are_told_or_the_scores_are_kept(name: str) -> None:
    """Not by those that move no image, or look at shares in their own way."""
    for counts, uneven in (((30, 30, 30, 30, 30), False), ((100, 26, 16, 16, 16), True)):
        told = check(name, with_templates(cases.given(0, counts=counts, bias=0.1)))[1]
        assert ("warning" in told or told["stepped_back"]) == uneven, told


def byname(capfd: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    capfd.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["byname", *map(str, arguments)])
        patch.setattr(commands, "load_encoder", lambda *a, **k: FakeEncoder())
        with pytest.raises(SystemExit) as stopped:
            cli.main()
    return int(stopped.value.code or 0), capfd.readouterr().err


def test_the_file_with_the_bad_vector_is_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "vectors.parquet"
    vectors = unit(np.random.default_rng(0).standard_normal((5, 8)))
    Embeddings.from_arrays(vectors, keys=[f"photo {i}.jpg" for i in range(5)]).save(path)
    table = pq.read_table(path)
    wrong = np.asarray(vectors, np.float16)
    wrong[3, 2] = np.nan
    column = pa.FixedSizeListArray.from_arrays(pa.array(wrong.ravel()), 8)
    pq.write_table(table.set_column(1, table.schema.field("vector"), column), path)
    code, told = byname(capfd, "classify", path, "-c", "cat,dog", "--refine", "zlap", "-o", "-")
    assert (code, "'photo 3.jpg'" in told) == (2, True), told


def test_the_task_with_the_bad_vector_is_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    images = rng.standard_normal((6, 8)).astype(np.float32)
    images[4, 1] = np.nan
    arrays: dict[str, Any] = {
        "images": images,
        "texts": rng.standard_normal((1, 2, 8)).astype(np.float32),
        "labels": np.arange(6) % 2,
        "classes": np.array(["cat", "dog"]),
        "templates": np.array(["a photo of a {}."]),
    }
    np.savez(tmp_path / "pets.npz", **arrays)
    code, told = byname(capfd, "evaluate", "--task", tmp_path / "pets.npz", "-r", "plain,zlap")
    flat = " ".join(told.split())
    assert (code, "pets.npz" in flat, "image 4" in flat) == (2, True, True), told
