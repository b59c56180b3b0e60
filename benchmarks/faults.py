"""Kills a run at random moments, starts it again until it ends, and compares the tables.

    python benchmarks/faults.py [--kills 100] [--images 20000] [--engine embed|local|ray]

``embed`` is ``byname embed --no-cache`` in one process, killed as a whole. ``local`` is a run
folder with two worker processes: some kills take everything, some only one worker. With ``ray``
only workers are killed, while the driver lives on. The images are links to a few hundred JPEGs, the
encoder is a tower of random weights, and the moments are drawn so that the kills are spread over
start-up, listing, encoding, merging and writing. Where a run ends before all kills are spent,
another one is begun, and its table is compared too.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.faults.harness import Attempt, Chaos, Pace, Verdict, byname, compare, kept_rows
from tests.faults.harness import worlds_env as environment
from tests.faults.world import encoder, links, photos

QUIET = ("--quiet",)


@dataclass
class Told:
    """What came of all the kills."""

    kills: int = 0
    workers: int = 0
    starts: int = 0
    images: int = 0
    encoded: int = 0
    moments: dict[str, int] = field(default_factory=dict)
    verdicts: list[Verdict] = field(default_factory=list)

    def take(self, chaos: Chaos, verdict: Verdict, images: int) -> None:
        """Add one run from its first start to its end."""
        self.verdicts.append(verdict)
        self.starts += len(chaos.attempts)
        self.images += images
        self.encoded += chaos.encoded
        last = max(i for i, a in enumerate(chaos.attempts) if a.encoded)
        for i, found in enumerate(chaos.attempts):
            self.kills += found.kills
            self.workers += found.kills - (found.code == -9)
            if found.code == -9:
                when = "amid the batches" if found.encoded else "before the first batch"
                if i > last:
                    when = "with every batch done"
                self.moments[when] = self.moments.get(when, 0) + 1


class World:
    """A place with photos and an encoder, and the commands of an engine."""

    def __init__(self, place: Path, engine: str, images: int, dim: int, layers: int) -> None:
        self.place, self.engine, self.count = place, engine, images
        self.images = links(place / "images", photos(place / "files", 300), images)
        self.model = encoder(place / "encoder", dim, layers)
        self.env = environment(place)

    def begin(self, name: str, seed: int) -> tuple[Chaos, Path, Callable[[], None]]:
        """A command to kill, the table that it will have made, and what is left to do for it."""
        out = self.place / f"{name}.parquet"
        if self.engine == "embed":
            command = byname("embed", self.images, "-e", f"onnx:{self.model}", "-o", out)
            return Chaos([*command, "--no-cache", *QUIET], self.env, seed), out, lambda: None
        run = self.place / name
        plan = byname("plan", self.images, run, "-e", f"onnx:{self.model}", *QUIET)
        assert Chaos(plan, self.env).attempt().code == 0
        command = byname("run", run, "--engine", self.engine, "--workers", 2, *QUIET)

        def merge() -> None:
            last = Chaos(byname("merge", run, "-o", out, *QUIET), self.env).attempt()
            assert last.code == 0, last.error
            shutil.rmtree(run)

        return Chaos(command, self.env, seed), out, merge

    def kept(self, name: str) -> int:
        """Images in complete parts."""
        embed = self.engine == "embed"
        return kept_rows(self.place / "cache" / "runs" if embed else self.place / name)


def kill_all(world: World, chaos: Chaos, name: str, pace: Pace, left: int) -> None:
    """Kill the command, or a worker and later the command, until it ends or no kill is left.

    ``embed`` writes its record last: what is killed behind that has nothing left to do.
    """
    record = world.place / f"{name}.parquet.run.json"
    for _ in range(100 * left):
        spare = left - chaos.kills
        if spare <= 0:
            break
        life, amid = pace.life(chaos, spare, world.kept(name))
        one = world.engine == "local" and amid and spare > 1 and chaos.rng.random() < 0.4
        found = chaos.attempt(life, amid=amid, gaps=[life / 2] if one else [])
        if found.code == 0 or record.exists():
            return
        assert found.code == -9, f"it ended with {found.code}: {found.error}"
    found = chaos.attempt()
    assert found.code == 0, f"it ended with {found.code}: {found.error}"


def kill_workers(chaos: Chaos, pace: Pace, left: int) -> None:
    """Start the command once, and kill one worker after the other."""

    def gaps() -> Iterator[float]:
        while True:
            # about as long as a worker needs to be there again, so that most have work in hand
            yield chaos.rng.uniform(0, min(pace.start, 2 * pace.work / left))

    found = chaos.attempt(amid=True, gaps=gaps(), most=left)
    assert found.code == 0, f"it ended with {found.code}: {found.error}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--engine", choices=("embed", "local", "ray"), default="embed")
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbose", action="store_true", help="a line for each start")
    args = parser.parse_args()
    started, told = time.perf_counter(), Told()
    with tempfile.TemporaryDirectory() as name:
        world = World(Path(name), args.engine, args.images, args.dim, args.layers)
        chaos, wanted, finish = world.begin("whole", 0)
        whole = chaos.attempt()
        assert whole.code == 0, whole.error
        finish()
        pace = Pace.of(whole)
        say_whole(whole, pace)
        while told.kills < args.kills:
            title = f"killed-{len(told.verdicts)}"
            chaos, found, finish = world.begin(title, args.seed + len(told.verdicts))
            if args.engine == "ray":
                kill_workers(chaos, pace, args.kills - told.kills)
            else:
                kill_all(world, chaos, title, pace, args.kills - told.kills)
            finish()
            told.take(chaos, compare(wanted, found), args.images)
            if args.verbose:
                say_attempts(chaos)
    report(told, args.engine, time.perf_counter() - started)
    good = all(v.identical for v in told.verdicts)
    sys.exit(0 if good else 1)


def say_whole(whole: Attempt, pace: Pace) -> None:
    """The run that nobody disturbs."""
    print(
        f"uninterrupted: {whole.encoded:,} images in {whole.seconds:.1f} s "
        f"({pace.start:.1f} s before the first batch, {pace.work:.1f} s of batches, "
        f"{pace.tail:.1f} s after the last); load of this machine {os.getloadavg()[0]:.1f}",
        flush=True,
    )


def say_attempts(chaos: Chaos) -> None:
    """A line for each start."""
    for found in chaos.attempts:
        ready = "-" if found.ready is None else f"{found.ready:.1f}"
        print(
            f"lived {found.seconds:.1f} s, first batch at {ready} s, encoded {found.encoded:,}, "
            f"kills {found.kills}, ended with {found.code}",
            flush=True,
        )


def report(told: Told, engine: str, seconds: float) -> None:
    """A line for each figure."""
    lines = {
        "engine": engine,
        "kills that hit": f"{told.kills} ({told.workers} of one worker only)",
        "whole commands killed": ", ".join(f"{n} {k}" for k, n in told.moments.items()) or "0",
        "starts": told.starts,
        "runs": len(told.verdicts),
        "rows": " + ".join(f"{v.rows:,}" for v in told.verdicts),
        "lost": sum(v.lost for v in told.verdicts),
        "doubled": sum(v.doubled for v in told.verdicts),
        "changed": sum(v.changed + v.added for v in told.verdicts),
        "identical": "yes" if all(v.identical for v in told.verdicts) else "NO",
        "files identical": "yes" if all(v.same_bytes for v in told.verdicts) else "no",
        "encoded again": f"{told.encoded / told.images - 1:.1%} of the images",
        "seconds": f"{seconds:.0f}",
    }
    print("| what | seen |\n|---|---|")
    for key, value in lines.items():
        print(f"| {key} | {value} |")


if __name__ == "__main__":
    main()
