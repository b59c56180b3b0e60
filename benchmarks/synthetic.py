"""Made-up tasks with known labels, on which constants are chosen before real data is looked at.

Images of a class scatter around a centre; centres stand in groups, so that classes are confused
with their neighbours. A class's text misses its centre by an error of its own (a poor name), each
template by an error of its own, some far more than others (a poor template). All of it is spread
over few directions more than over many, as in the spaces of real encoders. Images and texts lie
on either side of a gap, as those of real encoders do. Sizes of classes vary, and some listed
classes do not occur.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from byname.ops import unit
from byname.taskfile import Task
from byname.taxonomy import Node, Taxonomy

__all__ = ["make_task"]


def make_task(seed: int) -> Task:
    """One task; all its properties are drawn from the seed."""
    rng = np.random.default_rng(seed)
    K = int(rng.choice([8, 15, 25, 50, 100]))
    D = int(rng.choice([128, 256, 512]))
    P = int(rng.choice([7, 20, 40]))
    spectrum = (1.0 + np.arange(D)) ** -rng.uniform(0.2, 0.6)
    spectrum[-2:] = 0  # the last two directions are for the gap
    spectrum /= np.linalg.norm(spectrum)
    side = np.zeros((2, D))
    side[[0, 1], [-2, -1]] = rng.uniform(1, 2, 2)

    def noise(*shape: int) -> NDArray[Any]:
        return rng.standard_normal((*shape, D)) * spectrum

    group = rng.integers(0, max(2, K // 4), K)
    centre = unit(rng.uniform(0.5, 1.5) * noise(K)[group] + noise(K))
    sizes = np.maximum(3, rng.lognormal(np.log(rng.uniform(15, 60)), rng.choice([0, 0.8]), K))
    if rng.random() < 0.4:
        sizes[rng.permutation(K)[: int(rng.uniform(0.1, 0.7) * K)]] = 0
    truth = np.repeat(np.arange(K), sizes.astype(int))
    scatter = rng.uniform(0.6, 1.5) * rng.lognormal(0, 0.25, K)
    images = centre[truth] + scatter[truth, None] * noise(len(truth)) + side[0]
    wrong = rng.uniform(0.3, 1.2) * rng.lognormal(0, 0.5, K)
    text = centre + wrong[:, None] * noise(K)
    spoilt = rng.uniform(0.2, 0.8) * rng.lognormal(0, rng.choice([0.2, 0.8]), P)
    own = spoilt[:, None, None] * noise(P, K)
    shared = 0.7 * noise(P)[:, None]
    texts = text + own + shared + side[1]
    return Task(
        images=np.asarray(unit(images), np.float32),
        texts=np.asarray(unit(texts), np.float32),
        templates=tuple(f"template {p}: {{}}" for p in range(P)),
        taxonomy=Taxonomy(Node(f"class {k}", f"class {k}") for k in range(K)),
        labels=truth.astype(np.intp),
        path=f"synthetic {seed}",
    )


def main() -> None:
    """Print what the tasks are like, beside which real ones may be held."""
    print("seed    K     N  top-1  median class  worst 3  cosine own  cosine rival")
    for seed in range(12):
        task = make_task(seed)
        W = unit(task.texts.mean(axis=0))
        S = task.images @ W.T
        assert task.labels is not None
        y, right = task.labels, S.argmax(axis=1) == task.labels
        accuracy = np.array([right[y == k].mean() for k in np.unique(y)])
        own = S[np.arange(len(y)), y].mean()
        S[np.arange(len(y)), y] = -1
        print(
            f"{seed:4d} {len(W):4d} {len(y):5d} {right.mean():6.3f} {np.median(accuracy):13.3f} "
            f"{np.sort(accuracy)[:3].mean():8.3f} {own:11.3f} {S.max(axis=1).mean():13.3f}"
        )


if __name__ == "__main__":
    main()
