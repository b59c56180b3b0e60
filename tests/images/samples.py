"""Images and files made for the tests of this folder."""

from __future__ import annotations

import io
import os
import shutil
import struct
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from byname.errors import SourceError
from byname.images.sources import Source, open_source


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    """A smooth coloured picture with some texture, as photos have."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (max(2, height // 40), max(2, width // 40), 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    pixels = np.asarray(image).astype(np.int16) + rng.integers(-6, 7, (height, width, 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def needs(kind: str) -> None:
    """Skip where this Pillow cannot write that kind of file."""
    Image.init()
    if kind not in Image.SAVE:
        pytest.skip(f"this Pillow cannot write {kind}")


def png(width: int, height: int, *, rows: bytes = b"", depth: int = 8, colour: int = 2) -> bytes:
    """A PNG with that header, whatever its rows."""

    def chunk(name: bytes, body: bytes) -> bytes:
        crc = zlib.crc32(name + body)
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", crc)

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + body + chunk(b"IEND", b"")


def encoded(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    """Bytes of a file of that kind."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def write_tar(path: Path, files: Mapping[str, bytes], mode: Any = "w") -> Path:
    """A tar of those files."""
    with tarfile.open(path, mode) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def put(root: Path, *names: str, data: bytes = b"x") -> Path:
    """Files of those names, with their folders."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def keys(source: Source) -> list[str]:
    """Keys of a listing, in order."""
    return [ref.key for ref in source.refs]


def refusal(spec: object, **options: str) -> str:
    """The message with which a source is refused."""
    with pytest.raises(SourceError) as caught:
        open_source(spec, **options)  # type: ignore[arg-type]
    return str(caught.value)


@contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that other users can enter, as ``tmp_path`` is not."""
    folder = Path(tempfile.mkdtemp(prefix="byname-test-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        for path in folder.rglob("*"):
            if path.is_dir():
                path.chmod(0o700)
        shutil.rmtree(folder)


def as_nobody(action: Callable[[], str]) -> str:
    """What ``action`` returns when an ordinary user calls it; root may read everything."""
    if os.name != "posix":
        pytest.skip("needs POSIX permissions")
    if os.getuid() != 0:
        return action()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            answer = action()
        except BaseException as error:  # noqa: BLE001 - a forked child must end here
            answer = f"{type(error).__name__}: {error}"
        os.write(writing, answer.encode())
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as stream:  # noqa: PTH123 - a descriptor
        answer = stream.read().decode()
    os.waitpid(child, 0)
    return answer
