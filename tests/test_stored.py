from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from byname import embeddings, ops, stored
from byname.embeddings import Embeddings, is_run_folder
from byname.errors import EmbeddingsError
from byname.inputs import open_images
from byname.stored import Keys, StoredVectors
from tests.stored import make_run, on_disk, unit_vectors

N = 40


@pytest.fixture
def both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Embeddings, Embeddings]:
    return on_disk(tmp_path / "x.parquet", unit_vectors(N), monkeypatch)


def test_a_large_file_stays_on_disk(both: tuple[Embeddings, Embeddings]) -> None:
    held, kept = both
    assert isinstance(held.vectors, np.ndarray)
    X = kept.vectors
    assert isinstance(X, StoredVectors)
    assert (X.shape, X.ndim, X.dtype, len(X)) == ((N, 8), 2, np.float32, N)
    assert kept.keys == held.keys
    assert isinstance(kept.keys, Keys)
    assert kept.dim == 8


def test_the_rows_are_those_in_memory_to_the_last_bit(both: tuple[Embeddings, Embeddings]) -> None:
    X, S = (e.vectors for e in both)
    for index in (slice(None), slice(3, 20), slice(30, 3, -4), slice(5, 5), 3, -1, [], [39, 0, 0]):
        assert S[index].dtype == np.float32
        np.testing.assert_array_equal(S[index], X[index])
    np.testing.assert_array_equal(S[np.arange(N) % 3 == 0], X[np.arange(N) % 3 == 0])
    np.testing.assert_array_equal(S[np.array([[1, 39], [8, 2]])], X[np.array([[1, 39], [8, 2]])])
    np.testing.assert_array_equal(np.concatenate(list(S.blocks(9))), X)
    np.testing.assert_array_equal(S.load(), X)


def test_each_row_group_is_read_once_for_rows_in_any_order(
    both: tuple[Embeddings, Embeddings], monkeypatch: pytest.MonkeyPatch
) -> None:
    X, S = (e.vectors for e in both)
    monkeypatch.setattr(stored, "KEPT", 0)
    read: list[int] = []
    plain = StoredVectors._read

    def counted(self: StoredVectors, g: int) -> np.ndarray:
        read.append(g)
        return plain(self, g)

    monkeypatch.setattr(StoredVectors, "_read", counted)
    rows = np.random.default_rng(0).permutation(N)
    np.testing.assert_array_equal(S[rows], X[rows])
    assert read == list(range(6))


@pytest.mark.parametrize("index", [N, -N - 1, [0, N]])
def test_places_that_are_not_there(both: tuple[Embeddings, Embeddings], index: object) -> None:
    with pytest.raises(IndexError, match="there are 40 vectors"):
        both[1].vectors[index]


def test_numpy_does_not_make_one_array_unasked(
    both: tuple[Embeddings, Embeddings], monkeypatch: pytest.MonkeyPatch
) -> None:
    S = both[1].vectors
    for made in (
        np.asarray,
        ops.to_numpy,
        lambda x: np.add(x, 1),
        lambda x: x != 0,
        lambda x: x.T,
        lambda x: x.sum(axis=1),
        lambda x: np.eye(40) @ x,
    ):
        with pytest.raises(EmbeddingsError, match="put 40 stored vectors into memory"):
            made(S)
    monkeypatch.setattr(stored, "LIMIT", S.nbytes)
    np.testing.assert_array_equal(np.asarray(S), both[0].vectors)
    assert np.asarray(S, np.float64).dtype == np.float64
    np.testing.assert_array_equal((S != 0).any(axis=1), np.ones(N, bool))
    np.testing.assert_array_equal(1 - S.T, 1 - both[0].vectors.T)
    monkeypatch.setattr(stored, "PICKED", 20 * 8 * 4)
    assert len(S[:20]) == 20
    with pytest.raises(EmbeddingsError, match="put 21 stored vectors into memory"):
        S[:21]
    with pytest.raises(AttributeError):
        S.colour  # noqa: B018


def test_other_ways_to_index(both: tuple[Embeddings, Embeddings], monkeypatch: Any) -> None:
    X, S = (e.vectors for e in both)
    for wrong in (np.array([0.5]), np.ones(3, bool), np.ones((N, 8), bool), "a"):
        with pytest.raises(IndexError, match="40 vectors cannot be indexed by"):
            S[wrong]
    with pytest.raises(EmbeddingsError, match="put 40 stored vectors into memory"):
        S[:, 0]
    monkeypatch.setattr(stored, "LIMIT", S.nbytes)
    for index in ((slice(None), 0), (3, 1), None, ...):
        np.testing.assert_array_equal(S[index], X[index])


