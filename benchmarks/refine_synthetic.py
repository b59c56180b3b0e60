"""Refine members on made-up tasks, on which the constants of ``auto`` were chosen.

Three families of tasks: ``synthetic.make_task``, one whose clusters are better separated than its
texts are right, as linear probes on real encoders show, and one whose images and texts are as alike
among themselves, and as unlike each other, as those of CLIP. Each in eight scenarios: as it is,
Zipf shares, half of the classes, three classes, 1,000 names more (half at cosine 0.5-0.7, half at
0.7-0.9 to some name), the same with names that differ as the classes' texts do among themselves, a
fifth of the images, and 30 % foreign images. Printed: mean top-1 and mean of the three worst
classes in per cent, classes at 0 % in all, and the least gain over plain.

    python benchmarks/refine_synthetic.py anchor auto "auto[bound=3]"
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from synthetic import make_task

from byname.ops import unit
from byname.stage import Batch, ClassTexts, State, create
from byname.taxonomy import Taxonomy

Case = tuple[NDArray[Any], NDArray[Any], NDArray[np.intp]]


def separated(seed: int) -> Case:
    """Images, class vectors and classes of a task with clear clusters and poor texts."""
    rng = np.random.default_rng(1000 + seed)
    K, D = int(rng.choice([6, 10, 20, 40, 80])), int(rng.choice([256, 512, 768]))
    spectrum = (1.0 + np.arange(D)) ** -rng.uniform(0.3, 0.7)
    spectrum[-2:] = 0  # for the gap between images and texts
    spectrum /= np.linalg.norm(spectrum)
    side = np.zeros((2, D))
    side[[0, 1], [-2, -1]] = rng.uniform(1.5, 3, 2)

    def noise(*shape: int) -> NDArray[Any]:
        return rng.standard_normal((*shape, D)) * spectrum

    group = rng.integers(0, max(2, K // 4), K)
    centre = unit(rng.uniform(0.5, 1.2) * noise(K)[group] + noise(K))
    size = np.maximum(4, rng.lognormal(np.log(rng.uniform(20, 60)), rng.choice([0, 0.3, 0.8]), K))
    y = np.repeat(np.arange(K), size.astype(int))
    modes = int(rng.integers(1, 4))
    own, which = rng.uniform(0.2, 0.6) * noise(K, modes), rng.integers(0, modes, len(y))
    scatter = rng.uniform(0.4, 0.9) * rng.lognormal(0, 0.2, K)
    X = centre[y] + own[y, which] + scatter[y, None] * noise(len(y)) + side[0]
    wrong = rng.uniform(0.5, 1.6) * rng.lognormal(0, 0.5, K)
    W = rng.uniform(0.4, 1) * (centre + wrong[:, None] * noise(K)) + 0.15 * noise(1) + side[1]
    rng.uniform()
    common = unit(noise(1)[0])
    X, W = unit(unit(X) + 0.6 * common), unit(unit(W) + 0.4 * common)
    return X.astype(np.float32), W.astype(np.float32), y


def loose(seed: int) -> Case:
    """The same from ``synthetic.make_task``."""
    task = make_task(seed)
    assert task.labels is not None
    W = unit(task.texts.mean(axis=0))
    return task.images.astype(np.float32), W.astype(np.float32), task.labels


def encoded(seed: int) -> Case:
    """The same where what tells classes apart is little beside what all images or texts share."""
    rng = np.random.default_rng(2000 + seed)
    K, D = int(rng.choice([8, 12, 20, 30, 45])), int(rng.choice([512, 768, 1024]))
    spectrum = (1.0 + np.arange(D)) ** -rng.uniform(0.3, 0.6)
    spectrum /= np.linalg.norm(spectrum)
    of_texts = spectrum[rng.permutation(D)]

    def noise(*shape: int) -> NDArray[Any]:
        return rng.standard_normal((*shape, D)) * spectrum

    mean = unit(rng.standard_normal(D))
    other = unit(rng.standard_normal(D))
    text_mean = unit(rng.uniform(0.2, 0.35) * mean + other - (other @ mean) * mean)
    group = rng.integers(0, max(2, K // 3), K)
    centre = unit(rng.uniform(0.4, 1) * noise(K)[group] + noise(K))
    size = np.maximum(5, rng.lognormal(np.log(rng.uniform(20, 60)), rng.choice([0, 0.3, 0.6]), K))
    y = np.repeat(np.arange(K), size.astype(int))
    modes = int(rng.integers(1, 4))
    own, which = rng.uniform(0.3, 0.6) * noise(K, modes), rng.integers(0, modes, len(y))
    scatter = rng.uniform(0.9, 1.4) * rng.lognormal(0, 0.2, K)
    content = centre[y] + own[y, which] + scatter[y, None] * noise(len(y))
    shared = rng.uniform(0.75, 0.9)
    X = np.sqrt(shared) * mean + np.sqrt((1 - shared) / 2.5) * content
    about = rng.uniform(0.3, 0.5)  # the part of a text that is about what differs among images
    wrong = rng.uniform(0.2, 0.6) * rng.lognormal(0, 0.4, K)
    told = centre * rng.uniform(0.8, 1.2, K)[:, None] + wrong[:, None] * noise(K)
    rest = rng.standard_normal((K, D)) * of_texts
    shared = rng.uniform(0.65, 0.8)
    what = about * told + np.sqrt(1 - about**2) * rest
    W = np.sqrt(shared) * text_mean + np.sqrt(1 - shared) * what
    return unit(X).astype(np.float32), unit(W).astype(np.float32), y


def more_names(
    W: NDArray[Any], n: int, rng: np.random.Generator, *, alike: bool = False
) -> NDArray[Any]:
    """n vectors near some of W: half at a cosine of 0.5-0.7, half at 0.7-0.9.

    In any direction from it, or with ``alike`` as W and its differences point.
    """
    K, D = W.shape
    base = W[rng.integers(0, K, n)]
    half = np.arange(n) < n // 2
    cosine = np.where(half, rng.uniform(0.5, 0.7, n), rng.uniform(0.7, 0.9, n))[:, None]
    if alike:
        mean = W.mean(axis=0)
        other = rng.standard_normal((n, K)) @ (W - mean) / np.sqrt(K) + 0.6 * mean
        other += 0.02 * rng.standard_normal((n, D))
    else:
        other = rng.standard_normal(base.shape)
    other = unit(other - (other * base).sum(axis=1, keepdims=True) * base)
    return np.asarray(unit(cosine * base + np.sqrt(1 - cosine**2) * other))


def scenarios(X: NDArray[Any], W: NDArray[Any], y: NDArray[np.intp]) -> Iterator[tuple[str, Case]]:
    """The task as it is and in seven other forms; -1 is the class of foreign images."""
    K, N = len(W), len(X)

    def rng() -> np.random.Generator:
        return np.random.default_rng(0)

    yield "as is", (X, W, y)
    draw = rng()
    kept = []
    for rank, k in enumerate(draw.permutation(K)):
        own = np.flatnonzero(y == k)
        kept.append(draw.permutation(own)[: max(1, round(len(own) / (1 + rank)))])
    rows = np.sort(np.concatenate(kept))
    yield "Zipf", (X[rows], W, y[rows])
    for name, count in (("half", (K + 1) // 2), ("three", 3)):
        present = rng().permutation(np.unique(y) if name == "three" else K)[:count]
        rows = np.flatnonzero(np.isin(y, present))
        yield name, (X[rows], W, y[rows])
    yield "long list", (X, np.concatenate([W, more_names(W, 1000, rng())]), y)
    yield "alike list", (X, np.concatenate([W, more_names(W, 1000, rng(), alike=True)]), y)
    rows = np.sort(rng().permutation(N)[: max(20, N // 5)])
    yield "fifth", (X[rows], W, y[rows])
    draw = rng()
    m = int(0.3 / 0.7 * N)
    a, b, share = draw.integers(0, N, m), draw.integers(0, N, m), draw.uniform(0.8, 1, (m, 1))
    noise = X.std(axis=0) * draw.standard_normal((m, X.shape[1])) * 0.7
    foreign = unit(0.5 * (X[a] + X[b]) * share + noise)
    yield "foreign", (np.concatenate([X, foreign]), W, np.append(y, np.full(m, -1)))


def fitted(spec: str, X: NDArray[Any], W: NDArray[Any]) -> tuple[Any, Any, dict[str, Any]]:
    """Scores of ``ensemble``, those after this refine member, and the member's report."""
    K = len(W)
    texts = ClassTexts(W, np.arange(K), Taxonomy.from_names([f"class {k}" for k in range(K)]))
    S = np.asarray(100 * X @ W.T, np.float32)
    member, batch, state = create(spec, "refine"), Batch(np.asarray(X, np.float32)), State(W=W, S=S)
    return (
        S,
        np.asarray(member.fit(batch, texts, state).apply(batch, texts, state)),
        member.report(),
    )


