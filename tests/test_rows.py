"""Rows and the files they are written to."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import byname.rows
from byname.errors import OutputError
from byname.rows import SCHEMA, Row, check_output, read_rows, rows_of, write_rows
from tests.helpers import as_nobody, open_to_all

KINDS = ["csv", "jsonl", "parquet", "CSV"]
ODD = [
    "a,b", 'say "hi"', "two\nlines", "two\r\nlines", "\r", "line\u2028separator",
    "\u200f\u202eright", "=1+1", "@x", "'", '"', '""', "\\", "\\n", "", " ", "NA", "null", "NaN",
    "None", "#N/A",
    "true", "007", "1e5", "\t", "\x00", "\x1b[31m", "\ufeff", "e\u0301", "\N{CAT FACE}",
]  # fmt: skip


def row(name: str, label: str | None = "cat", rank: int = 1) -> Row:
    return Row(name, rank, label, label, 0.5, 0.25, 2, "animals/cat", "accept", None)


def table_of(rows: list[Row]) -> pa.Table:
    return pa.Table.from_pylist([asdict(r) for r in rows], schema=SCHEMA)


ROWS = [
    *(row(f"{i}{text}.jpg", text) for i, text in enumerate(ODD)),
    row("b.jpg", "dog", 2),
    Row("broken.jpg", 1, *[None] * 7, "empty file (0 bytes)"),
]


@pytest.mark.parametrize("kind", KINDS)
def test_round_trip(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"o.{kind}"
    write_rows(table_of(ROWS), path, {"command": ["byname"]})
    found = read_rows(path)
    assert rows_of(found) == ROWS
    assert found.schema.names == SCHEMA.names
    assert json.loads((tmp_path / f"o.{kind}.run.json").read_text()) == {"command": ["byname"]}
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_round_trip_of_nothing(tmp_path: Path, kind: str) -> None:
    write_rows(table_of([]), tmp_path / f"o.{kind}", {})
    assert rows_of(read_rows(tmp_path / f"o.{kind}")) == []


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.sampled_from(KINDS),
    st.lists(st.tuples(st.text(), st.one_of(st.none(), st.text())), max_size=5),
)
def test_round_trip_of_any_text(
    tmp_path: Path, kind: str, texts: list[tuple[str, str | None]]
) -> None:
    rows = [row(name, label) for name, label in texts]
    write_rows(table_of(rows), tmp_path / f"o.{kind}", {})
    assert rows_of(read_rows(tmp_path / f"o.{kind}")) == rows


def test_every_json_line_is_one_object(tmp_path: Path) -> None:
    write_rows(table_of(ROWS), tmp_path / "o.jsonl", {})
    lines = (tmp_path / "o.jsonl").read_bytes().split(b"\n")
    assert lines.pop() == b""
    assert [json.loads(x)["file_name"] for x in lines] == [r.file_name for r in ROWS]


def test_a_csv_that_went_through_a_spreadsheet(tmp_path: Path) -> None:
    path = tmp_path / "o.csv"
    lines = [",".join(SCHEMA.names), "a.jpg,1,NA,null,0.5,0.25,1,NA,accept,", "b.jpg,1,,,,,,,,bad"]
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode() + b"\r\n")
    first, second = rows_of(read_rows(path))
    assert (first.class_id, first.label, first.error) == ("NA", "null", None)
    assert (second.class_id, second.probability, second.error) == (None, None, "bad")


# Where it cannot be written


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("o.txt", "its ending is '.txt'. Use one of .csv, .jsonl, .parquet."),
        ("o", "it has no ending. Use one of .csv, .jsonl, .parquet."),
        ("o.csv.gz", "its ending is '.gz'. Use one of .csv, .jsonl, .parquet."),
        ("no/o.csv", "the folder '{}/no' does not exist. Create it first (mkdir -p '{}/no')."),
        ("file/o.csv", "the folder '{}/file' is a file. Create it first (mkdir -p '{}/file')."),
        ("dir.csv", "it is a folder. Give the name of a file."),
    ],
)
def test_outputs_that_cannot_be(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dir.csv").mkdir()
    with pytest.raises(OutputError) as caught:
        check_output(tmp_path / name)
    message = message.replace("{}", str(tmp_path))
    assert str(caught.value) == f"cannot write '{tmp_path / name}': {message}"


def test_outputs_that_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "old.csv").write_text("old")
    monkeypatch.chdir(tmp_path)
    for name in ("o.csv", "old.csv", "o.JSONL", "./o.parquet"):
        check_output(Path(name))
    check_output(tmp_path / "e.x", suffixes=(".x",))
    assert (tmp_path / "old.csv").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["old.csv"]


def test_a_read_only_folder_of_an_unprivileged_user(tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir()
    folder.chmod(0o555)
    open_to_all(folder)

    def action() -> None:
        with pytest.raises(OutputError) as caught:
            check_output(folder / "o.csv")
        assert str(caught.value) == (
            f"cannot write '{folder / 'o.csv'}': the folder '{folder}' cannot be written to "
            "(Permission denied). Choose another folder."
        )
        with pytest.raises(OutputError, match="Permission denied"):
            write_rows(table_of(ROWS), folder / "o.csv", {})

    as_nobody(action)


@pytest.mark.parametrize("kind", KINDS)
def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"o.{kind}"
    write_rows(table_of(ROWS[:3]), path, {"first": 1})
    before = path.read_bytes()

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(byname.rows.pa_csv, "CSVWriter", full)
    monkeypatch.setattr(byname.rows, "_json_lines", full)
    monkeypatch.setattr(byname.rows.pq, "ParquetWriter", full)
    with pytest.raises(OutputError) as caught:
        write_rows(table_of(ROWS), path, {"second": 2})
    assert str(caught.value) == (
        f"cannot write '{path}': No space left on device. "
        "The computed vectors are kept in the cache."
    )
    assert path.read_bytes() == before
    assert "first" in (tmp_path / f"o.{kind}.run.json").read_text()
    assert len(list(tmp_path.iterdir())) == 2


# Files that are not ours


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("o.csv", b""),
        ("o.csv", b"name,label\na,b\n"),
        ("o.csv", b"\xff\xfe\x00"),
        ("o.csv", ",".join(SCHEMA.names).encode() + b"\na,first,,,,,,,,\n"),
        ("o.csv", ",".join(SCHEMA.names).encode() + b"\n,1,,,,,,,,\n"),
        ("o.jsonl", b"[]"),
        ("o.jsonl", b"[1, 2]"),
        ("o.jsonl", b"3"),
        ("o.jsonl", b"null"),
        ("o.jsonl", b'{"file_name": "a", "rank": 1}'),
        ("o.jsonl", b'{"a": '),
        ("o.jsonl", b"[" * 200_000),
        ("o.jsonl", b"\xff"),
        ("o.parquet", b"hello"),
        ("o.parquet", b""),
    ],
)
def test_foreign_files_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(OutputError) as caught:
        read_rows(tmp_path / name)
    text = str(caught.value)
    assert text.startswith(f"cannot read the rows in '{tmp_path / name}': it does not hold byname")
    assert text.endswith("Give an output of 'byname classify'.")
    assert "\n" not in text


def test_foreign_parquet_and_wrong_types_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "o.parquet"
    pq.write_table(pa.table({"file_name": ["a"]}), path)
    with pytest.raises(OutputError, match="does not hold byname's rows"):
        read_rows(path)
    pq.write_table(table_of(ROWS).set_column(1, "rank", pa.array(["x"] * len(ROWS))), path)
    with pytest.raises(OutputError, match="does not hold byname's rows"):
        read_rows(path)
    (tmp_path / "o.jsonl").write_text(json.dumps(asdict(ROWS[0]) | {"rank": "first"}))
    with pytest.raises(OutputError, match="does not hold byname's rows"):
        read_rows(tmp_path / "o.jsonl")


def test_a_missing_output(tmp_path: Path) -> None:
    with pytest.raises(OutputError) as caught:
        read_rows(tmp_path / "o.csv")
    assert str(caught.value) == (
        f"cannot read the rows in '{tmp_path / 'o.csv'}': there is no such file. "
        "Make it with 'byname classify -o'."
    )