@pytest.mark.parametrize("how", ["in place", "replaced", "deleted"])
@pytest.mark.parametrize("begun", [True, False])
def test_a_file_that_changes_never_gives_vectors_of_other_images(
    how: str, begun: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "KEPT", 0)
    X, path, other = unit_vectors(N), tmp_path / "x.parquet", tmp_path / "y.parquet"
    kept = on_disk(path, X, monkeypatch)[1].vectors
    Embeddings.from_arrays(X[::-1]).save(other)
    if begun:
        known = kept[:]
        kept[:1]
    if how == "in place":
        path.write_bytes(other.read_bytes())
        os.utime(path, ns=(1, 1))  # clocks of file systems may be coarse
    else:
        other.replace(path) if how == "replaced" else path.unlink()
    if begun and how != "in place":  # the file that is open is still what it was
        np.testing.assert_array_equal(kept[:], known)
        return
    seen = "damaged or gone" if how == "deleted" else "changed after its names were read"
    with pytest.raises(EmbeddingsError, match=seen):
        kept[:]


def test_operations_go_through_it_in_blocks(
    both: tuple[Embeddings, Embeddings], monkeypatch: pytest.MonkeyPatch
) -> None:
    X, S = (e.vectors for e in both)
    monkeypatch.setattr(stored, "BLOCK", 9)
    W = unit_vectors(3, seed=1)
    assert ops.as_float(S) is S
    assert ops.like(S, S) is S
    np.testing.assert_allclose(ops.matmul_t(S, W), ops.matmul_t(X, W), rtol=1e-6)
    np.testing.assert_allclose(ops.matmul_t(S, W.astype(float)), ops.matmul_t(X, W), rtol=1e-6)
    np.testing.assert_array_equal(ops.take_rows(S, [5, 2]), X[[5, 2]])
    index = np.arange(N) % 4 - 1
    weights = np.arange(N, dtype=float)
    for given_weights in (None, weights):
        sums = ops.segment_sum(S, index, 3, given_weights)
        assert sums.dtype == np.float32
        np.testing.assert_allclose(sums, ops.segment_sum(X, index, 3, given_weights), rtol=1e-6)
        means = [ops.segment_mean(V, index, 3, given_weights) for V in (S, X)]
        np.testing.assert_allclose(*means, rtol=1e-6)


def test_it_can_be_pickled(both: tuple[Embeddings, Embeddings]) -> None:
    kept = both[1]
    kept.vectors[:3]
    again = pickle.loads(pickle.dumps(kept))
    np.testing.assert_array_equal(again.vectors[:], kept.vectors[:])
    assert again.keys == kept.keys


def test_it_can_be_saved_again(both: tuple[Embeddings, Embeddings], tmp_path: Path) -> None:
    both[1].save(tmp_path / "again.parquet")
    again = Embeddings.load(tmp_path / "again.parquet")
    np.testing.assert_allclose(again.vectors[:], both[0].vectors, atol=1e-3)
    assert list(again.keys) == list(both[0].keys)


def test_a_file_that_goes_away_is_one_error(
    both: tuple[Embeddings, Embeddings], tmp_path: Path
) -> None:
    both[0].save(tmp_path / "x.parquet")
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    with pytest.raises(EmbeddingsError, match="it is damaged or gone"):
        both[1].vectors[:]


def test_infinite_values_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    X = unit_vectors(10)
    path = tmp_path / "run"
    X[4, 2] = np.inf
    make_run(path, [f"{i}.jpg" for i in range(10)], X, {})
    monkeypatch.setattr(embeddings, "IN_MEMORY", 0)
    with pytest.raises(EmbeddingsError, match=r"the first is '4\.jpg'"):
        Embeddings.load(path).vectors[:]


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=4), max_size=12))
def test_keys_are_a_sequence_of_strings(names: list[str]) -> None:
    keys = Keys(pa.array(names, pa.string()))
    assert list(keys) == names
    assert keys == names
    assert [keys[i] for i in range(len(names))] == names
    assert list(keys[1:]) == names[1:]
    assert list(keys[::-2]) == names[::-2]
    assert keys.ascending == (sorted(names) == names)
    assert [names[i] for i in keys.order()] == sorted(names)
    assert (keys.twice() is None) == (len(set(names)) == len(names))
    assert pa.array(keys, pa.string()).to_pylist() == names
    if names:
        assert keys[-1] == names[-1]
        assert keys != names[1:]


