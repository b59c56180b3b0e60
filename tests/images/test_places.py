"""Opening what a path or URL leads to."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from byname.errors import SourceError
from byname.images.places import open_place, read_place, shown

from .samples import put, refusal, write_tar


def test_a_file(tmp_path: Path) -> None:
    put(tmp_path, "a.txt", data=b"hello")
    stream, size, mtime_ns = open_place(str(tmp_path / "a.txt"))
    with stream:
        stream.seek(1)
        assert stream.read() == b"ello"
    assert (size, mtime_ns) == (5, (tmp_path / "a.txt").stat().st_mtime_ns)
    assert read_place(str(tmp_path / "a.txt"), "read it") == b"hello"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs POSIX")
def test_what_is_no_file_never_blocks(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.tar")
    os.mkfifo(tmp_path / "x.parquet")
    for name in ("x.tar", "x.parquet"):
        with pytest.raises(OSError, match=r"it is a pipe \(FIFO\)"):
            open_place(str(tmp_path / name))
        assert "pipe" in refusal(tmp_path / name)
    with pytest.raises(OSError):
        open_place(str(tmp_path))
    assert "it is a pipe" in refusal(tmp_path)  # a folder with a pipe where a tar could be
    write_tar(tmp_path / "y.tar", {"a.jpg": b"a"})
    with pytest.raises(SourceError, match=r"cannot read it: .*Check its permissions"):
        read_place(str(tmp_path / "none"), "read it")


def test_what_is_shown() -> None:
    assert shown("a\udcff.tar") == "a\\xff.tar"
    assert shown("s3://b/a.tar?versionId=1") == "s3://b/a.tar"
