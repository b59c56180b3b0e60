"""Run folders over small photos with a tiny encoder, and workers that misbehave."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from byname.encoders import load_encoder
from byname.images.sources import open_source
from byname.runs.create import create_run, how_to_load
from byname.runs.events import Advance, Done, Event, Note
from byname.runs.job import Job
from byname.runs.plan import Plan
from tests.encoders import tiny
from tests.helpers import make_photos

__all__ = ["SHARD", "Heard", "N", "child", "job_of", "make_base", "parts_of", "planned"]

N, SHARD = 23, 10


def make_base(folder: Path, photos: int = N) -> Path:
    """An encoder, and photos with two files among them that are none."""
    tiny.byname_folder(folder / "encoder")
    make_photos(folder / "photos", photos - 2)
    (folder / "photos" / "0004a.jpg").write_bytes(b"")
    (folder / "photos" / "zz.jpg").write_bytes(b"no image")
    return folder


def planned(base: Path, name: str = "run", shard_size: int = SHARD) -> Plan:
    encoder = load_encoder(str(base / "encoder"))
    how = how_to_load(encoder, str(base / "encoder"), None)
    return create_run(open_source(base / "photos"), base / name, encoder, how, shard_size)


def job_of(plan: Plan, batch_size: int = 4) -> Job:
    return Job(str(plan.folder), threads=1, batch_size=batch_size, readers=1)


def parts_of(plan: Plan) -> list[bytes]:
    """The parts, as they lie on the disk."""
    return [
        (plan.folder / f"part-{index:05d}.parquet").read_bytes() for index in range(plan.n_shards)
    ]


class Heard:
    """Keeps what an engine tells."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    @property
    def images(self) -> int:
        return sum(e.images for e in self.events if isinstance(e, Advance))

    @property
    def encoded(self) -> int:
        return sum(e.images for e in self.events if isinstance(e, Advance) and e.encoded)

    @property
    def done(self) -> list[int]:
        return sorted(e.index for e in self.events if isinstance(e, Done))

    @property
    def notes(self) -> list[str]:
        return [e.text for e in self.events if isinstance(e, Note)]


MISBEHAVE = """
import os, signal, sys, time
sys.path[:] = sys.argv[3:]
from pathlib import Path
from byname.encoders.onnx import OnnxEncoder
from byname.runs import child, job, shard
how, sign = sys.argv[1], Path(sys.argv[2])
real_load, real_encode = shard.load_pixels, OnnxEncoder.encode_images

def once():
    try:
        sign.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True

def load(data, preprocess):
    if how == "read" and data.endswith(b"KILL"):
        os.kill(os.getpid(), signal.SIGSEGV)
    if how == "slow":
        time.sleep(0.05)
    if how == "stuck" and once():
        os.kill(os.getpid(), signal.SIGSTOP)
    return real_load(data, preprocess)

def encode(self, pixels):
    if how == "once" and once():
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "always":
        os._exit(9)
    if how == "bug":
        raise KeyError("what")
    if how == "batch" and len(pixels) > 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return real_encode(self, pixels)

shard.load_pixels, OnnxEncoder.encode_images = load, encode
if how == "start":
    def refuse(*args, **options):
        print("no room for the weights", file=sys.stderr)
        os._exit(5)
    job.load_encoder = refuse
child.main()
"""


def child(how: str, sign: Path) -> list[str]:
    """The command of a worker that misbehaves in some way."""
    return [sys.executable, "-P", "-c", MISBEHAVE, how, os.fspath(sign), *sys.path]
