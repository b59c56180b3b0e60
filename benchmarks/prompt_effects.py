"""Does the label-free effect of a text find texts made bad, and does leaving them out help?

    python benchmarks/prompt_effects.py [--tasks 48] [--first 500]

No real data is read. Tasks are those of ``synthetic.py``, with all their templates, with 5 and with
3 of them. A share of the texts (0, 5 % and 20 %) is made bad, in equal parts: a random vector
around the mean text ("noise"), the text of another class in the same template ("other class"), a
text near the mean text, drawn to the mean image ("near to all images", a hub). Labels are only used
to see what leaving texts out does.

First, how well scores of a class find them: area under the ROC curve over all texts of classes
that are answered at least 5 times. ``agreement`` is the change of the chance-corrected agreement of
neighbours (``byname.knn.agreement``) without the text, ``cmm`` that of the class's mean margin,
``cmm and rivals`` less that of the images for which the class is second, ``effect`` what
``byname.study.texteffects`` uses. Second, what leaving out all texts with a lack above a threshold
does to the accuracy; "harm" is the share of tasks that lose more than 1 image in 200. "decide" is
the share of texts that are called deciding. The last line of each table leaves the texts that
hurt out only where neighbours agree no less afterwards (in brackets how often, of the tasks with
such texts).
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu
from synthetic import make_task

from byname.knn import agreement, nearest
from byname.margins import rivals
from byname.ops import unit
from byname.study.prompts import deciding, text_effects
from byname.study.subject import Subject
from byname.study.texteffects import HURTS, LEAST, agreement_without
from byname.taskfile import Task

KINDS = ("noise", "other class", "near to all images")
THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
SCORES = ("agreement", "cmm", "cmm and rivals", "effect")
MOST = 600  # texts of tasks in which the agreement is computed
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass
class Case:
    """Scores (P, K) of a task, and what leaving texts out does, by threshold."""

    scores: dict[str, Floats]
    bad: Flags
    kind: NDArray[np.intp]
    seen: Flags
    flagged: dict[float, Flags]
    gain: dict[float, float]
    all_bad: float
    deciding: float
    agreement: float | None  # change of it without all texts that hurt


def spoil(task: Task, seed: int, share: float, few: int) -> tuple[Task, Flags, NDArray[np.intp]]:
    """The task with some texts made bad: which (P, K), and how."""
    rng = np.random.default_rng([seed, 77])
    pick = rng.permutation(len(task.texts))[: few or None]
    T = task.texts[pick].astype(np.float64)
    good, (P, K, D) = T.copy(), T.shape
    bad, kind = rng.random((P, K)) < share, rng.integers(0, 3, (P, K))
    mean, spread, image = T.mean((0, 1)), T.reshape(-1, D).std(0), task.images.mean(0)
    for p, k in np.argwhere(bad):
        noise, j = spread * rng.standard_normal(D), (k + 1 + rng.integers(K - 1)) % K
        T[p, k] = (mean + noise, good[p, j], mean + 0.3 * (image + noise))[kind[p, k]]
    templates = tuple(task.templates[p] for p in pick)
    return replace(task, texts=np.asarray(unit(T), np.float32), templates=templates), bad, kind


def margins(task: Task, answers: NDArray[np.intp]) -> dict[str, Floats]:
    """Changes of other label-free scores without each text."""
    X, T = task.images, task.texts.astype(np.float64)
    P, K, _ = T.shape
    W = unit(T.mean(axis=0))
    C, second = X @ W.T, rivals(X, W, answers)
    beside = nearest(X, 10)[0] if P * K <= MOST else None
    now = 0.0 if beside is None else agreement(beside, answers, K)
    made = {name: np.zeros((P, K)) for name in SCORES[:3]}
    for k in range(K):
        without = X @ unit(T[:, k].sum(0) - T[:, k]).T
        own, rival = answers == k, second == k
        change = without - C[:, [k]]
        won = change[own].mean(0) if own.any() else np.zeros(P)
        lost = change[rival].mean(0) if rival.any() else np.zeros(P)
        made["cmm"][:, k], made["cmm and rivals"][:, k] = won, won - lost
        if beside is not None:
            others = np.where(own, second, answers)
            best = C[np.arange(len(C)), others]
            for p in range(P):
                y = np.where(without[:, p] > best, k, others)
                made["agreement"][p, k] = agreement(beside, y, K) - now
    return made if beside is not None else {**made, "agreement": np.full((P, K), np.nan)}


def measure(given: tuple[int, float, int]) -> Case:
    seed, share, few = given
    task, bad, kind = spoil(make_task(seed), seed, share, few)
    subject = Subject.of_task(replace(task, labels=None), "ensemble")
    effects, answers = text_effects(subject), subject.answers
    P, K, _ = task.texts.shape

    def table(values: NDArray[np.generic]) -> NDArray[np.generic]:
        return values.reshape(K, P).T

    count = np.bincount(answers, minlength=K)
    seen = np.broadcast_to(count >= LEAST, (P, K))
    lack = table(np.where(effects.has_effect, effects.lack, 0))
    right = float((answers == task.labels).mean())

    def gain(out: Flags) -> float:
        weight = 1 - (out & ~out.all(axis=0)).astype(float)
        W = unit((task.texts * weight[..., None]).sum(axis=0))
        return float(((task.images @ W.T).argmax(axis=1) == task.labels).mean()) - right

    flagged = {t: (lack > t) & seen for t in THRESHOLDS}
    return Case(
        scores=margins(task, answers) | {"effect": table(effects.effect)},
        bad=bad,
        kind=kind,
        seen=seen,
        flagged=flagged,
        gain={t: gain(out) for t, out in flagged.items()},
        all_bad=gain(bad),
        deciding=len(deciding(subject, effects)) / (P * K),
        agreement=agreement_without(subject),
    )


def auroc(value: Floats, bad: Flags) -> float:
    if not bad.any() or bad.all() or np.isnan(value).any():
        return np.nan
    U = mannwhitneyu(value[bad], value[~bad]).statistic
    return float(U / (bad.sum() * (~bad).sum()))


def report(name: str, share: float, some: list[Case]) -> None:
    print(f"\n{name}, {share:.0%} of the texts bad; without all of them the accuracy would rise by "
          f"{100 * np.mean([case.all_bad for case in some]):+.2f} points; "
          f"{np.mean([case.deciding for case in some]):.2%} decide")  # fmt: skip
    if share:
        print(f"{'area under ROC':16s}" + "".join(f"{one:>20s}" for one in ("all", *KINDS)))
        for score in SCORES:
            cells = []
            for kind in (-1, 0, 1, 2):
                found = [
                    auroc(case.scores[score][use], case.bad[use])
                    for case in some
                    for use in [case.seen & (~case.bad | (kind < 0) | (case.kind == kind))]
                ]
                cells.append(np.nanmean(found))
            print(f"{score:16s}" + "".join(f"{one:20.3f}" for one in cells))
    print("lack above   flagged  of them bad  of bad found   points  worst   harm")
    for t in THRESHOLDS:
        n = sum(case.flagged[t].sum() for case in some)
        hit = sum((case.flagged[t] & case.bad).sum() for case in some)
        bad = sum((case.seen & case.bad).sum() for case in some)
        gain = np.array([case.gain[t] for case in some])
        texts = sum(case.seen.sum() for case in some)
        print(
            f"{t:10.1f} {n / texts:9.2%} {hit / max(n, 1):12.1%} {hit / max(bad, 1):13.1%} "
            f"{100 * gain.mean():+8.2f} {100 * gain.min():+6.1f} {(gain < -0.005).mean():6.0%}"
        )
    held = [case.gain[HURTS] if (case.agreement or 0) >= 0 else 0.0 for case in some]
    some_flagged = [case for case in some if case.agreement is not None]
    kept = np.mean([(case.agreement or 0) >= 0 for case in some_flagged])
    print(
        f"{HURTS:10.1f} where neighbours agree no less ({kept:4.0%}) "
        f"{100 * np.mean(held):+8.2f} {100 * np.min(held):+6.1f} "
        f"{(np.array(held) < -0.005).mean():6.0%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tasks", type=int, default=48, help="tasks of each setting")
    parser.add_argument("--first", type=int, default=500, help="seed of the first")
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    seeds = range(given.first, given.first + given.tasks)
    with ProcessPoolExecutor(given.jobs) as pool:
        for few, share in product((0, 5, 3), (0.0, 0.05, 0.2)):
            some = list(pool.map(measure, [(seed, share, few) for seed in seeds], chunksize=4))
            name = f"{few} texts a class" if few else "all templates"
            report(name, share, some)


if __name__ == "__main__":
    main()
