"""Images a second: byname beside hand-written scripts, one interleaved run, ratios and medians.

    python benchmarks/throughput.py MODEL IMAGES PEERS [--peer-python PYTHON] [--rounds 3]

MODEL holds ``onnx``, ``hf`` and ``labels`` of one encoder; PEERS holds ``manual_onnx.py``,
``hf_pipeline.py`` and ``open_clip_script.py``, each of which ends with a line ``RESULT {json}``.
PYTHON is an interpreter with torch, transformers and open_clip; without it those two are left out.

Every run is a process of its own with two threads and 100 labels; runs take turns (A B C A B C),
and a ratio is taken within one round. Slow peers get fewer images. byname's rate is what its own
run record says (decoding, encoding, answers); the scripts' is that of their image loop. The check
of int8 against fp32 is left out (``int8-unchecked``), because random weights have no classes to
agree on; the scripts do not check either.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LIMITS = {"pipeline_b16": 64, "open_clip_b16": 96}
TARGETS = (
    ("byname_int8", "script_int8_thread", 1.05),
    ("byname_int8", "pipeline_b16", 6.0),
    ("byname_int8", "open_clip_b16", 3.3),
    ("byname_fp32", "script_fp32", 1.0),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("peers", type=Path)
    parser.add_argument("--peer-python")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--limit", type=int, default=400)
    parser.add_argument("--only", help="some of the runs, as a,b", default="")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        runs = configurations(args, Path(place))
        if chosen := set(filter(None, args.only.split(","))):
            runs = {name: run for name, run in runs.items() if name in chosen}
        for name in {"script_int8_thread", "byname_int8"} & set(runs):
            runs[name](True)  # quantises, and warms the file cache
        rows: list[dict[str, dict[str, float]]] = []
        for k in range(args.rounds):
            rows.append({})
            for name, run in runs.items():
                rows[-1][name] = run(False)
                print(f"round {k + 1} {name}: {rows[-1][name]['rate']:.1f}/s", file=sys.stderr)
    report(rows, args)


def configurations(
    args: argparse.Namespace, place: Path
) -> dict[str, Callable[[bool], dict[str, float]]]:
    labels, threads = args.model / "labels/imagenet_100.txt", ["--threads", str(args.threads)]
    onnx, python = args.model / "onnx", args.peer_python or sys.executable

    def peer(name: str, script: str, *arguments: str | Path) -> Callable[[bool], dict[str, float]]:
        limit = min(LIMITS.get(name, args.limit), args.limit)

        def run(warm_up: bool) -> dict[str, float]:
            count = 16 if warm_up else limit
            command = [python, args.peers / script, *arguments, *threads, "--limit", str(count)]
            text, wall, cpu = timed(command, args.peers)
            last = next(x for x in reversed(text.splitlines()) if x.startswith("RESULT "))
            told = json.loads(last[7:])
            rate = told.get("loop_images_per_s", told["images_per_s"])
            return row(count, rate, wall, cpu)

        return run

    def own(name: str, precision: str) -> Callable[[bool], dict[str, float]]:
        limit = min(LIMITS.get(name, args.limit), args.limit)

        def run(warm_up: bool) -> dict[str, float]:
            count = 16 if warm_up else limit
            out = place / "out.csv"
            command = [
                *(sys.executable, "-m", "byname", "classify", linked(args.images, place, count)),
                *("-c", labels, "-e", f"onnx:{onnx}", "--template", "This is a photo of {}."),
                *("--no-cache", "--quiet", "--precision", precision, "-o", out, *threads),
            ]
            _, wall, cpu = timed(command, ROOT)
            told = json.loads((place / "out.csv.run.json").read_text())
            assert told["counts"]["encoded"] == count, told["counts"]
            return row(count, count / told["seconds"]["images"], wall, cpu)

        return run

    script = (onnx, args.images, labels)
    found = {}
    if args.peer_python:
        found["pipeline_b16"] = peer(
            "pipeline_b16", "hf_pipeline.py", args.model / "hf", *script[1:], "--batch-size", "16"
        )
        found["open_clip_b16"] = peer(
            "open_clip_b16", "open_clip_script.py", *script[1:], "--templates", "1"
        )
    thread = ("--precision", "int8", "--decode-threads", "1")
    found["script_fp32"] = peer("script_fp32", "manual_onnx.py", *script)
    found["byname_fp32"] = own("byname_fp32", "fp32")
    found["script_int8_thread"] = peer("script_int8_thread", "manual_onnx.py", *script, *thread)
    found["byname_int8"] = own("byname_int8", "int8-unchecked")
    return found


def row(count: int, rate: float, wall: float, cpu: float) -> dict[str, float]:
    return {"images": count, "rate": rate, "wall": wall, "start": wall - count / rate, "cpu": cpu}


def linked(images: Path, place: Path, count: int) -> Path:
    """A folder of links to evenly spaced images."""
    folder = place / f"images-{count}"
    if not folder.exists():
        folder.mkdir()
        paths = sorted(p.resolve() for p in images.rglob("*") if p.suffix.lower() == ".jpg")
        assert len(paths) >= count, f"{len(paths)} images, {count} wanted"
        for path in (paths[i * len(paths) // count] for i in range(count)):
            (folder / path.name).symlink_to(path)
    return folder


def timed(command: list[Any], folder: Path) -> tuple[str, float, float]:
    """Output, seconds on the clock and on the processors."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [str(x) for x in command],
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "2", "HF_HUB_OFFLINE": "1"},
    )
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{command} failed:\n{done.stderr[-3000:]}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done.stdout, wall, cpu


def report(rows: list[dict[str, dict[str, float]]], args: argparse.Namespace) -> None:
    def middle(name: str, key: str) -> float:
        return statistics.median(r[name][key] for r in rows)

    print(
        f"\n{args.rounds} interleaved rounds, {args.threads} threads each, 100 labels, "
        f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f} (own runs included)\n"
    )
    print("| run | images | images/s | start-up s | whole s | images/CPU-s, whole |")
    print("|---|---|---|---|---|---|")
    for name in rows[0]:
        count = rows[0][name]["images"]
        print(
            f"| {name} | {count:.0f} | {middle(name, 'rate'):.1f} | {middle(name, 'start'):.2f} | "
            f"{middle(name, 'wall'):.1f} | {count / middle(name, 'cpu'):.1f} |"
        )
    print("\n| ratio of rates within a round | median | range | wanted |\n|---|---|---|---|")
    for own, other, wanted in TARGETS:
        if {own, other} <= set(rows[0]):
            ratio(f"{own} / {other}", [r[own]["rate"] / r[other]["rate"] for r in rows], wanted)
    for own, other in (("byname_int8", "script_int8_thread"), ("byname_fp32", "script_fp32")):
        if not {own, other} <= set(rows[0]):
            continue
        whole = [r[other]["wall"] / r[own]["wall"] for r in rows]
        ratio(f"whole command, {own} / {other}", whole, 0.95)


def ratio(name: str, values: list[float], wanted: float) -> None:
    middle = statistics.median(values)
    print(f"| {name} | {middle:.2f} | {min(values):.2f}-{max(values):.2f} | >= {wanted} |")


if __name__ == "__main__":
    main()
