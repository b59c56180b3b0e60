"""Bounds of the findings about vectors and names, on made-up tasks; no real data is read.

    python benchmarks/names_synthetic.py [--tasks 40] [--first 500]

Tasks are the three families of ``refine_synthetic.py``. Printed for each family:

- *undescribed*: a quarter more names near some class and a quarter far from all. A class says
  nothing where at most 1 of the 10 images nearest to its vector shows it. How well specificity
  finds these among the answered classes (area under the ROC curve), beside the number of answers;
  and at several bounds, how many of the flagged are such, and how many of such are flagged.
- *hubs*: 5 % of the class vectors (at least one) drawn to the mean image, more or less. At several
  bounds on the share of images that have a class among their nearest 5: share of hubs found, and of
  other classes that are flagged. Not all planted ones are near to many, and a hub that wins nearly
  all images leaves too few answered classes to tell it from a folder of one class.
- *near pairs*: a tenth of the classes gets a second vector at a cosine that leaves a fifth of the
  usual distance. Share of these found, and of other classes flagged.
- *astray*: a tree by the class means of images (average linkage), a tenth of the classes hung
  elsewhere. Median of the value of moved and of other classes, and shares above several bounds.
- *one-sided*: share of tasks with a pair, and of pairs among answered classes.
- *spread*: least and greatest spread of images and of class vectors, and least ``moved``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.stats import mannwhitneyu

sys.path.insert(0, str(Path(__file__).resolve().parent))

from refine_synthetic import encoded, loose, more_names, separated

from byname.margins import top2
from byname.ops import segment_mean, unit
from byname.study.concepts import astray, near_pairs, one_sided, specificity
from byname.study.geometry import geometry
from byname.taxonomy import Node, Taxonomy

Rng = np.random.Generator
Array = NDArray[Any]


def undescribed(X: Array, W: Array, y: Array, rng: Rng) -> list[tuple[float, int, bool]]:
    """Specificity, answers and whether it says nothing, of every class."""
    m = max(2, len(W) // 4)
    length = np.linalg.norm(W - W.mean(axis=0), axis=1).mean()
    far = unit(W.mean(axis=0) + length * unit(rng.standard_normal((m, W.shape[1]))))
    V = np.concatenate([W, more_names(W, m, rng), far]).astype(np.float32)
    S = X @ V.T
    answers = S.argmax(axis=1)
    found = specificity(X, V, answers)
    if found is None:
        return []
    count = np.bincount(answers, minlength=len(V))
    tops = np.argsort(-S, axis=0)[:10]
    shown = (y[tops] == np.arange(len(V))).mean(axis=0)
    return list(zip(found.tolist(), count.tolist(), (shown <= 0.1).tolist(), strict=True))


def hubs(X: Array, W: Array, y: Array, rng: Rng) -> list[tuple[float, int, bool, int]]:
    """Share of images near it, answered classes, whether it is a hub, and K, of every class."""
    m = max(1, len(W) // 20)
    V, mean = W.copy(), unit(X.mean(axis=0))
    V[:m] = unit(V[:m] + rng.uniform(0.05, 0.5) * mean)
    answers = (X @ V.T).argmax(axis=1)
    found = geometry(X, V, answers)
    answered = len(np.unique(answers))
    return [(near, answered, k < m, len(V)) for k, near in enumerate(found.near.tolist())]


def second_vectors(W: Array, rng: Rng) -> tuple[int, int, int, int]:
    """Pairs found and planted; other classes flagged, and how many they are."""
    m = max(1, len(W) // 10)
    G = W @ W.T
    np.fill_diagonal(G, -1)
    away = 0.2 * float(np.median(1 - G.max(axis=1)))
    other = rng.standard_normal((m, W.shape[1]))
    other = unit(other - (other * W[:m]).sum(axis=1, keepdims=True) * W[:m])
    twin = unit((1 - away) * W[:m] + np.sqrt(1 - (1 - away) ** 2) * other)
    pairs = {pair[:2] for pair in near_pairs(np.concatenate([W, twin]))}
    right = {(k, len(W) + k) for k in range(m)}
    false = {k for pair in pairs - right for k in pair}
    return len(pairs & right), m, len(false), len(W) - m


def moved(X: Array, W: Array, y: Array, rng: Rng) -> tuple[Array, Array]:
    """Values of the classes hung elsewhere, and of the others."""
    K = len(W)
    means = segment_mean(X, y, K)
    seen = np.flatnonzero(np.bincount(y, minlength=K))
    if len(seen) < 8:
        return np.zeros(0), np.zeros(0)
    group = fcluster(linkage(means[seen], "average", metric="cosine"), len(seen) // 4, "maxclust")
    wrong = rng.permutation(len(seen))[: max(1, len(seen) // 10)]
    hung = group.copy()
    for i in wrong:
        hung[i] = rng.choice(np.setdiff1d(group, [group[i]]))
    nodes = [Node(f"g{g}", f"g{g}") for g in np.unique(hung)]
    nodes += [Node(f"c{i}", f"c{i}", f"g{g}") for i, g in enumerate(hung)]
    value = astray(W[seen], Taxonomy(nodes))[0]
    is_wrong = np.isin(np.arange(len(seen)), wrong)
    known = ~np.isnan(value)
    return value[is_wrong & known], value[~is_wrong & known]


def of_family(name: str, family: Any, seeds: range) -> None:
    """Print everything about one family."""
    print(f"\n{name}")
    cases = [(seed, family(seed)) for seed in seeds]

    def each(call: Any) -> list[Any]:
        return [call(*case, np.random.default_rng(seed)) for seed, case in cases]

    rows = np.array([one for task in each(undescribed) for one in task])
    score, nothing = -rows[:, 0], rows[:, 2] > 0
    won = rows[:, 1] > 0
    area = [_area(s[won], nothing[won]) for s in (score, -rows[:, 1])]
    print(f"  undescribed, answered: area {area[0]:.3f} (number of answers {area[1]:.3f})")
    for bound in (0.0, 0.02, 0.05, 0.1, 0.2):
        flag = won & (rows[:, 0] <= bound)
        print(
            f"    <= {bound:4.2f}: {flag.sum():4d} of {won.sum()} flagged, "
            f"{nothing[flag].mean():.2f} right, {flag[nothing & won].mean():.2f} found"
        )
    hub = np.array([one for task in each(hubs) for one in task], float)
    for bound in (0.5, 0.6, 0.7, 0.8, 0.9):
        flag = (hub[:, 0] > bound) & (hub[:, 0] > 3 * 5 / hub[:, 3]) & (hub[:, 1] >= 5)
        is_hub = hub[:, 2] > 0
        told = is_hub & (hub[:, 1] >= 5) & (hub[:, 3] >= 25)
        print(
            f"  hubs > {bound:.1f}: {flag[is_hub].mean():.2f} found ({flag[told].mean():.2f} of "
            f"those among 25 classes, 5 answered), {flag[~is_hub].mean():.4f} of others"
        )
    twins = np.sum([second_vectors(c[1], np.random.default_rng(s)) for s, c in cases], axis=0)
    print(f"  near pairs: {twins[0] / twins[1]:.2f} found, {twins[2] / twins[3]:.4f} of others")
    value = [np.concatenate(part) for part in zip(*each(moved), strict=True)]
    print(f"  astray: medians {np.median(value[0]):.2f}, {np.median(value[1]):.2f}")
    for bound in (0.0, 0.1, 0.2, 0.3, 0.5):
        shares = [float((part > bound).mean()) for part in value]
        print(f"    > {bound:.1f}: {shares[0]:.2f} of moved, {shares[1]:.2f} of others")
    pairs = possible = tasks = 0
    spreads, moves = [], []
    for _, (X, W, _y) in cases:
        best = top2(X @ W.T)[1]
        found = one_sided(best[:, 0], best[:, 1], len(W))
        n = len(np.unique(best[:, 0]))
        pairs, possible, tasks = pairs + len(found), possible + n * (n - 1), tasks + bool(found)
        known = geometry(X, W, best[:, 0])
        spreads.append((known.spread_images, known.spread_texts))
        moves.append(known.moved)
    print(f"  one-sided: {tasks} of {len(cases)} tasks, {pairs} of {possible} pairs")
    low, high = np.min(spreads, axis=0), np.max(spreads, axis=0)
    print(f"  spread: images {low[0]:.2f}-{high[0]:.2f}, texts {low[1]:.2f}-{high[1]:.2f}")
    print(f"  least moved: {min(moves):.4f}")


def _area(score: Array, bad: Array) -> float:
    found = mannwhitneyu(score[bad], score[~bad]).statistic
    return float(found / (bad.sum() * (~bad).sum()))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tasks", type=int, default=40)
    parser.add_argument("--first", type=int, default=500)
    given = parser.parse_args()
    seeds = range(given.first, given.first + given.tasks)
    for name, family in (("loose", loose), ("separated", separated), ("encoded", encoded)):
        of_family(name, family, seeds)


if __name__ == "__main__":
    main()
