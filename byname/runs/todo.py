"""Which shards of a run are still to be made."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from byname.runs.parts import fits_mark, part_paths, read_mark, sha256_of
from byname.runs.plan import Plan

__all__ = ["Todo", "is_sound", "unfinished"]


@dataclass(frozen=True)
class Todo:
    """What a run has to do.

    Parameters
    ----------
    shards : tuple of int
        In order.
    done, errors : int
        Images, and errors among them, of the shards that are complete and stay as they are.
    damaged : tuple of int
        Shards whose mark or part does not hold what it should; they are among ``shards``.
    """

    shards: tuple[int, ...]
    done: int
    errors: int
    damaged: tuple[int, ...]


def unfinished(
    plan: Plan,
    among: Sequence[int] | None = None,
    *,
    retry_errors: bool = False,
    check: bool = True,
) -> Todo:
    """Shards that are not complete, or whose mark does not fit the plan.

    Parameters
    ----------
    plan : Plan
    among : sequence of int, optional
        Only these shards; all by default.
    retry_errors : bool
        Complete shards with errors, too, in which these images are tried again.
    check : bool
        Read each part and compare its checksum; without, only its mark and its size.
    """
    wanted = range(plan.n_shards) if among is None else sorted(set(among))

    def look(index: int) -> tuple[int, dict[str, Any] | None, bool]:
        told = read_mark(plan.folder, index)
        return index, told, told is not None and is_sound(plan, index, told, check)

    shards, damaged, done, errors = [], [], 0, 0
    # reading and hashing leave Python's lock
    with ThreadPoolExecutor(4) as pool:
        for index, told, sound in pool.map(look, wanted):
            if told is not None and not sound:
                damaged.append(index)
            if told is None or not sound or (retry_errors and told["errors"]):
                shards.append(index)
                continue
            done, errors = done + told["rows"], errors + told["errors"]
    return Todo(tuple(shards), done, errors, tuple(damaged))


def is_sound(plan: Plan, index: int, told: dict[str, Any], check: bool) -> bool:
    """Whether a mark is that of this shard, and its part is there; ``check``: bit for bit."""
    try:
        if told["rows"] != plan.images_of(index) or told["errors"] > told["rows"]:
            return False
        parquet = part_paths(plan.folder, index)[0]
        if parquet.stat().st_size != told["part_bytes"]:
            return False
        if not check:
            return bool(told["fingerprint"] == plan.settings.fingerprint)
        return fits_mark(told, plan.made_of(index)) and sha256_of(parquet) == told["sha256"]
    except (OSError, KeyError):
        return False
