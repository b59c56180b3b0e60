"""Cascades and the conformal filter on labelled tasks: accuracy against what dear encoders see.

    python benchmarks/cascade.py CHEAP.npz [MIDDLE.npz ...] DEAR.npz

The tasks hold vectors of the same images, in the same order, by encoders of rising cost, and the
same classes. First each encoder alone and the cascade of them, with its links; then, for the first
and the last of them, how many classes the conformal filter leaves for the last one, calibrated on
every second image with the last one's answers and measured on the others. Nothing is learned from
labels.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byname.bootstrap import Interval, bootstrap
from byname.ops import softmax
from byname.pipeline import Pipeline
from byname.programs.cascade import Cascade
from byname.programs.conformal_filter import ConformalFilter
from byname.recipes import get_recipe
from byname.taskfile import Task


def accuracy(correct: NDArray[np.bool_]) -> str:
    found: Interval = bootstrap(lambda weights: correct @ weights / len(correct), len(correct))
    return f"{100 * found.value:.2f} [{100 * found.low:.2f}, {100 * found.high:.2f}]"


def estimator(P: NDArray[Any], ids: NDArray[Any], margin: bool = False) -> Any:
    """Answers images by their numbers."""

    def answer(rows: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        top = -np.sort(-P[rows], axis=1)
        return ids[P[rows].argmax(axis=1)], top[:, 0] - (top[:, 1] if margin else 0)

    return answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("tasks", type=Path, nargs="+", help="two files or more, cheapest first")
    parser.add_argument("--recipe", default="ensemble")
    args = parser.parse_args()
    tasks = {path.stem: Task.load(path) for path in args.tasks}
    y = next(iter(tasks.values())).labels
    assert y is not None
    P = {}
    for name, task in tasks.items():
        assert task.labels is not None
        assert np.array_equal(task.labels, y), f"{name} has other images, or another order"
        recipe = get_recipe(args.recipe)
        pipeline = Pipeline(recipe).fit(task.texts_for(recipe.prompts), task.batch())
        P[name] = softmax(np.asarray(pipeline.scores(task.batch()), np.float64))
    ids = np.array(next(iter(tasks.values())).taxonomy.class_ids)
    cascades(P, ids, y)
    filters(P, ids, y)


def cascades(P: dict[str, NDArray[Any]], ids: NDArray[Any], y: NDArray[np.intp]) -> None:
    names, items = list(P), np.arange(len(y))
    print("| answers | top-1 % | share of images seen by each link | answered by each link |")
    print("|---|---|---|---|")
    for name in names:
        print(f"| {name} | {accuracy(P[name].argmax(axis=1) == y)} | | |")
    chains = [names] if len(names) == 2 else [[names[0], names[-1]], names[-2:], names]
    for chain in chains:
        for margin in (False, True):
            found = Cascade([estimator(P[n], ids, margin) for n in chain], names=chain).run(items)
            seen = ", ".join(f"{link.share_seen:.2f}" for link in found.links)
            own = ", ".join(f"{link.answered / len(y):.2f}" for link in found.links)
            by = "margin" if margin else "probability"
            right = accuracy(found.labels == ids[y])
            print(f"| {' -> '.join(chain)}, by {by} | {right} | {seen} | {own} |")


def filters(P: dict[str, NDArray[Any]], ids: NDArray[Any], y: NDArray[np.intp]) -> None:
    names = list(P)
    fast, slow = P[names[0]], P[names[-1]]
    theirs = slow.argmax(axis=1)
    known, new = np.arange(len(y)) % 2 == 0, np.arange(len(y)) % 2 == 1
    print(f"\nFilter {names[0]}, then {names[-1]}, {int(known.sum())} calibration images:\n")
    print("| eps | variant | slow answer kept % | true class kept % | classes kept |"
          " slow scores % | images asked about % | top-1 % |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|")
    rows, place = np.flatnonzero(new), {i: k for k, i in enumerate(ids.tolist())}

    def ask(i: int, kept: Sequence[str]) -> str:
        return max(kept, key=lambda c: slow[rows[i], place[c]])

    for eps in (0.01, 0.05, 0.1):
        for variant in ("split", "adaptive"):
            model = ConformalFilter(ids.tolist(), eps, variant)
            model.fit(fast[known], ids[theirs[known]].tolist())
            found = model.predict(fast[new], ask)
            at = np.arange(len(rows))
            cells = [found.kept[at, theirs[new]].mean(), found.kept[at, y[new]].mean()]
            share = f"{found.kept.sum(axis=1).mean():.2f} | {100 * found.share:.1f}"
            asked = 100 * found.calls / len(rows)
            covered = " | ".join(f"{100 * c:.1f}" for c in cells)
            right = accuracy(found.ids == ids[y[new]])
            print(f"| {eps} | {variant} | {covered} | {share} | {asked:.1f} | {right} |")
    print(f"\n{names[-1]} alone on these images: {accuracy(theirs[new] == y[new])}")


if __name__ == "__main__":
    main()
