"""Families of made-up tasks, on which the expected accuracy is fitted and tested.

``loose`` and ``separated`` are those of ``refine_synthetic``. ``tangled`` is meant to be more like
the vectors of real encoders: two levels of groups, a within-class spread that lies in few
directions (background, light) shared by all classes, images that show two classes, texts that see
only some directions of the classes and are drawn to the mean image (hubs), confusions that go one
way, and some wrong labels. ``heavy`` has clusters with heavy tails, several modes and unequal
width. ``digits`` has real clusters, scikit-learn's handwritten digits, behind random features, with
made-up texts. Half of the tasks are as drawn, the others in one of the scenarios of
``refine_synthetic`` (Zipf shares, half of the classes, three, a long list, few images).

Real encoders have learned their logit scale. Of zero-shot CLIP, mean confidence and accuracy differ
by about 5 points as a rule and by 15 at worst (expected calibration errors in Yoon et al., C-TPT,
2024). So the scale of each task is such that they differ by a normal error of 8 points, before the
scenario.

    python benchmarks/expectation_families.py

prints what they are like.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import product

import numpy as np
from numpy.typing import NDArray
from refine_synthetic import Case, loose, more_names, scenarios, separated

from byname.ops import unit

__all__ = ["EVERY", "FAMILIES", "draw", "hard"]

MOST = 2500  # images a task
OTHER = ("Zipf", "half", "three", "long list", "fifth")


def _spread(rng: np.random.Generator, D: int) -> NDArray[np.float64]:
    spectrum = (1.0 + np.arange(D)) ** -rng.uniform(0.2, 0.8)
    spectrum = rng.permutation(spectrum)
    return spectrum / np.linalg.norm(spectrum)


def _sizes(rng: np.random.Generator, K: int) -> NDArray[np.intp]:
    size = rng.lognormal(np.log(rng.uniform(15, 80)), rng.choice([0.0, 0.2, 0.7]), K)
    size *= min(1, MOST / size.sum())
    return np.repeat(np.arange(K), np.maximum(4, size).astype(int))


def _as_seen(
    rng: np.random.Generator, X: NDArray[np.float64], W: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Unit rows; images and texts each around a mean of their own, texts drawn to the images'."""
    D = X.shape[1]
    common, gap = unit(rng.standard_normal((2, D)))
    hub = rng.uniform(0, 0.12) * rng.standard_normal(len(W))
    scale = np.linalg.norm(X, axis=1).mean()
    X = unit(X + rng.uniform(0.7, 1.6) * scale * common)
    scale = np.linalg.norm(W, axis=1).mean()
    W = W + scale * (rng.uniform(0.6, 1.8) * gap + (0.25 + hub)[:, None] * common)
    return X.astype(np.float32), unit(W).astype(np.float32)


