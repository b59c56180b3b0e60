"""Pixels against stored hashes, and against the preprocessing of the libraries of the models.

``python -m tests.images.test_golden_preprocess`` writes the hashes anew: only to add a case, since
a hash that changes means that all vectors that users have stored have changed their meaning.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from byname.images.decode import to_rgb
from byname.images.load import load_pixels
from byname.images.preprocess import LONGEST, Interpolation, Preprocess, to_pixels
from tests.encoders import tiny_torch

GOLDEN = Path(__file__).with_name("golden")
HASHES = GOLDEN / "pixels.json"
SIZES = (
    (1, 1), (1, 20), (20, 1), (3, 2), (64, 64), (65, 64), (64, 65), (63, 64), (97, 61), (61, 97),
    (320, 240), (240, 320), (333, 500), (500, 333), (101, 99), (40, 400), (400, 40), (90, 230),
    (200, 512), (601, 67), (67, 601), (64, 2000), (1000, 31), (31, 1000), (2, 300), (800, 600),
)  # fmt: skip
RECIPES = {
    "clip": Preprocess(64, 64),
    "clip-resized-larger": Preprocess(64, 72),
    "clip-floor": Preprocess(64, 73, crop_rounding="floor"),
    "clip-bilinear": Preprocess(64, 64, interpolation="bilinear"),
    "clip-lanczos": Preprocess(64, 64, interpolation="lanczos"),
    "clip-nearest": Preprocess(64, 64, interpolation="nearest"),
    "siglip": Preprocess(64, 64, mode="squash"),
    "siglip-bilinear": Preprocess(64, 64, mode="squash", interpolation="bilinear"),
}


def picture(width: int, height: int) -> Image.Image:
    """Waves and texture from whole numbers alone: the same on every machine."""
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    wave = (x * (5 + c) + y * (3 + 2 * c)) % 510
    texture = (x * 7919 + y * 104729 + c * 1299709) % 83
    return Image.fromarray(np.clip(np.abs(wave - 255) + texture - 41, 0, 255).astype(np.uint8))


def files() -> dict[str, bytes]:
    """Image files in every mode; PNG and TIFF, which all versions read to the same pixels."""
    image = picture(90, 70)
    alpha = Image.fromarray((np.arange(70 * 90).reshape(70, 90) % 256).astype(np.uint8))
    transparent = image.copy()
    transparent.putalpha(alpha)
    turned = Image.Exif()
    turned[0x0112] = 6
    # no quantizer of Pillow's, which may change
    palette = Image.fromarray((np.arange(70 * 90).reshape(70, 90) // 7 % 256).astype(np.uint8))
    palette.putpalette(bytes((i * 89 + 13) % 256 for i in range(768)))
    deep = (np.arange(70 * 90) * 10).astype(np.uint16).reshape(70, 90)
    return {
        "rgb": save(image, "PNG"),
        "exif": save(image, "PNG", exif=turned.tobytes()),
        "grey": save(image.getchannel(1), "PNG"),
        "grey-alpha": save(Image.merge("LA", (image.getchannel(0), alpha)), "PNG"),
        "rgba": save(transparent, "PNG"),
        "palette": save(palette, "PNG"),
        "palette-transparent": save(palette, "PNG", transparency=5),
        "bilevel": save(image.getchannel(0).point(lambda v: 255 * (v > 99)).convert("1"), "PNG"),
        "16-bit": save(Image.fromarray(deep), "PNG"),
        "cmyk": save(Image.merge("CMYK", (*image.split(), alpha)), "TIFF"),
        "jpeg": (GOLDEN / "photo.jpg").read_bytes(),
        "jpeg-exif": (GOLDEN / "turned.jpg").read_bytes(),
        "jpeg-cmyk": (GOLDEN / "cmyk.jpg").read_bytes(),
    }  # fmt: skip


def save(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def hashes() -> dict[str, str]:
    found = {
        f"{name} {width}x{height}": digest(to_pixels(picture(width, height), recipe))
        for name, recipe in RECIPES.items()
        for width, height in SIZES
    }
    for kind, data in files().items():
        for name in ("clip", "siglip"):
            found[f"{name} {kind}"] = digest(load_pixels(data, RECIPES[name]))
    return found


def digest(pixels: NDArray[np.uint8]) -> str:
    return hashlib.sha256(pixels.tobytes()).hexdigest()[:16]


def test_the_pixels_are_those_of_all_earlier_versions() -> None:
    """Whatever Pillow is installed (10.3 to 13 were tried), and whatever else."""
    stored = json.loads(HASHES.read_text())
    found = hashes()
    assert [name for name in stored if stored[name] != found.get(name)] == []
    assert set(found) == set(stored)


def rows_first(original: Callable[..., Image.Image]) -> Callable[..., Image.Image]:
    """``Image.resize`` in the order of Pillow up to 12."""

    def resize(image: Image.Image, size: Any, resample: Any = None, *_: Any, **__: Any) -> Any:
        step = original(image, (size[0], image.height), resample)
        return original(step, tuple(size), resample)

    return resize


def columns_first(image: Image.Image, recipe: Preprocess) -> bool:
    """Whether Pillow 13 begins with the columns."""
    short = min(image.size)
    new = [int(recipe.resize * side / short) for side in image.size]
    new = [recipe.size] * 2 if recipe.mode == "squash" else new
    return image.height - new[1] > max(0, 2 * (image.width - new[0]))


@pytest.fixture(params=["open_clip", "transformers"])
def theirs(request: pytest.FixtureRequest) -> Callable[[Preprocess], Callable[..., NDArray[Any]]]:
    """From a recipe to a library's own function from image to pixels."""
    return of_open_clip if request.param == "open_clip" else of_transformers


