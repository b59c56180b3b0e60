"""Merged parts are what one process gives."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from byname.embeddings import Embeddings
from byname.errors import OutputError, RunError
from byname.images.sources import Source, open_source
from byname.runs import embed_source, merge
from byname.runs.create import create_run
from byname.runs.merge import merge_run
from byname.runs.parts import part_paths
from byname.runs.plan import Plan
from byname.runs.shard import process_shard
from tests.helpers import FakeEncoder, make_photos

HOW = {"encoder": "fake", "precision": None}
N = 23


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BYNAME_CACHE", str(tmp_path / "cache"))
    folder = make_photos(tmp_path / "photos", N)
    (folder / "0004a.jpg").write_bytes(b"")
    (folder / "0000.jpg").write_bytes(b"no image")
    return folder


def done(photos: Path, source: Source | None = None) -> Plan:
    """A complete run."""
    encoder = FakeEncoder()
    plan = create_run(source or open_source(photos), photos.parent / "run", encoder, HOW, 10)
    for index in range(plan.n_shards):
        process_shard(plan, index, encoder, batch_size=4)
    return plan


def same(a: Embeddings, b: Embeddings) -> bool:
    return (
        a.keys == b.keys
        and np.array_equal(a.vectors, b.vectors)
        and a.errors == b.errors
        and (a.encoder, a.fingerprint, a.root) == (b.encoder, b.fingerprint, b.root)
    )


def test_merged_is_what_one_process_gives(photos: Path, tmp_path: Path) -> None:
    found = merge_run(done(photos).folder, tmp_path / "m.parquet")
    wanted = embed_source(open_source(photos), FakeEncoder(), batch_size=4, shard_size=10)
    assert same(Embeddings.load(tmp_path / "m.parquet"), wanted)
    assert (found.images, found.errors) == (N + 2, wanted.errors)
    assert len(wanted.errors) == 2


def test_the_file_is_as_embeddings_are_saved(photos: Path, tmp_path: Path) -> None:
    merge_run(done(photos).folder, tmp_path / "m.parquet")
    Embeddings.load(tmp_path / "m.parquet").save(tmp_path / "s.parquet")
    merged, saved = (pq.read_table(tmp_path / f"{name}.parquet") for name in "ms")
    assert merged.schema.equals(saved.schema, check_metadata=True)
    assert merged["file_name"].to_pylist() == saved["file_name"].to_pylist()
    assert merged["error"].to_pylist() == saved["error"].to_pylist()
    assert merged["file_name"].to_pylist()[-2:] == ["0000.jpg", "0004a.jpg"]


def test_a_plan_by_place_is_merged_by_name(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for Parquet files and tars, whose images are read in the order in which they lie."""
    source = open_source(photos)
    refs = list(source.refs)
    random.Random(0).shuffle(refs)
    monkeypatch.setattr(merge, "ROW_GROUP", 4)
    merge_run(done(photos, replace(source, refs=tuple(refs))).folder, tmp_path / "m.parquet")
    wanted = embed_source(source, FakeEncoder(), batch_size=4, shard_size=10)
    assert same(Embeddings.load(tmp_path / "m.parquet"), wanted)
    assert [p.name for p in tmp_path.iterdir() if "tmp" in p.name] == []


@pytest.mark.parametrize("kind", ["missing", "mark missing", "cut", "changed", "of another plan"])
def test_an_incomplete_run_is_refused(photos: Path, tmp_path: Path, kind: str) -> None:
    plan = done(photos)
    part, mark, _ = part_paths(plan.folder, 1)
    if kind == "missing":
        part.unlink()
    elif kind == "mark missing":
        mark.unlink()
    elif kind == "cut":
        part.write_bytes(part.read_bytes()[:-1])
    elif kind == "changed":
        data = bytearray(part.read_bytes())
        data[len(data) // 2] ^= 1
        part.write_bytes(data)
    else:
        mark.write_bytes(part_paths(plan.folder, 0)[1].read_bytes())
    (tmp_path / "m.parquet").write_text("an older one")
    with pytest.raises(RunError, match=r"byname run .*run$") as caught:
        merge_run(plan.folder, tmp_path / "m.parquet")
    if kind in ("missing", "mark missing", "cut"):
        assert "1 of 3 shards are not complete (1)" in str(caught.value)
    assert (tmp_path / "m.parquet").read_text() == "an older one"
    assert [p.name for p in tmp_path.iterdir() if "tmp" in p.name] == []


def test_a_part_that_cannot_be_read_is_not_the_outputs_fault(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, real = done(photos), merge.read_part

    def refuse(folder: Path, index: int, *rest: Any) -> Any:
        if index == 1:
            raise PermissionError(13, "Permission denied")
        return real(folder, index, *rest)

    monkeypatch.setattr(merge, "read_part", refuse)
    with pytest.raises(RunError, match=r"the part of shard 1 cannot be read \(Permission denied\)"):
        merge_run(plan.folder, tmp_path / "m.parquet")
    assert not (tmp_path / "m.parquet").exists()


def test_errors_that_are_being_tried_again_do_not_disturb(photos: Path, tmp_path: Path) -> None:
    plan = done(photos)
    make_photos(photos, 1)  # as it was
    (photos / "0004a.jpg").write_bytes((photos / "0004.png").read_bytes())
    with pytest.raises(KeyboardInterrupt):
        process_shard(plan, 0, FakeEncoder(stop_after=0), batch_size=4)
    assert part_paths(plan.folder, 0)[2].exists()
    assert len(merge_run(plan.folder, tmp_path / "m.parquet").errors) == 2
    for index in range(plan.n_shards):
        process_shard(plan, index, FakeEncoder(), batch_size=4)
    assert list(merge_run(plan.folder, tmp_path / "m.parquet").errors) == ["0000.jpg"]


def test_all_images_bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BYNAME_CACHE", str(tmp_path / "cache"))
    (tmp_path / "photos").mkdir()
    for i in range(12):
        (tmp_path / "photos" / f"{i:02d}.jpg").write_text("no image")
    merge_run(done(tmp_path / "photos").folder, tmp_path / "m.parquet")
    found = Embeddings.load(tmp_path / "m.parquet")
    assert (len(found), found.dim, len(found.errors)) == (0, 8, 12)


def test_a_place_that_cannot_be_written_is_an_error(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write to"):
        merge_run(done(photos).folder, tmp_path / "no" / "m.parquet")
