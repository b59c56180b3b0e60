"""More images than can be refined at once: groups of them, each a batch of its own.

Members that look at all images together hold the vectors and a few arrays (N, K) in memory, and
compare every image with every other. Up to ``MOST`` images, and as long as 4 N (D + 3 K) bytes are
no more than ``LIMIT``, they see all images as one batch. Beyond, the images are divided into
groups of about equal size: at most ``LIMIT`` bytes, and ``GROUP`` images but for copies, which stay
together. Which group an image belongs to is decided by its vector alone, through a hash: neither
the order of the images nor their names matter, and each group is a random sample of all. Only
copies that would fill a tenth of a group are divided, in the order in which they come.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.stage import Batch
from byname.stored import unit_rows

__all__ = ["GROUP", "LIMIT", "MOST", "batch_rows", "batch_take", "combined", "divided"]
__all__ += ["hashed", "in_memory", "note", "sample", "some", "too_many"]

MOST = 100_000  # images of one batch
GROUP = 50_000  # images of a group, where there are more
LIMIT = 1_000_000_000  # bytes of X and of three arrays (N, K)
SPARE = 0.1  # of a group: images that equal vectors may add to it
READ = 256 * 2**20  # bytes of stored vectors (float16) that one pass over them gathers
_PER_BATCH = frozenset({"reference", "support"})  # fields without a row for each image


def too_many(batch: Batch, K: int) -> bool:
    """Whether these images are more than one batch may hold.

    Examples
    --------
    >>> too_many(Batch(np.zeros((10, 2))), 3)
    False
    """
    n = len(batch)
    return n > MOST or (n > 1 and n * _bytes(batch, K) > LIMIT)


def divided(batch: Batch, K: int) -> Iterator[tuple[NDArray[np.intp], Batch]]:
    """Places of the images of each group, ascending, and the group as a batch in memory.

    Examples
    --------
    >>> [rows.tolist() for rows, _ in divided(Batch(np.eye(3)), 3)]
    [[0, 1, 2]]
    """
    n = len(batch)
    most = min(GROUP, max(1, int(LIMIT / (1 + SPARE)) // _bytes(batch, K)))
    groups = [np.arange(n)] if n <= most else _cut(hashed(batch.X), -(-n // most))
    if not ops.is_stored(batch.X):
        for rows in groups:
            yield rows, batch_take(batch, rows)
        return
    # Each pass over the files serves several groups: they are scattered over all of them.
    width = max(1, READ // max(1, 2 * int(batch.X.shape[1]) * max(map(len, groups))))
    for part in ops.blocks(len(groups), width):
        wanted = np.sort(np.concatenate(groups[part]))
        held = batch.X.halves(wanted)
        for rows in groups[part]:
            X = unit_rows(held[np.searchsorted(wanted, rows)], str)
            yield rows, replace(batch_take(batch, rows, X=False), X=X)


def _cut(known: NDArray[np.uint64], count: int) -> list[NDArray[np.intp]]:
    """Places in groups of about equal size; equal numbers stay together, unless they are many.

    Whoever has the same vector as another is in the same group, in whatever order they come.
    """
    n, order = len(known), np.argsort(known, kind="stable")
    ascending, ends = known[order], np.arange(count + 1) * n // count
    at = ascending[ends[1:-1]]
    first, behind = (np.searchsorted(ascending, at, side) for side in ("left", "right"))
    ends[1:-1] = np.where(behind - first <= SPARE * n / count, first, ends[1:-1])
    return [np.sort(order[a:b]) for a, b in pairwise(ends.tolist()) if a < b]


def sample(batch: Batch, most: int) -> NDArray[np.intp]:
    """Places of ``most`` images, ascending; chosen by their vectors alone.

    Examples
    --------
    >>> sample(Batch(np.eye(3)), 5).tolist(), len(sample(Batch(np.eye(3)), 2))
    ([0, 1, 2], 2)
    """
    if len(batch) <= most:
        return np.arange(len(batch))
    return np.sort(np.argsort(hashed(batch.X), kind="stable")[:most])


def in_memory(batch: Batch) -> Batch:
    """The same images, their vectors no longer on disk."""
    return replace(batch, X=batch.X.load()) if ops.is_stored(batch.X) else batch


def some(batch: Batch, K: int, names: Sequence[str]) -> Batch:
    """What members learn from once for all: all images in memory, or a sample of too many."""
    if not too_many(batch, K):
        return in_memory(batch)
    rows = sample(batch, min(GROUP, max(1, LIMIT // _bytes(batch, K))))
    told = f"{', '.join(names)}: learned what images tell from {len(rows):,} of {len(batch):,}"
    warnings.warn(told, stacklevel=4)
    return in_memory(batch_take(batch, rows))


def note(names: Sequence[str], n: int, size: int) -> str:
    """What to tell of n images that were divided into groups of about ``size``.

    Examples
    --------
    >>> note(["transclip"], 200_000, 50_000)
    'transclip: 200,000 images are more than are looked at together (100,000, or 1.0 GB): they were divided into 4 groups of about 50,000, each answered by itself'
    """  # noqa: E501
    return (
        f"{', '.join(names)}: {n:,} images are more than are looked at together ({MOST:,}, or "
        f"{LIMIT / 1e9:.1f} GB): they were divided into {round(n / max(1, size))} groups of about "
        f"{size:,}, each answered by itself"
    )


def hashed(X: Any) -> NDArray[np.uint64]:
    """A number (N,) of each vector, from what float16 keeps of it.

    Examples
    --------
    >>> a, b, c = hashed(np.array([[0.6, 0.8], [0.8, 0.6], [0.6, 0.8]]))
    >>> bool(a == c), bool(a == b)
    (True, False)
    """
    n, D = (int(size) for size in X.shape)
    factor = _mixed(np.arange(1, D + 1, dtype=np.uint64)) | np.uint64(1)
    found = np.zeros(n, np.uint64)
    for part in ops.blocks(n, 4096):
        with np.errstate(over="ignore"):
            half = ops.to_numpy(X[part]).astype(np.float16) + np.float16(0)  # -0 becomes 0
            found[part] = (half.view(np.uint16) * factor).sum(axis=1, dtype=np.uint64)
    return _mixed(found)


def combined(reports: list[dict[str, Any]]) -> dict[str, Any]:
    """One report of a member for all groups: what they agree on, and means of numbers.

    Examples
    --------
    >>> combined([{"steps": 2, "why": "a"}, {"steps": 4, "why": "b"}])
    {'groups': 2, 'steps': 3.0}
    """
    made: dict[str, Any] = {"groups": len(reports)}
    for key, first in reports[0].items():
        each = [report.get(key) for report in reports]
        if all(one == first for one in each):
            made[key] = first
        elif all(isinstance(one, int | float) and not isinstance(one, bool) for one in each):
            made[key] = float(np.mean([float(one) for one in each if one is not None]))
    back = [report for report in reports if report.get("stepped_back")]
    if back and len(back) < len(reports):
        made |= {"stepped_back": False, "reason": None}
        made["warning"] = (
            f"changed nothing in {len(back)} of {len(reports)} groups: {back[0]['reason']}"
        )
    elif back:
        made |= {"stepped_back": True, "reason": back[0]["reason"]}
    elif warned := [report["warning"] for report in reports if report.get("warning")]:
        made["warning"] = f"in {len(warned)} of {len(reports)} groups: {warned[0]}"
    return made


def batch_rows(batch: Batch, size: int) -> Iterator[Batch]:
    """The batch in blocks of images; one empty block where it is empty."""
    given = _given(batch)
    for part in ops.blocks(len(batch), size) if len(batch) else [slice(0, 0)]:
        cut: dict[str, Any] = {name: value[part] for name, value in given.items()}
        if batch.class_probs is not None:
            cut["class_probs"] = (batch.class_probs[0][part], batch.class_probs[1])
        yield replace(batch, **cut)


def batch_take(batch: Batch, rows: Any, *, X: bool = True) -> Batch:
    """Some images of the batch, by their places (n,); without ``X`` all but that."""
    cut: dict[str, Any] = {
        name: ops.take_rows(value, rows)
        for name, value in _given(batch).items()
        if X or name != "X"
    }
    if batch.class_probs is not None:
        cut["class_probs"] = (ops.take_rows(batch.class_probs[0], rows), batch.class_probs[1])
    return replace(batch, **cut)


def _given(batch: Batch) -> dict[str, Any]:
    """Fields with a row for each image, but for ``class_probs``."""
    return {
        f.name: value
        for f in fields(batch)
        if f.name not in _PER_BATCH | {"class_probs"}
        and (value := getattr(batch, f.name)) is not None
    }


def _bytes(batch: Batch, K: int) -> int:
    return 4 * (int(batch.X.shape[1]) + 3 * K)


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finishing steps: every bit depends on every other."""
    with np.errstate(over="ignore"):
        x = x * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))