def of_open_clip(recipe: Preprocess) -> Callable[..., NDArray[Any]]:
    transform = tiny_torch.open_clip().transform.image_transform(
        recipe.size,
        is_train=False,
        mean=(0, 0, 0),
        std=(1, 1, 1),
        resize_mode=recipe.mode,
        interpolation=recipe.interpolation,
    )
    return lambda image: np.rint(transform(image).numpy().transpose(1, 2, 0) * 255)


def of_transformers(recipe: Preprocess, fast: bool = False) -> Callable[..., NDArray[Any]]:
    library = tiny_torch.transformers()
    name = "CLIPImageProcessor" if recipe.mode == "shortest" else "SiglipImageProcessor"
    # from version 5 on, the plain name is the one that works on tensors
    kind = getattr(library, name if fast else f"{name}Pil", None) or getattr(library, name)
    options: dict[str, Any] = {"size": {"height": recipe.size, "width": recipe.size}}
    if recipe.mode == "shortest":
        options = {
            "size": {"shortest_edge": recipe.resize},
            "crop_size": {"height": recipe.size, "width": recipe.size},
        }
    resample = {"bicubic": 3, "bilinear": 2}[recipe.interpolation]
    made = kind(resample=resample, do_rescale=False, do_normalize=False, **options)

    def run(image: Image.Image) -> NDArray[Any]:
        out = made(images=image, return_tensors="np")["pixel_values"][0]
        return np.asarray(out, np.float64).transpose(1, 2, 0)

    return run


def cases(rounding: str) -> Iterator[tuple[Preprocess, Image.Image]]:
    filters: tuple[Interpolation, ...] = ("bicubic", "bilinear")
    for interpolation in filters:
        for mode in ("shortest", "squash"):
            recipe = Preprocess(64, 64, mode, interpolation, crop_rounding=rounding)  # type: ignore[arg-type]
            for size in SIZES:
                yield recipe, picture(*size)


@pytest.mark.torch
def test_no_pixel_differs_from_the_models_own_libraries(
    theirs: Callable[[Preprocess], Callable[..., NDArray[Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With Pillow's passes in the order that the models were trained with."""
    monkeypatch.setattr(Image.Image, "resize", rows_first(Image.Image.resize))
    rounding = "round" if theirs is of_open_clip else "floor"
    made: dict[Preprocess, Any] = {}
    exact = 0
    for recipe, image in cases(rounding):
        made[recipe] = made.get(recipe) or theirs(recipe)
        want = made[recipe](image)
        monkeypatch.undo()
        difference = np.abs(to_pixels(image, recipe) - want)
        monkeypatch.setattr(Image.Image, "resize", rows_first(Image.Image.resize))
        strip = max(image.size) > LONGEST * min(image.size)
        if not strip:
            assert difference.max() == 0, (recipe, image.size)
            exact += 1
        elif recipe.mode == "shortest":
            assert difference.max() <= 1, (recipe, image.size)
            assert (difference > 0).mean() < 0.01
    assert exact > 80


@pytest.mark.torch
def test_where_pillow_13_differs_is_known(
    theirs: Callable[[Preprocess], Callable[..., NDArray[Any]]],
) -> None:
    rounding = "round" if theirs is of_open_clip else "floor"
    made: dict[Preprocess, Any] = {}
    for recipe, image in cases(rounding):
        if max(image.size) > LONGEST * min(image.size) or columns_first(image, recipe):
            continue
        made[recipe] = made.get(recipe) or theirs(recipe)
        assert np.array_equal(to_pixels(image, recipe), made[recipe](image)), (recipe, image.size)


@pytest.mark.torch
@pytest.mark.parametrize("mode", ["shortest", "squash"])
def test_processors_on_tensors_differ_a_little(mode: Any) -> None:
    """They resize without Pillow, in one pass of floats: near, and not equal."""
    pytest.importorskip("torchvision", reason="needs processors that work on tensors")
    recipe = Preprocess(64, 64, mode, crop_rounding="floor")
    run = of_transformers(recipe, fast=True)
    for size in ((320, 240), (240, 320), (97, 61), (500, 333)):
        difference = np.abs(to_pixels(picture(*size), recipe) - run(picture(*size)))
        assert difference.mean() < 0.05
        assert difference.max() <= 3


@pytest.mark.torch
def test_files_of_every_mode(
    theirs: Callable[[Preprocess], Callable[..., NDArray[Any]]],
) -> None:
    """What differs is named in docs/export.md; it is the way to RGB, never the resize."""
    recipe = Preprocess(64, 64, crop_rounding="round" if theirs is of_open_clip else "floor")
    run = theirs(recipe)
    ours_alone = {"exif", "jpeg-exif", "16-bit"}  # upright, and scaled to 8 bits
    if theirs is of_open_clip:  # resizes before it converts, and shows what transparency hides
        ours_alone |= {"grey-alpha", "rgba", "palette", "palette-transparent", "bilevel"}
        ours_alone |= {"cmyk", "jpeg-cmyk"}
    for kind, data in files().items():
        image = Image.open(io.BytesIO(data))
        image.load()
        same = np.array_equal(load_pixels(data, recipe), run(image))
        assert same is (kind not in ours_alone), kind
        assert np.array_equal(load_pixels(data, recipe), run(to_rgb(image))), kind


if __name__ == "__main__":
    HASHES.write_text(json.dumps(hashes(), indent=0) + "\n")
