"""Crops: where they lie, that they depend on the photo alone, and what rules are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from byname.errors import UsageError
from byname.images.load import image_pixels, load_pixels
from byname.images.preprocess import Preprocess, to_pixels
from byname.images.views import Attention, Crops, Uniform, parse_rule
from tests.helpers import make_photo

BASE = Preprocess(size=16, resize=16)


def boxes(crops: Crops, size: tuple[int, int], seed: int = 0) -> NDArray[np.intp]:
    image = Image.new("RGB", size)
    return np.array(crops.boxes(image, np.random.default_rng(seed)))


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (40, 40), (1, 5)])
def test_random_crops_are_squares_inside_the_image(size: tuple[int, int]) -> None:
    found = boxes(Crops.of(BASE, Uniform(n=200)), size)
    sides = found[:, 2:] - found[:, :2]
    assert (sides[:, 0] == sides[:, 1]).all()
    assert (found[:, :2] >= 0).all()
    assert (found[:, 2:] <= size).all()
    if min(size) > 30:
        share = sides[:, 0] / min(size)
        assert 0.58 <= share.min() < 0.65
        assert 0.85 < share.max() <= 0.92
        # evenly: the mean of 200 draws is within 4 standard errors
        assert abs(share.mean() - 0.75) < 4 * 0.3 / np.sqrt(12 * 200)


def test_a_squashing_encoder_gets_crops_of_the_image_s_own_shape() -> None:
    found = boxes(Crops.of(Preprocess(size=16, resize=16, mode="squash"), Uniform()), (300, 200))
    sides = (found[:, 2:] - found[:, :2]) / (300, 200)
    np.testing.assert_allclose(sides[:, 0], sides[:, 1], atol=0.01)


@pytest.mark.parametrize("n", [1, 2, 4, 5, 8, 9])
def test_a_grid_needs_no_chance(n: int) -> None:
    crops = Crops.of(BASE, Uniform(n=n, places="grid"))
    found = boxes(crops, (100, 100))
    np.testing.assert_array_equal(found, boxes(crops, (100, 100), seed=1))
    assert found.shape == (n, 4)
    assert len({tuple(box) for box in found.tolist()}) == n
    assert (found[:, 2] - found[:, 0] == 75).all()
    if n == 4:
        assert found.tolist() == [[x, y, x + 75, y + 75] for y in (0, 25) for x in (0, 25)]


def test_crops_depend_on_the_bytes_and_the_seed() -> None:
    image, crops = make_photo(3, (80, 60)), Crops.of(BASE, Uniform(n=3))
    one = crops.pixels(image, b"one")
    assert one.shape == (3, 16, 16, 3)
    np.testing.assert_array_equal(one, crops.pixels(image, b"one"))
    assert (one != crops.pixels(image, b"two")).any()
    assert (one != Crops.of(BASE, Uniform(n=3, seed=1)).pixels(image, b"one")).any()


def test_pixels_are_those_of_the_crop() -> None:
    image = make_photo(3, (80, 60))
    crops = Crops.of(BASE, Uniform(n=2, places="grid"))
    for box, pixels in zip(boxes(crops, (80, 60)), image_pixels(image, crops), strict=True):
        cut = image.crop(tuple(box.tolist()))
        np.testing.assert_array_equal(pixels, to_pixels(cut, BASE))


def test_files_are_cut_too(tmp_path: Any) -> None:
    make_photo(1, (80, 60)).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    found = load_pixels(data, Crops.of(BASE, Uniform()))
    assert found.shape == (8, 16, 16, 3)
    np.testing.assert_array_equal(found, load_pixels(data, Crops.of(BASE, Uniform())))


@pytest.mark.parametrize("mode", ["shortest", "squash"])
@pytest.mark.parametrize("size", [(300, 200), (200, 300)])
def test_attention_draws_crops_where_the_encoder_looks(mode: Any, size: tuple[int, int]) -> None:
    """All attention on one patch: every crop is as near to it as the image allows."""
    base = Preprocess(size=16, resize=16, mode=mode)
    seen = np.zeros((1, 4, 4), np.float32)
    seen[0, 1, 2] = 1  # second row, third column
    crops = Crops.of(base, Attention(n=30, top=20), lambda pixels: seen)
    found = boxes(crops, size)
    side = np.array(size) if mode == "squash" else np.full(2, min(size))
    target = (np.array(size) - side) / 2 + np.array([2.5, 1.5]) / 4 * side
    sides = found[:, 2:] - found[:, :2]
    wanted = np.clip(target - sides / 2, 0, size - sides)
    assert np.abs(found[:, :2] - wanted).max() <= 1
    assert found.shape == (30, 4)


def test_centres_are_drawn_from_the_softmax_over_the_strongest() -> None:
    seen = np.array([[[0.10, 0.07, 0.0, 0.0]]], np.float32)
    rule = Attention(n=1000, top=2, low=0.01, high=0.01)
    crops = Crops.of(Preprocess(size=16, resize=16, mode="squash"), rule, lambda pixels: seen)
    left = boxes(crops, (400, 400))[:, 0]
    share = (left < 100).mean()
    assert set((left // 100).tolist()) == {0, 1}  # the two strongest patches alone
    odds = 1 / (1 + np.exp(-1.0))  # (0.10 - 0.07) / 0.03
    assert abs(share - odds) < 4 * np.sqrt(odds * (1 - odds) / 1000)


def test_fewer_patches_than_top() -> None:
    seen = np.ones((1, 1, 1), np.float32)
    assert len(boxes(Crops.of(BASE, Attention(), lambda pixels: seen), (50, 50))) == 50


@pytest.mark.parametrize(
    "text, rule",
    [
        ("uniform", Uniform()),
        ("uniform[n=3,low=0.5,high=1,places=grid,seed=4]", Uniform(3, 0.5, 1.0, "grid", 4)),
        ("attention[n=5,top=3,temperature=0.1]", Attention(5, 3, 0.1)),
    ],
)
def test_rules(text: str, rule: Any) -> None:
    assert parse_rule(text) == rule


@pytest.mark.parametrize(
    "text, message",
    [
        ("corners", "there is no rule 'corners'. Known: uniform, attention"),
        ("uniform[", "not of the form"),
        ("uniform[m=3]", "'uniform' has no parameter 'm'. It has: n, low, high, places, seed"),
        ("uniform[kind=x]", "'uniform' has no parameter 'kind'"),
        ("uniform[n=3,n=4]", "n is given twice"),
        ("uniform[n=3.5]", "n is '3.5'. Give a whole number"),
        ("uniform[low=a]", "low is 'a'. Give a number"),
        ("uniform[n=0]", "n is 0. It is 1 to 1000"),
        ("uniform[low=0.9,high=0.6]", "low is 0.9 and high is 0.6"),
        ("uniform[low=nan]", "low is nan"),
        ("uniform[seed=-1]", "seed is -1. It is 0 or more"),
        ("uniform[places=corners]", "places is 'corners'. It is random or grid"),
        ("attention[top=0]", "top is 0. It is 1 or more"),
        ("attention[temperature=0]", "temperature is 0.0. It is above 0"),
    ],
)
def test_rules_that_do_not_fit(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message.replace("[", r"\[")):
        parse_rule(text)
