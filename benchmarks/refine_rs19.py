"""Refine members on three CLIP encoders (rs19), in the scenarios of ``refine_synthetic.py``.

    BYNAME_SHARED=FOLDER python benchmarks/refine_rs19.py [MEMBER ...]
    BYNAME_SHARED=FOLDER python benchmarks/refine_rs19.py --said [MEMBER ...]
    python benchmarks/refine_rs19.py --said --made-up [MEMBER ...]

The first prints top-1, worst classes and classes at 0 % of a few members. ``--said`` prints, for
all members where none is named, the gain over plain and what each said of its assumptions, in
Markdown; ``--made-up`` takes the made-up tasks of ``refine_synthetic.py`` in place of rs19.
"""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from refine_synthetic import Case, fitted, loose, scenarios, score, separated, table

from byname.ops import unit
from byname.stage import members
from byname.taskfile import Task

LOSS = 1.0  # points that a member may lose without a word


class Said(NamedTuple):
    """One member on one case."""

    gain: float
    back: bool
    words: tuple[str, ...]


def encoders() -> Iterator[Case]:
    """Images, class vectors and classes of each."""
    folder = Path(os.environ["BYNAME_SHARED"])
    folder = folder / "data" if (folder / "data").is_dir() else folder
    for path in sorted((folder / "rs19").glob("*.npz")):
        task = Task.load(path)
        assert task.labels is not None
        yield task.images, unit(task.texts.mean(axis=0)), task.labels


def made_up() -> Iterator[Case]:
    """Both families."""
    yield from (separated(seed) for seed in range(12))
    yield from (loose(seed) for seed in range(8))


def said(spec: str, case: Case) -> Said:
    """Gain over plain in points, whether it stepped back, and all that its report says."""
    X, W, y = case
    before, after, report = fitted(spec, X, W)
    gain = score(after.argmax(axis=1), y)[0] - score(before.argmax(axis=1), y)[0]
    words = [report.get("reason"), report.get("warning"), *(report.get("notes") or [])]
    return Said(gain, bool(report.get("stepped_back")), tuple(filter(None, words)))


def cell(found: list[Said]) -> str:
    """Mean gain, least gain, cases stepped back from or warned of, and losses without a word."""
    gains = [one.gain for one in found]
    back = sum(one.back for one in found)
    warned = sum(bool(one.words) and not one.back for one in found)
    silent = sum(one.gain < -LOSS and not one.words for one in found)
    text = f"{np.mean(gains):+.1f} ({min(gains):+.1f})"
    for number, mark in ((back, "b"), (warned, "w")):
        text += f" {mark}{number}" if number else ""
    return text + (f" **!{silent}**" if silent else "")


def told(found: list[Said]) -> str:
    """What was said, with the numbers of the first case that said it, and how often."""
    first: dict[str, str] = {}
    count: Counter[str] = Counter()
    for one in found:
        for words in one.words:
            kind = re.sub(r"\d+(\.\d+)?", "#", words)
            first.setdefault(kind, words)
            count[kind] += 1
    return "; ".join(f"{first[kind]} ({n} of {len(found)})" for kind, n in count.items())


def report(cases: Iterator[Case], specs: list[str]) -> None:
    """Print the table of gains, and below it what was said, by scenario."""
    found: dict[tuple[str, str], list[Said]] = defaultdict(list)
    plain: dict[str, list[float]] = defaultdict(list)
    for task in cases:
        for name, case in scenarios(*task):
            X, W, y = case
            plain[name].append(score((X @ W.T).argmax(axis=1), y)[0])
            for spec in specs:
                found[spec, name].append(said(spec, case))
    print("| |" + "".join(f" {name} |" for name in plain))
    print("|---|" + "---|" * len(plain))
    print("| plain, top-1 % |" + "".join(f" {np.mean(top):.1f} |" for top in plain.values()))
    for spec in specs:
        print(f"| `{spec}` |" + "".join(f" {cell(found[spec, name])} |" for name in plain))
    for name in plain:
        print(f"\n{name}:\n")
        for spec in specs:
            if words := told(found[spec, name]):
                print(f"- `{spec}`: {words}")


def main() -> None:
    """Either table."""
    given = [a for a in sys.argv[1:] if not a.startswith("--")]
    if "--said" not in sys.argv:
        table(encoders(), ["plain", *(given or ["anchor", "auto"])])
        return
    every: list[Any] = [name for name in members("refine") if name != "temperature"]
    report(made_up() if "--made-up" in sys.argv else encoders(), given or every)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
