"""Decoding: every mode, every orientation, and every kind of bad file."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, features

from byname.errors import ImageError, UsageError
from byname.images.decode import MAX_PIXELS, array_to_image, decode, one_line, to_rgb
from byname.images.preprocess import Preprocess, to_pixels

from .samples import encoded, photo

SMALL = photo(120, 80)


def reason(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        decode(data)
    text = str(caught.value)
    assert text.isprintable()
    assert len(text) <= 200
    assert "0x" not in text.replace("0x0", "")
    return text


def png(width: int, height: int, *, rows: bytes = b"", depth: int = 8, colour: int = 2) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        crc = zlib.crc32(name + body)
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", crc)

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + body + chunk(b"IEND", b"")


# Good files


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "GIF", "ICO"])
def test_lossless_files_give_their_pixels(kind: str) -> None:
    image = SMALL.quantize(16).convert("RGB") if kind == "GIF" else SMALL
    data = encoded(image, kind, **({"sizes": [image.size]} if kind == "ICO" else {}))
    assert np.array_equal(np.asarray(decode(data)), np.asarray(image))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "AVIF", "JPEG2000", "MPO"])
def test_lossy_files_give_nearly_their_pixels(kind: str) -> None:
    module = {"WEBP": "webp", "AVIF": "avif", "JPEG2000": "jpg_2000"}.get(kind)
    if module and not features.check(module):
        pytest.skip(f"Pillow was built without {kind}")
    decoded = decode(
        encoded(SMALL, kind, quality=95) if kind != "JPEG2000" else encoded(SMALL, kind)
    )
    assert decoded.mode == "RGB"
    difference = np.asarray(decoded).astype(int) - np.asarray(SMALL)
    assert np.abs(difference).mean() < 6


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_every_exif_orientation(kind: str, orientation: int) -> None:
    upright = np.zeros((48, 80, 3), np.uint8)
    upright[:24, :40] = (250, 10, 10)
    upright[:24, 40:] = (10, 250, 10)
    upright[24:, :40] = (10, 10, 250)
    # What the camera stored, so that the orientation undoes it: EXIF's own definition, in NumPy.
    store: dict[int, Callable[[np.ndarray], np.ndarray]] = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: np.rot90(a, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(store[orientation](upright)))
    options = {"quality": 95} if kind in ("JPEG", "WEBP") else {}
    seen = np.asarray(decode(encoded(stored, kind, exif=exif, **options)))
    assert seen.shape == upright.shape
    # Corners only: JPEG blurs the seams.
    for y, x in ((8, 8), (8, 70), (40, 8), (40, 70)):
        assert np.abs(seen[y, x].astype(int) - upright[y, x]).max() < 20


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_ignored(value: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    assert decode(encoded(SMALL, exif=exif)).size == SMALL.size


def test_damaged_exif_does_not_make_a_photo_unreadable() -> None:
    assert decode(encoded(SMALL, exif=b"Exif\x00\x00II*\x00\xff\xff\xff\x7f")).size == SMALL.size


def test_orientation_of_an_image_that_is_passed_in() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    opened = decode(encoded(SMALL, exif=exif))
    assert opened.size == (80, 120)
    assert to_rgb(opened).size == (80, 120)  # not turned twice


def test_plain_rgb_is_returned_as_it_is() -> None:
    image = Image.new("RGB", (3, 2), (1, 2, 3))
    assert to_rgb(image) is image


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("1", 1, (255, 255, 255)),
        ("L", 77, (77, 77, 77)),
        ("LA", (0, 0), (255, 255, 255)),
        ("LA", (0, 255), (0, 0, 0)),
        ("La", (0, 0), (255, 255, 255)),
        ("PA", (0, 0), (255, 255, 255)),
        ("RGBA", (200, 100, 0, 255), (200, 100, 0)),
        ("RGBA", (200, 100, 0, 0), (255, 255, 255)),
        ("RGBA", (0, 0, 0, 128), (127, 127, 127)),
        ("RGBa", (0, 0, 0, 0), (255, 255, 255)),
        ("RGBX", (1, 2, 3, 0), (1, 2, 3)),
        ("CMYK", (0, 0, 0, 0), (255, 255, 255)),
        ("CMYK", (0, 255, 255, 0), (255, 0, 0)),
        ("YCbCr", (128, 128, 128), (128, 128, 128)),
        ("HSV", (0, 0, 90), (90, 90, 90)),
        ("I;16", 65535, (255, 255, 255)),
        ("I;16", 257 * 100 + 128, (100, 100, 100)),
        ("I;16", 257 * 100 + 129, (101, 101, 101)),
        ("I;16B", 257, (1, 1, 1)),
        ("I", 65535, (255, 255, 255)),
        ("I", 257 * 9, (9, 9, 9)),
        ("I", -5, (0, 0, 0)),
        ("I", 2**31 - 1, (255, 255, 255)),
        ("F", 1.0, (255, 255, 255)),
        ("F", 0.5, (128, 128, 128)),
        ("F", -1.0, (0, 0, 0)),
        ("F", 100.0, (100, 100, 100)),
        ("F", 257.0 * 3, (3, 3, 3)),
        ("F", float("nan"), (0, 0, 0)),
        ("F", 1e9, (255, 255, 255)),
    ],
)
def test_every_mode(mode: str, colour: object, expected: tuple[int, int, int]) -> None:
    rgb = to_rgb(Image.new(mode, (2, 1), colour))  # type: ignore[arg-type]
    assert rgb.mode == "RGB"
    assert rgb.getpixel((1, 0)) == expected


def test_palette_with_a_transparent_colour_lies_over_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    decoded = decode(encoded(image, "PNG", transparency=1))
    assert [decoded.getpixel((x, 0)) for x in (0, 1)] == [(255, 0, 0), (255, 255, 255)]


@pytest.mark.parametrize(
    ("mode", "colours", "transparent", "expected"),
    [
        ("L", (10, 20), 20, ((10,) * 3, (255,) * 3)),
        ("RGB", ((1, 2, 3), (4, 5, 6)), (4, 5, 6), ((1, 2, 3), (255,) * 3)),
        ("I;16", (2570, 5140), 5140, ((10,) * 3, (255,) * 3)),
        ("1", (0, 1), 0, ((255,) * 3, (255,) * 3)),
    ],
)
def test_png_with_one_transparent_colour(
    mode: str, colours: tuple[int, int], transparent: object, expected: object
) -> None:
    image = Image.new(mode, (2, 1), colours[0])
    image.putpixel((1, 0), colours[1])
    decoded = decode(encoded(image, "PNG", transparency=transparent))
    assert tuple(decoded.getpixel((x, 0)) for x in (0, 1)) == expected


def test_cmyk_jpeg_and_16_bit_files() -> None:
    red = decode(encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95))
    assert np.abs(np.asarray(red).astype(int) - (255, 0, 0)).max() < 8
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    for kind in ("PNG", "TIFF", "PPM"):
        grey = np.asarray(decode(encoded(Image.fromarray(ramp), kind)))
        assert np.array_equal(grey[..., 0].ravel(), np.arange(256)), kind
    wide = struct.pack(">BHHH", 0, 65535, 0x8000, 0)
    assert decode(png(1, 1, rows=wide, depth=16)).getpixel((0, 0)) in ((255, 127, 0), (255, 128, 0))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_first_frame_of_animations(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert decode(data).getpixel((4, 4)) == (255, 0, 0)


# Draft


@pytest.mark.parametrize("size", [(4000, 3000), (3000, 4000), (1000, 700), (900, 5000), (448, 449)])
@pytest.mark.parametrize("orientation", [1, 6])
def test_draft_never_goes_below_twice_the_target(size: tuple[int, int], orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.new("RGB", size, "teal"), exif=exif)
    decoded = decode(data, target=224)
    assert min(decoded.size) >= min(448, min(size))
    assert min(decoded.size) < 4 * 448
    turned = size if orientation == 1 else size[::-1]
    assert abs(decoded.width / decoded.height - turned[0] / turned[1]) < 0.02
    assert decode(data).size == turned


def test_draft_hardly_changes_the_pixels() -> None:
    data = encoded(photo(4000, 3000), quality=92)
    wanted = Preprocess(size=224, resize=224)
    fast, exact = (to_pixels(decode(data, target=t), wanted) for t in (224, None))
    assert not np.array_equal(fast, exact)  # the draft did happen
    assert np.abs(fast.astype(int) - exact).mean() <= 1.0


# Bad files


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
    gif = b"GIF89a" + struct.pack("<HH", 60_000, 60_000) + b"\x00\x00\x00" + bytes(20)
    assert "60,000 x 60,000" in reason(gif)


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
    module = {"WEBP": "webp", "AVIF": "avif", "JPEG2000": "jpg_2000"}.get(kind)
    if module and not features.check(module):
        pytest.skip(f"Pillow was built without {kind}")
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


# Arrays


def test_arrays() -> None:
    pixels = np.asarray(SMALL)
    assert np.array_equal(np.asarray(array_to_image(pixels)), pixels)
    assert np.array_equal(np.asarray(array_to_image(pixels / 255)), pixels)
    assert np.array_equal(np.asarray(array_to_image((pixels / 255).astype(np.float32))), pixels)
    assert np.array_equal(np.asarray(array_to_image(pixels[:, ::-1])), pixels[:, ::-1])
    grey = np.asarray(array_to_image(pixels[..., 0]))
    assert np.array_equal(grey, np.repeat(pixels[..., :1], 3, axis=2))
    assert np.array_equal(np.asarray(array_to_image(pixels[..., :1])), grey)
    clear = np.dstack([pixels, np.zeros(pixels.shape[:2], np.uint8)])
    assert np.asarray(array_to_image(clear)).min() == 255


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 8, 9), np.uint8), r"shape \(3, 8, 9\) and type uint8.*transpose\(1, 2, 0\)"),
        (np.zeros((2, 8, 9, 3), np.uint8), "A batch is given as a list of its images"),
        (np.zeros((4,), np.uint8), r"it has shape \(4,\)"),
        (np.zeros((4, 4, 2), np.uint8), r"it has shape \(4, 4, 2\)"),
        (np.zeros((0, 4, 3), np.uint8), "it has no pixels"),
        (np.zeros((4, 4, 3), np.int64), "type int64"),
        (np.zeros((4, 4), np.uint16), "type uint16"),
        (np.full((4, 4, 3), 255.0), "with values from 255 to 255.*floats within 0-1"),
        (np.full((4, 4, 3), -0.1), "with values from -0.1"),
        (np.full((4, 4, 3), np.nan), "with values from nan to nan"),
        (np.full((4, 4), "a"), "type <U1"),
        (np.full((4, 4), None), "type object"),
    ],
)
def test_arrays_that_are_no_images(array: np.ndarray, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        array_to_image(array)
