"""Parts, marks and journals that are damaged: seen, made again, and the table is the same."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from byname.errors import BynameError, OutputError, RunError
from byname.runs.events import Advance, Event
from byname.runs.plan import Plan
from byname.runs.pool import run_local
from byname.runs.stop import Stopped
from byname.runs.todo import unfinished
from tests.faults import world
from tests.faults.conftest import Runs

Done = tuple[Path, Path]
PART, MARK = "part-00001.parquet", "part-00001.json"


def flipped(share: float) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        data = bytearray((run / PART).read_bytes())
        data[int(share * (len(data) - 1))] ^= 0x10
        (run / PART).write_bytes(data)

    return change


def cut(share: float) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        data = (run / PART).read_bytes()
        (run / PART).write_bytes(data[: int(share * len(data))])

    return change


def without_mark(change: Callable[[Path], None]) -> Callable[[Path], None]:
    def both(run: Path) -> None:
        change(run)
        (run / MARK).unlink()

    return both


def told(**changes: object) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        said = json.loads((run / MARK).read_text()) | changes
        (run / MARK).write_text(json.dumps(said))

    return change


def text(data: bytes) -> Callable[[Path], None]:
    return lambda run: (run / MARK).write_bytes(data) and None


def copied(first: str, second: str) -> Callable[[Path], None]:
    return lambda run: shutil.copy(run / first, run / second) and None


def another_shard(run: Path) -> None:
    """Part and mark of another shard, which fit each other."""
    shutil.copy(run / "part-00002.parquet", run / PART)
    shutil.copy(run / "part-00002.json", run / MARK)


def folder_there(run: Path) -> None:
    (run / PART).unlink()
    (run / PART).mkdir()


def link_loop(run: Path) -> None:
    (run / PART).unlink()
    (run / PART).symlink_to(PART)


DAMAGES: dict[str, Callable[[Path], None]] = {
    **{f"bit at {share:.0%}": flipped(share) for share in (0, 0.1, 0.3, 0.5, 0.7, 0.9, 1)},
    **{f"bit at {s:.0%}, no mark": without_mark(flipped(s)) for s in (0.1, 0.3, 0.5, 0.7, 0.9)},
    **{f"cut at {share:.0%}": cut(share) for share in (0, 0.5, 0.99)},
    **{f"cut at {share:.0%}, no mark": without_mark(cut(share)) for share in (0, 0.5, 0.99)},
    "no mark": lambda run: (run / MARK).unlink(),
    "no part": lambda run: (run / PART).unlink(),
    "neither": lambda run: [(run / name).unlink() for name in (PART, MARK)] and None,
    "empty mark": text(b""),
    "mark cut": text(b'{"format": "byname-part/2", "sha'),
    "mark deep": text(b"[" * 100_000),
    "mark not UTF-8": text(b"\xff\xfe\x00"),
    "mark is a list": text(b"[1, 2]"),
    "mark of nulls": text(b'{"format": null, "sha256": null}'),
    "mark of another shard": copied("part-00002.json", MARK),
    "part of another shard": copied("part-00002.parquet", PART),
    "another shard": another_shard,
    "rows a text": told(rows="many"),
    "rows null": told(rows=None),
    "errors negative": told(errors=-1),
    "errors null": told(errors=None),
    "bytes wrong": told(part_bytes=1),
    "checksum wrong": told(sha256="0" * 64),
    "checksum a list": told(sha256=[]),
    "of other weights": told(fingerprint="0" * 64),
    "of other images": told(inputs="0" * 64),
    "of another version": told(format="byname-part/9"),
    "link to itself": link_loop,
}
HARMLESS = {"errors negative"}  # a count that nobody relies on


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_part_is_seen_and_made_again(runs: Runs, done: Done, kind: str) -> None:
    run, wanted = done
    DAMAGES[kind](run)
    if kind not in HARMLESS:
        with pytest.raises(RunError, match="merge the run"):
            runs.merge(run)
        assert unfinished(Plan.open(run)).shards == (1,)
    runs.go_on(run)
    assert runs.compare(run, wanted).same_bytes
    assert runs.go_on(run) == 0


@pytest.mark.parametrize("kind", ["parts", "marks", "all"])
def test_parts_that_are_deleted(runs: Runs, done: Done, kind: str) -> None:
    run, wanted = done
    for path in run.glob("part-*"):
        if kind == "all" or path.suffix == {"parts": ".parquet", "marks": ".json"}[kind]:
            path.unlink()
    assert runs.go_on(run) == 4
    assert runs.compare(run, wanted).same_bytes


@pytest.mark.parametrize("what", ["part-00000.*", "part-0000[01].parquet", "*.journal"])
def test_what_is_deleted_amid_a_run_is_made_again(runs: Runs, done: Done, what: str) -> None:
    run, wanted = done
    for path in run.glob("part-*"):
        path.unlink()
    images = 0

    def heard(event: Event) -> None:
        nonlocal images
        images += event.images if isinstance(event, Advance) else 0
        if images >= 80:
            for path in run.glob(what):
                path.unlink()

    run_local(runs.job(run), [0, 1, 2, 3], heard=heard)
    runs.go_on(run)
    assert runs.compare(run, wanted).same_bytes
    assert runs.go_on(run) == 0


def stopped_run(runs: Runs, done: Done, batches: int) -> Path:
    """The run without its second part, of which so many batches are in a journal."""
    run, _ = done
    for name in (PART, MARK):
        (run / name).unlink()
    asked = iter([False] * batches)
    with pytest.raises(Stopped):
        run_local(runs.job(run), [1], stop=lambda: next(asked, True))
    assert (run / "part-00001.journal").exists()
    return run / "part-00001.journal"


def _records(data: bytes) -> list[bytes]:
    found, at = [], 0
    while at < len(data):
        length = struct.unpack_from("<Q", data, at)[0] + 12
        found.append(data[at : at + length])
        at += length
    return found


JOURNALS: dict[str, Callable[[bytes], bytes]] = {
    "as it is": lambda data: data,
    "torn tail": lambda data: data[:-7],
    "torn head": lambda data: data + b"\x40\x02",
    "flipped length": lambda data: bytes([data[0] ^ 1]) + data[1:],
    "giant length": lambda data: data + b"\xff" * 7 + b"\x7f" + bytes(4) + b"xx",
    "flipped checksum": lambda data: data[:9] + bytes([data[9] ^ 1]) + data[10:],
    "flipped payload": lambda data: data[:-40] + bytes([data[-40] ^ 4]) + data[-39:],
    "zeros behind": lambda data: data + bytes(4096),
    "zeros": lambda data: bytes(len(data)),
    "empty": lambda data: b"",
    "a record twice": lambda data: data + _records(data)[-1],
    "all twice": lambda data: data + data,
    "backwards": lambda data: b"".join(reversed(_records(data))),
    "no first record": lambda data: b"".join(_records(data)[1:]),
    "not its own format": lambda data: b"PAR1" + data,
}


@pytest.mark.parametrize("kind", JOURNALS)
def test_a_damaged_journal_costs_at_most_its_rows(runs: Runs, done: Done, kind: str) -> None:
    journal = stopped_run(runs, done, 2)
    journal.write_bytes(JOURNALS[kind](journal.read_bytes()))
    run, wanted = done
    assert runs.go_on_here(run) == 1
    assert runs.compare(run, wanted).same_bytes
    assert not list(run.glob("*.journal*"))


def test_a_folder_where_a_part_should_be_is_said(runs: Runs, done: Done) -> None:
    run, wanted = done
    folder_there(run)
    with pytest.raises(OutputError, match="Is a directory"):
        runs.go_on(run)
    (run / PART).rmdir()
    assert runs.go_on(run) == 1
    assert runs.compare(run, wanted).same_bytes


def test_a_journal_of_another_shard_is_left_out(runs: Runs, done: Done) -> None:
    journal = stopped_run(runs, done, 2)
    run, wanted = done
    for name in ("part-00002.parquet", "part-00002.json"):
        (run / name).unlink()
    shutil.copy(journal, run / "part-00002.journal")
    assert runs.go_on(run) == 2
    assert runs.compare(run, wanted).same_bytes


def test_what_a_dead_process_left_is_in_nobodys_way(runs: Runs, done: Done) -> None:
    run, wanted = done
    (run / MARK).unlink()
    for name in (f".{PART}.0123456789ab.tmp", f".{MARK}.0123456789ab.tmp"):
        (run / name).write_bytes(b"half")
    (run / "part-00001.journal.new").write_bytes(b"half")
    (run / "part-00001.inhand").write_text("load 3\n")
    (run / "part-00001.lock").write_text("")
    assert runs.go_on(run) == 1
    assert runs.compare(run, wanted).same_bytes


PLANS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "a list": lambda data: b"[]",
    "deep": lambda data: b'{"format": ' + b"[" * 100_000,
    "not UTF-8": lambda data: b"\xff" + data,
    "another version": lambda data: data.replace(b"byname-run/2", b"byname-run/9"),
    "images negative": lambda data: data.replace(b'"images": 101', b'"images": -101'),
    "images too many": lambda data: data.replace(b'"images": 101', b'"images": 500'),
    "images too few": lambda data: data.replace(b'"images": 101', b'"images": 33'),
    "images a text": lambda data: data.replace(b'"images": 101', b'"images": "x"'),
    "shards of nothing": lambda data: data.replace(b'"shard_size": 32', b'"shard_size": 0'),
    "shards of others": lambda data: data.replace(b'"shard_size": 32', b'"shard_size": 33'),
    "another width": lambda data: data.replace(b'"dim": 16', b'"dim": 8'),
    "no encoder": lambda data: data.replace(b'"encoder": "onnx:', b'"encoder": "onnx:/no/such'),
}


def trouble(runs: Runs, run: Path) -> BynameError | None:
    """The error with which the run or the merge ends."""
    try:
        runs.go_on(run)
        runs.merge(run)
    except BynameError as error:
        return error
    return None


@pytest.mark.parametrize("kind", PLANS)
def test_a_damaged_plan_is_one_clear_error(runs: Runs, done: Done, kind: str) -> None:
    run, _ = done
    (run / "part-00001.json").unlink()
    (run / "part-00001.parquet").unlink()
    before = (run / "plan.json").read_bytes()
    (run / "plan.json").write_bytes(PLANS[kind](before))
    assert (run / "plan.json").read_bytes() != before
    error = trouble(runs, run)
    assert error is not None
    assert "\n" not in str(error)
    assert error.do


@pytest.mark.parametrize("share", [0, 0.02, 0.1, 0.2, 0.4, 0.6, 0.8, 0.95, 1])
def test_a_changed_byte_in_the_list_of_images(runs: Runs, done: Done, share: float) -> None:
    run, wanted = done
    data = bytearray((run / "inputs.parquet").read_bytes())
    data[int(share * (len(data) - 1))] ^= 0x10
    (run / "inputs.parquet").write_bytes(data)
    error = trouble(runs, run)
    if error is None:
        assert runs.compare(run, wanted).same_bytes
    else:
        assert "inputs.parquet" in error.seen
        assert "\n" not in str(error)


@pytest.mark.parametrize("kind", ["missing", "empty", "cut", "of another run"])
def test_a_wrong_list_of_images_is_one_clear_error(runs: Runs, done: Done, kind: str) -> None:
    run, _ = done
    path = run / "inputs.parquet"
    if kind == "missing":
        path.unlink()
    elif kind == "of another run":
        world.photos(runs.place / "others", 101)
        other = runs.plan(runs.place / "others", "other")
        shutil.copy(other / "inputs.parquet", path)
    else:
        path.write_bytes(path.read_bytes()[: 0 if kind == "empty" else -20])
    (run / "part-00003.json").unlink()
    with pytest.raises(RunError) as caught:
        runs.go_on(run)
    assert "inputs.parquet" in caught.value.seen
    assert "\n" not in str(caught.value)
