"""Cost of the members that need only vectors, beside their own matrix products.

Each member runs in a process of its own on made-up vectors, as the pipeline runs it: ``fit`` on all
images, then ``apply``, which for inductive members goes over 4096 images at a time. Beside it,
interleaved, run the matrix products that its formula cannot do without, in blocks and in float32,
on the same arrays: the bound. Printed: median seconds of both, their ratio, and the peak memory of
the process, which holds all inputs.

    python benchmarks/members.py                     # N=50000 K=1000 M=50000 D=512
    python benchmarks/members.py --n 5000 --m 10000 --k 200 --rounds 3 zpe describe
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from byname.ops import blocks, unit
from byname.pipeline import batch_rows
from byname.stage import Batch, ClassTexts, SecondTexts, State, Support, create
from byname.taxonomy import Node, Taxonomy

# What the formula cannot do without: (rows, columns) of products of width D, in the letters
# N images, K classes, M texts, R support images (16 a class), G subclasses (10 a class).
PRODUCTS: dict[str, list[tuple[str, str]]] = {
    "mean": [],
    "mean_similarity": [],
    "cpe": [("N", "K"), ("N/10", "M")],
    "zpe": [("N", "M")],
    "carprt": [("N", "M")],
    "bprw": [("N", "K"), ("100K", "M/K")],
    "encoders": [("N", "K"), ("N", "K")],
    "merge": [],
    "hierse": [],
    "labeldesc": [("D", "M")],
    "cosine": [("N", "K")],
    "coder": [("N", "K"), ("N", "K")],
    "hie": [("N", "K"), ("N", "K"), ("N", "K")],
    "describe": [("N", "K")],
    "describe[aggregate=max]": [("N", "M")],
    "joint_softmax": [("N", "M")],
    "chils": [("N", "G"), ("N", "K")],
    "perception": [("N", "M"), ("N", "M")],
    "perception[mode=one_step]": [("N", "K")],
    "two_state": [("N", "K")],
    "dictionary": [("N", "K")],
    "tip_x": [("N", "K"), ("N", "R"), ("N", "RK")],
    "keys": [("N", "M")],
    "descent": [("N", "K"), ("N", "K")],
    "temperature": [("N", "K")] * 10,
    "argmax": [],
    "multilabel": [],
    "unknown_distance": [("N", "K")],
    "descend": [],
}


def inputs(n: int, k: int, m: int, d: int) -> tuple[Batch, ClassTexts]:
    """Images around class centres, texts around them too, and all that texts can be about."""
    rng = np.random.default_rng(0)
    each = m // k

    def rows(count: int) -> Any:
        return rng.standard_normal((count, d), dtype=np.float32) / np.float32(np.sqrt(d))

    centre = rows(k) + 0.5 * rows(1)
    index = np.repeat(np.arange(k), each)
    vectors = unit(centre[index] + 0.5 * rows(len(index)))
    X = unit(centre[rng.integers(0, k, n)] + 1.0 * rows(n))
    half = [Node(f"g{i}", f"group {i}") for i in range(max(1, k // 10))]
    leaves = [Node(f"c{i}", f"class {i}", f"g{i // 10}") for i in range(k)]
    known = {node.id for node in half}
    taxonomy = Taxonomy(
        [*half, *(x if x.parent in known else replace(x, parent="g0") for x in leaves)]
    )
    place = np.tile(np.arange(each), k)
    texts = ClassTexts(
        vectors,
        index,
        taxonomy,
        prompt_index=place,
        node_id=tuple(f"c{i}" for i in index),
        kind=("template",) * len(index),
        level=place % 3,
        group=index * 10 + place % 10,
        context=place,
    )
    return Batch(X), texts


def support(texts: ClassTexts, d: int) -> Support:
    """16 images a class."""
    rng = np.random.default_rng(1)
    index = np.repeat(np.arange(texts.n_classes), 16)
    T = np.asarray(texts.vectors).reshape(texts.n_classes, -1, d).mean(axis=1)
    noise = rng.standard_normal((len(index), d), dtype=np.float32) / np.float32(np.sqrt(d))
    return Support(unit(T[index] + noise), index, "generated")


def product(batch: Batch, texts: ClassTexts, what: tuple[str, str], each: int) -> None:
    """One matrix product, 1024 rows by at most 4096 columns at a time, results dropped."""
    K = texts.n_classes
    size = {"N": len(batch), "K": K, "M": len(texts.vectors), "R": 16 * K, "G": 10 * K}
    size |= {
        "N/10": len(batch) // 10,
        "100K": 100 * K,
        "M/K": each,
        "D": texts.vectors.shape[1],
        "RK": 0,
    }
    rows, columns = size[what[0]], size[what[1]]
    if what[1] == "RK":  # signatures against signatures: width K
        A = np.ones((1024, K), np.float32)
        B = np.ones((4096, K), np.float32)
        for part in blocks(size["N"], 1024):
            for other in blocks(size["R"], 4096):
                A[: part.stop - part.start] @ B[: other.stop - other.start].T
        return
    if what[0] == "D":  # a Gram matrix of the texts
        for part in blocks(columns, 4096):
            texts.vectors[part].T @ texts.vectors[part]
        return
    X, T = np.asarray(batch.X), np.asarray(texts.vectors)
    for part in blocks(rows, 1024):
        wide = 1024 if part.stop <= len(X) else min(1024, len(X))
        x = X[part] if part.stop <= len(X) else X[:wide]
        for other in blocks(columns, 4096):
            x @ T[: other.stop - other.start].T


def run(member: Any, batch: Batch, texts: ClassTexts, state: State) -> None:
    """As :class:`byname.pipeline.Pipeline` does."""
    member.fit(batch, texts, state)
    if member.stage == "weigh" or not member.inductive:
        member.apply(batch, texts, state)
        return
    out, start = None, 0
    for rows in batch_rows(batch, 4096):
        here = state if state.S is None else replace(state, S=state.S[start : start + len(rows)])
        made = member.apply(rows, texts, here)
        if member.stage != "decide":
            out = np.zeros((len(batch), made.shape[1]), made.dtype) if out is None else out
            out[start : start + len(rows)] = made
        start += len(rows)


def measure(name: str, n: int, k: int, m: int, d: int, rounds: int) -> dict[str, Any]:
    """Seconds of the member and of its products, by turns; and the peak of memory."""
    batch, texts = inputs(n, k, m, d)
    member = create(name)
    if name.startswith("tip_x"):
        batch = replace(batch, support=support(texts, d))
    if name.startswith("two_state"):
        states = ("present", "absent")
        texts = replace(texts, kind=tuple(states[i % 2] for i in range(len(texts.vectors))))
    if name.startswith("coder"):
        kinds = ("name", "attribute", "attribute")
        texts = replace(texts, kind=tuple(kinds[min(i % (m // k), 2)] for i in range(m)))
    if name.startswith("encoders"):
        second = SecondTexts(texts.vectors[:, ::-1].copy(), texts.scale)
        batch = replace(batch, second=batch.X[:, ::-1].copy())
        texts = replace(texts, second_texts=second)
    mean = create("mean").fit(batch, texts, State())
    W = mean.apply(batch, texts, State())
    weight = mean.weight_
    S = None
    if member.stage in ("refine", "decide"):
        S = texts.scale * batch.X @ W.T
    state = State(weight=weight, W=W, S=S)
    own, bound = [], []
    for _ in range(rounds):
        start = time.perf_counter()
        run(member, batch, texts, state)
        middle = time.perf_counter()
        for what in PRODUCTS[name]:
            product(batch, texts, what, m // k)
        own.append(middle - start)
        bound.append(time.perf_counter() - middle)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "seconds": statistics.median(own),
        "products": statistics.median(bound) if PRODUCTS[name] else None,
        "peak": peak,
    }


def main() -> None:
    """One process a member; a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("members", nargs="*", default=list(PRODUCTS))
    for letter, value in (("n", 50_000), ("k", 1_000), ("m", 50_000), ("d", 512), ("rounds", 3)):
        parser.add_argument(f"--{letter}", type=int, default=value)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    sizes = [given.n, given.k, given.m, given.d, given.rounds]
    if given.one:
        print(json.dumps(measure(given.members[0], *sizes)))
        return
    print(f"N={given.n} K={given.k} M={given.m} D={given.d}, median of {given.rounds}")
    print(f"{'member':24} {'seconds':>8} {'products':>9} {'ratio':>6} {'peak MB':>8}")
    for name in given.members:
        words = [
            f"--{letter}={value}"
            for letter, value in zip(("n", "k", "m", "d", "rounds"), sizes, strict=True)
        ]
        made = subprocess.run(
            [sys.executable, __file__, "--one", *words, name],
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode:
            print(f"{name:24} {made.stderr.strip().splitlines()[-1]}")
            continue
        row = json.loads(made.stdout)
        bound = row["products"]
        shown = f"{bound:9.2f} {row['seconds'] / bound:6.2f}" if bound else f"{'-':>9} {'-':>6}"
        print(f"{name:24} {row['seconds']:8.2f} {shown} {row['peak']:8.0f}", flush=True)


if __name__ == "__main__":
    main()
