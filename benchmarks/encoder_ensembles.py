"""Plain and weighted ensembles of encoders on labelled tasks: gains and losses, with intervals.

    python benchmarks/encoder_ensembles.py TASK.npz TASK.npz ... [--draws 1000]

The tasks hold vectors of the same images, in the same order, by different encoders, and the same
classes. Every encoder by itself, every pair, and all of them: with equal weights and with the
label-free ones ("zpe"), averaging logits and probabilities. The last column is the top-1 minus that
of the best encoder in the ensemble, which labels have told: no user without labels knows which it
is. Intervals are 95 % percentiles over resampled images, the same draws everywhere.
"""

from __future__ import annotations

import argparse
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byname.bootstrap import Interval, Metric, difference, draw_values
from byname.decide.argmax import most_probable
from byname.programs.router import EncoderEnsemble
from byname.scoring import Predicted, score
from byname.stage import State
from byname.taskfile import Task


def show(x: Interval | dict[str, float]) -> str:
    value, low, high = x if isinstance(x, tuple) else (x["value"], x["low"], x["high"])
    return f"{100 * value:.2f} [{100 * low:.2f}, {100 * high:.2f}]"


def right(S: NDArray[Any], y: NDArray[np.intp]) -> Metric:
    correct = (S.argmax(axis=1) == y) / len(y)
    return lambda weights: correct @ weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("tasks", type=Path, nargs="+", help="files of the same images and classes")
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--recipe", default="ensemble")
    args = parser.parse_args()
    tasks = {path.stem: Task.load(path) for path in args.tasks}
    y = next(iter(tasks.values())).labels
    assert y is not None
    for name, task in tasks.items():
        # The only sign in these files that they are about the same images.
        assert task.labels is not None
        assert np.array_equal(task.labels, y), f"{name} has other images, or another order"
    texts = {name: task.texts_for("templates") for name, task in tasks.items()}
    made: dict[tuple[str, ...], dict[str, tuple[NDArray[Any], list[float]]]] = {}
    for size in range(1, len(tasks) + 1):
        for names in combinations(tasks, size):
            made[names] = {}
            for weights in ("equal", "zpe") if size > 1 else ("equal",):
                for combine in ("logits", "probabilities") if size > 1 else ("logits",):
                    model = EncoderEnsemble(
                        [texts[n] for n in names], weights, combine=combine, recipe=args.recipe
                    )
                    X = [tasks[n].images for n in names]
                    S = model.fit(X).decision_function(X)
                    made[names][f"{weights}, {combine}"] = (S, model.weights_.tolist())
    report(made, texts[next(iter(tasks))], y, args.draws)


def report(made: Any, texts: Any, y: NDArray[np.intp], draws: int) -> None:
    rows = {
        f"{' + '.join(names)} | {how}": S
        for names, of in made.items()
        for how, (S, _) in of.items()
    }
    predicted = {
        name: Predicted(most_probable(texts, State(S=S, k=1)), S, texts.taxonomy)
        for name, S in rows.items()
    }
    table = score(predicted, y, ("top1", "worst3"), draws=draws)
    drawn = draw_values({name: right(S, y) for name, S in rows.items()}, len(y), draws=draws)
    print("| encoders | how | weights | top-1 % | worst 3 % | top-1 minus best encoder's |")
    print("|---|---|---|---|---|---|")
    for names, of in made.items():
        singles = [f"{n} | equal, logits" for n in names]
        best = max(singles, key=lambda n: drawn[n][0])
        for how, (_, w) in of.items():
            name = f"{' + '.join(names)} | {how}"
            gain = "" if len(names) == 1 else show(difference(drawn[name], drawn[best]))
            shares = ", ".join(f"{x:.2f}" for x in w)
            found = table[name]
            print(
                f"| {name} | {shares} | {show(found['top1'])} | {show(found['worst3'])} | {gain} |"
            )


if __name__ == "__main__":
    main()