def answers(spec: str, X: NDArray[Any], W: NDArray[Any]) -> NDArray[np.intp]:
    """What ``ensemble`` with this refine member answers; ``plain`` is without one."""
    if spec == "plain":
        return np.asarray(100 * X @ W.T, np.float32).argmax(axis=1)
    return np.asarray(fitted(spec, X, W)[1].argmax(axis=1))


def score(answer: NDArray[np.intp], y: NDArray[np.intp]) -> tuple[float, float, int]:
    """Top-1 and the mean of the three worst classes in per cent, and classes at 0 %."""
    known = y >= 0
    each = np.array([(answer[y == k] == k).mean() for k in np.unique(y[known])]) * 100
    top1 = float((answer[known] == y[known]).mean()) * 100
    return top1, float(np.sort(each)[:3].mean()), int((each == 0).sum())


def table(cases: Iterator[Case], specs: list[str]) -> None:
    """Print one row a scenario."""
    found: dict[tuple[str, str], list[tuple[float, float, int]]] = defaultdict(list)
    for X, W, y in cases:
        for name, case in scenarios(X, W, y):
            for spec in specs:
                found[name, spec].append(score(answers(spec, case[0], case[1]), case[2]))
    print(f"{'':10}" + "".join(f"{spec:>34}" for spec in specs))
    for name in dict.fromkeys(name for name, _ in found):
        cells = []
        for spec in specs:
            rows, plain = found[name, spec], found[name, "plain"]
            top, worst = np.mean([r[0] for r in rows]), np.mean([r[1] for r in rows])
            least = min(r[0] - p[0] for r, p in zip(rows, plain, strict=True))
            zero = sum(r[2] for r in rows)
            cells.append(f"{f'{top:.1f} / {worst:.1f} / {zero} (least {least:+.1f})':>34}")
        print(f"{name:10}" + "".join(cells), flush=True)


def main() -> None:
    """All families."""
    specs = ["plain", *(sys.argv[1:] or ["anchor", "auto"])]
    print("clusters clear, texts poor (12 tasks)")
    table((separated(seed) for seed in range(12)), specs)
    print("clusters loose (8 tasks)")
    table((loose(seed) for seed in range(8)), specs)
    print("means far apart, as of encoders (8 tasks)")
    table((encoded(seed) for seed in range(8)), specs)


if __name__ == "__main__":
    main()
