"""Does the label-free fitness of GLOV's search find better templates than the mean ensemble?

    python benchmarks/glov_pool.py TASK.npz [TASK.npz ...] [--rounds N] [--seeds N] [--top N]

The templates of a task file are a closed pool: in the place of an LLM, somebody proposes five of
them a round at random, whatever it is told, so this tests the fitness and not the proposing.
"all" has seen every template; the other row is the mean (and range) over seeds of a search that has
seen about half of them. "as many, best by labels" is what nobody without labels can know.
Intervals: 2.5 and 97.5 per cent of 1000 resamples of the images, paired, against the mean ensemble.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
from scipy.stats import spearmanr

from byname.ops import unit
from byname.programs.glov import Glov, GlovSettings
from byname.taskfile import PLAIN_TEMPLATE, Task

AVERAGE = "averageprompt {}."


class Pool:
    """Encodes by looking up, and proposes from the pool."""

    def __init__(self, task: Task, top: int) -> None:
        self.task, self.top = task, top
        names = [leaf.name for leaf in task.taxonomy.classes]
        self.at = {
            template.replace("{}", name): (p, k)
            for p, template in enumerate(task.templates)
            for k, name in enumerate(names)
        }
        # rs19 holds the mean of its templates as one more, which nobody can propose.
        self.templates = [t for t in task.templates if t != AVERAGE]
        self.row = {template: p for p, template in enumerate(task.templates)}

    def encode(self, texts: list[str]) -> np.ndarray:
        return np.array([self.task.texts[self.at[text]] for text in texts])

    def right(self, templates: list[str]) -> np.ndarray:
        rows = [self.row[t] for t in templates]
        W = unit(unit(self.task.texts[rows]).mean(axis=0))
        return (self.task.images @ W.T).argmax(axis=1) == self.task.labels

    def search(self, fitness: str, rounds: int, seed: int) -> Glov:
        order = np.random.default_rng(seed).permutation(len(self.templates))
        left = [self.templates[i] for i in order]
        start = PLAIN_TEMPLATE if PLAIN_TEMPLATE in self.row else self.templates[0]

        def ask(question: str) -> list[str]:
            said, left[:] = left[:5], left[5:]
            return ["\n".join(said)]

        search = Glov(
            self.task.taxonomy,
            self.task.images,
            self.encode,
            GlovSettings(rounds=rounds, fitness=fitness, top=self.top),
            start=[start],
            scale=self.task.scale,
        )
        search.run(ask)
        return search


def against(right: np.ndarray, base: np.ndarray, draws: np.ndarray) -> str:
    gain = right.astype(float) - base
    low, high = np.percentile(100 * (draws @ gain) / draws.sum(axis=1), [2.5, 97.5])
    return f"{100 * right.mean():6.2f}  {100 * gain.mean():+6.2f} [{low:+.2f}, {high:+.2f}]"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="+")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--top", type=int, default=3)
    given = parser.parse_args()
    for path in given.tasks:
        pool = Pool(Task.load(path), given.top)
        n, P = len(pool.task.images), len(pool.templates)
        draws = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), 1000)
        base = pool.right(list(pool.task.templates))
        each = np.array([pool.right([t]).mean() for t in pool.templates])
        top = [pool.templates[i] for i in np.argsort(-each, kind="stable")[: given.top]]
        print(f"\n{path}: {n} images, {P} templates")
        print(f"  mean ensemble                {100 * base.mean():6.2f}")
        print(
            f"  one template                 {100 * np.median(each):6.2f}"
            f"  (median; {100 * each.min():.2f} to {100 * each.max():.2f})"
        )
        rng = np.random.default_rng(0)
        three = [rng.choice(pool.templates, given.top, replace=False).tolist() for _ in range(200)]
        rates = 100 * np.array([pool.right(chosen).mean() for chosen in three])
        print(
            f"  as many at random            {rates.mean():6.2f}"
            f"  {rates.mean() - 100 * base.mean():+6.2f}"
        )
        print(f"  as many, best by labels      {against(pool.right(top), base, draws)}")
        for fitness in ("zpe", "confidence"):
            full = pool.search(fitness, -(-P // 5) + 1, 0)
            value = {t.template: t.fitness for t in full.trials}
            rank = spearmanr([value[t] for t in pool.templates], each).statistic
            chosen = [t.template for t in full.best()]
            print(f"  {fitness + ', all':28s} {against(pool.right(chosen), base, draws)}")
            some = [
                pool.right([t.template for t in pool.search(fitness, given.rounds, s).best()])
                for s in range(given.seeds)
            ]
            rates = 100 * np.array([r.mean() for r in some])
            print(
                f"  {fitness}, {given.rounds} rounds".ljust(30)
                + f" {rates.mean():6.2f}  {rates.mean() - 100 * base.mean():+6.2f}"
                f" ({rates.min():.2f} to {rates.max():.2f})"
            )
            print(f"    Spearman of fitness and accuracy over the templates {rank:+.2f}")
            print(f"    chosen: {'; '.join(chosen)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
