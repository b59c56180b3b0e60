"""Thousands of bad files among as many good ones: a row for each, and a reason for each bad one.

    python benchmarks/bad_files.py [--good 5000] [--bad 5000] [--workers 2]

The good files alone and then all of them go through ``byname embed`` and through a run folder
(``plan``, ``run``, ``merge``). The bad ones are images cut at random places, wrong and lonely
magics, noise, bombs of every format, texts, archives, empty files, pipes, sockets, dead links,
links in circles and to devices, files too large to be an image, and, unless this is run as root,
files without permission; many have names with line feeds, escape sequences or bytes that are not
UTF-8. Printed are the rows, the reasons, the time, and the peak memory of all processes together
against that of the good files alone.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from byname.images.refs import MAX_FILE_BYTES, key_of
from tests.faults.harness import byname, compare, descendants, worlds_env
from tests.faults.world import encoder, photos
from tests.images.test_hostile_corpus import bad_files, bombs

ODD_NAMES = (
    "two\nlines {}",
    "\x1b[31mred {}",
    "caf\udce9 \udcff {}",
    "'; rm -rf {}",
    "=cmd|{}",
    "☃ {}",
)
LIMIT = 1800


def whole_images(rng: random.Random) -> dict[str, bytes]:
    """An image in each of some formats, to be cut; noise, so that a cut is missed."""
    noise = Image.frombytes("RGB", (96, 72), rng.randbytes(96 * 72 * 3))
    found = {}
    for kind in ("JPEG", "PNG", "BMP", "TIFF"):
        stream = io.BytesIO()
        noise.save(stream, kind)
        found[kind] = stream.getvalue()
    return found


def contents(rng: random.Random) -> Iterator[tuple[str, bytes]]:
    """Kinds of bad bytes, again and again; the heavy ones once."""
    images, corpus = whole_images(rng), bad_files()
    heavy = {name: corpus.pop(name) for name in ("text bomb.png",)}
    yield from heavy.items()
    magics = {kind: data[:12] for kind, data in images.items()}
    ends = {"JPEG": ".jpg", "PNG": ".png", "BMP": ".bmp", "TIFF": ".tif"}
    while True:
        for kind, data in images.items():
            # Behind half of it nearly all formats miss rows, and before it all of them do.
            yield f"cut {kind}{ends[kind]}", data[: rng.randrange(1, len(data) // 2)]
            yield f"magic and noise{ends[kind]}", magics[kind] + rng.randbytes(400)
        for name, data in bombs().items():
            yield f"bomb {name}.png", data
        for name, data in corpus.items():
            yield name, data
        yield "noise.webp", rng.randbytes(rng.randrange(1, 4000))
        yield "zeros.jpg", bytes(rng.randrange(1, 4000))
        yield "text.gif", b"no image at all\n" * rng.randrange(1, 50)


def make_bad(folder: Path, count: int) -> set[str]:
    """So many bad files; their keys."""
    rng, keys = random.Random(0), set[str]()
    folder.mkdir()
    made = contents(rng)
    specials = [pipe, sock, dead_link, circle, device, too_large]
    if os.geteuid():
        specials.append(closed)
    for i in range(count):
        number = f"{i:05d}"
        stem = rng.choice(ODD_NAMES).format(number) if i % 5 == 0 else number
        if i % 20 < len(specials) and (i // 20) % 4 == 0:
            name = f"{stem} special.jpg"
            specials[i % 20](folder, name)
        else:
            kind, data = next(made)
            name = f"{stem} {kind}"
            (folder / name).write_bytes(data)
        keys.add(key_of(f"{folder.name}/{name}"))
    (folder / "a folder.jpg").mkdir()  # no row: folders are walked, whatever they are called
    (folder / "round").symlink_to(folder, target_is_directory=True)
    return keys


def pipe(folder: Path, name: str) -> None:
    os.mkfifo(folder / name)


def sock(folder: Path, name: str) -> None:
    # the name of a socket is short: it is made elsewhere, and moved
    with tempfile.TemporaryDirectory() as place, socket.socket(socket.AF_UNIX) as made:
        made.bind(f"{place}/s")
        os.rename(f"{place}/s", folder / name)  # noqa: PTH104 - across folders of one disk


def dead_link(folder: Path, name: str) -> None:
    (folder / name).symlink_to("no such file.jpg")


def circle(folder: Path, name: str) -> None:
    (folder / name).symlink_to(name)


def device(folder: Path, name: str) -> None:
    (folder / name).symlink_to("/dev/zero")


def too_large(folder: Path, name: str) -> None:
    (folder / name).touch()
    os.truncate(folder / name, MAX_FILE_BYTES + 1)  # a hole: it takes no room on the disk


def closed(folder: Path, name: str) -> None:
    Image.new("RGB", (8, 8)).save(folder / name)
    (folder / name).chmod(0)


@dataclass
class Used:
    """What a command took."""

    seconds: float = 0.0
    peak: int = 0


def run(command: list[str], env: dict[str, str], used: Used) -> None:
    """Run it, and watch the memory of it and of all that it starts."""
    began, page = time.perf_counter(), os.sysconf("SC_PAGE_SIZE")
    process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)

    def watch() -> None:
        while process.poll() is None:
            total = 0
            for pid in (process.pid, *(child for child, _ in descendants(process.pid))):
                try:
                    total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page
                except (OSError, IndexError):
                    continue
            used.peak = max(used.peak, total)
            time.sleep(0.05)

    watcher = threading.Thread(target=watch)
    watcher.start()
    _, said = process.communicate(timeout=LIMIT)
    watcher.join()
    used.seconds += time.perf_counter() - began
    text = said.decode("utf-8", "replace")
    assert process.returncode == 0, f"it ended with {process.returncode}: {text}"
    assert "Traceback" not in text, text


def embed(images: Path, model: Path, out: Path, env: dict[str, str], workers: int) -> Used:
    used = Used()
    command = byname("embed", images, "-e", f"onnx:{model}", "-o", out, "--no-cache", "--quiet")
    run(command, env, used)
    return used


def with_folder(images: Path, model: Path, out: Path, env: dict[str, str], workers: int) -> Used:
    used, folder = Used(), out.with_suffix("")
    run(byname("plan", images, folder, "-e", f"onnx:{model}", "--quiet"), env, used)
    run(byname("run", folder, "--workers", workers, "--quiet"), env, used)
    run(byname("merge", folder, "-o", out, "--quiet"), env, used)
    return used


def reasons_of(path: Path) -> dict[str, str | None]:
    """The error of each row; a name that is there twice is an error of ours."""
    table = pq.read_table(path, columns=["file_name", "error"])
    found = dict(zip(table["file_name"].to_pylist(), table["error"].to_pylist(), strict=True))
    assert len(found) == len(table), "a name has two rows"
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--good", type=int, default=5000)
    parser.add_argument("--bad", type=int, default=5000)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        env, model = worlds_env(place), encoder(place / "encoder", 128, 2)
        both = place / "images"
        photos(both / "good", args.good)
        alone: dict[str, Used] = {}
        ways = {"embed": embed, "run": with_folder}
        for way, does in ways.items():
            out = place / f"{way}-good.parquet"
            alone[way] = does(both, model, out, env, args.workers)
            found = reasons_of(out)
            assert len(found) == args.good
            assert not any(found.values())
        bad = make_bad(both / "bad", args.bad)
        print("| way | rows | with a reason | seconds | peak MB | of the good alone | ratio |")
        print("|---|---|---|---|---|---|---|")
        for way, does in ways.items():
            out = place / f"{way}.parquet"
            used = does(both, model, out, env, args.workers)
            found = reasons_of(out)
            failed = {key for key, why in found.items() if why is not None}
            print(
                f"| {way} | {len(found):,} | {len(failed):,} | {used.seconds:.0f} "
                f"| {used.peak / 1e6:.0f} | {alone[way].peak / 1e6:.0f} "
                f"| {used.peak / alone[way].peak:.2f} |",
                flush=True,
            )
            assert len(found) == args.good + args.bad
            assert failed == bad, sorted(failed ^ bad)[:20]
        verdict = compare(place / "embed.parquet", place / "run.parquet")
        print(f"\nthe tables of both ways are identical: {'yes' if verdict.identical else 'NO'}\n")
        say_reasons(found)


def say_reasons(found: dict[str, str | None]) -> None:
    """How often each reason was given, with # for numbers and dots for bytes of the file."""
    quoting = re.compile(r"(starts with|broken PNG file) .*")
    whys = [quoting.sub(r"\1 ...", why) for why in found.values() if why is not None]
    alike = Counter(re.sub(r"\d+([.,]\d+)*", "#", why) for why in whys)
    print("| reason | files |\n|---|---|")
    for why, count in alike.most_common():
        print(f"| {why} | {count:,} |")


if __name__ == "__main__":
    main()
