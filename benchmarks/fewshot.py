"""Few labelled images of each class of a task: accuracy on all the others, by number of shots.

python benchmarks/fewshot.py TASK.npz
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from byname import ops
from byname.programs.fewshot import FewShot
from byname.programs.fewshot_heads import FewShotHead
from byname.taskfile import Task

DRAWS = 3


def main(path: str) -> None:
    """One line a number of shots: mean accuracy over three draws of the labelled images."""
    task = Task.load(path)
    texts, X = task.texts_for("templates"), np.asarray(ops.unit(task.batch().X))
    y, ids = np.asarray(task.labels), np.array(texts.taxonomy.class_ids)
    makers: dict[str, Callable[[], Any]] = {
        "zero-shot": lambda: FewShot(texts, alpha=0.0),
        "tip": lambda: FewShot(texts),
        "gaussian": lambda: FewShotHead(texts),
        "gaussian alone": lambda: FewShotHead(texts, use_texts=False),
        "linear": lambda: FewShotHead(texts, "linear"),
    }
    print("shots " + " ".join(f"{name:>14}" for name in makers))
    for shots in (2, 4, 8, 16):
        found: dict[str, list[float]] = {name: [] for name in makers}
        for seed in range(DRAWS):
            order = np.random.default_rng(seed).permutation(len(X))
            mine = np.concatenate([order[y[order] == k][:shots] for k in range(len(ids))])
            rest = np.setdiff1d(np.arange(len(X)), mine)
            for name, make in makers.items():
                model = make().fit(X[mine], ids[y[mine]])
                found[name].append(float((model.predict(X[rest]) == ids[y[rest]]).mean()))
        print(f"{shots:5} " + " ".join(f"{100 * np.mean(v):14.1f}" for v in found.values()))


if __name__ == "__main__":
    main(sys.argv[1])
