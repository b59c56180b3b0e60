"""A vision encoder without texts, aligned to another's image space, and classified by its texts.

    python benchmarks/align_rs19.py SOURCE.npz TARGET.npz [--pairs N ...]

Both task files hold vectors of the same images. The aligner sees the unlabeled images of one half;
the other half is classified with the target's mean ensemble; then the halves change places. Labels
serve for the accuracies alone. "source, own texts" is what the source would reach as a dual encoder
itself, "target" what the target's own image vectors reach on the same images.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

from byname.adapters.align import LinearAligner
from byname.ops import unit
from byname.taskfile import Task


def right(X: np.ndarray, task: Task) -> np.ndarray:
    W = unit(unit(task.texts).mean(axis=0))
    return (X @ W.T).argmax(axis=1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--pairs", type=int, nargs="*", default=[50, 100, 200])
    given = parser.parse_args()
    source, target = Task.load(given.source), Task.load(given.target)
    if not np.array_equal(source.labels, target.labels):
        sys.exit("the two task files do not hold the same images")
    order = np.random.default_rng(0).permutation(len(target.images))
    halves = np.array_split(order, 2)
    labels, n = target.labels, len(order)
    own = np.mean(right(source.images, source) == labels)
    goal = np.mean(right(target.images, target) == labels)
    print(f"{n} images, {source.images.shape[1]} -> {target.images.shape[1]} wide")
    print(f"source, own texts   {100 * own:.2f}")
    print(f"target              {100 * goal:.2f}")
    print("pairs   ridge     R^2    top-1   same answer as the target")
    for most in (*given.pairs, n):
        hits = agree = 0
        about = []
        for fitted, new in (halves, halves[::-1]):
            rows = fitted[:most]
            aligner = LinearAligner().fit(source.images[rows], target.images[rows])
            made = right(aligner.transform(source.images[new]), target)
            hits += (made == labels[new]).sum()
            agree += (made == right(target.images[new], target)).sum()
            about.append((len(rows), aligner.ridge_, aligner.r2_))
        pairs, ridge, r2 = np.mean(about, axis=0)
        print(
            f"{pairs:5.0f}  {ridge:7.3g}  {r2:6.3f}   {100 * hits / n:6.2f}   {100 * agree / n:.2f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
