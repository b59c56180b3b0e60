"""Faults inside a byname process, its workers included: read by a ``sitecustomize`` of ours.

What is replaced is replaced when its module is imported, so nothing is imported earlier than in a
run without faults. Which file is hit is written in the file itself, behind the image: decoders
pass over it.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = ["COUNT", "FULL", "MARKS", "install", "prepare"]

COUNT, FULL = "BYNAME_TEST_COUNT", "BYNAME_TEST_FULL"
"""Variables: a file that gets a line for each encoded batch; one that means a full disk."""
MARKS = {
    "segv": b"FAULT:segv",  # the decoder crashes, every time
    "hang": b"FAULT:hang",  # and never ends
    "slow": b"FAULT:slow",  # or takes a while
    "memory": b"FAULT:memory",
    "odd": b"FAULT:odd",  # an error that nobody has thought of
}
ROOT = Path(__file__).resolve().parents[2]


def prepare(folder: Path) -> dict[str, str]:
    """Variables of a process in which faults can happen."""
    folder.mkdir(parents=True, exist_ok=True)
    text = f"import sys\nsys.path.append({str(ROOT)!r})\n"
    text += "from tests.faults.inject import install\ninstall()\n"
    (folder / "sitecustomize.py").write_text(text, encoding="utf-8")
    before = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": os.pathsep.join([str(folder), *([before] if before else [])])}


def install() -> None:
    """Watch for the imports of what is replaced."""
    sys.meta_path.insert(0, _Finder())


class _Finder:
    @staticmethod
    def find_spec(name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        change = CHANGES.get(name)
        spec = PathFinder.find_spec(name, path) if change else None
        if change is None or spec is None or spec.loader is None:
            return None
        run = spec.loader.exec_module

        def execute(module: ModuleType) -> None:
            run(module)
            change(module)

        spec.loader.exec_module = execute  # type: ignore[method-assign]
        return spec


def _count(module: Any) -> None:
    """A line for each batch: how many images, when, and whose."""
    real = module.OnnxEncoder.encode_images

    def counted(self: Any, pixels: Any) -> Any:
        found = real(self, pixels)
        if path := os.environ.get(COUNT):
            line = f"{len(pixels)} {time.time():.3f} {os.getpid()}\n".encode()
            file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            os.write(file, line)
            os.close(file)
        return found

    module.OnnxEncoder.encode_images = counted


def _marked(module: Any) -> None:
    """What stands behind the image happens when it is decoded."""
    real = module.decode

    def decode(data: bytes, *args: Any, **kwargs: Any) -> Any:
        end = data[-64:]
        if MARKS["segv"] in end:
            os.kill(os.getpid(), signal.SIGSEGV)
            time.sleep(10)
        elif MARKS["hang"] in end:
            time.sleep(10_000)
        elif MARKS["slow"] in end:
            time.sleep(0.5)
        elif MARKS["memory"] in end:
            raise MemoryError
        elif MARKS["odd"] in end:
            raise RuntimeError("an error that nobody has thought of")
        return real(data, *args, **kwargs)

    module.decode = decode


def _read(module: Any) -> None:
    """Reads that fail or never come back, by the name of the file."""
    real = module.ImageRef.read

    def read(self: Any, **kwargs: Any) -> bytes:
        name = os.path.basename(self.path)  # noqa: PTH119 - text, as in byname.images
        if name.startswith("hang-read"):
            time.sleep(10_000)
        if name.startswith("slow-read"):
            time.sleep(0.5)
        return bytes(real(self, **kwargs))

    module.ImageRef.read = read


def _refuse() -> None:
    path = os.environ.get(FULL)
    if path and Path(path).exists():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _full_files(module: Any) -> None:
    real = module.atomic_path

    @contextmanager
    def atomic_path(path: Path) -> Iterator[Path]:
        with real(path) as temporary:
            yield temporary
            _refuse()

    module.atomic_path = atomic_path


def _full_journal(module: Any) -> None:
    real = module.Journal.append

    def append(self: Any, *args: Any) -> None:
        _refuse()
        real(self, *args)

    module.Journal.append = append


CHANGES: dict[str, Callable[[Any], None]] = {
    "byname.encoders.onnx": _count,
    "byname.images.decode": _marked,
    "byname.images.refs": _read,
    "byname.files": _full_files,
    "byname.runs.parts": _full_journal,
}
