"""Every accepted form of images, and the messages for the others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from byname.embeddings import Embeddings
from byname.errors import SourceError, UsageError
from byname.images.sources import Source
from byname.inputs import ACCEPTED, as_embeddings, open_images
from tests.helpers import DIM, FakeEncoder, make_photo, make_photos


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BYNAME_CACHE", str(tmp_path / "cache"))
    return make_photos(tmp_path / "photos", 7)


def test_all_forms_give_the_same_vectors(photos: Path, tmp_path: Path) -> None:
    whole = as_embeddings(photos, FakeEncoder(), batch_size=3)
    assert whole.keys == tuple(
        sorted(p.relative_to(photos).as_posix() for p in photos.rglob("*.png"))
    )
    paths = [photos / key for key in whole.keys]
    (tmp_path / "list.txt").write_text("\n".join(map(str, paths)))
    opened = [Image.open(p) for p in paths]
    arrays = [np.asarray(image) for image in opened]
    forms: list[Any] = [
        str(photos),
        f"{photos}/**/*.png",
        paths,
        tuple(map(str, paths)),
        tmp_path / "list.txt",
        open_images(str(photos)),
        opened,
        arrays,
        np.stack(arrays),
        np.stack(arrays).astype(np.float64) / 255,
    ]
    for form in forms:
        found = as_embeddings(form, FakeEncoder(), batch_size=2, cache=False)
        assert np.allclose(found.vectors, whole.vectors, atol=1e-3), form
        assert not found.errors
    single = as_embeddings(opened[0], FakeEncoder())
    assert np.allclose(single.vectors, whole.vectors[:1], atol=1e-3)
    assert np.array_equal(as_embeddings(arrays[0], FakeEncoder()).vectors, single.vectors)


def test_grey_alpha_and_palette_images_are_brought_to_rgb() -> None:
    image = make_photo(1)
    forms = [image.convert(mode) for mode in ("L", "RGBA", "P", "CMYK", "1", "I;16")]
    assert as_embeddings(forms, FakeEncoder()).vectors.shape == (6, DIM)


def test_vectors_and_embeddings_pass_through(photos: Path, tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(3, DIM))
    encoder = FakeEncoder()
    found = as_embeddings(vectors, encoder)
    assert np.allclose(np.linalg.norm(found.vectors, axis=1), 1)
    assert as_embeddings(found, encoder) is found
    found.save(tmp_path / "e.parquet")
    assert as_embeddings(str(tmp_path / "e.parquet"), encoder).keys == found.keys
    assert isinstance(open_images(str(tmp_path / "e.parquet")), Embeddings)
    assert isinstance(open_images(str(photos)), Source)
    assert encoder.images == 0


def test_no_images_as_arrays_are_no_vectors() -> None:
    assert as_embeddings(np.zeros((0, 8, 8, 3), np.uint8), FakeEncoder()).vectors.shape == (0, DIM)
    assert as_embeddings(np.zeros((0, DIM)), FakeEncoder()).vectors.shape == (0, DIM)


@pytest.mark.parametrize("form", ["folder", "paths", "images"])
def test_progress_counts_every_image(photos: Path, form: str) -> None:
    steps: list[tuple[int, bool]] = []
    paths = sorted(photos.rglob("*.png"))
    X = {"folder": photos, "paths": paths, "images": [Image.open(p) for p in paths]}[form]
    as_embeddings(X, FakeEncoder(), batch_size=2, progress=lambda *step: steps.append(step))
    assert sum(n for n, encoded in steps if encoded) == 7
    assert sum(n for n, encoded in steps if not encoded) == 0


@pytest.mark.parametrize(
    ("X", "seen"),
    [
        (None, "they are a NoneType"),
        (3, "they are a int"),
        (b"photo.jpg", "they are a bytes"),
        ({"a": 1}, "they are a dict"),
        ([1, 2], "they are a list of int"),
        (["a.jpg", Image.new("RGB", (2, 2))], "they are a list of Image, str"),
        (np.zeros(4), "they are an array of shape (4,) and type float64"),
        (np.array([["a"]]), "they are an array of shape (1, 1) and type <U1"),
        (np.zeros((1, 2, 2, 3, 1)), "they are an array of shape (1, 2, 2, 3, 1) and type float64"),
    ],
)
def test_what_is_not_accepted(X: Any, seen: str) -> None:
    with pytest.raises(UsageError) as caught:
        as_embeddings(X, FakeEncoder())
    assert str(caught.value) == f"cannot use these images: {seen}. {ACCEPTED}"


def test_channels_first_is_said() -> None:
    with pytest.raises(UsageError, match=r"shape \(3, 8, 8\).*transpose\(1, 2, 0\)"):
        as_embeddings(np.zeros((2, 3, 8, 8), np.uint8), FakeEncoder())


def test_an_empty_list_and_a_missing_folder() -> None:
    with pytest.raises(SourceError, match="it is empty"):
        as_embeddings([], FakeEncoder())
    with pytest.raises(SourceError, match="it does not exist"):
        as_embeddings("no/such/folder", FakeEncoder())


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_size_below_one(size: int) -> None:
    with pytest.raises(UsageError) as caught:
        as_embeddings([make_photo(0)], FakeEncoder(), batch_size=size)
    seen = f"cannot embed images: batch_size is {size}. Give a whole number, 1 or more."
    assert str(caught.value) == seen


class Ready(FakeEncoder):
    """Knows vectors by name and takes no pixels."""

    def __init__(self) -> None:
        super().__init__(name="ready")
        self.info = type(self.info)("ready", DIM, None, weights_sha256="r")

    def lookup(self, keys: Any) -> Any:
        known = [k for k in keys if k != "0001.png"]
        return np.eye(DIM, dtype=np.float32)[: len(known)], {"0001.png": "no vector for it"}


def test_an_encoder_that_holds_the_vectors(photos: Path) -> None:
    found = as_embeddings(photos, Ready())
    assert len(found) == 6
    assert "0001.png" not in found.keys
    assert found.errors == {"0001.png": "no vector for it"}
    assert found.root == str(photos)
    with pytest.raises(UsageError) as caught:
        as_embeddings([make_photo(0)], Ready())
    assert str(caught.value) == (
        "cannot use these images: 'ready' takes no pixels. Give it vectors."
    )


def test_no_torch_is_imported() -> None:
    code = "import sys, byname.inputs; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
