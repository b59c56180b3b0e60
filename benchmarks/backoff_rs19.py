"""What backing off answers on rs19, with and without the label-free temperature.

    python benchmarks/backoff_rs19.py [--data FOLDER]

FOLDER holds clip-rn50.npz, clip-vit-b-32.npz and clip-vit-l-14.npz; by default data/rs19 under
BYNAME_SHARED. The taxonomy is data/rs19_taxonomy.csv beside this file. The first table compares
three label-free estimates of the accuracy of the ensemble of all templates: its mean confidence,
the rate at which the ensembles of two halves of the templates agree, and that of single templates,
which ``backoff`` uses. The second counts answers: a class or group is right if the true class is it
or lies below it; an answer with the root says nothing.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from byname.calibration import ece
from byname.decide.backoff import Backoff, prompt_agreement, temperature_for
from byname.ops import softmax, unit
from byname.pipeline import Pipeline
from byname.recipes import get_recipe
from byname.stage import State
from byname.taskfile import Task

HERE = Path(__file__).parent
TASKS = ("clip-rn50", "clip-vit-b-32", "clip-vit-l-14")


def halves(task: Task) -> float:
    """Agreement of the mean of the even templates with that of the odd ones."""
    sides = [unit(task.texts[start::2].mean(axis=0)) for start in (0, 1)]
    first, second = ((task.images @ side.T).argmax(axis=1) for side in sides)
    return float((first == second).mean())


def error(S: NDArray[np.float32], labels: NDArray[np.intp], T: float) -> float:
    P = softmax(S / T)
    return ece(P.max(axis=1), P.argmax(axis=1) == labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    default = Path(os.environ.get("BYNAME_SHARED", "../shared")) / "data" / "rs19"
    parser.add_argument("--data", type=Path, default=default, help="folder of the .npz files")
    parser.add_argument("--taxonomy", type=Path, default=HERE / "data" / "rs19_taxonomy.csv")
    args = parser.parse_args()
    print("| encoder | top-1 | confidence | halves agree | templates agree | T | ECE, T = 1 |"
          " ECE, T of halves | ECE, T of templates |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|")
    tables = []
    for name in TASKS:
        task = Task.load(args.data / f"{name}.npz", taxonomy=args.taxonomy)
        assert task.labels is not None
        recipe = get_recipe("ensemble")
        texts, batch = task.texts_for(recipe.prompts), task.batch()
        S = Pipeline(recipe).fit(texts).scores(batch)
        two, single = halves(task), prompt_agreement(batch.X, texts)
        T = temperature_for(S, single)
        figures = [(S.argmax(1) == task.labels).mean(), softmax(S).max(1).mean(), two, single, T]
        figures += [error(S, task.labels, t) for t in (1.0, temperature_for(S, two), T)]
        print(f"| {name} | " + " | ".join(f"{x:.3f}" for x in figures) + " |")
        up = [{leaf.id, *task.taxonomy.ancestors(leaf.id)} for leaf in task.taxonomy.classes]
        for calibrate in ("off", "agreement"):
            for threshold in (0.5, 0.7, 0.9):
                member = Backoff(threshold=threshold, calibrate=calibrate)
                answer = member.fit(batch, texts, State(S=S)).apply(batch, texts, State(S=S))
                node, nodes = answer.node[:, 0], task.taxonomy.nodes
                right = np.array(
                    [nodes[n].id in up[y] for n, y in zip(node, task.labels, strict=True)]
                )
                leaf, root = task.taxonomy.heights[node] == 0, node == 0
                group = ~leaf & ~root
                shares = [leaf.mean(), right[leaf].mean(), group.mean(), right[group].mean()]
                shares += [root.mean(), right[~root].mean()]
                row = " | ".join(f"{x:.3f}" for x in shares)
                tables.append(f"| {name} | {calibrate} | {threshold} | {row} |")
    print("\n| encoder | calibrate | threshold | classes | right | groups | right | root |"
          " right, of all but root |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|")
    print("\n".join(tables))


if __name__ == "__main__":
    main()
