"""What the processor could do: matrix products beside the image tower, in one interleaved run.

    python benchmarks/roofline.py FOLDER [--rounds 5]

FOLDER is an encoder folder with a ViT-B/32. The product rate is that of ONNX Runtime on one layer
of the tower (8 x 50 rows, 768 x 3072), on as many threads as byname uses; the roofline is that
rate divided by the operations of an image. The tower runs on pixels in memory, without decoding:
as byname runs it (a session of one thread, called by as many threads as there are), and beside that
as a session with all threads that is called once at a time, with batches of 16.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from byname.encoders.onnx import OnnxEncoder
from byname.encoders.sessions import open_session, split_threads

ROWS, WIDTH, WIDE, LAYERS, TOKENS, PATCH, DIM = 400, 768, 3072, 12, 50, 32, 512
IMAGES = 128


def operations() -> float:
    """Multiplications and additions of one image through a ViT-B/32."""
    patches = (TOKENS - 1) * 3 * PATCH * PATCH * WIDTH
    layer = TOKENS * (4 * WIDTH * WIDTH + 2 * WIDTH * WIDE) + 2 * TOKENS * TOKENS * WIDTH
    return 2.0 * (patches + LAYERS * layer + WIDTH * DIM)


def product(int8: bool) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    weight = np.random.default_rng(0).normal(0, 0.02, (WIDTH, WIDE)).astype(np.float32)
    info = helper.make_tensor_value_info
    if int8:
        scale = np.float32(np.abs(weight).max() / 127)
        constants = {"w": np.rint(weight / scale).astype(np.int8), "s": np.array(scale)}
        node = helper.make_node(
            "DynamicQuantizeMatMul", ["x", "w", "s"], ["y"], domain="com.microsoft"
        )
    else:
        constants = {"w": weight}
        node = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = helper.make_graph(
        [node],
        "product",
        [info("x", TensorProto.FLOAT, [ROWS, WIDTH])],
        [info("y", TensorProto.FLOAT, [ROWS, WIDE])],
        [numpy_helper.from_array(a, n) for n, a in constants.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


def product_rate(session: Any, callers: int) -> float:
    """Operations a second of all callers together."""
    x, calls = np.random.default_rng(0).normal(size=(ROWS, WIDTH)).astype(np.float32), 100

    def work(_: int) -> None:
        for _ in range(calls):
            session.run(None, {"x": x})

    with ThreadPoolExecutor(callers) as pool:
        start = time.perf_counter()
        list(pool.map(work, range(callers)))
        return 2.0 * ROWS * WIDTH * WIDE * calls * callers / (time.perf_counter() - start)


def tower_rate(encoder: OnnxEncoder) -> float:
    """Images a second."""
    size = encoder.info.preprocess.size  # type: ignore[union-attr]
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, size, size, 3), dtype=np.uint8)
    start = time.perf_counter()
    encoder.encode_images(pixels)
    return IMAGES / (time.perf_counter() - start)


def one_session(folder: Path, precision: str, threads: int) -> Callable[[], float]:
    """Images a second of a session with all threads."""
    import onnxruntime as ort

    encoder = OnnxEncoder(folder, threads=1, precision=precision)
    tower = encoder._images
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    tower.session = ort.InferenceSession(
        str(tower.path), options, providers=["CPUExecutionProvider"]
    )
    tower.pool = None

    def rate() -> float:
        size = tower.preprocess.size
        pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, size, size, 3), dtype=np.uint8)
        start = time.perf_counter()
        for i in range(0, IMAGES, 16):
            tower.call({tower.name: tower.feed(pixels[i : i + 16])})
        return IMAGES / (time.perf_counter() - start)

    return rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    callers = split_threads(args.threads)[0]
    measure: dict[str, tuple[Callable[[], float], ...]] = {}
    for name in ("fp32", "int8"):
        session = open_session(product(name == "int8"), "product", threads=1)
        precision = "fp32" if name == "fp32" else "int8-unchecked"
        encoder = OnnxEncoder(args.folder, threads=args.threads, precision=precision)
        measure[name] = (
            partial(product_rate, session, callers),
            partial(tower_rate, encoder),
            one_session(args.folder, precision, args.threads),
        )
    rows: dict[str, list[tuple[float, ...]]] = {name: [] for name in measure}
    for turn in range(args.rounds + 1):
        for name, works in measure.items():
            found = tuple(work() for work in works)
            if turn:  # the first warms up
                rows[name].append(found)
    flops = operations()
    print(
        f"{flops / 1e9:.2f} GFLOP an image, {args.threads} threads, {args.rounds} interleaved "
        f"rounds, load {os.getloadavg()[0]:.1f}\n"
    )
    print(
        "| precision | products, GFLOP/s | roofline, images/s | tower, images/s | reached | "
        "one session | byname / one session |\n|---|---|---|---|---|---|---|"
    )
    for name, found_rows in rows.items():
        rate, own, one = (statistics.median(r[i] for r in found_rows) for i in range(3))
        reached = statistics.median(r[1] * flops / r[0] for r in found_rows)
        gain = statistics.median(r[1] / r[2] for r in found_rows)
        print(
            f"| {name} | {rate / 1e9:.0f} | {rate / flops:.1f} | {own:.1f} | {reached:.0%} | "
            f"{one:.1f} | {gain:.2f}x |"
        )


if __name__ == "__main__":
    main()
