"""CODER's second stage: byname against one Python loop an image, and the same answers.

    python benchmarks/coder_rerank.py [--images 10000] [--classes 100] [--texts 20]

The plain version does what the released code is described to do: for every uncertain image, for
each ordered pair of its five best classes, the product of the image with the stacked texts of that
pair, and their mean. It is NumPy throughout, without the copies between host and device of the
original. With the default gap of 1, all images count as uncertain. Every version is run in turn,
several times, with the same number of BLAS threads; figures are medians of one such run. All pairs
have texts here, so both rules for missing pairs give the same.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from byname import ops
from byname.score.coder import contrasts, rerank
from byname.stage import ClassTexts
from byname.taxonomy import Node, Taxonomy

Floats = NDArray[np.float32]


def make(
    rng: np.random.Generator, N: int, K: int, T: int, D: int
) -> tuple[Floats, Floats, ClassTexts]:
    """Images and their logits, and T texts for each ordered pair of classes."""
    centres = ops.unit(rng.standard_normal((K, D), np.float32))
    # Barely nearer to their class than to the others: logits a few units apart, as with CLIP.
    noise = ops.unit(rng.standard_normal((N, D), np.float32))
    X = ops.unit(0.1 * centres[rng.integers(0, K, N)] + noise)
    ordered = [(a, b) for a in range(K) for b in range(K) if a != b]
    pair_texts = rng.standard_normal((len(ordered) * T, D), np.float32)
    vectors = np.concatenate([centres, ops.unit(pair_texts)])
    pairs = tuple(
        (f"c{a}", f"c{b}", tuple(range(K + i * T, K + i * T + T)))
        for i, (a, b) in enumerate(ordered)
    )
    index = np.append(np.arange(K), np.full(len(ordered) * T, -1))
    taxonomy = Taxonomy(Node(f"c{k}", f"class {k}") for k in range(K))
    texts = ClassTexts(vectors, index, taxonomy, scale=100.0, pairs=pairs)
    return X, 100.0 * ops.matmul_t(X, centres), texts


def plain(
    S: Floats, X: Floats, pairs: dict[tuple[int, int], Floats], theta: float
) -> NDArray[np.intp]:
    """Answers (N,) by loops over images and pairs."""
    answers = np.empty(len(S), np.intp)
    for i, (row, x) in enumerate(zip(S, X, strict=True)):
        top = np.argsort(-row)[:5]
        p = np.exp(row - row.max())
        p /= p.sum()
        answers[i] = top[0]
        if p[top[0]] - p[top[1]] >= theta:
            continue
        r = []
        for a in top:
            total = 0.0
            for b in top:
                if a != b:
                    total += (pairs[a, b] @ x).mean() - (pairs[b, a] @ x).mean()
            r.append(total / 4)
        answers[i] = top[int(np.argmax(r))]
    return answers


def interleaved(
    versions: dict[str, Callable[[], Any]], rounds: int
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Seconds of each round and last result of each version, run in turn."""
    times: dict[str, list[float]] = {name: [] for name in versions}
    results = {}
    for _ in range(rounds):
        for name, version in versions.items():
            start = time.perf_counter()
            results[name] = version()
            times[name].append(time.perf_counter() - start)
    return times, results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--texts", type=int, default=20, help="texts of each ordered pair")
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--gap", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="of BLAS, for all versions")
    args = parser.parse_args()
    with threadpool_limits(args.threads, "blas"):
        compare(args)


def compare(args: argparse.Namespace) -> None:
    """Time the versions and print the table."""
    rng = np.random.default_rng(args.seed)
    X, S, texts = make(rng, args.images, args.classes, args.texts, args.dim)
    place = {i: k for k, i in enumerate(texts.taxonomy.class_ids)}
    by_pair = {(place[a], place[b]): texts.vectors[list(rows)] for a, b, rows in texts.pairs or ()}
    summed, results = interleaved({"sums": lambda: contrasts(texts)}, args.rounds)
    held, prepared = results["sums"], statistics.median(summed["sums"])
    assert held is not None
    times, found = interleaved(
        {
            "plain": lambda: plain(S, X, by_pair, args.gap),
            "byname": lambda: rerank(S, X, held, 5, args.gap).argmax(axis=1),
        },
        args.rounds,
    )
    equal = float((found["plain"] == found["byname"]).mean())
    print(f"{args.images} images, K={args.classes}, {args.texts} texts a pair, D={args.dim}")
    p = np.sort(ops.softmax(S), axis=1)
    print(f"uncertain images: {float((p[:, -1] - p[:, -2] < args.gap).mean()):.1%}")
    print(
        f"equal answers: {equal:.4%}; changed by the rerank: "
        f"{float((found['byname'] != S.argmax(axis=1)).mean()):.1%}"
    )
    print(f"threads of BLAS: {args.threads}")
    print("| version | seconds (median) | min to max | ratio |\n|---|---|---|---|")
    with_sums = [second + prepared for second in times["byname"]]
    for name, taken in (*times.items(), ("byname, summing up the pairs too", with_sums)):
        middle = statistics.median(taken)
        ratio = statistics.median(times["plain"]) / middle
        print(f"| {name} | {middle:.3f} | {min(taken):.3f} to {max(taken):.3f} | {ratio:.1f} |")
    print(f"summing up the pairs' texts, once for all images: {prepared:.3f} s (median)")
    print(
        f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB, "
        f"of which texts: {texts.vectors.nbytes * 2 / 2**20:.0f} MiB (two copies, one a version)"
    )


if __name__ == "__main__":
    main()