def test_a_name_that_occurs_twice_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(tmp_path / "run", ["a", "b", "a"], unit_vectors(3), {})
    for limit in (0, 2**20):
        monkeypatch.setattr(embeddings, "IN_MEMORY", limit)
        with pytest.raises(EmbeddingsError, match="the key 'a' occurs twice"):
            Embeddings.load(tmp_path / "run")


@pytest.mark.parametrize("limit", [0, 2**20])
def test_a_run_folder_is_embeddings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    names = [f"{i}.jpg" for i in range(10)]
    X = unit_vectors(10)
    make_run(tmp_path / "run", names, X, {"2.jpg": "broken", "9.jpg": "empty"}, encoder="e")
    monkeypatch.setattr(embeddings, "IN_MEMORY", limit)
    assert is_run_folder(tmp_path / "run")
    found = open_images(tmp_path / "run")
    assert isinstance(found, Embeddings)
    assert isinstance(found.vectors, np.ndarray if limit else StoredVectors)
    good = [i for i in range(10) if i not in (2, 9)]
    assert list(found.keys) == [names[i] for i in good]
    assert found.errors == {"2.jpg": "broken", "9.jpg": "empty"}
    assert (found.encoder, found.root) == ("e", "/x")
    np.testing.assert_allclose(found.vectors[:], X[good], atol=1e-3)


@pytest.mark.parametrize("limit", [0, 2**20])
def test_a_run_that_is_not_in_the_order_of_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    names = ["c", "a", "d", "b"]
    make_run(tmp_path / "run", names, unit_vectors(4), {})
    monkeypatch.setattr(embeddings, "IN_MEMORY", limit)
    found = Embeddings.load(tmp_path / "run")
    assert list(found.keys) == (sorted(names) if limit else names)
    by_name = dict(zip(found.keys, found.vectors, strict=True))
    for name, vector in zip(names, unit_vectors(4), strict=True):
        np.testing.assert_allclose(by_name[name], vector, atol=1e-3)


@pytest.mark.parametrize(("n", "bad"), [(0, 9), (3, 20), (12, 5), (20, 19), (8, 8)])
def test_names_and_errors_over_several_row_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n: int, bad: int
) -> None:
    monkeypatch.setattr(embeddings, "ROW_GROUP", 4)
    errors = {f"bad {i:02d}": str(i) for i in range(bad)}
    made = Embeddings(tuple(f"{i:02d}" for i in range(n)), unit_vectors(n), errors=errors)
    made.save(tmp_path / "x.parquet")
    for limit in (2**20, -1):
        monkeypatch.setattr(embeddings, "IN_MEMORY", limit)
        found = Embeddings.load(tmp_path / "x.parquet")
        assert list(found.keys) == list(made.keys)
        assert found.errors == errors
        np.testing.assert_allclose(found.vectors[:], made.vectors, atol=1e-3)


def test_an_unfinished_run_says_how_far_it_is(tmp_path: Path) -> None:
    run = tmp_path / "run"
    make_run(run, [f"{i}.jpg" for i in range(10)], unit_vectors(10), {})
    (run / "part-00002.json").unlink()
    with pytest.raises(EmbeddingsError) as caught:
        open_images(run)
    assert str(caught.value) == (
        f"cannot read the vectors of the run '{run}': 3 of its 4 shards are done. "
        f"Continue it with: byname run '{run}'"
    )


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        ({"images": 11}, "its parts hold 10 rows for 11 images"),
        ({"images": -1}, "cannot be used"),
        ({"images": 10**18}, "of its 333333333333333334 shards are done"),
        ({"settings": {"dim": 9, "shard_size": 3}}, "its vectors are 8 wide, not 9"),
        ({"settings": {"dim": 8, "shard_size": 0}}, "cannot be used"),
        ({"settings": []}, "cannot be used"),
    ],
)
def test_a_plan_that_does_not_fit_its_parts(
    tmp_path: Path, change: dict[str, object], seen: str
) -> None:
    run = tmp_path / "run"
    make_run(run, [f"{i}.jpg" for i in range(10)], unit_vectors(10), {})
    plan = json.loads((run / "plan.json").read_text())
    (run / "plan.json").write_text(json.dumps(plan | change))
    with pytest.raises(EmbeddingsError, match=seen):
        Embeddings.load(run)


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    run = tmp_path / "run"
    make_run(run, [f"{i}.jpg" for i in range(10)], unit_vectors(10), {})
    (run / "part-00001.parquet").write_bytes(b"PAR1 no PAR1")
    with pytest.raises(EmbeddingsError, match=r"part-00001\.parquet'.*damaged or gone"):
        Embeddings.load(run)
