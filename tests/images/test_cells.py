"""Reading images out of Parquet files: order, threads, memory, damage."""

from __future__ import annotations

import os
import random
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from byname.errors import ImageError
from byname.images import cells
from byname.images.refs import ImageRef
from byname.images.sources import open_source


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    cells._reset()
    yield
    cells._reset()


def images(count: int, size: int = 100) -> list[bytes]:
    """Bytes that tell their row."""
    return [b"%08d" % i + random.Random(i).randbytes(size) for i in range(count)]


def written(path: Path, rows: list[bytes], group: int = 50, **options: object) -> list[ImageRef]:
    """References to the rows, in the order of the file."""
    pq.write_table(pa.table({"image": rows}), path, row_group_size=group, **options)
    return sorted(open_source(path).refs, key=lambda ref: ref.offset)


@pytest.mark.parametrize("group", [1, 7, 16, 50, 1000])
def test_any_order_gives_the_right_rows(tmp_path: Path, group: int) -> None:
    rows = images(120)
    refs = written(tmp_path / "t.parquet", rows, group)
    for order in (range(120), reversed(range(120)), random.Random(0).sample(range(120), 120)):
        assert all(refs[i].read() == rows[i] for i in order)


def test_threads_read_each_window_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = images(600, 1000)
    refs = written(tmp_path / "t.parquet", rows, 200)
    taken: Counter[int] = Counter()
    take = cells._Table._take

    def counting(self: cells._Table, column: str, count: int) -> list[bytes | None]:
        taken[self._next] += 1
        return take(self, column, count)

    monkeypatch.setattr(cells._Table, "_take", counting)
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(ImageRef.read, refs)) == rows
    assert set(taken.values()) == {1}
    assert sum(taken.values()) == 3 * 13  # windows of 16 in three groups of 200


def test_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "MOST_BYTES", 100_000)
    rows = images(400, 5000)
    refs = written(tmp_path / "t.parquet", rows, 400)
    most = 0
    for ref, row in zip(refs, rows, strict=True):
        assert ref.read() == row
        most = max(most, cells._SHARED._bytes)
    assert most <= 100_000
    assert cells._SHARED._bytes == sum(map(cells._weight, cells._SHARED._windows.values()))


@pytest.mark.parametrize(("size", "wanted"), [(100, 16), (10_000, 9), (200_000, 1)])
def test_fewer_large_images_are_read_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, wanted: int
) -> None:
    monkeypatch.setattr(cells, "WINDOW_BYTES", 100_000)
    rows = images(40, size)
    refs = written(tmp_path / "t.parquet", rows, 20, use_dictionary=False)
    assert [ref.read() for ref in refs] == rows
    assert max(map(len, cells._SHARED._windows.values())) == wanted


def test_open_files_are_bounded(tmp_path: Path) -> None:
    refs = [written(tmp_path / f"{n}.parquet", images(n + 1))[n] for n in range(20)]
    for _ in range(2):
        assert [ref.read() for ref in refs] == [images(n + 1)[n] for n in range(20)]
    assert len(cells._SHARED._tables) <= cells.MOST_FILES
    assert not cells._SHARED._opening


def test_a_damaged_group_costs_its_rows_alone(tmp_path: Path) -> None:
    rows = images(150, 1000)
    path = tmp_path / "t.parquet"
    refs = written(path, rows, 50, use_dictionary=False, write_page_checksum=True)
    start = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    raw, stamp = bytearray(path.read_bytes()), path.stat()
    raw[start + 5000 : start + 6000] = bytes(1000)
    path.write_bytes(raw)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    failed = []
    for ref, row in zip(refs, rows, strict=True):
        try:
            assert ref.read() == row
        except ImageError as error:
            assert "its row group is damaged" in str(error)  # noqa: PT017
            failed.append(ref.offset)
    assert failed
    assert failed == list(range(failed[0], 100))
    assert failed[0] >= 50


def test_want_of_memory_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = images(40)
    refs = written(tmp_path / "t.parquet", rows)
    assert refs[0].read() == rows[0]

    def short(*_: object) -> list[bytes | None]:
        raise pa.ArrowMemoryError("malloc of size 64 failed")

    with monkeypatch.context() as patch:
        patch.setattr(cells._Table, "_take", short)
        with pytest.raises(ImageError, match=r"^not enough memory to read it$"):
            refs[20].read()
    assert [ref.read() for ref in refs] == rows


def test_a_file_that_changed_or_went_after_it_was_listed(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    refs = written(path, images(40))
    assert refs[0].read()
    written(path, images(41))
    with pytest.raises(ImageError, match="its Parquet file has changed since it was listed"):
        refs[0].read()
    path.unlink()
    with pytest.raises(ImageError, match=r"^its Parquet file does not exist$"):
        refs[1].read()


@pytest.mark.parametrize(
    ("inside", "row"), [("image", 40), ("image", -2), ("gone", 0), ("image.bytes", 0), ("n", 0)]
)
def test_references_out_of_a_damaged_plan(tmp_path: Path, inside: str, row: int) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"image": images(40), "n": list(range(40))}), path)
    here = path.stat()
    ref = ImageRef("k", str(path), row, -1, here.st_size, here.st_mtime_ns, inside)
    with pytest.raises(ImageError, match=r"row|Parquet"):
        ref.read()


def test_no_parquet_at_all(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(b"hello")
    for path in (tmp_path / "t.parquet", tmp_path):
        with pytest.raises(ImageError, match="its Parquet file cannot be read"):
            ImageRef("k", str(path), 0, inside="image").read()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_starts_afresh(tmp_path: Path) -> None:
    rows = images(100)
    refs = written(tmp_path / "t.parquet", rows)
    assert refs[3].read() == rows[3]
    with cells._SHARED._lock:  # held by another thread at the time of the fork, say
        child = os.fork()
        if not child:
            timer = threading.Timer(20, os._exit, (3,))
            timer.daemon = True
            timer.start()
            os._exit(0 if refs[4].read() == rows[4] else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert refs[5].read() == rows[5]
