"""Few-shot search over 75,000 settings: byname against a loop that starts anew at each setting.

    python benchmarks/fewshot_grid.py [--classes 50] [--shots 16] [--validation 400]

byname searches all 3 x 500 x 50 settings (alpha, beta). The plain version recomputes at each
setting, as the released code is described to do, the affinity of CODERs (an (N, M) times (M, n)
product), its exponential, the product with the one-hot classes and the accuracy. It is timed on a
sample of the settings, and its time for all of them is EXTRAPOLATED from that sample, since
a full run takes many minutes. The two take turns: a part of the sample, then a search. Both have
the same number of BLAS threads: on a busy machine more of them wait for each other.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from byname import ops
from byname.programs.fewshot import ALPHAS, BETAS, FewShot
from byname.stage import ClassTexts
from byname.taxonomy import Node, Taxonomy

Floats = NDArray[np.float32]


class Data:
    """Texts (name and attributes), labelled support, and a validation part, all made up."""

    def __init__(self, args: argparse.Namespace) -> None:
        rng = np.random.default_rng(args.seed)
        K, T, D = args.classes, args.texts, args.dim

        def rows(*shape: int) -> Floats:
            return np.asarray(ops.unit(rng.standard_normal(shape, np.float32)))

        centres, names = rows(K, D), np.repeat(np.arange(K), T)
        shift = 0.7 * rows(K, D)  # what images of a class share and its texts do not say
        self.ids = [f"c{k}" for k in range(K)]
        taxonomy = Taxonomy(Node(i, i) for i in self.ids)
        kind = ("name", *["attribute"] * (T - 1)) * K
        vectors = ops.unit(centres[names] + rows(K * T, D))
        self.texts = ClassTexts(vectors, names, taxonomy, kind=kind, scale=100.0)
        self.W = np.asarray(vectors)[::T]
        self.support_class = np.repeat(np.arange(K), args.shots)
        self.validation_class = rng.integers(0, K, args.validation)

        def images(of: NDArray[np.intp]) -> Floats:
            return np.asarray(ops.unit(centres[of] + shift[of] + 4.0 * rows(len(of), D)))

        self.support = images(self.support_class)
        self.validation = images(self.validation_class)


class Plain:
    """One setting at a time, everything recomputed but the features."""

    def __init__(self, data: Data) -> None:
        G = data.texts.vectors
        self.f = np.asarray(ops.unit(data.validation @ G.T))
        self.F = np.asarray(ops.unit(data.support @ G.T)).T.copy()
        self.V = np.eye(len(data.ids), dtype=np.float32)[data.support_class]
        self.X, self.W, self.y = data.validation, data.W.T.copy(), data.validation_class

    def accuracy(self, alpha: float, beta: float) -> float:
        """Share of validation images that are right."""
        A = self.f @ self.F
        logits = 100.0 * self.X @ self.W + alpha * np.exp(-beta * (1 - A)) @ self.V
        return float((logits.argmax(axis=1) == self.y).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--classes", type=int, default=50)
    parser.add_argument("--shots", type=int, default=16)
    parser.add_argument("--texts", type=int, default=20, help="texts of each class")
    parser.add_argument("--validation", type=int, default=400)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--sample", type=int, default=100, help="settings of the loop, a turn")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="of BLAS, for both versions")
    args = parser.parse_args()
    with threadpool_limits(args.threads, "blas"):
        compare(args)


def compare(args: argparse.Namespace) -> None:
    """Time both versions and print the table."""
    data = Data(args)
    plain = Plain(data)
    rng = np.random.default_rng(args.seed)
    settings = 3 * len(BETAS) * len(ALPHAS)
    of_one: list[float] = []
    of_all: list[float] = []
    result: Any = None
    for _ in range(args.turns):
        sample = zip(rng.choice(ALPHAS, args.sample), rng.choice(BETAS, args.sample), strict=True)
        start = time.perf_counter()
        for alpha, beta in sample:
            plain.accuracy(alpha, beta)
        of_one.append((time.perf_counter() - start) / args.sample)
        start = time.perf_counter()
        model = FewShot(data.texts, "coder").fit(
            data.support, [data.ids[k] for k in data.support_class]
        )
        validation = (data.validation, [data.ids[k] for k in data.validation_class])
        result = model.search(validation=validation)
        of_all.append(time.perf_counter() - start)
    loop, search = [second * settings for second in of_one], of_all
    again = plain.accuracy(result.alpha, result.beta)
    n = len(data.support)
    print(
        f"{settings} settings, {args.validation} validation images, {n} support images, "
        f"K={args.classes}, M={len(data.texts.class_index)}, D={args.dim}"
    )
    print(
        f"best: alpha {result.alpha:.3g}, beta {result.beta:.3g}, accuracy "
        f"{result.accuracy:.4f}; the plain version there: {again:.4f}; alpha = 0: "
        f"{plain.accuracy(0, 1):.4f}"
    )
    print(f"threads of BLAS: {args.threads}; seconds for all settings, byname's with fit:")
    print("| version | settings timed, a turn | median | min to max |\n|---|---|---|---|")
    for name, timed, taken in (
        ("plain, extrapolated", args.sample, loop),
        ("byname, measured", settings, search),
    ):
        shown = f"{statistics.median(taken):.2f} | {min(taken):.2f} to {max(taken):.2f}"
        print(f"| {name} | {timed} | {shown} |")
    ratios = sorted(a / b for a, b in zip(loop, search, strict=True))
    print(f"ratio: {statistics.median(ratios):.0f}x, {ratios[0]:.0f} to {ratios[-1]:.0f} by turn")
    print(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
