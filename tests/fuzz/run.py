"""Fuzz one target, or all, for some minutes: ``python -m tests.fuzz.run image --minutes 10``.

Minutes are those of the processor, so that a busy machine does not shorten a run. Stops at the
first finding with the input that hypothesis could reduce it to; ``--seed`` repeats a run. An input
that hangs ends the process after a minute, with a trace of where it hung.
"""

from __future__ import annotations

import argparse
import faulthandler
import time
from collections import Counter

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.harness import check
from tests.fuzz.targets import TARGETS

HANGS_AFTER = 60
ROUND = settings(
    max_examples=400,
    deadline=None,
    database=None,
    print_blob=False,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)


def fuzz(name: str, seconds: float, first_seed: int = 0) -> Counter[str]:
    """Feed a target for so long; how many inputs were read, and how many were refused."""
    target, counts = TARGETS[name], Counter[str]()
    ends, number = time.process_time() + seconds, first_seed

    def once(value: object) -> None:
        faulthandler.dump_traceback_later(HANGS_AFTER, exit=True)
        counts["refused" if check(target, value) else "read"] += 1

    while time.process_time() < ends:
        seed(number)(ROUND(given(target.inputs)(once)))()
        number += 1
    faulthandler.cancel_dump_traceback_later()
    counts["rounds"] = number - first_seed
    return counts


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.run", description=__doc__)
    parser.add_argument("target", choices=[*TARGETS, "all"])
    parser.add_argument("--minutes", type=float, default=10.0, help="for each target")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    for name in TARGETS if asked.target == "all" else [asked.target]:
        counts = fuzz(name, asked.minutes * 60, asked.seed)
        print(
            f"{name}: {counts['read'] + counts['refused']:,} inputs in {asked.minutes:g} minutes, "
            f"{counts['read']:,} read, {counts['refused']:,} refused, nothing else",
            flush=True,
        )


if __name__ == "__main__":
    main()