def tangled(seed: int) -> Case:
    """Groups of groups, shared nuisance, mixed images, texts that see a part, wrong labels."""
    rng = np.random.default_rng(50_000 + seed)
    K, D = int(rng.choice([5, 10, 20, 40, 100])), int(rng.choice([256, 512, 768]))
    spectrum = _spread(rng, D)

    def noise(*shape: int) -> NDArray[np.float64]:
        return rng.standard_normal((*shape, D)) * spectrum

    coarse = rng.integers(0, max(2, K // 6), K)
    fine = rng.integers(0, max(2, K // 2), K)
    centre = rng.uniform(0.3, 1.2) * noise(K)[coarse] + rng.uniform(0.2, 1.2) * noise(K)[fine]
    centre += noise(K) * rng.lognormal(0, 0.25, (K, 1))
    y = _sizes(rng, K)
    n, few = len(y), int(rng.integers(3, 12))
    scatter = rng.uniform(0.4, 1.4) * rng.lognormal(0, 0.3, K)
    shared = rng.standard_normal((n, few)) @ noise(few) * rng.uniform(0.05, 0.5)
    X = centre[y] + shared + scatter[y, None] * noise(n)
    mixed = rng.random(n) < rng.uniform(0, 0.25)
    near = np.argsort(-(unit(centre) @ unit(centre).T), axis=1)[:, 1:4]
    other = near[y, rng.integers(0, near.shape[1], n)]
    weight = rng.uniform(0.2, 0.65, (n, 1))
    X[mixed] = ((1 - weight) * X + weight * (centre[other] + noise(n)))[mixed]
    seen = rng.random(D) < rng.uniform(0.3, 1)
    wrong = rng.uniform(0.2, 1.1) * rng.lognormal(0, 0.5, (K, 1))
    W = centre * seen + wrong * noise(K)
    toward = rng.random(K) < rng.uniform(0, 0.3)
    lean = rng.uniform(0.3, 1.2, (K, 1)) * centre[near[:, 0]] * seen
    W[toward] = (W + lean)[toward]
    W = W + rng.uniform(0, 0.5) * noise(1)
    X32, W32 = _as_seen(rng, X, W)
    swapped = rng.random(n) < rng.choice([0, 0.01, 0.04])
    return X32, W32, np.where(swapped, other, y)


def heavy(seed: int) -> Case:
    """Several modes a class, heavy tails, and classes of very unequal width."""
    rng = np.random.default_rng(70_000 + seed)
    K, D = int(rng.choice([4, 12, 25, 60, 120])), int(rng.choice([128, 512, 1024]))
    spectrum = _spread(rng, D)

    def noise(*shape: int) -> NDArray[np.float64]:
        return rng.standard_normal((*shape, D)) * spectrum

    group = rng.integers(0, max(2, K // 3), K)
    centre = rng.uniform(0.4, 1.5) * noise(K)[group] + noise(K)
    y = _sizes(rng, K)
    modes = int(rng.integers(1, 5))
    own, which = rng.uniform(0, 0.9) * noise(K, modes), rng.integers(0, modes, len(y))
    tail = np.sqrt(4 / rng.chisquare(4, len(y)))
    width = rng.uniform(0.5, 1.2) * rng.lognormal(0, 0.4, K)
    X = centre[y] + own[y, which] + (width[y] * tail)[:, None] * noise(len(y))
    wrong = rng.uniform(0.3, 1.5) * rng.lognormal(0, 0.6, (K, 1))
    W = centre + own[:, 0] * rng.uniform(0, 1) + wrong * noise(K)
    return *_as_seen(rng, X, W), y


@cache
def _images_of_digits() -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    return (X - X.mean(axis=0)) / 16, y.astype(np.intp)


def digits(seed: int) -> Case:
    """Handwritten digits, whole or cut in halves of a class, behind random features."""
    rng = np.random.default_rng(90_000 + seed)
    X, y = _images_of_digits()
    if rng.random() < 0.5:  # twice as many classes, that touch each other
        side = X @ rng.standard_normal(X.shape[1])
        middle = np.array([np.median(side[y == k]) for k in range(10)])
        y = 2 * y + (side > middle[y])
    D = int(rng.choice([128, 256, 512]))
    hidden = rng.standard_normal((X.shape[1], D)) / np.sqrt(X.shape[1])
    X = np.maximum(X @ hidden + rng.uniform(-0.1, 0.3), 0)
    X = X - X.mean(axis=0)
    X /= np.linalg.norm(X, axis=1).mean()
    X += rng.uniform(0, 0.9) * rng.standard_normal(X.shape) / np.sqrt(D)
    keep = rng.permutation(len(y))[: int(rng.uniform(300, len(y)))]
    X, y = X[keep], y[keep]
    K = int(y.max()) + 1
    W = np.array([X[y == k].mean(axis=0) for k in range(K)])
    basis = X[rng.integers(0, len(X), (K, 3))].mean(axis=1)  # errors that look like images
    wrong = rng.uniform(0.3, 1.3) * rng.lognormal(0, 0.5, (K, 1))
    W = W + wrong * (0.7 * basis + 0.3 * rng.standard_normal(W.shape) / np.sqrt(D))
    return *_as_seen(rng, X, W), y


def fine(seed: int) -> Case:
    """Many classes in few groups, few images each; texts tell little but the group."""
    rng = np.random.default_rng(110_000 + seed)
    K, D = int(rng.choice([30, 60, 100, 150, 250])), int(rng.choice([128, 384, 512]))
    spectrum = _spread(rng, D)

    def noise(*shape: int) -> NDArray[np.float64]:
        return rng.standard_normal((*shape, D)) * spectrum

    group = rng.integers(0, int(rng.integers(3, max(4, K // 5))), K)
    coarse, own = rng.uniform(0.5, 2) * noise(K)[group], noise(K)
    size = rng.lognormal(np.log(rng.uniform(4, 20)), rng.choice([0.0, 0.4, 0.8]), K)
    y = np.repeat(np.arange(K), np.maximum(2, size * min(1, MOST / size.sum())).astype(int))
    scatter = rng.uniform(0.5, 1.6) * rng.lognormal(0, 0.3, K)
    shared = rng.standard_normal((len(y), 5)) @ noise(5) * rng.uniform(0.1, 0.8)
    X = coarse[y] + own[y] + shared + scatter[y, None] * noise(len(y))
    told = rng.uniform(0.05, 0.9) * rng.lognormal(0, 0.5, (K, 1))
    W = rng.uniform(0.3, 1) * coarse + told * own + rng.uniform(0.4, 1.2) * noise(K)
    W = W + rng.uniform(0, 0.5, (K, 1)) * noise(4)[rng.integers(0, 4, K)]
    return *_as_seen(rng, X, W), y


def blurred(seed: int) -> Case:
    """Images differ most in what is not of their class; texts hit on it by chance."""
    rng = np.random.default_rng(130_000 + seed)
    K, D = int(rng.choice([5, 12, 30, 60, 120])), int(rng.choice([64, 256, 512]))
    spectrum = _spread(rng, D)

    def noise(*shape: int) -> NDArray[np.float64]:
        return rng.standard_normal((*shape, D)) * spectrum

    group = rng.integers(0, max(2, K // 5), K)
    centre = rng.uniform(0.2, 1) * noise(K)[group] + noise(K)
    y = _sizes(rng, K)
    scenes, place = noise(int(rng.integers(4, 40))), rng.uniform(0.5, 2.5)
    which = rng.integers(0, len(scenes), len(y))
    leaning = rng.random(len(y)) < rng.uniform(0, 0.7)  # a class prefers a scene
    which[leaning] = (y % len(scenes))[leaning]
    X = centre[y] + place * scenes[which] + rng.uniform(0.5, 1.5) * noise(len(y))
    X += rng.standard_normal((len(y), 6)) @ noise(6) * rng.uniform(0, 0.6)
    wrong = rng.uniform(0.3, 1.5) * rng.lognormal(0, 0.5, (K, 1))
    W = centre + wrong * noise(K)
    W = W + rng.uniform(0, 0.8) * rng.standard_normal((K, len(scenes))) @ scenes / 2
    return *_as_seen(rng, X, W), y


FAMILIES: dict[str, Callable[[int], Case]] = {
    "loose": loose,
    "separated": separated,
    "tangled": tangled,
    "heavy": heavy,
    "digits": digits,
}
EVERY = {**FAMILIES, "fine": fine, "blurred": blurred}


def _spoilt(
    rng: np.random.Generator, X: NDArray[np.float32], W: NDArray[np.float32], y: NDArray[np.intp]
) -> NDArray[np.float32]:
    """Texts mixed with what is not of their class until few answers are right."""
    kind, aim, K = rng.integers(0, 3), rng.uniform(0.02, 0.3), len(W)
    mean = W.mean(axis=0)
    own = W - mean
    if kind == 0:
        other = own[rng.permutation(K)]
    elif kind == 1:
        other = rng.standard_normal(W.shape) * W.std(axis=0)
    else:
        other = X[rng.integers(0, len(X), (K, 2))].mean(axis=1) - X.mean(axis=0)
    other = unit(other) * np.linalg.norm(own, axis=1, keepdims=True)
    other *= rng.lognormal(0, rng.uniform(0, 0.5), (K, 1))
    made = W
    for share in np.linspace(0, 0.95, 20):
        made = unit(mean + (1 - share) * own + share * other).astype(np.float32)
        if ((X @ made.T).argmax(axis=1) == y).mean() <= aim:
            break
    return made


def hard(family: str, seed: int) -> tuple[str, Case, float]:
    """One hard task of a family, as ``draw`` gives them; its scenario is "hard"."""
    rng = np.random.default_rng(654_321 + seed)
    X, W, y = EVERY[family](500 + seed)
    before = _calibrated(rng, X, W, y)
    if rng.random() < 0.75:
        W = _spoilt(rng, X, W, y)
    if rng.random() < 0.6:
        order = rng.permutation(len(y))
        y_drawn, each = y[order], int(rng.integers(3, 11))
        place = np.zeros(len(y), np.intp)
        for k in range(len(W)):
            own = np.flatnonzero(y_drawn == k)
            place[own] = np.arange(len(own))
        keep = np.sort(order[place < each])
        X, y = X[keep], y[keep]
    keep = np.sort(rng.permutation(len(y))[:MOST])
    X, y = X[keep], y[keep]
    if rng.random() < 0.3:
        extra = more_names(W, int(rng.uniform(0.3, 3) * len(W)), rng, alike=True)
        W = np.concatenate([W, extra]).astype(np.float32)
    scale = before if rng.random() < 0.5 else _calibrated(rng, X, W, y)
    return "hard", (X, W, y), scale * float(np.exp(rng.uniform(np.log(0.3), np.log(3))))


def _scale(X: NDArray[np.float32], W: NDArray[np.float32], confidence: float) -> float:
    """Logit scale at which the mean of the highest probabilities is this confidence."""
    S = X @ W.T
    S -= S.max(axis=1, keepdims=True)
    low, high = 1.0, 1e4
    for _ in range(30):
        middle = np.sqrt(low * high)
        more = float((1 / np.exp(middle * S).sum(axis=1)).mean()) < confidence
        low, high = (middle, high) if more else (low, middle)
    return float(np.sqrt(low * high))


def _calibrated(
    rng: np.random.Generator, X: NDArray[np.float32], W: NDArray[np.float32], y: NDArray[np.intp]
) -> float:
    """Logit scale at which confidence is about right."""
    right = float(((X @ W.T).argmax(axis=1) == y).mean())
    confidence = np.clip(right + 0.08 * rng.standard_normal(), 0.5 / len(W) + 0.05, 0.995)
    return _scale(X, W, float(confidence))


def draw(family: str, seed: int) -> tuple[str, Case, float]:
    """One task, its scenario and its logit scale; all drawn from the seed."""
    rng = np.random.default_rng(123_456 + seed)
    X, W, y = EVERY[family](seed)
    scale = _calibrated(rng, X, W, y)
    scenario = "as is" if rng.random() < 0.5 else str(rng.choice(OTHER))
    if len(y) > MOST:
        keep = np.sort(rng.permutation(len(y))[:MOST])
        X, y = X[keep], y[keep]
    for name, case in scenarios(X, W, y):
        if name == scenario:
            return name, case, scale
    raise ValueError(scenario)


def main() -> None:
    """What the tasks are like, beside which real ones may be held."""
    print("family     seed  scenario      K     N  top-1  worst 3  two images  best text  scale")
    for family, seed, kind in product(EVERY, range(8), (draw, hard)):
        scenario, (X, W, y), scale = kind(family, seed)
        S = X @ W.T
        right = S.argmax(axis=1) == y
        each = np.sort([right[y == k].mean() for k in np.unique(y)])
        pair = float((X.mean(axis=0) ** 2).sum())
        print(
            f"{family:10s} {seed:4d}  {scenario:10s} {len(W):4d} {len(y):5d}  "
            f"{right.mean():.3f}  {each[:3].mean():7.3f}  {pair:10.2f}"
            f"  {S.max(axis=1).mean():9.2f}  {scale:5.0f}"
        )


if __name__ == "__main__":
    main()
