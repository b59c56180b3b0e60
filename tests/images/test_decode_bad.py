"""Decoding what is no image, or a damaged or hostile one: an ImageError with a clear reason."""

from __future__ import annotations

import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from byname.errors import ImageError
from byname.images.decode import MAX_PIXELS, decode, one_line, to_rgb

from .samples import encoded, needs, photo, png

SMALL = photo(120, 80)


def reason(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        decode(data)
    text = str(caught.value)
    assert text.isprintable()
    assert len(text) <= 200
    assert "0x" not in text.replace("0x0", "")
    return text


def test_empty_file() -> None:
    assert reason(b"") == "empty file (0 bytes)"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"hello world\nthis is text", "not an image: it starts with 'hello world\\n'"),
        (b"\x1b[31mred", "not an image: it starts with '\\x1b[31mred'"),
        (b"<!DOCTYPE html><html>404", "a web page (HTML), not an image: the download went wrong"),
        (b"\xef\xbb\xbf\n<HTML>", "a web page (HTML), not an image: the download went wrong"),
        (
            b"<?xml version='1.0'?>\n<html>",
            "a web page (HTML), not an image: the download went wrong",
        ),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00",
            "a Git LFS pointer, not the image itself: run 'git lfs pull'",
        ),
        (
            b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(50),
            "a HEIC photo, which needs the package pillow-heif: convert it to JPEG",
        ),
        (
            b"\x00\x00\x00\x18ftypisom" + bytes(50),
            "a video or another media container, not an image",
        ),
        (
            b"<svg xmlns='http://www.w3.org/2000/svg'/>",
            "an SVG drawing, which is not supported: export it as PNG",
        ),
        (
            b"<?xml version='1.0'?><svg/>",
            "an SVG drawing, which is not supported: export it as PNG",
        ),
        (b"%PDF-1.7", "a PDF document, not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "a PostScript document, not a supported image"),
        (b"PK\x03\x04abc", "a ZIP archive, not an image"),
        (bytes(5000), "not an image: it holds only zero bytes"),
    ],
)
def test_files_that_are_no_images_are_named(data: bytes, expected: str) -> None:
    assert reason(data) == expected


def test_heic_is_read_where_a_plugin_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    Image.init()
    factory = (lambda stream, name: SMALL.copy(), lambda prefix: prefix[4:12] == b"ftypheic")
    monkeypatch.setitem(Image.OPEN, "HEIF", factory)
    assert decode(b"\x00\x00\x00\x18ftypheic" + bytes(40)).size == SMALL.size


def test_avif_without_support_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    Image.init()
    monkeypatch.delitem(Image.OPEN, "AVIF", raising=False)
    text = reason(b"\x00\x00\x00\x1cftypavif" + bytes(40))
    assert text == "an AVIF image, which needs Pillow 11.3 or later: update Pillow"


def test_a_bomb_is_refused_by_its_header() -> None:
    text = reason(png(60_000, 60_000))
    assert text == "60,000 x 60,000 pixels is more than the limit of 250 megapixels"
    gif = bytearray(encoded(SMALL, "GIF"))
    gif[6:10] = struct.pack("<HH", 60_000, 60_000)
    assert reason(bytes(gif)) == text


def test_the_process_wide_limit_is_neither_needed_nor_touched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = encoded(SMALL, "PNG")
    for limit in (None, 10):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert decode(data).size == SMALL.size
        assert limit == Image.MAX_IMAGE_PIXELS
        assert "limit of 250 megapixels" in reason(png(60_000, 60_000))


def test_the_limit_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_PIXELS == 250_000_000
    monkeypatch.setattr("byname.images.decode.MAX_PIXELS", SMALL.width * SMALL.height)
    assert decode(encoded(SMALL, "PNG")).size == SMALL.size
    monkeypatch.setattr("byname.images.decode.MAX_PIXELS", SMALL.width * SMALL.height - 1)
    with pytest.raises(ImageError, match="more than the limit"):
        decode(encoded(SMALL, "PNG"))


