"""Few-shot on rs19: plain and CODER features, searched on a validation part, measured on the rest.

    python benchmarks/fewshot_rs19.py [--data FOLDER]

FOLDER holds clip-rn50.npz, clip-vit-b-32.npz and clip-vit-l-14.npz; by default data/rs19 under
BYNAME_SHARED. For each draw, S images a class are the support, 8 others a class are for validation,
and the remainder is the test part. Template 0 is the name; the other 106 stand in for attributes,
so the CODER here is made of other wordings of the name and not of what it was made for. The control
is the nearest mean of the support, without any text. Top-1 in %, mean over draws, with its standard
deviation between draws.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np

from byname import ops
from byname.programs.fewshot import FewShot
from byname.stage import ClassTexts
from byname.taxonomy import Taxonomy

TASKS = ("clip-rn50", "clip-vit-b-32", "clip-vit-l-14")
BETAS = np.linspace(0.1, 200, 100).tolist()


def one_draw(
    X: np.ndarray, y: np.ndarray, texts: ClassTexts, shots: int, rng: np.random.Generator
) -> dict[str, float]:
    """Top-1 of each method on one split."""
    order = rng.permutation(len(X))
    seen = np.array([int((y[order[:i]] == y[j]).sum()) for i, j in enumerate(order)])
    support, validation = order[seen < shots], order[(seen >= shots) & (seen < shots + 8)]
    test = order[seen >= shots + 8]
    ids = np.array(texts.taxonomy.class_ids)
    means = ops.unit(ops.segment_mean(X[support], y[support], len(ids)))
    found = {"nearest mean (control)": ids[ops.argmax(X[test] @ means.T)]}
    held = (X[validation], ids[y[validation]].tolist())
    for name, features, minmax in (
        ("tip", "tip", False),
        ("coder", "coder", False),
        ("coder, minmax", "coder", True),
    ):
        model = FewShot(texts, features, minmax=minmax)  # type: ignore[arg-type]
        model.fit(X[support], ids[y[support]].tolist())
        if name == "tip":
            found["tip, alpha 1, beta 5.5"] = model.predict(X[test])
            found = {"zero-shot": model.set_params(alpha=0).predict(X[test]), **found}
        model.search(BETAS, validation=held, test=X[test])
        found[f"{name}, searched"] = model.predict(X[test])
    return {name: 100 * float((p == ids[y[test]]).mean()) for name, p in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    default = Path(os.environ.get("BYNAME_SHARED", "../shared")) / "data" / "rs19"
    parser.add_argument("--data", type=Path, default=default, help="folder of the .npz files")
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for task in TASKS:
        with np.load(args.data / f"{task}.npz") as data:
            X = np.asarray(ops.unit(data["images"].astype(np.float32)))
            T = np.asarray(ops.unit(data["texts"].astype(np.float32)))
            y, names = data["labels"].astype(np.intp), [str(c) for c in data["classes"]]
        P, K = T.shape[:2]
        kind = ("template",) * K + ("attribute",) * ((P - 1) * K)
        index = np.tile(np.arange(K), P)
        taxonomy = Taxonomy.from_names(names)
        texts = ClassTexts(T.reshape(P * K, -1), index, taxonomy, kind=kind, scale=100.0)
        rows: dict[str, list[str]] = {}
        for shots in args.shots:
            rng = np.random.default_rng(args.seed)
            draws = [one_draw(X, y, texts, shots, rng) for _ in range(args.draws)]
            for name in draws[0]:
                found = [draw[name] for draw in draws]
                rows.setdefault(name, []).append(f"{np.mean(found):.1f} ± {np.std(found):.1f}")
        print(f"\n| {task} | " + " | ".join(f"{s} a class" for s in args.shots) + " |")
        print("|---" * (len(args.shots) + 1) + "|")
        for name, cells in rows.items():
            print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
