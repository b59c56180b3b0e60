"""Lists of images: text, CSV, TSV, Parquet."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from byname.errors import ImageError
from byname.images.sources import open_source

from .samples import keys, put, refusal


@pytest.fixture
def listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Images beside a list, and one in the current folder only."""
    put(tmp_path, "lists/in/a.jpg", "lists/b c.jpg", "cwd/c.jpg", "cwd/in/a.jpg", data=b"beside")
    (tmp_path / "cwd" / "in" / "a.jpg").write_bytes(b"cwd")
    (tmp_path / "cwd" / "c.jpg").write_bytes(b"cwd")
    monkeypatch.chdir(tmp_path / "cwd")
    return tmp_path / "lists"


ENTRIES = ["./in/a.jpg", "b c.jpg", "c.jpg", "gone.jpg"]


@pytest.mark.parametrize(
    "kind", ["txt", "bom.txt", "crlf.txt", "csv", "tsv", "parquet", "dict.parquet"]
)
def test_lists(listed: Path, kind: str) -> None:
    path = listed / f"list.{kind}"
    if kind.endswith("parquet"):
        column = pa.array(ENTRIES)
        column = column.dictionary_encode() if kind.startswith("dict") else column
        pq.write_table(pa.table({"label": [1, 2, 3, 4], "file_name": column}), path)
    elif kind.endswith("txt"):
        end = "\r\n" if kind.startswith("crlf") else "\n"
        bom = b"\xef\xbb\xbf" if kind.startswith("bom") else b""
        path.write_bytes(bom + end.join(ENTRIES).encode() + b"\n\n")
    else:
        mark = "," if kind == "csv" else "\t"
        rows = [f"label{mark}File_Name", *(f'x{mark}"{e}"' for e in ENTRIES), ""]
        path.write_bytes("\n".join(rows).encode("utf-8-sig"))
    source = open_source(path)
    assert keys(source) == ["b c.jpg", "c.jpg", "gone.jpg", "in/a.jpg"]
    assert source.kind == "list"
    assert source.root == str(path)
    assert source.warnings == ("1 of 4 listed files do not exist (first: 'gone.jpg')",)
    assert [source.refs[i].read() for i in (0, 1, 3)] == [b"beside", b"cwd", b"beside"]
    with pytest.raises(ImageError, match=r"^the file does not exist$"):
        source.refs[2].read()


def test_absolute_windows_and_repeated_entries(listed: Path) -> None:
    absolute = str(listed / "b c.jpg")
    (listed / "l.txt").write_text(f"in\\a.jpg\n{absolute}\nin\\a.jpg\nb c.jpg\n./b c.jpg\n")
    source = open_source(listed / "l.txt")
    assert keys(source) == sorted([absolute, "b c.jpg", "in/a.jpg"])
    assert source.warnings == (
        "2 entries repeat the name of an earlier one and were left out (first: 'b c.jpg')",
    )
    assert all(ref.read() for ref in source.refs)


def test_columns(listed: Path) -> None:
    path = listed / "l.csv"
    path.write_text("id,path,photo\n1,b c.jpg,in/a.jpg\n2,,\n3\n")
    assert keys(open_source(path)) == ["b c.jpg"]
    assert keys(open_source(path, image_column="photo")) == ["in/a.jpg"]
    assert refusal(path, image_column="phto") == (
        f"cannot read the list of images '{path}': there is no column 'phto'; its columns are "
        "'id', 'path', 'photo'. Name one of them as the image column."
    )
    path.write_text("id,photo\n1,in/a.jpg\n")
    assert refusal(path) == (
        f"cannot read the list of images '{path}': none of its columns 'id', 'photo' is called "
        "file_name, filename, image, image_path, path, file, filepath. Say which column holds the "
        "paths: --image-column NAME, or image_column= in Python."
    )
    for mark in (";", "\t"):  # as spreadsheets save a .csv in half of Europe
        path.write_text(f"id{mark}photo\n1{mark}in/a.jpg\n2{mark}b c.jpg\n")
        assert keys(open_source(path, image_column="photo")) == ["b c.jpg", "in/a.jpg"]
    path.write_text("image,file_name\na,b c.jpg\n")
    assert keys(open_source(path)) == ["b c.jpg"]  # the order of preference, not of the file
    (listed / "l.txt").write_text("b c.jpg\n")
    assert "a text file has no column 'x'" in refusal(listed / "l.txt", image_column="x")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("l.txt", b"caf\xe9.jpg\n", "byte 0xe9 at offset 3 is not UTF-8. Save it as UTF-8"),
        ("l.csv", b"path\ncaf\xe9.jpg\n", "byte 0xe9 at offset 8 is not UTF-8"),
        ("l.txt", "a.jpg".encode("utf-16"), "it is UTF-16, not UTF-8. Save it as UTF-8"),
        ("l.txt", b"", "it holds no path. Write one image path a line"),
        ("l.txt", b"\n  \n", "it holds no path"),
        ("l.csv", b"", "its first line is empty. Name the columns"),
        ("l.csv", b"path\n", "it holds no path"),
        ("l.csv", b'path\n"' + b"x" * 200_000, "field larger than field limit"),
        ("l.parquet", b"", "Check that it is a whole Parquet file"),
        ("l.parquet", b"PAR1" + bytes(40) + b"PAR1", "Check that it is a whole Parquet file"),
        ("l.parquet", b"hello", "Check that it is a whole Parquet file"),
    ],
)
def test_lists_that_cannot_be_used(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    text = refusal(path)
    assert text.startswith(f"cannot read the list of images '{path}': ")
    assert message in text


def test_a_parquet_column_that_is_not_text(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [1.5]}), tmp_path / "l.parquet")
    text = refusal(tmp_path / "l.parquet")
    assert "column 'image' holds double, not text. Give a column of paths, or of images" in text
    pq.write_table(pa.table({"path": ["a.jpg", None]}), tmp_path / "m.parquet")
    assert keys(open_source(tmp_path / "m.parquet")) == ["a.jpg"]
    pq.write_table(pa.table({"image": [{"path": "a.jpg"}, None]}), tmp_path / "n.parquet")
    assert keys(open_source(tmp_path / "n.parquet", image_column="image.path")) == ["a.jpg"]
