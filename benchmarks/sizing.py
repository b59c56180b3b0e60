"""What a run of many images takes on disk, and on paper what a very large one would cost.

``python benchmarks/sizing.py`` writes a few shards of made-up vectors in the real formats and
prints bytes and seconds for a million images. ``--images 5e9 --decode 200 --encode 1500`` adds the
arithmetic of a large run, from rates that you have measured on your machines.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from byname.embeddings import Embeddings
from byname.images.refs import ImageRef
from byname.rows import SCHEMA, write_rows
from byname.runs.parts import Row, part_paths, rows_table, write_part
from byname.runs.planfile import write_inputs

ROWS = 8192


def keys(count: int) -> list[str]:
    """Names as long as those of a large collection: tar, and a number in it."""
    return [f"shard-{i // 10_000:06d}.tar/{i:012d}.jpg" for i in range(count)]


def sizes(dim: int, shard: int, folder: Path) -> dict[str, tuple[float, float]]:
    """Bytes and seconds an image, of every kind of file."""
    rng = np.random.default_rng(0)
    names = keys(ROWS)
    X = rng.normal(size=(ROWS, dim)).astype(np.float32)
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    found: dict[str, tuple[float, float]] = {}

    start = time.perf_counter()
    refs = [
        ImageRef(n, f"/data/{n[:16]}", i * 40_960, 40_000, 10**9, 1) for i, n in enumerate(names)
    ]
    write_inputs(folder, refs, shard, "0" * 64)
    found["inputs.parquet"] = per_image([folder / "inputs.parquet"], start)

    start, paths = time.perf_counter(), []
    for index, first in enumerate(range(0, ROWS, shard)):
        part = range(first, min(first + shard, ROWS))
        rows = [
            Row(i - first, names[i], rng.bytes(16), X[i].astype(np.float16), None) for i in part
        ]
        write_part(folder, index, rows_table(rows, dim), {"rows": len(rows), "errors": 0})
        paths += part_paths(folder, index)[:2]
    found["parts and marks"] = per_image(paths, start)

    start = time.perf_counter()
    Embeddings(tuple(names), X).save(folder / "merged.parquet")
    found["merged .parquet"] = per_image([folder / "merged.parquet"], start)

    table = answers(names)
    for suffix in ("parquet", "csv", "jsonl"):
        start = time.perf_counter()
        write_rows(table, folder / f"rows.{suffix}", {})
        found[f"rows .{suffix}, k = 1"] = per_image([folder / f"rows.{suffix}"], start)
    return found


def answers(names: list[str]) -> pa.Table:
    """Rows as ``byname classify`` writes them, for 100 classes."""
    rng, n = np.random.default_rng(1), len(names)
    chosen = [f"{i:03d}" for i in rng.integers(0, 100, n)]
    columns = {
        "file_name": names,
        "rank": np.ones(n, np.int32),
        "class_id": [f"group.class_{c}" for c in chosen],
        "label": [f"class {c}" for c in chosen],
        "probability": rng.random(n).astype(np.float32),
        "margin": rng.random(n).astype(np.float32),
        "level": np.full(n, 2, np.int32),
        "path": [f"group/group.class_{c}" for c in chosen],
        "decision": ["accept"] * n,
        "error": pa.nulls(n, pa.string()),
    }
    return pa.table({name: columns[name] for name in SCHEMA.names}).cast(SCHEMA)


def per_image(paths: list[Path], start: float) -> tuple[float, float]:
    """Bytes and seconds an image."""
    return sum(p.stat().st_size for p in paths) / ROWS, (time.perf_counter() - start) / ROWS


def on_paper(asked: argparse.Namespace, stored: float) -> list[tuple[str, str]]:
    """A run of so many images, from rates and prices that were given."""
    n = asked.images
    cores, devices = n / asked.decode / 3600, n / asked.encode / 3600
    runs = -(-n // asked.run_size)
    return [
        ("runs", f"{runs:,.0f} of {asked.run_size:,.0f} images"),
        ("shards of a run", f"{asked.run_size / asked.shard_size:,.0f} of {asked.shard_size:,}"),
        ("reading and decoding, core hours", f"{cores:,.0f}"),
        ("encoding, device hours", f"{devices:,.0f}"),
        ("cores that keep a device busy", f"{asked.encode / asked.decode:.1f}"),
        ("days with " + f"{asked.devices} devices", f"{devices / asked.devices / 24:,.1f}"),
        ("vectors on disk, TB", f"{n * stored / 1e12:,.1f}"),
        ("cores", f"${cores * asked.core_price:,.0f}"),
        ("devices", f"${devices * asked.device_price:,.0f}"),
        ("a month of storage", f"${n * stored / 1e9 * asked.storage_price:,.0f}"),
    ]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--shard-size", type=int, default=1024)
    parser.add_argument("--images", type=float, help="of the run on paper: 5e9")
    parser.add_argument("--run-size", type=float, default=1e7, help="images of one run folder")
    parser.add_argument("--decode", type=float, help="images a second that one core decodes")
    parser.add_argument("--encode", type=float, help="images a second of one device")
    parser.add_argument("--devices", type=int, default=16)
    parser.add_argument("--core-price", type=float, default=0.04, help="dollars an hour")
    parser.add_argument("--device-price", type=float, default=2.0, help="dollars an hour")
    parser.add_argument("--storage-price", type=float, default=0.023, help="dollars a GB and month")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = sizes(asked.dim, min(asked.shard_size, ROWS), Path(folder))
    out = csv.writer(sys.stdout, delimiter="|", lineterminator="\n")
    out.writerow([f"D = {asked.dim}", "GB a million images", "seconds a million images"])
    for name, (size, seconds) in found.items():
        out.writerow([name, f"{size / 1e3:.3f}", f"{seconds * 1e6:.0f}"])
    if asked.images:
        if not (asked.decode and asked.encode):
            parser.error("a run on paper needs --decode and --encode, measured on your machines")
        print()
        for row in on_paper(asked, found["parts and marks"][0]):
            out.writerow(row)


if __name__ == "__main__":
    main()
