"""From the key of a row back to an image that lies inside a file."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from byname.errors import SourceError
from byname.images.find import Finder
from byname.images.sources import open_source

from .samples import put, write_tar


def test_inside_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "d").mkdir()
    for n in range(2):
        table = pa.table({"photo": [b"%d" % n], "other": [b"-"], "id": [n]})
        pq.write_table(table, tmp_path / "d" / f"{n}.parquet")
    monkeypatch.chdir(tmp_path)
    for spec, key in (
        ("d/0.parquet", "0"),
        ("d", "1.parquet/1"),
        ("d/{0..1}.parquet", "1.parquet/1"),
    ):
        source = open_source(spec)
        find = Finder(source.root, source.kind, str(tmp_path))
        found = find(key)
        assert found is not None
        assert found.read() == key[-1:].encode()
        assert find("none") is None
    find = Finder(str(tmp_path / "d" / "0.parquet"), image_column="other", kind="parquet")
    assert find.packed["0"].read() == b"-"
    assert Finder(str(tmp_path / "d" / "0.parquet"))("0") is not None  # the kind is not known


def test_a_list_of_paths_in_parquet(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg")
    pq.write_table(pa.table({"path": ["a.jpg"]}), tmp_path / "l.parquet")
    find = Finder(str(tmp_path / "l.parquet"), "list")
    found = find("a.jpg")
    assert found is not None
    assert found.read() == b"x"
    assert not find.packed


def test_behind_a_url(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec", reason="needs the extra 'remote'")
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.pipe("/find/a.jpg", b"a")
    memory.pipe("/find/s.tar", write_tar(tmp_path / "s.tar", {"b.jpg": b"b"}).read_bytes())
    for root, key in (("memory://find", "a.jpg"), ("memory://find/s.tar", "b.jpg")):
        source = open_source(root)
        found = Finder(source.root, source.kind, "/some/folder")(key)
        assert found is not None
        assert found.read() == key[:1].encode()
    with pytest.raises(SourceError, match=r"'memory://none': nothing is there"):
        Finder("memory://none", "folder")
    memory.store.clear()
