"""Few labelled images of each class of a task: accuracy on all the others, by number of shots.

python benchmarks/fewshot.py TASK.npz... [--shots 1 4 16] [--draws 3] [--seeds 1]

Top-1 and the accuracy of the worst class in %, means over draws of the labelled images. With more
seeds of the folds on which settings are chosen, in place of the worst class how far top-1 is apart
between them: the largest less the least, mean over the draws. All that is chosen is chosen on the
labelled images; "searched" and "TransCLIP-FS" keep their defaults where no two classes have three
of them, and a head that has nothing to validate on is left out.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np

from byname import ops
from byname.errors import UsageError
from byname.programs.fewshot import FewShot
from byname.programs.fewshot_heads import FewShotHead
from byname.programs.transclip_fs import TransClipFewShot
from byname.stage import ClassTexts
from byname.taskfile import Task


class Searched(FewShot):
    """FewShot that chooses alpha and beta on the support."""

    seed = 0

    def fit(self, *given: Any) -> Any:
        super().fit(*given).search(seed=self.seed)
        return self


def makers(texts: ClassTexts, seed: int) -> dict[str, Callable[[], Any]]:
    Searched.seed = seed
    return {
        "zero-shot": lambda: FewShot(texts, alpha=0.0),
        "Tip-Adapter, as published": lambda: FewShot(texts),
        "Tip-Adapter, searched": lambda: Searched(texts),
        "CODER, at Tip-Adapter's setting": lambda: FewShot(texts, "coder"),
        "CODER, searched": lambda: Searched(texts, "coder"),
        "gaussian": lambda: FewShotHead(texts, seed=seed),
        "gaussian without texts": lambda: FewShotHead(texts, use_texts=False, seed=seed),
        "linear": lambda: FewShotHead(texts, "linear", seed=seed),
        "TransCLIP-FS": lambda: TransClipFewShot(texts, seed=seed),
        "TransCLIP, no labels": lambda: NoLabels(texts),
    }


class NoLabels(TransClipFewShot):
    """What the other images give by themselves."""

    def fit(self, X: Any, class_ids: Any = None) -> Any:
        return super().fit(X[:0], [])


def found(task: Task, shots: int, draws: int, seeds: int) -> dict[str, tuple[float, float] | None]:
    """Top-1 and worst class, or spread, of each method; None where it cannot choose."""
    texts, X = task.texts_for("templates"), np.asarray(ops.unit(task.batch().X))
    y, ids = np.asarray(task.labels), np.array(texts.taxonomy.class_ids)
    rows: dict[str, tuple[float, float] | None] = {}
    for name in makers(texts, 0):
        figures = []
        for draw in range(draws):
            order = np.random.default_rng(draw).permutation(len(X))
            mine = np.concatenate([order[y[order] == k][:shots] for k in range(len(ids))])
            rest = np.setdiff1d(np.arange(len(X)), mine)
            top, worst = [], []
            try:
                for seed in range(seeds):
                    model = makers(texts, seed)[name]().fit(X[mine], ids[y[mine]])
                    right = model.predict(X[rest]) == ids[y[rest]]
                    top.append(right.mean())
                    worst.append(min(right[y[rest] == k].mean() for k in np.unique(y[rest])))
            except UsageError:
                break
            figures.append((np.mean(top), worst[0] if seeds == 1 else np.ptp(top)))
        means = 100 * np.mean(figures, axis=0) if figures else (0.0, 0.0)
        rows[name] = (float(means[0]), float(means[1])) if figures else None
    return rows


def main() -> None:
    """One table a task: methods by number of shots."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("tasks", nargs="+", metavar="TASK.npz")
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=1)
    args = parser.parse_args()
    digits = 0 if args.seeds == 1 else 1
    for path in args.tasks:
        columns = [found(Task.load(path), shots, args.draws, args.seeds) for shots in args.shots]
        print(f"\n| {path} | " + " | ".join(f"{s} a class" for s in args.shots) + " |")
        print("|---" * (len(args.shots) + 1) + "|")
        for name in columns[0]:
            pairs = [column[name] for column in columns]
            cells = ["-" if p is None else f"{p[0]:.1f} ({p[1]:.{digits}f})" for p in pairs]
            print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
