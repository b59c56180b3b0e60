"""A million images through ``byname plan, run, merge, diagnose``: seconds, peak memory, exponent.

    python benchmarks/million.py                                  # 250k, 500k, 1M; writes 4 GB
    python benchmarks/million.py --sizes 20000,40000 --workers 1

The images are 16 x 16 pixels, a class's colours with noise, stored in Parquet files; the encoder is
a random projection to 512 numbers, so that nothing but byname itself takes time or memory. Each
step is the command as a user types it. Memory is the largest sum, over the command and its workers,
of what each holds, looked at ten times a second; and what the system says when the command ends.
The exponent is that of CPU seconds (of the command and its workers) over N without the start: what
2,000 images take, and for diagnose, which looks at samples however many there are, what a line
through 140,000 images and the most leaves for none. A first run, whose files are cold, is not used.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SIDE, DIM, CLASSES, FILE = 16, 512, 100, 100_000
HEAD = f"P6 {SIDE} {SIDE} 255\n".encode()
SMALL = 2_000
SAMPLED = 140_000  # more than any sample, and more vectors than are held in memory


def prototypes() -> np.ndarray:
    """(K, SIDE, SIDE, 3): tiles of colours."""
    tiles = np.random.default_rng(0).integers(0, 256, (CLASSES, 4, 4, 3))
    return np.repeat(np.repeat(tiles, SIDE // 4, axis=1), SIDE // 4, axis=2).astype(np.float32)


def encoder(folder: Path) -> Path:
    """An ONNX folder; the texts of a class lie near its images."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder.mkdir()
    rng, info, make = np.random.default_rng(1), helper.make_tensor_value_info, helper.make_node
    w = rng.normal(size=(SIDE * SIDE * 3, DIM)).astype(np.float32)
    words = ["a", *(f"class{k:03d}" for k in range(CLASSES))]
    known = ((prototypes() - 127.5).reshape(CLASSES, -1) @ w).astype(np.float32)
    table = np.concatenate([0.02 * rng.normal(size=(1, DIM)) * known.std(), known])

    def save(name: str, nodes: list, given: object, **values: np.ndarray) -> None:
        constants = [numpy_helper.from_array(a, n) for n, a in values.items()]
        outputs = [info("embedding", TensorProto.FLOAT, ["batch", DIM])]
        graph = helper.make_graph(nodes, name, [given], outputs, constants)
        opsets = [helper.make_opsetid("", 17)]
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), folder / name)

    nodes = [
        make("Cast", ["pixels"], ["x"], to=TensorProto.FLOAT),
        make("Sub", ["x", "grey"], ["centred"]),
        make("Flatten", ["centred"], ["flat"]),
        make("MatMul", ["flat", "w"], ["embedding"]),
    ]
    pixels = info("pixels", TensorProto.UINT8, ["batch", SIDE, SIDE, 3])
    save("visual.onnx", nodes, pixels, w=w, grey=np.float32(127.5))
    nodes = [
        make("Gather", ["table", "input_ids"], ["e"]),
        make("ReduceSum", ["e", "axis"], ["embedding"], keepdims=0),
    ]
    ids = info("input_ids", TensorProto.INT64, ["batch", "sequence"])
    save("textual.onnx", nodes, ids, table=table.astype(np.float32), axis=np.array([1]))
    made = Tokenizer(models.WordLevel({x: i for i, x in enumerate(words)}, unk_token="a"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.save(str(folder / "tokenizer.json"))
    card = {"size": SIDE, "mean": [0.5] * 3, "std": [0.5] * 3, "context_length": 32}
    (folder / "preprocess.json").write_text(json.dumps(card | {"causal": False}))
    return folder


def images(folder: Path, count: int) -> Path:
    """Parquet files of so many images, as Hugging Face datasets keep them."""
    folder.mkdir()
    mean = prototypes()
    for number, first in enumerate(range(0, count, FILE)):
        rng, n = np.random.default_rng([2, number]), min(FILE, count - first)
        with pq.ParquetWriter(folder / f"train-{number:05d}.parquet", SCHEMA) as writer:
            for start in range(0, n, 1000):
                rows = min(1000, n - start)
                drawn = mean[rng.integers(0, CLASSES, rows)]
                drawn = drawn + rng.normal(scale=90, size=drawn.shape).astype(np.float32)
                flat = np.clip(drawn, 0, 255).astype(np.uint8).reshape(rows, -1)
                cells = [HEAD + row.tobytes() for row in flat]
                names = [f"{first + start + i:07d}.ppm" for i in range(rows)]
                struct = pa.StructArray.from_arrays(
                    [pa.array(cells, pa.binary()), pa.array(names)], ["bytes", "path"]
                )
                writer.write_table(pa.Table.from_arrays([struct], schema=SCHEMA))
    return folder


SCHEMA = pa.schema([("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))])


@dataclass
class Used:
    """What a command took."""

    seconds: float
    cpu: float
    megabytes: float


def measured(*arguments: str | Path | int, cache: Path) -> Used:
    """Run ``byname`` with these arguments."""
    start, done, peak = time.perf_counter(), threading.Event(), [0.0]
    process = subprocess.Popen(
        [sys.executable, "-m", "byname", *map(str, arguments), "--quiet"],
        env=os.environ | {"BYNAME_CACHE": str(cache)},
        stdout=subprocess.DEVNULL,
    )

    def watch() -> None:
        while not done.wait(0.1):
            peak[0] = max(peak[0], sum(map(resident, family(process.pid))))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    _, status, used = os.wait4(process.pid, 0)
    done.set()
    watcher.join()
    assert status == 0, f"byname {arguments[0]} ended with {status}"
    own = used.ru_maxrss / 1000
    return Used(time.perf_counter() - start, used.ru_utime + used.ru_stime, max(own, peak[0]))


def family(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for one in found:
        with suppress(OSError):
            text = Path(f"/proc/{one}/task/{one}/children").read_text()
            found += map(int, text.split())
    return found


def resident(pid: int) -> float:
    """MB of memory that a process holds."""
    with suppress(OSError, IndexError, ValueError):
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
    return 0.0


def steps(count: int, workers: int, place: Path, model: Path) -> dict[str, Used]:
    """Every command on so many images."""
    source, run = images(place / f"images-{count}", count), place / f"run-{count}"
    merged, cache = place / f"merged-{count}.parquet", place / "cache"
    classes = place / "classes.txt"
    classes.write_text("\n".join(f"class{k:03d}" for k in range(CLASSES)) + "\n")
    how = ("--classes", classes, "--encoder", f"onnx:{model}")
    found = {
        "plan": measured("plan", source, run, "--encoder", f"onnx:{model}", cache=cache),
        f"run, {workers} workers": measured("run", run, "--workers", workers, cache=cache),
        "merge": measured("merge", run, "-o", merged, cache=cache),
        "classify": measured("classify", merged, *how, "-o", place / "rows.parquet", cache=cache),
        "diagnose": measured("diagnose", merged, *how, "-o", place / "report.json", cache=cache),
    }
    rows = pq.read_metadata(place / "rows.parquet").num_rows
    assert rows == count, f"{rows:,} rows of {count:,}"
    report = json.loads((place / "report.json").read_text())
    print(f"{count:,}: {rows:,} rows, {len(report)} parts of the report", file=sys.stderr)
    for path in sorted([*source.iterdir(), *run.iterdir(), merged]):
        path.unlink()
    return found


def exponent(sizes: list[int], seconds: list[float]) -> float:
    """How seconds grow with images; NaN for one size."""
    if len(sizes) < 2:
        return float("nan")
    return float(np.polyfit(np.log(sizes), np.log(np.maximum(seconds, 1e-3)), 1)[0])


def at_none(few: tuple[int, float], many: tuple[int, float]) -> float:
    """Seconds for no image, on the line through two measurements."""
    slope = (many[1] - few[1]) / (many[0] - few[0])
    return few[1] - slope * few[0]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", default="250000,500000,1000000")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--scratch", type=Path, help="where to write; default a temporary folder")
    asked = parser.parse_args()
    sizes = [int(n) for n in asked.sizes.split(",")]
    with tempfile.TemporaryDirectory(dir=asked.scratch) as name:
        place = Path(name)
        model = encoder(place / "encoder")
        steps(SMALL // 2, asked.workers, place, model)
        start = {k: u.cpu for k, u in steps(SMALL, asked.workers, place, model).items()}
        few = steps(SAMPLED, asked.workers, place, model)["diagnose"].cpu
        found = {n: steps(n, asked.workers, place, model) for n in sizes}
    most = max(sizes)
    start["diagnose"] = at_none((SAMPLED, few), (most, found[most]["diagnose"].cpu))
    print("| step | start: CPU s | " + " | ".join(f"{n:,}: s, CPU s, MB" for n in sizes), end="")
    print(" | exponent |\n" + "|---" * (len(sizes) + 3) + "|")
    for step, first in start.items():
        used = [found[n][step] for n in sizes]
        cells = [f"{u.seconds:.0f}, {u.cpu:.0f}, {u.megabytes:.0f}" for u in used]
        power = exponent(sizes, [u.cpu - first for u in used])
        print(f"| {step} | {first:.1f} | " + " | ".join(cells) + f" | {power:.3f} |")
    total = [sum(found[n][s].cpu - start[s] for s in start) for n in sizes]
    print(f"\nall steps: exponent {exponent(sizes, total):.3f}")
    peak = max(u.megabytes for steps_of in found.values() for u in steps_of.values())
    print(f"peak: {peak:,.0f} MB")


if __name__ == "__main__":
    main()
