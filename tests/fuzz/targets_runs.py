"""What a run leaves on disk: parts, marks, journals, plans, merged vectors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from hypothesis import strategies as st

from byname.embeddings import Embeddings
from byname.images.preprocess import Preprocess
from byname.images.refs import ImageRef
from byname.images.sources import Source
from byname.runs.parts import Journal, Row, read_part, rows_table, write_part
from byname.runs.plan import Plan
from byname.runs.planfile import is_run, write_inputs, write_plan
from byname.runs.status import status_of
from tests.fuzz.harness import Target, attempt, cards, spoilt

__all__ = ["TARGETS"]

DIM = 2
KEYS = ("a.jpg", "b.jpg", "c.jpg")
MADE_OF = {"fingerprint": "f", "inputs": "i"}
Files = dict[str, bytes]


def _held(folder: str) -> Files:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def _put(folder: str, files: Files) -> None:
    for name, data in files.items():
        Path(folder, name).write_bytes(data)


# -- parts


def _rows(places: Sequence[int]) -> list[Row]:
    vector = np.array([0.6, 0.8], np.float16)
    good = [Row(i, KEYS[i], bytes(16), vector, None) for i in places if i != 1]
    return good + [Row(1, KEYS[1], b"", None, "it is empty") for i in places if i == 1]


@cache
def _part() -> Files:
    """A complete part, and the journal of another attempt at it."""
    with TemporaryDirectory() as folder:
        counts = {"rows": 3, "errors": 1, "reasons": {"it is empty": 1}, "started": 1.0}
        table = rows_table(sorted(_rows([0, 1, 2]), key=lambda r: r.position), DIM)
        write_part(Path(folder), 0, table, counts, MADE_OF)
        journal = Journal(Path(folder), 0, rows_table(_rows([0, 1]), DIM))
        journal.append(rows_table(_rows([2]), DIM))
        journal.close()
        return _held(folder)


def _signed(parquet: bytes, mark: bytes, fits: bool) -> tuple[bytes, bytes]:
    """A spoilt part with a mark that tells its checksum: else it is never looked into."""
    if fits:
        told = json.loads(_part()["part-00000.json"])
        mark = json.dumps(told | {"sha256": hashlib.sha256(parquet).hexdigest()}).encode()
    return parquet, mark


def _read(given: tuple[tuple[bytes, bytes], bytes, bool]) -> None:
    (parquet, mark), journal, without = given
    with TemporaryDirectory() as folder:
        files = {"part-00000.parquet": parquet, "part-00000.journal": journal}
        _put(folder, files if without else files | {"part-00000.json": mark})
        for made_of in (None, MADE_OF):
            table, complete = read_part(Path(folder), 0, DIM, KEYS, made_of)
            # Rows are those of the shard, or none: what is read goes into the result.
            assert table is not None or not complete
            for row in [] if table is None else table.to_pylist():
                assert KEYS[row["position"]] == row["file_name"]
                assert len(row["vector"]) == DIM


def _parts() -> st.SearchStrategy[Any]:
    held = _part()
    mark = json.loads(held["part-00000.json"])
    return st.tuples(
        st.builds(
            _signed,
            spoilt([held["part-00000.parquet"]], most=3),
            cards(mark, ["fingerprint", "x"]),
            st.booleans(),
        ),
        spoilt([held["part-00000.journal"]], head=64, most=3),
        st.booleans(),
    )


# -- plans


@cache
def _run() -> Files:
    """The folder of a run of two shards, the first complete."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        refs = tuple(ImageRef(key, f"/none/{key}", size=1, mtime_ns=1) for key in KEYS)
        settings = {"encoder": "e", "fingerprint": "f", "dim": DIM, "shard_size": 2}
        settings["shared"] = False
        preprocess = Preprocess(size=8, resize=8)
        write_inputs(folder, refs, 2, "0" * 64)
        write_plan(folder, settings, preprocess, Source(refs, "/none", "folder"), "0" * 64)
        counts = {"rows": 2, "errors": 1, "reasons": {"it is empty": 1}, "seconds": 1.0}
        made_of = Plan.open(folder).made_of(0)
        table = rows_table(sorted(_rows([0, 1]), key=lambda r: r.position), DIM)
        write_part(folder, 0, table, counts, made_of)
        return _held(name)


def _open(files: Files) -> None:
    with TemporaryDirectory() as folder:
        _put(folder, files)
        assert isinstance(is_run(folder), bool)

        def images() -> None:
            plan = Plan.open(folder)
            assert all(isinstance(ref.key, str) for ref in plan.shard(0))
            assert len(list(plan.refs)) == len(plan.refs)

        attempt(
            images,
            lambda: status_of(folder, check=True).as_dict(),
            lambda: Embeddings.load(folder),
        )


def _plans() -> st.SearchStrategy[Files]:
    held = _run()
    told, mark = json.loads(held["plan.json"]), json.loads(held["part-00000.json"])
    settings = cards(told["settings"]).map(lambda s: told | {"settings": json.loads(s)})
    preprocess = cards(told["preprocess"]).map(lambda p: told | {"preprocess": json.loads(p)})
    return st.one_of(
        cards(told, ["how", "x"]).map(lambda d: held | {"plan.json": d}),
        st.one_of(settings, preprocess).map(lambda d: held | {"plan.json": json.dumps(d).encode()}),
        spoilt([held["plan.json"]]).map(lambda d: held | {"plan.json": d}),
        spoilt([held["inputs.parquet"]], most=3).map(lambda d: held | {"inputs.parquet": d}),
        cards(mark).map(lambda d: held | {"part-00000.json": d}),
        st.sampled_from([*held]).map(lambda gone: {n: d for n, d in held.items() if n != gone}),
    )


# -- merged vectors


@cache
def _merged() -> bytes:
    with TemporaryDirectory() as folder:
        vectors = np.array([[0.6, 0.8], [0, 0], [1, 0]], np.float32)
        Embeddings(KEYS, vectors, "e", "f", {"d.jpg": "it is empty"}).save(
            Path(folder, "a.parquet")
        )
        return Path(folder, "a.parquet").read_bytes()


def _load(data: bytes) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "a.parquet")
        path.write_bytes(data)
        found = Embeddings.load(path)
        vectors = np.asarray(found.vectors)
        norm = np.linalg.norm(vectors, axis=1)
        assert np.all((norm == 0) | (np.abs(norm - 1) < 1e-3))
        assert len(set(found.keys)) == len(vectors) == len(found)
        "".join(found.keys).encode()
        "".join((*found.errors, *found.errors.values())).encode()


TARGETS = (
    Target("part", st.deferred(_parts), _read),
    Target("plan", st.deferred(_plans), _open),
    Target("vectors", st.deferred(lambda: spoilt([_merged()], most=3)), _load),
)
