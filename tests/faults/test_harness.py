"""The harness itself: what it says of tables and processes is so."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from byname.embeddings import vector_array
from tests.faults.harness import Attempt, Chaos, Pace, compare, descendants, kept_rows, worlds_env

linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")


def table(path: Path, names: list[str], seeds: list[int], errors: dict[str, str]) -> Path:
    vectors = np.array([np.random.default_rng(s).normal(size=4) for s in seeds], np.float16)
    columns = {
        "file_name": pa.array(names),
        "vector": vector_array(vectors),
        "error": pa.array([errors.get(name) for name in names], pa.string()),
    }
    pq.write_table(pa.table(columns), path)
    return path


def test_tables_are_compared_row_by_row_and_bit_by_bit(tmp_path: Path) -> None:
    first = table(tmp_path / "a", ["a", "b", "c"], [1, 2, 3], {"c": "bad"})

    def verdict(names: str, seeds: list[int], why: str = "bad") -> tuple[int, ...]:
        found = compare(first, table(tmp_path / "b", list(names), seeds, {"c": why}))
        assert found.same_bytes == found.identical
        return found.lost, found.added, found.doubled, found.changed

    assert verdict("abc", [1, 2, 3]) == (0, 0, 0, 0)
    assert verdict("ac", [1, 3]) == (1, 0, 0, 0)
    assert verdict("abcd", [1, 2, 3, 4])[1] == 1
    assert verdict("abbc", [1, 2, 2, 3])[2] == 1
    assert verdict("abc", [1, 9, 3]) == (0, 0, 0, 1)
    assert verdict("abc", [1, 2, 3], "worse") == (0, 0, 0, 1)
    assert verdict("bac", [2, 1, 3]) == (0, 0, 0, 2)  # another order


@linux
def test_descendants_are_found_and_others_are_not() -> None:
    code = "import subprocess, sys; p = subprocess.Popen(['sleep', '31']); print(p.pid, flush=True)"
    child = subprocess.Popen(
        [sys.executable, "-c", f"{code}; p.wait()"], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    grandchild = int(child.stdout.readline())
    ends = time.monotonic() + 10  # a process that has just been started has no name for a moment
    while not (found := dict(descendants(os.getpid()))).get(grandchild) and time.monotonic() < ends:
        time.sleep(0.01)
    assert {child.pid, grandchild} <= set(found)
    assert found[grandchild] == "sleep 31"
    assert set(dict(descendants(child.pid))) == {grandchild}
    os.kill(grandchild, signal.SIGKILL)
    assert child.wait(10) == 0


@linux
def test_kills_take_the_whole_group_and_are_counted(tmp_path: Path) -> None:
    code = "import subprocess, time; subprocess.Popen(['sleep', '32.125']); time.sleep(32)"
    chaos = Chaos([sys.executable, "-c", code], worlds_env(tmp_path))
    began = time.monotonic()
    found = chaos.attempt(1.0)
    assert time.monotonic() - began < 10
    assert (found.code, found.kills, found.encoded) == (-9, 1, 0)
    for _ in range(100):
        left = [pid for pid, command in descendants(1) if command == "sleep 32.125"]
        if not left:
            break
        time.sleep(0.05)
    assert not left
    quick = Chaos([sys.executable, "-c", "raise SystemExit('odd')"], worlds_env(tmp_path))
    ended = quick.attempt(20.0)
    assert (ended.code, ended.kills, ended.error) == (1, 0, "odd\n")
    with pytest.raises(AssertionError, match="it ended with 1: odd"):
        quick.until_done(iter(()))


def test_lives_spread_the_kills_over_the_work(tmp_path: Path) -> None:
    batches = tuple((100, 2.0 + i) for i in range(11))
    pace = Pace.of(Attempt(13.0, 0, 0, batches, ""))
    assert (pace.images, pace.start, pace.work, pace.tail) == (1100, 2.0, 10.0, 1.0)
    chaos = Chaos(["true"], worlds_env(tmp_path))
    early = [pace.life(chaos, 10, 0) for _ in range(2000)]
    amid = [life for life, from_batch in early if from_batch]
    assert len(amid) / 2000 == pytest.approx(0.9, abs=0.03)
    assert 0 <= min(amid) < 0.1
    assert 2.3 < max(amid) <= 2 * 10 / 8
    assert max(life for life, from_batch in early if not from_batch) < 2
    last = [pace.life(chaos, 1, 550) for _ in range(2000)]
    assert max(life for life, _ in last) <= 5, "no longer than what is left"
    late = [pace.life(chaos, 10, 1100) for _ in range(2000)]
    assert not any(from_batch for _, from_batch in late)
    assert sum(life > 1.6 for life, _ in late) / 2000 > 0.85
    assert max(life for life, _ in late) <= 2.8


def test_rows_of_complete_parts_are_counted(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "part-00000.json").write_text('{"rows": 7}')
    (tmp_path / "x" / "part-00001.json").write_text("{")
    assert kept_rows(tmp_path) == 7
