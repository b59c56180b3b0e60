"""Fit the constants of ``byname.expectation`` on made-up tasks; test them on families left out.

    python benchmarks/diagnose_synthetic.py [--tasks 60]

No real data is read. Five families of tasks (``expectation_families.py``), so many of each. Of each
task the answers of ``ensemble`` are estimated, and those of ``ensemble`` with ``auto`` and with
``label_vectors``. Every task counts the same, and each class in its task by the root of its images.
Printed: the constants fitted on all families beside those in use, and what constants fitted on the
other four give on each. The spread of the intervals is such that, with families left
out, they hold 90 % of the truths.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from expectation_families import FAMILIES, draw
from scipy.optimize import brentq, minimize
from scipy.stats import spearmanr

from byname import expectation
from byname.expectation import POOLED, TEXTS, Signals, ahead, interval, look
from byname.margins import cmm
from byname.stage import Batch, ClassTexts, State, create
from byname.taxonomy import Taxonomy

RECIPES = ("plain", "auto", "label_vectors")
USUAL = ("as is", "Zipf")  # scenarios in which most classes have images


@dataclass
class Case:
    """Signs and truth of the answers of one recipe to one task."""

    family: str
    scenario: str
    recipe: str
    signs: Signals
    right: np.ndarray  # of each image that was looked at
    accuracy: np.ndarray  # of each class
    n: np.ndarray  # images of each class


def cases(given: tuple[str, int]) -> list[Case]:
    family, seed = given
    scenario, (X, W, y), scale = draw(family, seed)
    K = len(W)
    texts = ClassTexts(W, np.arange(K), Taxonomy.from_names([f"class {k}" for k in range(K)]))
    S, C, made = np.asarray(scale * X @ W.T, np.float32), X @ W.T, []
    base, state = look(X, W, S), State(W=W, S=S)
    spread, n = S.std(axis=1), np.bincount(y, minlength=K)
    for recipe in RECIPES:
        answer = base.z.argmax(axis=1) if recipe == "auto" else S.argmax(axis=1)
        if recipe == "label_vectors":
            member = create(recipe, "refine").fit(Batch(X), texts, state)
            answer = np.asarray(member.apply(Batch(X), texts, state)).argmax(axis=1)
        values, count = cmm((X, W), answer)
        gap, m = ahead(C, answer), ahead(S, answer) / spread
        seen = replace(base, cmm=values, count=count, y=answer, gap=gap, m=m)
        right = answer == y
        each = np.bincount(y, right, K) / np.maximum(n, 1)
        made.append(Case(family, scenario, recipe, seen.signals(), right, each, n))
    return made


def regress(A: np.ndarray, y: np.ndarray, w: np.ndarray) -> np.ndarray:
    def loss(b: np.ndarray) -> tuple[float, np.ndarray]:
        z = A @ b
        slope = A.T @ (w * (1 / (1 + np.exp(-z)) - y))
        penalty = 1e-3 * np.r_[0, b[1:]]
        return float((w * (np.logaddexp(0, z) - y * z)).sum() + penalty @ b), slope + 2 * penalty

    return minimize(loss, np.zeros(A.shape[1]), jac=True).x


def sets(some: list[Case]) -> dict[str, list[Case]]:
    """The cases of each set of constants."""
    return {
        "TEXTS": [case for case in some if case.recipe == "plain"],
        "POOLED": [case for case in some if set_of(case) == "POOLED"],
    }


def fit(some: list[Case], spread: dict[str, float]) -> expectation.Constants:
    """Constants of the images, of the classes, and of the two together."""
    rng, rows, truth, weight = np.random.default_rng(0), [], [], []
    for case in some:
        pick = rng.permutation(len(case.right))[:300]
        rows.append(case.signs.image_signs()[pick])
        truth.append(case.right[pick])
        weight.append(np.full(len(pick), 1 / len(pick)))
    image = regress(np.vstack(rows), np.concatenate(truth), np.concatenate(weight))
    rows, truth, weight = [], [], []
    for case in some:
        used = (case.n > 0) & (case.signs.count > 0)
        if used.any():
            rows.append(case.signs.class_signs()[used])
            truth.append(case.accuracy[used])
            weight.append(np.sqrt(case.n[used]) / np.sqrt(case.n[used]).sum())
    each = regress(np.vstack(rows), np.concatenate(truth), np.concatenate(weight))
    rows = []
    for case in some:
        right = 1 / (1 + np.exp(-case.signs.image_signs() @ image))
        classes = 1 / (1 + np.exp(-case.signs.class_signs() @ each))
        classes[case.signs.count == 0] = 0
        rows.append(case.signs.overall_signs(classes, right))
    top1 = np.array([case.right.mean() for case in some])
    overall = regress(np.vstack(rows), top1, np.ones(len(top1)))
    found = {"image": image, "class": each, "overall": overall}
    made = {name: dict(zip(TEXTS[name], b.tolist(), strict=True)) for name, b in found.items()}
    return {**made, "spread": spread}


def use(constants: dict[str, expectation.Constants]) -> None:
    for name, some in constants.items():
        setattr(expectation, name, some)


def estimate(case: Case) -> tuple[float, np.ndarray]:
    return case.signs.overall(), case.signs.expected()


def spread_of(kind: str, held: list[tuple[Case, float, np.ndarray]]) -> float:
    """Deviation in logits with which intervals hold 90 % in the mean."""

    def short(s: float) -> float:
        return float(np.mean([covered(kind, s, *one) for one in held])) - 0.9

    return 0.01 if short(0.01) > 0 else float(brentq(short, 0.01, 9, xtol=1e-3))


def covered(kind: str, s: float, case: Case, overall: float, each: np.ndarray) -> float:
    if kind == "overall":
        low, high = interval(np.array(overall), np.array(case.signs.n), s)
        return float(low <= case.right.mean() <= high)
    seen = (case.n > 0) & (case.signs.count > 0)
    if not seen.any():
        return 0.9
    n = (case.signs.mass * case.signs.n)[seen]
    low, high = interval(each[seen], n, s).T
    return float(((low <= case.accuracy[seen]) & (case.accuracy[seen] <= high)).mean())


def ranks(case: Case, each: np.ndarray) -> tuple[float, float, float]:
    """Spearman, true worst three among the five, and mean error of a class."""
    seen = case.n > 0
    x, y = each[seen], case.accuracy[seen]
    wrong = float(np.abs(x - y).mean())
    if seen.sum() < 8 or not np.ptp(y) or not np.ptp(x):
        return np.nan, np.nan, wrong
    worst = np.isin(np.argsort(y, kind="stable")[:3], np.argsort(x, kind="stable")[:5]).sum()
    return float(spearmanr(x, y)[0]), float(worst), wrong


Held = list[tuple[Case, float, np.ndarray]]


def row(name: str, held: Held, spread: dict[str, dict[str, float]]) -> str:
    error = np.array([overall - case.right.mean() for case, overall, _ in held])
    usual = np.array([case.scenario in USUAL for case, *_ in held])
    rank = np.array([ranks(case, each) for case, _, each in held])
    inside = [
        np.mean([covered(kind, spread[set_of(one[0])][kind], *one) for one in held])
        for kind in ("overall", "class")
    ]
    part = [one for one in held if one[0].scenario in USUAL]
    common = np.mean([covered("overall", spread[set_of(one[0])]["overall"], *one) for one in part])
    return (
        f"{name:24s}{np.abs(error).mean():7.3f}{np.abs(error[usual]).mean():7.3f}"
        f"{error.mean():+8.3f}{(np.abs(error[usual]) <= 0.05).mean():7.2f}"
        f"{np.nanmean(rank[usual, 0]):10.2f}{np.nanmean(rank[usual, 1]):9.2f}"
        f"{rank[:, 2].mean():9.3f}{inside[0]:9.2f}{common:7.2f}{inside[1]:9.2f}"
    )


def set_of(case: Case) -> str:
    return "POOLED" if case.signs.pooled_answers else "TEXTS"


def left_out(some: list[Case]) -> Held:
    """Estimates of each family with constants fitted on the others."""
    held: Held = []
    for family in FAMILIES:
        others = sets([case for case in some if case.family != family])
        use({name: fit(part, {}) for name, part in others.items()})
        held += [(case, *estimate(case)) for case in some if case.family == family]
    return held


def report(held: Held, spread: dict[str, dict[str, float]]) -> None:
    print("\noverall: mean error of all tasks and of usual scenarios, bias, share within 5 points")
    print("(usual); classes: Spearman, true worst 3 among 5 (usual), mean error; intervals that")
    print("hold the truth: overall, overall in usual scenarios, classes")
    print(
        f"{'left out':24s}    all  usual    bias  <=.05  Spearman  worst 3  classes  overall  each"
    )
    for family, recipe in product(FAMILIES, RECIPES):
        part = [one for one in held if (one[0].family, one[0].recipe) == (family, recipe)]
        print(row(f"{family}, {recipe}", part, spread))
    for recipe in RECIPES:
        print(row(f"all, {recipe}", [one for one in held if one[0].recipe == recipe], spread))


def run(some: list[Case]) -> None:
    """Fit, test and print."""
    in_use = {"TEXTS": TEXTS, "POOLED": POOLED}
    held = left_out(some)
    spread = {}
    for name, part in sets(some).items():
        mine = {id(case) for case in part}
        own = [one for one in held if id(one[0]) in mine]
        spread[name] = {kind: spread_of(kind, own) for kind in ("overall", "class")}
    for name, part in sets(some).items():
        for key, fitted in fit(part, spread[name]).items():
            print(name, key, "fitted", {k: round(v, 2) for k, v in fitted.items()})
            print(name, key, "in use", in_use[name][key])
    used = {name: constants["spread"] for name, constants in in_use.items()}
    report(held, used)
    use(in_use)
    print(row("constants in use, all", [(case, *estimate(case)) for case in some], used))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tasks", type=int, default=60, help="tasks of each family")
    parser.add_argument("--first", type=int, default=0, help="seed of the first")
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    seeds = range(given.first, given.first + given.tasks)
    with ProcessPoolExecutor(given.jobs) as pool:
        found = pool.map(cases, product(FAMILIES, seeds), chunksize=4)
        some = [case for made in found for case in made]
    run(some)


if __name__ == "__main__":
    main()
