"""Image files: every format that is decoded, and the containers they lie in."""

from __future__ import annotations

import io
import struct
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import strategies as st
from PIL import Image

from byname.images.decode import MAX_PIXELS, decode
from byname.images.lists import read_list
from byname.images.sources import open_source
from tests.fuzz.harness import Target, spoilt
from tests.images.samples import encoded, photo, png, write_tar

__all__ = ["TARGETS", "image_seeds"]

_EXIF = (
    b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\x08\0\0\0"  # IFD -> itself
)


IMAGE_MEGABYTES = 3 * MAX_PIXELS * 4 // 10**6
"""Three copies in four bytes a pixel: as read, flattened, and what it is laid over."""


@cache
def image_seeds() -> tuple[bytes, ...]:
    """A small file of every format and mode that this Pillow writes."""
    Image.init()
    rgb = photo(40, 30)
    made = []
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF", "ICO"):
        if kind in Image.SAVE:
            made.append(encoded(rgb, kind))
    made += [encoded(rgb.convert(mode), "PNG") for mode in ("1", "L", "LA", "P", "RGBA", "I;16")]
    made += [encoded(rgb.convert("CMYK"), kind) for kind in ("JPEG", "TIFF")]
    made += [encoded(rgb.convert(mode), "TIFF") for mode in ("1", "F", "I")]
    made += [encoded(rgb, "TIFF", compression=how) for how in ("tiff_lzw", "tiff_deflate")]
    more = [photo(40, 30, seed) for seed in (1, 2)]
    for kind in ("GIF", "PNG", "WEBP", "TIFF"):
        if kind in Image.SAVE_ALL:
            stream = io.BytesIO()
            rgb.save(stream, kind, save_all=True, append_images=more)
            made.append(stream.getvalue())
    made += [encoded(rgb, "JPEG", exif=_EXIF, progressive=True), encoded(rgb, "PNG", exif=_EXIF)]
    made += [png(60_000, 60_000), png(1, 1, rows=b"\0\1\2\3"), b"P6 2 1 255 " + bytes(6)]
    made += [b"BM" + struct.pack("<IHHIIiiHHI", 60, 0, 0, 54, 40, 9, -9, 1, 24, 0) + bytes(24)]
    return tuple(made)


def _decode(data: bytes) -> None:
    for target in (None, 8):
        image = decode(data, target=target)
        assert image.mode == "RGB"
        assert min(image.size) > 0


def _tar(data: bytes) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "a.tar")
        path.write_bytes(data)
        for ref in open_source(path).refs:
            decode(ref.read())


def _list(given: tuple[str, bytes]) -> None:
    suffix, data = given
    with TemporaryDirectory() as folder:
        path = Path(folder, "list" + suffix)
        path.write_bytes(data)
        assert all(isinstance(entry, str) for entry in read_list(str(path)))


@cache
def _tars() -> tuple[bytes, ...]:
    with TemporaryDirectory() as folder:
        files = {"a.png": encoded(photo(8, 8), "PNG"), "sub/" + "n" * 150 + ".gif": b"GIF89a"}
        return (write_tar(Path(folder, "a.tar"), files).read_bytes(),)


_LISTS = (
    b"a.jpg\nb.jpg\n",
    b'file_name,label\na.jpg,1\n"b,\n.jpg",2\n',
    b"image\tx\na.jpg\t\n",
    b"\xef\xbb\xbfpath;y\r\na.jpg;2\r\n",
)
TARGETS = (
    Target(
        "image",
        st.one_of(spoilt(image_seeds(), head=64), st.binary(max_size=64)),
        _decode,
        megabytes=IMAGE_MEGABYTES,
    ),
    Target("tar", spoilt(_tars(), head=512), _tar),
    Target(
        "list",
        st.tuples(st.sampled_from([".txt", ".csv", ".tsv"]), spoilt(_LISTS, words=[b'"', b"\0"])),
        _list,
    ),
)  # fmt: skip
