"""Label-free signs of a class against its true accuracy, and CPE against the mean ensemble.

    python benchmarks/cmm_rs19.py [FOLDER]

FOLDER holds the task files of one data set, one an encoder; by default rs19 below BYNAME_SHARED.
Intervals: 2.5 and 97.5 per cent of 1000 resamples of the images, the same for both sides of a
difference; neighbours, class vectors and what the pooled images say stay those of all images. The
constants of the expected accuracy come from made-up tasks (diagnose_synthetic.py), as do those of
temperature=auto (cpe_synthetic.py).
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import numpy as np
from scipy.stats import rankdata

from byname.expectation import look
from byname.margins import cmm, pseudo_labels
from byname.ops import unit
from byname.stage import State, create
from byname.taskfile import Task

CPE = (
    "cpe",
    "cpe[per_class=true]",
    "cpe[temperature=auto]",
    "cpe[temperature=auto,per_class=true]",
    "cpe[prune=true]",
    "cpe[rounds=3]",
)


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    a, b = rankdata(np.maximum(a, -9)), rankdata(b)
    return float(np.corrcoef(a, b)[0, 1]) if np.ptp(a) and np.ptp(b) else 0.0


def span(values: np.ndarray) -> str:
    low, high = np.percentile(values, [2.5, 97.5])
    return f"[{low:+.2f}, {high:+.2f}]"


def worst3(right: np.ndarray, labels: np.ndarray, draw: np.ndarray, K: int) -> float:
    hits, n = (np.bincount(labels, draw * x, K) for x in (right, np.ones(len(labels))))
    return float(np.sort(hits[n > 0] / n[n > 0])[:3].mean())


class Signs:
    """The signs of a task, for any weights of its images."""

    def __init__(self, task: Task) -> None:
        self.X, self.W = task.images, unit(unit(task.texts).mean(axis=0))
        self.K, self.n = len(self.W), len(self.X)
        self.S = self.X @ self.W.T
        self.y = pseudo_labels(self.X, self.W)
        self.look = look(self.X, self.W, task.scale * self.S)
        self.whole = self.look.signals()

    def of(self, draw: np.ndarray) -> dict[str, np.ndarray]:
        """Each sign of the classes, image i being drawn ``draw[i]`` times."""
        found = self.look.signals(draw)
        A = np.zeros((self.K, self.K))
        np.add.at(A, self.y, draw[:, None] * self.S)
        A /= np.maximum(found.count, 1e-9)[:, None]
        other = np.where(np.eye(self.K, dtype=bool), -np.inf, A).max(axis=1)
        return {
            "CMM A": found.cmm,
            "CMM B": A.diagonal() - other,
            "predicted share": found.count,
            "expected accuracy": found.expected(),
        }


def correlations(task: Task, draws: np.ndarray) -> None:
    signs, labels = Signs(task), task.labels
    right = (signs.y == labels).astype(float)

    def both(draw: np.ndarray) -> list[float]:
        n = np.bincount(labels, draw, signs.K)
        accuracy = np.bincount(labels, draw * right, signs.K) / np.maximum(n, 1)
        return [spearman(x[n > 0], accuracy[n > 0]) for x in signs.of(draw).values()]

    one = np.ones(signs.n)
    again = cmm((signs.X, signs.W), signs.y, "B")[0]
    np.testing.assert_allclose(signs.of(one)["CMM B"], again, atol=1e-5)
    many = np.array([both(draw) for draw in draws])
    print("  Spearman with the true class accuracy")
    for name, value, column in zip(signs.of(one), both(one), many.T, strict=True):
        print(f"    {name:17s} {value:.2f} {span(column)}")
    gain = many[:, 3] - many[:, 0]
    print(f"    expected - CMM A  {both(one)[3] - both(one)[0]:+.2f} {span(gain)}")
    accuracy = np.bincount(labels, right, signs.K) / np.bincount(labels, minlength=signs.K)
    expected = signs.whole.expected()
    found = np.isin(np.argsort(accuracy)[:3], np.argsort(expected)[:5]).sum()
    low, high = signs.whole.interval()
    print(
        f"  expected accuracy {100 * signs.whole.overall():.1f} %, true {100 * right.mean():.1f} %"
    )
    print(f"  interval of the expected accuracy {100 * low:.1f} to {100 * high:.1f} %")
    inside = [a <= x <= b for (a, b), x in zip(signs.whole.intervals(), accuracy, strict=True)]
    print(f"  classes whose interval holds the truth: {sum(inside)} of {len(inside)}")
    print(f"  mean error of a class {100 * np.abs(expected - accuracy).mean():.1f} points")
    print(f"  true worst three among the five expected to be worst: {found} of 3")


def ensembles(task: Task, draws: np.ndarray) -> None:
    texts, batch, labels = task.texts_for("templates"), task.batch(), task.labels
    K, one = texts.n_classes, np.ones(len(labels))
    base: np.ndarray | None = None
    print("  weights                               prompts  top-1  difference       worst three")
    for spec in ("mean", *CPE):
        member = create(spec, "weigh").fit(batch, texts, State())
        W = member.apply(batch, texts, State())
        right = (pseudo_labels(batch.X, W) == labels).astype(float)
        base = right if base is None else base
        many = np.array(
            [
                (
                    draw @ (right - base) / draw.sum(),
                    worst3(right, labels, draw, K) - worst3(base, labels, draw, K),
                )
                for draw in draws
            ]
        )
        low = worst3(right, labels, one, K)
        print(
            f"    {spec:36s} {getattr(member, 'effective_prompts_', len(task.templates)):6.1f}"
            f"  {100 * right.mean():5.2f}  {100 * (right - base).mean():+.2f} "
            f"{span(100 * many[:, 0])}  {100 * low:.1f}  "
            f"{100 * (low - worst3(base, labels, one, K)):+.1f} {span(100 * many[:, 1])}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", help="folder of .npz tasks")
    parser.add_argument("--draws", type=int, default=1000)
    given = parser.parse_args()
    shared = os.environ.get("BYNAME_SHARED")
    if given.folder is None and not shared:
        sys.exit("give a folder of task files, or set BYNAME_SHARED")
    folder = given.folder or Path(str(shared)) / "data" / "rs19"
    for file in sorted(folder.glob("*.npz")):
        task = Task.load(file)
        n = len(task.images)
        draws = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), given.draws)
        print(f"{file.stem}: {n} images, {len(task.taxonomy)} classes")
        correlations(task, draws.astype(float))
        ensembles(task, draws.astype(float))


if __name__ == "__main__":
    main()
