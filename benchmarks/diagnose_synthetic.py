"""Fit the constants of ``byname.diagnose`` on made-up tasks, and say what they are worth on others.

    python benchmarks/diagnose_synthetic.py [--fit 120] [--test 60]

No real data is read. The expectation is a logistic regression on four label-free signs; every task
counts the same, and every class that occurs counts the same in its task.
"""

from __future__ import annotations

import argparse

import numpy as np
from scipy.optimize import minimize
from scipy.stats import spearmanr
from synthetic import make_task

from byname.diagnose import CLASS, EDGE, OVERALL, Signals, signals
from byname.ops import unit

MOST = 4000  # images a task


def logit(p: np.ndarray) -> np.ndarray:
    p = np.clip(p, EDGE, 1 - EDGE)
    return np.log(p / (1 - p))


def look(seed: int) -> tuple[Signals, np.ndarray, np.ndarray, float]:
    """Signs, true accuracy and images of each class, and top-1, of ``ensemble``."""
    task = make_task(seed)
    keep = np.random.default_rng(0).permutation(len(task.images))[:MOST]
    X, labels, W = task.images[keep], task.labels[keep], unit(task.texts.mean(axis=0))
    S = task.scale * X @ W.T
    right, K = S.argmax(axis=1) == labels, len(W)
    n = np.bincount(labels, minlength=K)
    return signals(X, W, S), np.bincount(labels, right, K) / np.maximum(n, 1), n, right.mean()


def design(s: Signals) -> np.ndarray:
    return np.column_stack(
        [
            np.ones(len(s.count)),
            np.clip(s.margin, -1, 5),
            np.log(np.clip(s.share, 0.05, 20)),
            logit(s.precision),
            logit(s.recall),
        ]
    )


def regress(A: np.ndarray, y: np.ndarray, w: np.ndarray) -> np.ndarray:
    def loss(b: np.ndarray) -> float:
        z = A @ b
        return float((w * (np.logaddexp(0, z) - y * z)).sum() + 1e-3 * (b[1:] ** 2).sum())

    return minimize(loss, np.zeros(A.shape[1])).x


def fit(tasks: list) -> None:
    rows, truth, weight = [], [], []
    for s, accuracy, n, _ in tasks:
        used = (n > 0) & (s.count > 0)
        rows.append(design(s)[used])
        truth.append(accuracy[used])
        weight.append(np.full(used.sum(), 1 / used.sum()))
    b = regress(np.vstack(rows), np.concatenate(truth), np.concatenate(weight))
    print("fitted class constants  ", dict(zip(CLASS, b.round(2).tolist(), strict=True)))
    print("constants in use        ", CLASS)
    means = np.array([logit(np.array(s.mass @ s.expected())) for s, *_ in tasks])
    A = np.column_stack([np.ones(len(means)), means])
    b = regress(A, np.array([top1 for *_, top1 in tasks]), np.ones(len(means)))
    print(f"fitted overall constants {b.round(2).tolist()}, in use {list(OVERALL)}")


def test(tasks: list) -> None:
    scores = {
        "CMM": lambda s: s.cmm,
        "share": lambda s: s.share,
        "precision": lambda s: np.where(s.count > 0, s.precision, 0),
        "combined": Signals.expected,
    }
    print("\nsign       mean Spearman with the class accuracy, on other tasks")
    for name, of in scores.items():
        found = []
        for s, accuracy, n, _ in tasks:
            x, y = np.maximum(of(s)[n > 0], -9), accuracy[n > 0]
            if np.ptp(y) > 0:
                found.append(spearmanr(x, y)[0] if np.ptp(x) > 0 else 0.0)
        print(f"{name:10s} {np.mean(found):.3f}")
    error = np.array([s.overall() - top1 for s, _, _, top1 in tasks])
    wrong = [np.abs(s.expected() - a)[n > 0].mean() for s, a, n, _ in tasks]
    print(f"\noverall expected accuracy: error {error.mean():+.3f} in the mean, ", end="")
    print(f"{np.abs(error).mean():.3f} in absolute value; of a class {np.mean(wrong):.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--fit", type=int, default=120, help="tasks to fit on")
    parser.add_argument("--test", type=int, default=60, help="other tasks to test on")
    given = parser.parse_args()
    fit([look(seed) for seed in range(given.fit)])
    test([look(10_000 + seed) for seed in range(given.test)])


if __name__ == "__main__":
    main()
