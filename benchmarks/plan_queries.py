"""How long it takes to plan 50,000 queries, and to go on when half of them are answered.

    python benchmarks/plan_queries.py [TREE.json]

The queries are those of ``haprompts`` (comparative and path) on the 998-class ImageNet tree; half
of the replies are put into an empty cache first. Both figures are whole commands, each a process of
its own, beside one that only says its version.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from byname.cache import cache_dir
from byname.llm.replies import ReplyCache, StoredReply, reply_key
from byname.stage import create
from byname.taxonomy_io import read_taxonomy

URL, MODEL = "http://127.0.0.1:9/v1", "none"  # nobody answers there, and nobody is asked


def run(*arguments: str) -> tuple[float, float, str]:
    """Seconds, peak MB, and the last line but one of a command."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", WRAPPED, *arguments], capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    return time.perf_counter() - start, float(done.stderr.split()[-1]), " | ".join(lines[-3:])


WRAPPED = """
import resource, sys
from byname.cli import main
sys.argv[0] = "byname"
try:
    main()
finally:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, file=sys.stderr)
"""


def main() -> None:
    shared = os.environ.get("BYNAME_SHARED", "../shared")
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("tree", nargs="?", default=f"{shared}/data/taxonomies/imagenet-998.json")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["BYNAME_CACHE"] = folder
        taxonomy = read_taxonomy(options.tree)
        queries = list(create("haprompts", "prompts").queries(taxonomy))
        cache = ReplyCache(cache_dir())
        start = time.perf_counter()
        for query in queries[::2]:
            cache.put(reply_key(URL, MODEL, "chat", query, 0), StoredReply("It is red. " * 20))
        cache.close()
        print(f"{len(queries)} queries, {len(queries[::2])} replies kept in "
              f"{time.perf_counter() - start:.1f} s")  # fmt: skip
        plan = ("prompts", "make", "--style", "haprompts", "-c", str(Path(options.tree)))
        commands = {
            "start": ("--version",),
            "plan": (*plan, "--dry-run"),
            "resume": (*plan, "--dry-run", "--llm-url", URL, "--llm-model", MODEL),
        }
        found: dict[str, list[tuple[float, float, str]]] = {name: [] for name in commands}
        for _ in range(options.rounds):
            for name, arguments in commands.items():
                found[name].append(run(*arguments))
        for name, runs in found.items():
            seconds = statistics.median(r[0] for r in runs)
            print(f"{name:7} {seconds:5.2f} s  {max(r[1] for r in runs):4.0f} MB  {runs[0][2]}")
    print(f"this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
