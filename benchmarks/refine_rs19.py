"""Refine members on three CLIP encoders (rs19), in the scenarios of ``refine_synthetic.py``.

BYNAME_SHARED=FOLDER python benchmarks/refine_rs19.py [MEMBER ...]
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from refine_synthetic import Case, table

from byname.ops import unit
from byname.taskfile import Task


def encoders() -> Iterator[Case]:
    """Images, class vectors and classes of each."""
    folder = Path(os.environ["BYNAME_SHARED"])
    folder = folder / "data" if (folder / "data").is_dir() else folder
    for path in sorted((folder / "rs19").glob("*.npz")):
        task = Task.load(path)
        assert task.labels is not None
        yield task.images, unit(task.texts.mean(axis=0)), task.labels


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    table(encoders(), ["plain", *(sys.argv[1:] or ["anchor", "auto"])])
