"""Resize and crop, against a plain implementation of CLIP's recipe."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from byname.errors import ImageError, UsageError
from byname.images.load import load_pixels
from byname.images.preprocess import LONGEST, Preprocess, to_pixels

from .samples import encoded, photo

FILTERS = ("bicubic", "bilinear", "lanczos", "nearest")


def reference(image: Image.Image, p: Preprocess) -> np.ndarray:
    """The whole image resized, then cropped: no shortcut."""
    resample = getattr(Image.Resampling, p.interpolation.upper())
    if p.mode == "squash":
        return np.asarray(rows_first(image, (p.size, p.size), resample))
    w, h = image.size
    if w <= h:
        image = rows_first(image, (p.resize, int(p.resize * h / w)), resample)
    else:
        image = rows_first(image, (int(p.resize * w / h), p.resize), resample)
    w, h = image.size
    if p.crop_rounding == "floor":
        left, top = (w - p.size) // 2, (h - p.size) // 2
    else:
        left, top = int(round((w - p.size) / 2.0)), int(round((h - p.size) / 2.0))  # noqa: RUF046
    return np.asarray(image.crop((left, top, left + p.size, top + p.size)))


def rows_first(image: Image.Image, shape: tuple[int, int], resample: Any) -> Image.Image:
    """``resize`` as all of Pillow up to 12 does it: the horizontal pass, then the vertical one."""
    return image.resize((shape[0], image.height), resample).resize(shape, resample)


@settings(max_examples=150, deadline=None)
@given(
    width=st.integers(1, 120),
    height=st.integers(1, 120),
    size=st.integers(1, 48),
    extra=st.integers(0, 9),
    interpolation=st.sampled_from(FILTERS),
    rounding=st.sampled_from(["round", "floor"]),
    squash=st.booleans(),
)
def test_equals_the_plain_recipe_bit_for_bit(
    width: int, height: int, size: int, extra: int, interpolation: Any, rounding: Any, squash: bool
) -> None:
    if max(width, height) > LONGEST * min(width, height):
        width = height
    p = Preprocess(
        size=size,
        resize=size if squash else size + extra,
        mode="squash" if squash else "shortest",
        interpolation=interpolation,
        crop_rounding=rounding,
    )
    rng = np.random.default_rng(width * 1000 + height)
    image = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
    pixels = to_pixels(image, p)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (size, size, 3)
    assert np.array_equal(pixels, reference(image, p))


def test_real_sizes_equal_the_plain_recipe() -> None:
    for size in ((640, 480), (480, 641), (1003, 333), (224, 224), (301, 300)):
        for p in (Preprocess(224, 224), Preprocess(260, 292), Preprocess(256, 256, mode="squash")):
            image = photo(*size)
            assert np.array_equal(to_pixels(image, p), reference(image, p))


def test_the_two_roundings_differ_where_half_a_pixel_is_over() -> None:
    ramp = np.repeat(np.arange(7, dtype=np.uint8)[None, :, None], 4, axis=0).repeat(3, axis=2)
    image = Image.fromarray(ramp)  # 7 wide, 4 high, crop 4: 1.5 columns go on each side
    starts = {
        rounding: int(to_pixels(image, Preprocess(4, 4, crop_rounding=rounding))[0, 0, 0])
        for rounding in ("round", "floor")
    }
    assert starts == {"round": 2, "floor": 1}


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("size", [(2000, 40), (40, 2000), (5, 900), (3000, 61)])
def test_long_strips_are_nearly_the_plain_recipe(size: tuple[int, int], interpolation: Any) -> None:
    image, p = photo(*size), Preprocess(32, 36, interpolation=interpolation)
    assert max(size) > LONGEST * min(size)
    difference = np.abs(to_pixels(image, p).astype(int) - reference(image, p))
    assert difference.mean() < (3.0 if interpolation == "nearest" else 0.5)
    if interpolation != "nearest":
        assert difference.max() <= 3


@pytest.mark.parametrize("size", [(1, 50_000), (50_000, 1), (3, 100_001)])
@pytest.mark.parametrize("mode", ["shortest", "squash"])
def test_extreme_shapes_take_little_memory_and_time(size: tuple[int, int], mode: Any) -> None:
    image = Image.new("RGB", size, (10, 20, 30))
    resize = 292 if mode == "shortest" else 260
    start = time.perf_counter()
    pixels = to_pixels(image, Preprocess(260, resize, mode=mode))
    assert time.perf_counter() - start < 2.0
    assert (pixels == (10, 20, 30)).all()
    assert pixels.shape == (260, 260, 3)


def test_the_result_is_an_own_writable_array() -> None:
    pixels = to_pixels(photo(20, 30), Preprocess(8, 8))
    pixels[0, 0] = 7
    assert pixels.flags.c_contiguous
    assert (pixels[0, 0] == 7).all()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": 0}, "size is 0. It is a whole number of pixels, 1 to 4096"),
        ({"size": 10**7, "resize": 10**7}, "size is 10000000. It is a whole number"),
        ({"resize": 4097}, "resize is 4097"),
        ({"std": (127.5, 127.5, 127.5)}, "as if pixels went to 255. .* divide it by 255"),
        ({"mean": (123.7, 116.3, 103.5)}, "mean is .*, as if pixels went to 255"),
        ({"size": 2.5}, "size is 2.5"),
        ({"resize": True}, "resize is True"),
        ({"resize": 100}, "resize 100 is smaller than size 224"),
        ({"mode": "squash", "resize": 256}, "resize 256 differs from size 224"),
        ({"mode": "stretch"}, "mode is 'stretch'. It is one of shortest, squash"),
        ({"interpolation": "cubic"}, "interpolation is 'cubic'. It is one of bicubic"),
        ({"crop_rounding": "up"}, "crop_rounding is 'up'"),
        ({"mean": (0.5, 0.5)}, r"mean is \(0.5, 0.5\). Give three finite numbers"),
        ({"mean": "abc"}, "mean is 'abc'"),
        ({"mean": None}, "mean is None"),
        ({"std": (0.2, 0.0, 0.2)}, "std above 0"),
        ({"std": (0.2, float("nan"), 0.2)}, "std is"),
    ],
)
def test_impossible_settings_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Preprocess(**{"size": 224, "resize": 224, **values})


def test_lists_from_json_become_tuples() -> None:
    p = Preprocess(8, 8, mean=[0, 0, 0], std=[1, 1, 1])  # type: ignore[arg-type]
    assert p.mean == (0.0, 0.0, 0.0)
    assert hash(p) == hash(dataclasses.replace(p))


@pytest.mark.parametrize("image", [Image.new("L", (4, 4)), Image.new("RGB", (0, 4))])
def test_only_rgb_with_pixels(image: Image.Image) -> None:
    with pytest.raises(UsageError, match=f"its mode is {image.mode} and its size {image.width} x"):
        to_pixels(image, Preprocess(2, 2))


def test_load_pixels(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "a.png"
    image, p = photo(50, 40), Preprocess(16, 20)
    path.write_bytes(encoded(image, "PNG"))
    assert np.array_equal(load_pixels(path.read_bytes(), p), reference(image, p))
    path.write_bytes(b"")
    with pytest.raises(ImageError, match=r"^empty file \(0 bytes\)$"):
        load_pixels(path.read_bytes(), p)