@pytest.mark.parametrize("size", [(1, 50_000), (50_000, 1), (1, 1)])
def test_extreme_shapes_work(size: tuple[int, int]) -> None:
    assert decode(encoded(Image.new("RGB", size), "PNG"), target=224).size == size


def test_a_jpeg_cut_at_every_kilobyte_is_an_image_or_an_image_error() -> None:
    data = encoded(photo(640, 480), quality=90)
    reasons = [reason(data[:end]) for end in range(1024, len(data) - 64, 1024)]
    assert len(reasons) > 20
    assert all("truncated" in text for text in reasons)
    assert any(text.startswith("truncated JPEG file: the end is missing") for text in reasons)
    assert "JPEG" in reason(data[:20])


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "TIFF", "PPM", "WEBP", "JPEG2000", "AVIF"])
def test_other_files_cut_anywhere(kind: str) -> None:
    needs(kind)
    data = encoded(SMALL, kind)
    failed = 0
    for end in range(1, len(data), max(1, len(data) // 40)):
        try:
            assert decode(data[:end]).mode == "RGB"
        except ImageError as error:
            assert str(error).isprintable()  # noqa: PT017 - both outcomes are right
            failed += 1
    assert failed >= 20


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_flipped_bytes_raise_nothing_else(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["JPEG", "PNG", "GIF", "TIFF", "BMP", "WEBP", "PPM", "ICO"]))
    raw = bytearray(encoded(SMALL.resize((30, 20)), kind))
    for _ in range(data.draw(st.integers(1, 8))):
        raw[data.draw(st.integers(0, min(len(raw), 400) - 1))] = data.draw(st.integers(0, 255))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            assert decode(bytes(raw), target=8).mode == "RGB"
        except ImageError as error:
            assert 0 < len(str(error)) <= 200  # noqa: PT017 - both outcomes are right


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=64))
def test_random_bytes_raise_nothing_else(data: bytes) -> None:
    starts = (b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"II*\x00", b"BM", b"P6 ")
    for start in starts:
        try:
            decode(start + data)
        except ImageError as error:
            assert str(error).isprintable()  # noqa: PT017 - both outcomes are right


@pytest.mark.parametrize(
    "error",
    [MemoryError(), OverflowError("x"), SyntaxError("x"), ValueError("x"), struct.error("x"),
     zlib.error("x"), EOFError(), RecursionError("x"), AssertionError()],
)  # fmt: skip
def test_every_exception_of_pillow_becomes_an_image_error(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise error

    data = encoded(SMALL, "PNG")
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load_prepare", broken)
    assert reason(data)
    if isinstance(error, MemoryError):
        assert reason(data) == "not enough memory to decode it"


def test_an_image_without_pixels() -> None:
    with pytest.raises(ImageError, match=r"it has no pixels \(0 x 3\)"):
        to_rgb(Image.new("RGB", (0, 3)))


def test_a_lazy_truncated_image_that_is_passed_in(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "cut.jpg"
    path.write_bytes(encoded(photo(300, 200))[:2000])
    with Image.open(path) as image, pytest.raises(ImageError, match="truncated") as caught:
        to_rgb(image)
    assert str(tmp_path) not in str(caught.value)


def test_threads_give_what_one_after_the_other_gives() -> None:
    kinds = ("JPEG", "PNG", "GIF", "TIFF", "BMP")
    files = [encoded(photo(60 + i % 40, 50, seed=i), kinds[i % 5]) for i in range(200)]
    files[7] = files[7][:300]

    def outcome(data: bytes) -> bytes:
        try:
            return decode(data, target=16).tobytes()
        except ImageError as error:
            return str(error).encode()

    with ThreadPoolExecutor(4) as pool:
        threaded = list(pool.map(outcome, files))
    assert threaded == [outcome(data) for data in files]
    assert len(set(threaded)) == 200


def test_reasons_hold_no_paths_addresses_or_control_characters() -> None:
    text = one_line("cannot read <_io.BytesIO object at 0x7f00ab>\r\n in /home/me/a b.jpg \x1b[0m")
    assert text == "cannot read the file in the file b.jpg [0m"
    assert one_line("x" * 500) == "x" * 197 + "..."
    assert one_line("and/or 3/4") == "and/or 3/4"
