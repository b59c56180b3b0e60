"""Ways of weighing prompts by margins, against the mean ensemble, on made-up tasks.

    python benchmarks/cpe_synthetic.py [--tasks 100] [--first 1000]

``temperature=auto`` and its factor were chosen on tasks 0 to 59 and 100 to 199, among some twenty
other ways; by default others are shown, that nothing was chosen on.
"""

from __future__ import annotations

import argparse

import numpy as np
from synthetic import make_task

from byname.margins import pseudo_labels
from byname.stage import State, create

SPECS = (
    "mean",
    "cpe",
    "cpe[per_class=true]",
    "cpe[q=all]",
    "cpe[q=all,per_class=true]",
    "cpe[prune=true]",
    "cpe[rounds=3]",
    "cpe[temperature=auto]",
    "cpe[temperature=auto,per_class=true]",
    "cpe[temperature=auto,per_class=true,prune=true]",
)


def measure(spec: str, seed: int) -> tuple[float, float, float]:
    """Top-1, accuracy of the worst tenth of the classes, share of effective prompts."""
    task = make_task(seed)
    texts, batch = task.texts_for("templates"), task.batch()
    member = create(spec, "weigh").fit(batch, texts, State())
    right = pseudo_labels(batch.X, member.apply(batch, texts, State())) == task.labels
    accuracy = np.sort([right[task.labels == k].mean() for k in np.unique(task.labels)])
    worst = accuracy[: max(1, len(accuracy) // 10)].mean()
    P = len(task.templates)
    return float(right.mean()), float(worst), getattr(member, "effective_prompts_", P) / P


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tasks", type=int, default=100)
    parser.add_argument("--first", type=int, default=1000, help="seed of the first task")
    given = parser.parse_args()
    seeds = range(given.first, given.first + given.tasks)
    base: np.ndarray | None = None
    print("points above the mean ensemble, over", len(seeds), "tasks")
    print(f"{'weights':50s} prompts  top-1  lowest  better  worse  worst tenth of classes")
    for spec in SPECS:
        found = np.array([measure(spec, seed) for seed in seeds])
        base = found if base is None else base
        top1, worst = 100 * (found - base)[:, :2].T
        print(
            f"{spec:50s} {100 * found[:, 2].mean():5.0f} %  {top1.mean():+5.2f}  {top1.min():+6.1f}"
            f"  {100 * (top1 > 0).mean():4.0f} %  {100 * (top1 < 0).mean():3.0f} %"
            f"  {worst.mean():+.2f}"
        )


if __name__ == "__main__":
    main()
