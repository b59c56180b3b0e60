"""Hostile .npz files: each is refused with a message, and none is loaded unchecked."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from byname.errors import EmbeddingsError, UnsafeFileError
from byname.npz import read_arrays

HUGE = "(99999999999,)"


def npy(array: Any) -> bytes:
    held = io.BytesIO()
    np.lib.format.write_array(held, np.asarray(array))
    return held.getvalue()


def header(shape: str = "(1,)", raw: str | None = None) -> bytes:
    text = raw or f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}"
    line = text.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(line)) + line


GOOD = npy(np.arange(6, dtype=np.float32).reshape(3, 2))


def write(path: Path, entries: list[tuple[str, bytes]], how: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", how) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return path


def read(path: Path) -> Any:
    return read_arrays(path, "read it", ["a"], [], "do")["a"]


@pytest.mark.parametrize("how", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("name", ["a", "a.npy"])
def test_whole_files_are_read(tmp_path: Path, how: int, name: str) -> None:
    found = read(write(tmp_path / "f.npz", [(name, GOOD)], how))
    assert found.tolist() == [[0, 1], [2, 3], [4, 5]]


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("names", [("a", "a.npy"), ("a.npy", "a"), ("a.npy", "a.npy")])
@pytest.mark.parametrize("bad_first", [True, False])
def test_two_entries_of_one_key(tmp_path: Path, names: tuple[str, str], bad_first: bool) -> None:
    data = (header(HUGE), GOOD) if bad_first else (GOOD, header(HUGE))
    path = write(tmp_path / "f.npz", list(zip(names, data, strict=True)))
    with pytest.raises(UnsafeFileError, match="it holds 'a' twice"):
        read(path)


@pytest.mark.parametrize(
    "raw", ["-" * 6000 + "1", "(" * 6000, "x" * 20, "{'descr': 1}", "[" * 90 + "]" * 90]
)
def test_headers_that_are_no_header(tmp_path: Path, raw: str) -> None:
    path = write(tmp_path / "f.npz", [("a.npy", header(raw=raw))])
    with pytest.raises(EmbeddingsError, match=r"not a readable \.npz file"):
        read(path)


def test_more_than_the_file_holds(tmp_path: Path) -> None:
    with pytest.raises(UnsafeFileError, match="claims 399999999996 bytes, but holds 0"):
        read(write(tmp_path / "f.npz", [("a.npy", header(HUGE))]))


@pytest.mark.parametrize("kind", ["lzma", "encrypted", "checksum"])
def test_damaged_members(tmp_path: Path, kind: str) -> None:
    how = zipfile.ZIP_LZMA if kind == "lzma" else zipfile.ZIP_STORED
    path = write(tmp_path / "f.npz", [("a.npy", GOOD)], how)
    data = bytearray(path.read_bytes())
    directory = data.find(b"PK\x01\x02")
    if kind == "lzma":
        for i in range(45, directory):
            data[i] ^= 0xFF
    elif kind == "encrypted":
        data[6] |= 1
        data[directory + 8] |= 1
    else:
        data[directory - 1] ^= 0xFF  # the last number of the array
    path.write_bytes(data)
    with pytest.raises(EmbeddingsError, match=r"not a readable \.npz file"):
        read(path)
