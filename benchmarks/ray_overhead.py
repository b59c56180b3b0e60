"""What Ray costs, and what a second worker gains: Ray and the local pool in one interleaved run.

    python benchmarks/ray_overhead.py [--rounds 3] [--images 512] [--layers 6]

A CPU-bound encoder with random weights and one thread; small photos, one reader, so that encoding
is nearly all of the work. In each round every engine makes the parts of the same plan anew: the
local pool with one and two worker processes, Ray with one and two actors on a cluster of its own.
The rate of the encode stage is that of the time in which all workers are at work, with the handing
out of shards, without start and end. The local pool is the bound for the scaling of Ray on this
machine; bare processes that only multiply matrices are the bound for both.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from byname.encoders import load_encoder
from byname.images.sources import open_source
from byname.runs.child import START
from byname.runs.create import create_run
from byname.runs.events import Done, Event
from byname.runs.job import Job
from byname.runs.plan import Plan
from byname.runs.pool import run_local
from byname.runs.ray_cluster import LOCAL, connected, import_ray
from byname.runs.ray_engine import run_ray
from tests.encoders.tiny import card, textual, tokenizer, write
from tests.helpers import make_photos

SIDE, WIDTH, DIM = 32, 2048, 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--layers", type=int, default=6, help="matrices of 2048 x 2048")
    args = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"  # for the processes that are started
    with tempfile.TemporaryDirectory() as place:
        base = Path(place)
        spec = f"onnx:{encoder(base / 'encoder', args.layers)}"
        photos = make_photos(base / "photos", args.images)
        runs = {f"{engine} {n}": (engine, n) for n in (1, 2) for engine in ("local", "ray")}
        rows: list[dict[str, dict[str, float]]] = []
        for k in range(args.rounds):
            rows.append({"bare": {f"{n}": bare(n) for n in (1, 2)}})
            for name, (engine, workers) in runs.items():
                plan = planned(
                    base / f"run-{k}-{name.replace(' ', '-')}", photos, spec, args.shards
                )
                rows[-1][name] = timed(plan, engine, workers)
                told = ", ".join(f"{key} {value:.2f}" for key, value in rows[-1][name].items())
                print(f"round {k + 1}, {name}: {told}", file=sys.stderr, flush=True)
        same(base)
        report(rows, args)


def encoder(folder: Path, layers: int) -> Path:
    """Random matrices over a grid of 16 places: nothing but multiplication."""
    return write(
        folder,
        {
            "visual.onnx": visual(layers),
            "textual.onnx": textual(dim=DIM),
            "tokenizer.json": tokenizer(),
            "preprocess.json": card(size=SIDE),
        },
    )


def visual(layers: int) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    rng, wide = np.random.default_rng(0), SIDE * SIDE * 3 // 16
    constants = [
        numpy_helper.from_array(np.array([0, 16, wide], np.int64), "grid"),
        numpy_helper.from_array(np.array([1], np.int64), "one"),
    ]
    nodes = [helper.make_node("Reshape", ["pixel_values", "grid"], ["h0"])]
    for i in range(layers):
        out = DIM if i == layers - 1 else WIDTH
        weight = rng.normal(size=(wide, out)).astype(np.float32) / np.float32(np.sqrt(wide / 2))
        constants.append(numpy_helper.from_array(weight, f"w{i}"))
        nodes.append(helper.make_node("MatMul", [f"h{i}", f"w{i}"], [f"m{i}"]))
        nodes.append(helper.make_node("Relu", [f"m{i}"], [f"h{i + 1}"]))
        wide = out
    axes = {"axes": [1], "keepdims": 0}
    nodes.append(helper.make_node("ReduceMean", [f"m{layers - 1}"], ["image_embeds"], **axes))
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "bench",
        [info("pixel_values", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])],
        [info("image_embeds", TensorProto.FLOAT, ["batch", DIM])],
        constants,
    )
    opsets = [helper.make_opsetid("", 13)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


def planned(folder: Path, photos: Path, spec: str, shards: int) -> Plan:
    source = open_source(photos)
    how = {"encoder": spec, "precision": None}
    return create_run(source, folder, load_encoder(spec), how, -(-len(source.refs) // shards))


def timed(plan: Plan, engine: str, workers: int) -> dict[str, float]:
    """Seconds of one run and of its stages; all shards are made anew."""
    spans: list[tuple[float, float]] = []

    def heard(event: Event) -> None:
        now = time.perf_counter()
        if isinstance(event, Done):
            spans.append((now - event.seconds, now))

    job = Job(str(plan.folder), threads=1, batch_size=16, readers=1)
    todo, start = range(plan.n_shards), time.perf_counter()
    cluster = 0.0
    if engine == "local":
        # Told so, it takes a process for one worker, too, as Ray does.
        command = [sys.executable, "-P", "-c", START, *sys.path]
        run_local(job, todo, workers=workers, heard=heard, command=command)
    else:
        ray = import_ray()
        with connected(ray, LOCAL, workers, 0.0):
            cluster = time.perf_counter() - start
            run_ray(job, todo, workers=workers, heard=heard)
    return {
        "whole": time.perf_counter() - start,
        "cluster": cluster,
        "first": min(begin for begin, _ in spans) - start,
        "shard": statistics.median(end - begin for begin, end in spans),
        "rate": len(plan.refs) / plan.n_shards * steady(spans, workers),
    }


def steady(spans: list[tuple[float, float]], workers: int) -> float:
    """Shards a second while all workers are at work: hand-outs are in it, start and end are not."""
    begins = sorted(begin for begin, _ in spans)
    first, last = begins[workers - 1], begins[-1]
    done = sum(max(0.0, min(end, last) - max(begin, first)) / (end - begin) for begin, end in spans)
    return done / (last - first)


def multiply(seconds: float, told: Any) -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=(256, WIDTH)).astype(np.float32) for _ in range(2))
    count, end = 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        a @ b.T
        count += 1
    told.put(count / seconds)


def bare(processes: int, seconds: float = 4.0) -> float:
    """Products a second of so many processes that do nothing else."""
    context = multiprocessing.get_context("spawn")
    told = context.Queue()
    started = [context.Process(target=multiply, args=(seconds, told)) for _ in range(processes)]
    for process in started:
        process.start()
    total = sum(told.get() for _ in started)
    for process in started:
        process.join()
    return total


def same(base: Path) -> None:
    """Every run has made the same bytes."""
    made = [
        [path.read_bytes() for path in sorted(run.glob("part-*.parquet"))]
        for run in sorted(base.glob("run-*"))
    ]
    assert made[0]
    assert all(parts == made[0] for parts in made), "the parts of two runs differ"


def report(rows: list[dict[str, dict[str, float]]], args: argparse.Namespace) -> None:
    print(
        f"\n{args.rounds} interleaved rounds, {args.images} images in {args.shards} shards, one "
        f"encoder thread and one reader a worker, {os.cpu_count()} processors, load "
        f"{os.getloadavg()[0]:.1f} (own runs included); all runs made the same bytes\n"
    )
    print("| run | cluster up s | first shard begun s | s a shard | images/s | whole s |")
    print("|---|---|---|---|---|---|")
    for name in (name for name in rows[0] if name != "bare"):
        keys = ("cluster", "first", "shard", "rate", "whole")
        cells = [f"{statistics.median(row[name][key] for row in rows):.2f}" for key in keys]
        print(f"| {name} | {' | '.join(cells)} |")
    print("\n| ratio within a round | median | range |\n|---|---|---|")
    for title, over, under in (
        ("encode stage, ray 2 / ray 1 (wanted >= 1.7)", "ray 2", "ray 1"),
        ("encode stage, local 2 / local 1", "local 2", "local 1"),
        ("encode stage, ray 1 / local 1", "ray 1", "local 1"),
        ("encode stage, ray 2 / local 2", "ray 2", "local 2"),
    ):
        ratio(title, [row[over]["rate"] / row[under]["rate"] for row in rows])
    ratio("bare products, 2 processes / 1", [row["bare"]["2"] / row["bare"]["1"] for row in rows])


def ratio(title: str, values: list[float]) -> None:
    print(f"| {title} | {statistics.median(values):.2f} | {min(values):.2f}-{max(values):.2f} |")


if __name__ == "__main__":
    main()
