"""The rows that byname answers, and the files they are written to."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from byname.errors import BynameError, OutputError
from byname.files import atomic_path, parse_json

__all__ = [
    "SCHEMA",
    "Row",
    "check_output",
    "read_rows",
    "rows_of",
    "write_csv",
    "write_record",
    "write_rows",
]

SCHEMA = pa.schema(
    [
        ("file_name", pa.string()),
        ("rank", pa.int32()),
        ("class_id", pa.string()),
        ("label", pa.string()),
        ("probability", pa.float32()),
        ("margin", pa.float32()),
        ("level", pa.int32()),
        ("path", pa.string()),
        ("decision", pa.string()),
        ("error", pa.string()),
    ]
)
ROW_GROUP = 65_536
SUFFIXES = (".csv", ".jsonl", ".parquet")


@dataclass(frozen=True)
class Row:
    """One answer: image, rank, class, and how sure; or one file that could not be read.

    Parameters
    ----------
    file_name : str
        Relative to the images' folder, POSIX form.
    rank : int
        From 1.
    class_id, label : str or None
        Id and display name of the class or taxonomy node.
    probability, margin : float or None
        ``margin`` is p1 - p2, the same on every rank of an image.
    level : int or None
        Depth of the node; the root is 0.
    path : str or None
        Ids from below the root, joined by "/".
    decision : {"accept", "backoff", "reject"} or None
    error : str or None
    """

    file_name: str
    rank: int
    class_id: str | None
    label: str | None
    probability: float | None
    margin: float | None
    level: int | None
    path: str | None
    decision: Literal["accept", "backoff", "reject"] | None
    error: str | None


def rows_of(table: pa.Table) -> list[Row]:
    """A table of the rows schema as objects."""
    return [Row(**record) for record in table.to_pylist()]


def check_output(path: Path, *, suffixes: tuple[str, ...] = SUFFIXES) -> None:
    """Refuse an output that cannot be written, before any work is done.

    Raises
    ------
    OutputError
        For an unknown suffix, a missing or read-only folder, or a folder in place of a file.
    """
    asked = f"write '{path}'"
    if path.suffix.lower() not in suffixes:
        seen = f"its ending is '{path.suffix}'" if path.suffix else "it has no ending"
        raise OutputError(asked, seen, f"Use one of {', '.join(suffixes)}.")
    if path.is_dir():
        raise OutputError(asked, "it is a folder", "Give the name of a file.")
    folder = path.absolute().parent
    if not folder.is_dir():
        seen = f"the folder '{folder}' " + ("is a file" if folder.exists() else "does not exist")
        raise OutputError(asked, seen, f"Create it first (mkdir -p '{folder}').")
    try:
        # Asking the file system is surer than reading permission bits.
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(
            asked,
            f"the folder '{folder}' cannot be written to ({error.strerror})",
            "Choose another folder.",
        ) from None


def write_rows(
    rows: pa.Table | Iterable[pa.Table],
    path: Path,
    run: Mapping[str, Any] | Callable[[], Mapping[str, Any]],
) -> None:
    """Write the rows by the file's ending, and ``<path>.run.json`` beside it; both whole or not.

    Tables are written as they come, so that none but the last is in memory. ``run`` may be a
    function, which is called when all of them are written.
    """
    tables = [rows] if isinstance(rows, pa.Table) else rows
    try:
        with atomic_path(path) as temporary:
            if path.suffix.lower() == ".parquet":
                _write_parquet(tables, temporary)
            elif path.suffix.lower() == ".jsonl":
                with temporary.open("w", encoding="utf-8", newline="\n") as file:
                    for table in tables:
                        file.writelines(line + "\n" for line in _json_lines(table))
            else:
                with temporary.open("wb") as stream, pa_csv.CSVWriter(stream, SCHEMA) as writer:
                    for table in tables:
                        writer.write_table(table)
        write_record(path, run() if callable(run) else run)
    except BynameError:
        raise  # of whoever makes the tables
    except OSError as error:
        raise OutputError(
            f"write '{path}'",
            error.strerror or str(error),
            "The computed vectors are kept in the cache.",
        ) from None


def _write_parquet(tables: Iterable[pa.Table], path: Path) -> None:
    """Row groups of about ``ROW_GROUP`` rows, however small the tables are."""
    held: list[pa.Table] = []
    with pq.ParquetWriter(path, SCHEMA) as writer:
        for table in tables:
            held.append(table)
            if sum(map(len, held)) >= ROW_GROUP:
                writer.write_table(pa.concat_tables(held))
                held = []
        if held:
            writer.write_table(pa.concat_tables(held))


def write_record(path: Path, run: Mapping[str, Any]) -> None:
    """``<path>.run.json``."""
    with atomic_path(path.with_name(path.name + ".run.json")) as temporary:
        text = json.dumps(run, indent=1, ensure_ascii=False, default=str)
        temporary.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


def write_csv(table: pa.Table, stream: IO[bytes]) -> None:
    """CSV with a header; an absent value is an empty cell, texts are quoted."""
    pa_csv.write_csv(table, stream)


def _json_lines(table: pa.Table) -> Iterator[str]:
    for batch in table.to_batches(max_chunksize=10_000):
        for record in batch.to_pylist():
            for name in ("probability", "margin"):
                if record[name] is not None:
                    record[name] = round(record[name], 6)
            yield json.dumps(record, ensure_ascii=False)


def read_rows(path: Path) -> pa.Table:
    """Read what :func:`write_rows` wrote.

    Raises
    ------
    OutputError
        For a missing file or one that does not hold byname's rows.
    """
    asked = f"read the rows in '{path}'"
    if not path.is_file():
        raise OutputError(asked, "there is no such file", "Make it with 'byname classify -o'.")
    try:
        if path.suffix.lower() == ".parquet":
            table = pq.read_table(path)
        elif path.suffix.lower() == ".jsonl":
            lines = path.read_text(encoding="utf-8").split("\n")
            records = [parse_json(x) for x in lines if x]
            # from_pylist would fill what a foreign file lacks with nulls.
            if not all(isinstance(r, dict) and r.keys() >= set(SCHEMA.names) for r in records):
                raise ValueError("a line is without some of its names")
            table = pa.Table.from_pylist(records, schema=SCHEMA)
        else:
            # Only an empty cell is absent: a class may be called "NA" or "null".
            options = pa_csv.ConvertOptions(
                column_types=SCHEMA,
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
                null_values=[""],
            )
            parse = pa_csv.ParseOptions(newlines_in_values=True)
            table = pa_csv.read_csv(path, convert_options=options, parse_options=parse)
        table = table.select(SCHEMA.names).cast(SCHEMA)
        if table["file_name"].null_count or table["rank"].null_count:
            raise ValueError("rows without a file name or rank")
        return table
    except (OSError, ValueError, KeyError, AttributeError, pa.ArrowException) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise OutputError(
            asked,
            f"it does not hold byname's rows ({reason})",
            "Give an output of 'byname classify'.",
        ) from None
