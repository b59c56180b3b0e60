"""Fit the constants of ``byname.expectation`` on made-up tasks; test them on families left out.

    python benchmarks/diagnose_synthetic.py [--tasks 32]

No real data is read. Seven families of tasks (``expectation_families.py``), so many of each, and
half as many hard ones. Of each task the answers of ``ensemble`` are estimated, and those of
``ensemble`` with ``auto`` and with ``label_vectors``. Hard tasks are only reported: no sign tells
them from the others, and fitted with them the estimate is too low for the others and the interval
says nothing. Each class counts in its task by the root of its images. Printed: the constants fitted
on all families beside those in use, and what constants fitted on the others give on each family.
The spreads of the intervals are such that, with families left out, 5 % of the truths of tasks that
are not hard are below the lower end and 5 % above the upper one.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from expectation_families import EVERY, draw, hard
from scipy.optimize import brentq, minimize
from scipy.stats import spearmanr

from byname import expectation
from byname.expectation import POOLED, TEXTS, Signals, ahead, centred, changed, interval, look
from byname.margins import cmm
from byname.stage import Batch, ClassTexts, State, create
from byname.taxonomy import Taxonomy

RECIPES = ("plain", "auto", "label_vectors")
USUAL = ("as is", "Zipf")  # scenarios in which most classes have images
RARE = 1e-6  # what a hard task counts: in no case that matters


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

    @property
    def weight(self) -> float:
        return RARE if self.scenario == "hard" else 1.0


def cases(given: tuple[str, int, bool]) -> list[Case]:
    family, seed, is_hard = given
    scenario, (X, W, y), scale = (hard if is_hard else draw)(family, seed)
    K = len(W)
    texts = ClassTexts(W, np.arange(K), Taxonomy.from_names([f"class {k}" for k in range(K)]))
    S, C, made = np.asarray(scale * X @ W.T, np.float32), X @ W.T, []
    base, state = look(X, W, S), State(W=W, S=S)
    n = np.bincount(y, minlength=K)
    for recipe in RECIPES:
        answer = base.z.argmax(axis=1) if recipe == "auto" else S.argmax(axis=1)
        if recipe == "label_vectors":
            member = create(recipe, "refine").fit(Batch(X), texts, state)
            answer = np.asarray(member.apply(Batch(X), texts, state)).argmax(axis=1)
        values, count = cmm((X, W), answer)
        gap, m, other = ahead(C, answer), centred(S, answer), changed(S, answer)
        seen = replace(base, cmm=values, count=count, y=answer, gap=gap, m=m, pooled_answers=other)
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

    # All signs are meant so that more of them is better.
    bounds = [(None, None), *[(0, None)] * (A.shape[1] - 1)]
    return minimize(loss, np.zeros(A.shape[1]), jac=True, bounds=bounds).x


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
        weight.append(np.full(len(pick), case.weight / len(pick)))
    image = regress(np.vstack(rows), np.concatenate(truth), np.concatenate(weight))
    rows, truth, weight = [], [], []
    for case in some:
        used = (case.n > 0) & (case.signs.count > 0)
        if used.any():
            rows.append(case.signs.class_signs()[used])
            truth.append(case.accuracy[used])
            root = np.sqrt(case.n[used])
            weight.append(case.weight * root / root.sum())
    each = regress(np.vstack(rows), np.concatenate(truth), np.concatenate(weight))
    rows = []
    for case in some:
        right = 1 / (1 + np.exp(-case.signs.image_signs() @ image))
        classes = 1 / (1 + np.exp(-case.signs.class_signs() @ each))
        classes[case.signs.count == 0] = 0
        rows.append(case.signs.overall_signs(classes, right))
    top1 = np.array([case.right.mean() for case in some])
    overall = regress(np.vstack(rows), top1, np.array([case.weight for case in some]))
    found = {"image": image, "class": each, "overall": overall}
    made = {name: dict(zip(TEXTS[name], b.tolist(), strict=True)) for name, b in found.items()}
    return {**made, "spread": spread}


def use(constants: dict[str, expectation.Constants]) -> None:
    for name, some in constants.items():
        setattr(expectation, name, some)


def estimate(case: Case) -> tuple[float, np.ndarray]:
    return case.signs.overall(), case.signs.expected()


Held = list[tuple[Case, float, np.ndarray]]


def spreads(held: Held) -> dict[str, float]:
    """Deviations in logits with which 5 % of the tasks that are not hard are off to each side."""
    made = {}
    for kind, side in product(("overall", "class"), (0, 1)):
        part = [one for one in held if one[0].scenario != "hard"]

        def more(s: float, kind: str = kind, side: int = side, part: Held = part) -> float:
            return float(np.mean([outside(kind, (s, s), *one)[side] for one in part])) - 0.05

        found = 0.01 if more(0.01) < 0 else float(brentq(more, 0.01, 9, xtol=1e-3))
        made[f"{kind} {('low', 'high')[side]}"] = found
    return made


def outside(
    kind: str, spread: tuple[float, float], case: Case, overall: float, each: np.ndarray
) -> np.ndarray:
    """Share of the truths below the lower and above the upper end."""
    if kind == "overall":
        low, high = interval(np.array(overall), np.array(case.signs.n), *spread)
        return np.array([case.right.mean() < low, case.right.mean() > high], float)
    seen = (case.n > 0) & (case.signs.count > 0)
    if not seen.any():
        return np.array([0.05, 0.05])
    n, truth = (case.signs.mass * case.signs.n)[seen], case.accuracy[seen]
    low, high = interval(each[seen], n, *spread).T
    return np.array([(truth < low).mean(), (truth > high).mean()])


def covered(kind: str, constants: expectation.Constants, *one: object) -> float:
    s = constants["spread"]
    return 1 - float(outside(kind, (s[f"{kind} low"], s[f"{kind} high"]), *one).sum())


def ranks(case: Case, each: np.ndarray) -> tuple[float, float, float]:
    """Spearman, true worst three among the five, and mean error of a class."""
    seen = case.n > 0
    x, y = each[seen], case.accuracy[seen]
    wrong = float(np.abs(x - y).mean())
    if seen.sum() < 8 or not np.ptp(y) or not np.ptp(x):
        return np.nan, np.nan, wrong
    worst = np.isin(np.argsort(y, kind="stable")[:3], np.argsort(x, kind="stable")[:5]).sum()
    return float(spearmanr(x, y)[0]), float(worst), wrong


def row(name: str, held: Held, using: dict[str, expectation.Constants]) -> str:
    error = np.array([overall - case.right.mean() for case, overall, _ in held])
    kind = np.array([case.scenario for case, *_ in held])
    usual, rare = np.isin(kind, USUAL), kind == "hard"
    rank = np.array([ranks(case, each) for case, _, each in held])
    inside = np.array(
        [[covered(k, using[set_of(one[0])], *one) for k in ("overall", "class")] for one in held]
    )
    off, other = np.abs(error), ~usual & ~rare
    return (
        f"{name:24s}{off[usual].mean():7.3f}{off[other].mean():7.3f}{off[rare].mean():7.3f}"
        f"{error[usual].mean():+8.3f}{error[rare].mean():+7.3f}{(off[usual] <= 0.05).mean():6.2f}"
        f"{np.nanmean(rank[usual, 0]):6.2f}{np.nanmean(rank[usual, 1]):6.2f}"
        f"{rank[usual, 2].mean():7.3f}{rank[rare, 2].mean():7.3f}"
        f"{inside[~rare, 0].mean():7.2f}{inside[rare, 0].mean():6.2f}"
        f"{inside[~rare, 1].mean():7.2f}{inside[rare, 1].mean():6.2f}"
    )


def set_of(case: Case) -> str:
    return "POOLED" if case.signs.pooled_answers else "TEXTS"


def left_out(some: list[Case]) -> Held:
    """Estimates of each family with constants fitted on the others."""
    held: Held = []
    for family in EVERY:
        others = sets([case for case in some if case.family != family])
        use({name: fit(part, {}) for name, part in others.items()})
        held += [(case, *estimate(case)) for case in some if case.family == family]
    return held


def report(held: Held, using: dict[str, expectation.Constants]) -> None:
    print("\noverall: mean error in usual scenarios, other ones, and hard tasks, bias in usual")
    print(
        "ones and hard ones, share within 5 points (usual); classes (usual): Spearman, true worst"
    )
    print(
        "3 among 5, mean error, and that in hard tasks; intervals that hold the truth, of all but"
    )
    print("hard tasks and of hard ones: overall, classes")
    print(
        f"{'left out':24s}  usual  other   hard   usual   hard <=.05  rho  w. 3  usual   hard"
        "  others hard others  hard"
    )
    for family, recipe in product(EVERY, RECIPES):
        part = [one for one in held if (one[0].family, one[0].recipe) == (family, recipe)]
        print(row(f"{family}, {recipe}", part, using))
    for recipe in RECIPES:
        print(row(f"all, {recipe}", [one for one in held if one[0].recipe == recipe], using))


def run(some: list[Case]) -> None:
    """Fit, test and print."""
    in_use = {"TEXTS": TEXTS, "POOLED": POOLED}
    held = left_out(some)
    fitted = {}
    for name, part in sets(some).items():
        mine = {id(case) for case in part}
        fitted[name] = fit(part, spreads([one for one in held if id(one[0]) in mine]))
        for key, found in fitted[name].items():
            print(name, key, "fitted", {k: round(v, 2) for k, v in found.items()})
            print(name, key, "in use", in_use[name][key])
    report(held, fitted)
    use(in_use)
    for recipe in RECIPES:
        part = [(case, *estimate(case)) for case in some if case.recipe == recipe]
        print(row(f"in use, {recipe}", part, in_use))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tasks", type=int, default=32, help="tasks of each family")
    parser.add_argument("--first", type=int, default=0, help="seed of the first")
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    seeds = range(given.first, given.first + given.tasks)
    rare = range(given.first, given.first + given.tasks // 2)
    asked = [(*one, False) for one in product(EVERY, seeds)]
    asked += [(*one, True) for one in product(EVERY, rare)]
    with ProcessPoolExecutor(given.jobs) as pool:
        found = pool.map(cases, asked, chunksize=2)
        some = [case for made in found for case in made]
    run(some)


if __name__ == "__main__":
    main()
