"""One of each kind of bad file, among good ones: every file gives one row, with a reason if bad."""

from __future__ import annotations

import os
import resource
import struct
import time
import zlib
from pathlib import Path

import pytest
from PIL import Image

from byname.classifier import Classifier
from byname.errors import ImageError
from byname.images.decode import FORMATS, decode
from byname.images.sources import open_source
from tests.helpers import FakeEncoder

from .samples import encoded, needs, photo, png

PHOTO = photo(320, 240)
SMALL = PHOTO.resize((40, 30))


def _ifd(entries: list[tuple[int, int, int, int]], after: int = 0) -> bytes:
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return struct.pack("<H", len(entries)) + body + struct.pack("<I", after)


def _tiff(width: int, height: int, after: int = 0, compression: int = 1) -> bytes:
    """A grey TIFF of that header over no data; ``after`` is where its next page is said to be."""
    said = {256: width, 257: height, 258: 8, 259: compression, 262: 1, 273: 8, 277: 1, 278: height,
            279: 8}  # fmt: skip
    return b"II*\0\x08\0\0\0" + _ifd([(tag, 4, 1, value) for tag, value in said.items()], after)


def _box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), kind) + body


def bombs() -> dict[str, bytes]:
    """Files of a few bytes that say they are 60,000 pixels wide and high, by format."""
    side = 60_000
    jpeg = bytearray(encoded(SMALL, "JPEG"))
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = struct.pack(">HH", side, side)
    gif = bytearray(encoded(SMALL, "GIF"))
    gif[6:10] = struct.pack("<HH", side, side)
    j2k = struct.pack(">HHHIIIIIIIIH", 0xFF51, 41, 0, side, side, 0, 0, side, side, 0, 0, 1)
    webp = b"VP8X" + struct.pack("<II", 10, 0) + 2 * (16_000).to_bytes(3, "little")
    ico = struct.pack("<HHHBBBBHHII", 0, 1, 1, 0, 0, 0, 0, 1, 32, 0, 22) + png(side, side)
    return {
        "JPEG": bytes(jpeg),
        "PNG": png(side, side, rows=bytes(1000)),
        "GIF": bytes(gif),
        "BMP": b"BM"
        + struct.pack("<IHHIIiiHHI", 60, 0, 0, 54, 40, side, side, 1, 24, 0)
        + bytes(24),
        "PPM": b"P6 60000 60000 255 " + bytes(60),
        "TIFF": _tiff(side, side),
        "TIFF of one strip of LZW": _tiff(side, side, compression=5),
        "JPEG2000": b"\xff\x4f" + j2k + bytes((7, 1, 1)),
        "WEBP": b"RIFF" + struct.pack("<I", 4 + len(webp)) + b"WEBP" + webp,
        "ICO": ico,
    }  # fmt: skip


def _text_bomb() -> bytes:
    """A PNG whose text chunk unpacks to 80 MB."""
    body = b"k\0\0" + zlib.compress(bytes(80_000_000), 9)
    chunk = (
        struct.pack(">I", len(body))
        + b"zTXt"
        + body
        + struct.pack(">I", zlib.crc32(b"zTXt" + body))
    )
    whole = encoded(SMALL, "PNG")
    return whole[:33] + chunk + whole[33:]


def bad_files() -> dict[str, bytes]:
    """One of each kind that no reader should make an image of."""
    jpeg, whole = encoded(PHOTO, quality=90), encoded(SMALL, "PNG")
    cut = {f"cut-{end // 1024:02d}k.jpg": jpeg[:end] for end in range(1024, len(jpeg) - 64, 1024)}
    made = {f"bomb {kind}.png": data for kind, data in bombs().items()}
    made |= {
        "empty.jpg": b"",
        "wrong magic.png": b"\x89PNX" + whole[4:],
        "one magic and no more.webp": b"RIFF\xff\xff\xff\xffWEBP",
        "zip first.jpg": b"PK\x03\x04" + jpeg,
        "pdf.jpg": b"%PDF-1.7\n" + jpeg,
        "html.jpg": b"<html><script>alert(1)</script>",
        "postscript.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%id) (w) file\n",
        "text bomb.png": _text_bomb(),
    }
    return made | cut


