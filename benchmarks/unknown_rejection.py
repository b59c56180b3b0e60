"""Are images of classes that nobody named told from those that were? rs19, 10 of 19 classes named.

    python benchmarks/unknown_rejection.py [--data FOLDER] [--draws 20] [--known 10]
        [--grocery FOLDER]

FOLDER holds clip-rn50.npz, clip-vit-b-32.npz and clip-vit-l-14.npz; by default data/rs19 under
BYNAME_SHARED. Each draw names other classes; the images of the rest are foreign. Figures are means
over the draws. AUROC is the chance that a known image scores above a foreign one. The task files
hold no vectors of null texts: in their place stand, for each template, the mean of the texts of the
named classes, which name no class in particular. What is learned from the batch is learned with the
foreign images in it; "clean" is the share of the known images that is rejected where there are
none. With --grocery (data/grocery) a second table has real null texts: 648 photos, the small
encoder ``mini``, two of the three groups named in turn.
"""

from __future__ import annotations

import argparse
import csv
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from byname.classifier import Classifier
from byname.flow import Batch, ClassTexts
from byname.ops import unit
from byname.pipeline import Pipeline
from byname.recipes import get_recipe
from byname.taskfile import Task
from byname.taxonomy import Taxonomy

TASKS = ("clip-rn50", "clip-vit-b-32", "clip-vit-l-14")
MEMBERS = ("reject", "unknown", "unknown_distance")


def auroc(score: NDArray[Any], known: NDArray[np.bool_]) -> float:
    """Chance that a known image scores above a foreign one; ties count half."""
    ranks, n = rankdata(score)[known], int(known.sum())
    return float((ranks.sum() - n * (n + 1) / 2) / (n * (len(known) - n)))


def named(task: Task, classes: NDArray[np.intp]) -> ClassTexts:
    """The texts of some classes, and what stands for texts of no class."""
    chosen = Taxonomy(task.taxonomy.classes[k] for k in classes)
    cut = replace(task, taxonomy=chosen, texts=task.texts[:, classes], labels=None)
    null = unit(cut.texts.mean(axis=1))
    return replace(cut.texts_for("templates"), null=null)


def draw(task: Task, classes: NDArray[np.intp], member: str) -> list[float]:
    """AUROC, and rejected shares of foreign, of known, and of known images among themselves."""
    assert task.labels is not None
    texts, known = named(task, classes), np.isin(task.labels, classes)
    pipeline, batch = Pipeline(get_recipe(member)).fit(texts, task.batch()), task.batch()
    S = pipeline.scores(batch)
    answer, _ = pipeline.decide(S, batch=batch)
    rejected = answer.decision == "reject"
    told = pipeline.details(batch, S)
    score = np.array(next(iter(told.values()))) if told else answer.probability[:, 0]
    alone = Batch(batch.X[known])
    clean = Pipeline(get_recipe(member)).fit(texts, alone)
    answer, _ = clean.decide(clean.scores(alone), batch=alone)
    shares = [rejected[~known].mean(), rejected[known].mean(), (answer.decision == "reject").mean()]
    return [auroc(score, known), *shares]


def groceries(folder: Path) -> None:
    """Two of three groups named; real null texts."""
    tables = [csv.DictReader((folder / f"{name}.csv").open()) for name in ("classes", "labels")]
    group = {row["class_id"]: row["group"] for row in tables[0]}
    truth = {Path(row["file_name"]).name: group[row["class_id"]] for row in tables[1]}
    groups = sorted(set(group.values()))
    print("\n| named | member | AUROC | foreign rejected | known rejected |\n|---|---|---|---|---|")
    for left in reversed(groups):
        names = [name for name in groups if name != left]
        for member in MEMBERS:
            model = Classifier(classes=names, encoder="mini", recipe=member)
            embedded = model.embed(str(folder / "images"))
            pipeline, batch = model.fit(embedded).pipeline_, Batch(embedded.vectors)
            S = pipeline.scores(batch)
            answer, _ = pipeline.decide(S, batch=batch)
            told, rejected = pipeline.details(batch, S), answer.decision == "reject"
            score = np.array(next(iter(told.values()))) if told else answer.probability[:, 0]
            known = np.array([truth[Path(key).name] in names for key in embedded.keys])
            row = f"{auroc(score, known):.3f} | {rejected[~known].mean():.3f}"
            print(f"| {', '.join(names)} | {member} | {row} | {rejected[known].mean():.3f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    default = Path(os.environ.get("BYNAME_SHARED", "../shared")) / "data" / "rs19"
    parser.add_argument("--data", type=Path, default=default, help="folder of the .npz files")
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--known", type=int, default=10, help="classes that are named")
    parser.add_argument("--grocery", type=Path, help="folder of images, classes.csv, labels.csv")
    args = parser.parse_args()
    print("| encoder | member | AUROC | lowest | foreign rejected | known rejected | clean |")
    print("|---|---|---|---|---|---|---|")
    for name in TASKS:
        task = Task.load(args.data / f"{name}.npz")
        K = len(task.taxonomy.classes)
        rng = np.random.default_rng(0)
        chosen = [np.sort(rng.permutation(K)[: args.known]) for _ in range(args.draws)]
        for member in MEMBERS:
            found = np.array([draw(task, classes, member) for classes in chosen])
            area, foreign, known, clean = found.mean(axis=0)
            row = f"{area:.3f} | {found[:, 0].min():.3f} | {foreign:.3f} | {known:.3f}"
            print(f"| {name} | {member} | {row} | {clean:.3f} |")
    if args.grocery:
        groceries(args.grocery)


if __name__ == "__main__":
    main()
