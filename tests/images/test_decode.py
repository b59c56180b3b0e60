"""Decoding: every mode and every orientation."""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from byname.errors import UsageError
from byname.images.decode import array_to_image, decode, to_rgb
from byname.images.preprocess import Preprocess, to_pixels

from .samples import encoded, needs, photo, png

SMALL = photo(120, 80)


# Good files


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "GIF", "ICO"])
def test_lossless_files_give_their_pixels(kind: str) -> None:
    image = SMALL.quantize(16).convert("RGB") if kind == "GIF" else SMALL
    data = encoded(image, kind, **({"sizes": [image.size]} if kind == "ICO" else {}))
    assert np.array_equal(np.asarray(decode(data)), np.asarray(image))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "AVIF", "JPEG2000", "MPO"])
def test_lossy_files_give_nearly_their_pixels(kind: str) -> None:
    needs(kind)
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
    files = [encoded(Image.fromarray(ramp), kind) for kind in ("PNG", "TIFF")]
    for data in (*files, b"P5 16 16 65535\n" + ramp.astype(">u2").tobytes()):
        grey = np.asarray(decode(data))
        assert np.array_equal(grey[..., 0].ravel(), np.arange(256)), data[:4]
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


@pytest.mark.parametrize("size", [(1800, 1350), pytest.param((4000, 3000), marks=pytest.mark.slow)])
def test_draft_hardly_changes_the_pixels(size: tuple[int, int]) -> None:
    data = encoded(photo(*size), quality=92)
    wanted = Preprocess(size=224, resize=224)
    fast, exact = (to_pixels(decode(data, target=t), wanted) for t in (224, None))
    assert not np.array_equal(fast, exact)  # the draft did happen
    assert np.abs(fast.astype(int) - exact).mean() <= 1.0


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


@pytest.mark.parametrize("mode", ["F", "I", "I;16"])
def test_grey_values_do_not_depend_on_how_many_are_looked_at_at_once(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float64 at once, 100 megapixels out of a file of 5 KB took seconds and gigabytes."""
    values = np.random.default_rng(0).integers(0, 60_000, (9, 7))
    image = Image.fromarray(values.astype({"F": "f4", "I": "i4", "I;16": "u2"}[mode]))
    assert image.mode == mode
    image.info["transparency"] = int(values[5, 3])
    whole = np.asarray(to_rgb(image))
    monkeypatch.setattr("byname.images.decode._STRIP", 10)
    assert (np.asarray(to_rgb(image)) == whole).all()
    assert (whole[5, 3] == 255).all()
    other = values != values[5, 3]
    white = 65535.0
    expected = np.rint(values * (255.0 / white))
    assert (whole[..., 0][other] == expected[other]).all()