def good_files() -> dict[str, bytes]:
    """Odd ones that are images all the same."""
    loop = b"Exif\0\0II*\0\x08\0\0\0" + _ifd([(0x8769, 4, 1, 8)], after=8)
    jpeg = encoded(SMALL)
    more = [photo(40, 30, seed) for seed in range(3)]
    return {
        "cmyk.jpg": encoded(SMALL.convert("CMYK")),
        "16 bit.png": encoded(SMALL.convert("I;16"), "PNG"),
        "palette.png": encoded(SMALL.convert("P"), "PNG"),
        "animated.gif": encoded(SMALL, "GIF", save_all=True, append_images=more),
        "exif loop.jpg": encoded(SMALL, exif=loop),
        "exif loop.png": encoded(SMALL, "PNG", exif=loop),
        "jpeg and zip.jpg": jpeg + b"PK\x03\x04" + bytes(60) + b"PK\x05\x06" + bytes(18),
        "jpeg and page.jpg": jpeg + b"<html><script>alert(1)</script>",
        "gif and script.gif": encoded(SMALL, "GIF") + b"*/=1;alert(1)//",
        "says it is a gif.gif": jpeg,
        "two\nlines \x1b[31m.jpg": jpeg,
        "=cmd|calc.jpg": jpeg,
    }


@pytest.mark.parametrize("kind", bombs())
def test_bombs_of_every_format_are_refused_by_their_header(kind: str) -> None:
    needs(kind.partition(" ")[0])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    with pytest.raises(ImageError) as caught:
        decode(bombs()[kind])
    assert any(said in str(caught.value) for said in ("pixels", "damaged", "truncated"))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000
    assert time.process_time() - started < 2


def test_there_is_a_bomb_of_every_format_that_is_tried() -> None:
    # AVIF and HEIF have no header of their own that could lie: the size is in the coded picture.
    assert {kind.partition(" ")[0] for kind in bombs()} == set(FORMATS) - {"AVIF", "HEIF"}


def test_a_tiff_whose_pages_go_round_in_circles() -> None:
    data = encoded(Image.new("L", (8, 1)), "TIFF")
    at = struct.unpack_from("<I", data, 4)[0]
    count = struct.unpack_from("<H", data, at)[0]
    after = at + 2 + 12 * count
    assert decode(data[:after] + struct.pack("<I", at) + data[after + 4 :]).size == (8, 1)


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX names, links and pipes")
def test_every_file_of_the_corpus_gives_one_row(tmp_path: Path) -> None:
    good, bad = good_files(), bad_files()
    for name, data in (good | bad).items():
        (tmp_path / name).write_bytes(data)
    with open(os.fsencode(tmp_path) + b"/caf\xe9 \xff.png", "wb") as stream:  # noqa: PTH123
        stream.write(encoded(SMALL, "PNG"))
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "nowhere.jpg").symlink_to("no such file.jpg")
    (tmp_path / "again").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "device.jpg").symlink_to("/dev/zero")
    special = {"pipe.jpg", "loop.jpg", "nowhere.jpg", "device.jpg"}
    started = time.process_time()
    source = open_source(tmp_path)
    rows = Classifier("cat,dog", encoder=FakeEncoder(), cache=False).classify(tmp_path)
    assert time.process_time() - started < 30
    assert sorted(row.file_name for row in rows) == [ref.key for ref in source.refs]
    assert len(rows) == len(good) + len(bad) + 1 + len(special)
    failed = {row.file_name: row.error for row in rows if row.error is not None}
    assert set(failed) == set(bad) | special
    for row in rows:
        assert (row.error is None) == (row.label is not None)
        assert row.file_name.isprintable() or "\n" in row.file_name or "\x1b" in row.file_name
    assert all(why.strip() and why.isprintable() and len(why) <= 200 for why in failed.values())
