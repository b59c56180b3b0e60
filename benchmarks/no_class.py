"""How many images that fit no class are found on made-up tasks, and how many others are marked.

    python benchmarks/no_class.py [--tasks 12] [--photos]

The constants of ``byname.study.alike`` were chosen on these tasks; no real data is read. Five
families of tasks (``expectation_families.py``), so many of each. Foreign images are none, 5 %, or
30 % of all, of two kinds: "scattered", mixtures of two images with noise (the scenario "foreign" of
``refine_synthetic.py``), and "unnamed", the images of three classes in ten, whose names were taken
away. Found: share of the foreign images that is marked. Wrong: share of the others. Right: share of
the marked images that are foreign. Said: share of the tasks in which anything is marked. Beside it
the rule of ``unknown_distance``, which looks at the cosine with the nearest class alone.

The second table is of near-duplicates: the share of images of tasks without copies that is grouped,
at several bounds. With --photos, also the share of photos (those of scikit-image and scikit-learn)
that the bound still joins with a changed copy, in the small encoder ``mini``.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from expectation_families import FAMILIES, MOST
from numpy.typing import NDArray
from PIL import Image, ImageEnhance
from refine_synthetic import Case, scenarios

from byname.decide.unknown import largest_cosine
from byname.demo import PHOTOS
from byname.study import alike
from byname.study.alike import copies, neighbours, no_class

SHARES = (0.05, 0.3)
BOUNDS = (0.01, 0.02, 0.05, 0.1)


def cases(family: str, seed: int) -> Iterator[tuple[str, float, Case]]:
    """One task without foreign images and with them; -1 is their class."""
    X, W, y = FAMILIES[family](seed)
    rng = np.random.default_rng(seed)
    if len(y) > MOST:
        keep = np.sort(rng.permutation(len(y))[:MOST])
        X, y = X[keep], y[keep]
    n, K = len(y), len(W)
    yield "none", 0, (X, W, y)
    foreign = next(case for name, case in scenarios(X, W, y) if name == "foreign")[0][n:]
    for share in SHARES:
        some = foreign[: int(share / (1 - share) * n)]
        yield "scattered", share, (np.concatenate([X, some]), W, np.append(y, [-1] * len(some)))
    if K < 6:
        return
    out = rng.permutation(K)[: round(0.3 * K)]
    inside = ~np.isin(y, out)
    for share in SHARES:
        some = rng.permutation(np.flatnonzero(~inside))[: int(share / (1 - share) * inside.sum())]
        rows = np.sort(np.concatenate([np.flatnonzero(inside), some]))
        truth = np.where(inside[rows], 0, -1)
        yield "unnamed", share, (X[rows], np.delete(W, out, axis=0), truth)


def marks(X: NDArray[Any], W: NDArray[Any]) -> dict[str, NDArray[np.bool_]]:
    """What is marked, by the name of the rule."""
    top, near = largest_cosine(X, W), neighbours(X)
    made = np.zeros(len(X), bool)
    made[near.rows] = no_class(top, near, (X @ W.T).argmax(axis=1))[0]
    middle = np.median(top)
    return {
        "no_class": made,
        "unknown_distance": top < middle - 2.5 * 1.4826 * np.median(np.abs(top - middle)),
    }


def foreign(tasks: int) -> None:
    found: dict[tuple[str, str, float], list[list[float]]] = defaultdict(list)
    for family in FAMILIES:
        for seed in range(tasks):
            for kind, share, (X, W, y) in cases(family, seed):
                for rule, marked in marks(X, W).items():
                    known = y >= 0
                    hit = marked[~known].mean() if (~known).any() else np.nan
                    right = (~known)[marked].mean() if marked.any() else np.nan
                    row = [hit, marked[known].mean(), right, marked.any(), marked.mean()]
                    found[rule, kind, share].append(row)
    print("| rule | foreign | share | found | wrong | most wrong | right | said | marked |")
    print("|---|---|---|---|---|---|---|---|---|")
    for (rule, kind, share), rows in sorted(found.items()):
        A = np.array(rows)
        hit, wrong, right, said, marked = (
            np.nanmean(column) if np.isfinite(column).any() else np.nan for column in A.T
        )
        cells = [hit, wrong, A[:, 1].max(), np.nan if kind == "none" else right, said, marked]
        told = " | ".join("" if np.isnan(cell) else f"{cell:.3f}" for cell in cells)
        print(f"| {rule} | {kind} | {share:g} | {told} |")


def joined(tasks: int) -> None:
    print("\n| family | " + " | ".join(f"{bound:g}" for bound in BOUNDS) + " |")
    print("|---|" + "---|" * len(BOUNDS))
    for family, make in FAMILIES.items():
        each = []
        for seed in range(tasks):
            X = make(seed)[0][:MOST]
            near, row = neighbours(X), []
            for alike.COPY in BOUNDS:
                row.append(float((copies(near, len(X))[0] >= 0).mean()))
            each.append(row)
        print(f"| {family} | " + " | ".join(f"{x:.4f}" for x in np.mean(each, axis=0)) + " |")


def photos() -> None:
    from byname.encoders import load_encoder
    from byname.images.decode import decode
    from byname.images.preprocess import to_pixels

    def saved(image: Image.Image, quality: int) -> Image.Image:
        out = io.BytesIO()
        image.save(out, "JPEG", quality=quality)
        return decode(out.getvalue())

    def cut(image: Image.Image, share: float) -> Image.Image:
        w, h = image.size
        return image.crop((int(w * share), int(h * share), int(w * (1 - share)), h))

    changes: dict[str, Callable[[Image.Image], Image.Image]] = {
        "the same": lambda image: image,
        "10 % brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.1),
        "JPEG 90": lambda image: saved(image, 90),
        "JPEG 75": lambda image: saved(image, 75),
        "half the size": lambda image: image.resize((image.width // 2, image.height // 2)),
        "2 % cut off": lambda image: cut(image, 0.02),
        "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    }
    encoder, own = load_encoder("mini"), []
    wanted = encoder.info.preprocess
    assert wanted is not None
    for folder, name, _ in PHOTOS:
        package, *rest = folder.split("/")
        spec = importlib.util.find_spec(package)
        assert spec is not None
        assert spec.submodule_search_locations
        file = Path(spec.submodule_search_locations[0]).joinpath(*rest, name)
        own.append(decode(file.read_bytes()))

    def vectors(images: list[Image.Image]) -> NDArray[Any]:
        return encoder.encode_images(np.stack([to_pixels(image, wanted) for image in images]))

    X = vectors(own)
    spread = neighbours(X).spread
    print("\n| copy | " + " | ".join(f"{bound:g}" for bound in BOUNDS) + " |")
    print("|---|" + "---|" * len(BOUNDS))
    for name, change in changes.items():
        away = 1 - (X * vectors([change(image) for image in own])).sum(axis=1)
        shares = [(away <= max(bound * spread, alike.COPY_LEAST)).mean() for bound in BOUNDS]
        print(f"| {name} | " + " | ".join(f"{share:.2f}" for share in shares) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tasks", type=int, default=12, help="of each family")
    parser.add_argument("--photos", action="store_true", help="needs byname[demo]")
    args = parser.parse_args()
    foreign(args.tasks)
    joined(args.tasks)
    if args.photos:
        photos()


if __name__ == "__main__":
    main()
