"""Images in memory: a vector and a small picture, nothing of the file."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from byname.embeddings import Embeddings
from byname.errors import ImageError, UsageError
from byname.images.sources import open_source
from byname.inputs import as_embeddings
from byname.serve import pictures
from byname.serve.pictures import SIDE, Store, small_jpeg, take_in
from byname.serve.problems import Problem
from byname.serve.uploads import Limits
from tests.helpers import FakeEncoder, make_photo, make_photos
from tests.serve.conftest import photo

ONE = np.ones(2, np.float32)


def bomb(side: int) -> bytes:
    """A PNG of a few bytes that says it has side x side pixels."""
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    made = b"\x89PNG\r\n\x1a\n"
    for name, data in chunks:
        made += struct.pack(">I", len(data)) + name + data
        made += struct.pack(">I", zlib.crc32(name + data))
    return made


def test_an_upload_has_the_vector_that_classify_works_with(tmp_path: Path) -> None:
    folder, encoder = make_photos(tmp_path / "p", 2), FakeEncoder()
    stored = as_embeddings(open_source(folder), encoder)
    for key, vector in zip(stored.keys, stored.vectors, strict=True):
        found, _ = take_in((folder / key).read_bytes(), encoder, 10**6)
        np.testing.assert_array_equal(found, vector)


def test_the_small_picture_is_small_and_says_nothing_of_the_file() -> None:
    exif = Image.Exif()
    exif[0x010E] = "a secret place"
    out = io.BytesIO()
    make_photo(1, (900, 300)).save(out, "JPEG", exif=exif, comment=b"a secret comment")
    _, thumb = take_in(out.getvalue(), FakeEncoder(), 10**6)
    assert b"secret" in out.getvalue()
    assert b"secret" not in thumb
    image = Image.open(io.BytesIO(thumb))
    assert (image.format, dict(image.getexif())) == ("JPEG", {})
    assert max(image.size) <= SIDE


@pytest.mark.parametrize("size", [(1, 1), (5000, 1), (1, 3000)])
def test_odd_shapes_have_small_pictures(size: tuple[int, int]) -> None:
    image = Image.open(io.BytesIO(small_jpeg(Image.new("RGB", size))))
    assert max(image.size) <= SIDE
    assert min(image.size) >= 1


@pytest.mark.parametrize("side", [1001, 20_000, 2**31 - 1])
def test_bombs_are_refused_by_their_header(side: int) -> None:
    with pytest.raises(ImageError, match="megapixels"):
        take_in(bomb(side), FakeEncoder(), 1_000_000)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", "SVG"),
        (b"<!doctype html><script>alert(1)</script>", "HTML"),
        (b"PK\x03\x04" + bytes(50), "ZIP"),
        (b"%PDF-1.7 ...", "PDF"),
        (b"%!PS-Adobe", "PostScript"),
        (photo(1)[:-30], "PNG"),
        (photo(1, "JPEG")[:200], "JPEG"),
        (bytes(100), "zero"),
    ],
)
def test_what_is_no_image_is_refused_with_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        take_in(data, FakeEncoder(), 10**6)


def test_one_large_image_is_held_at_a_time_until_it_is_small(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held: list[bool] = []
    inner = pictures.small_jpeg
    monkeypatch.setattr(pictures, "LARGE", 100)

    def small(image: Image.Image) -> bytes:
        held.append(pictures._one_large.locked())
        return inner(image)

    monkeypatch.setattr(pictures, "small_jpeg", small)

    class Watched(FakeEncoder):
        def encode_images(self, pixels):  # type: ignore[no-untyped-def]
            held.append(pictures._one_large.locked())
            return super().encode_images(pixels)

    take_in(photo(), Watched(), 10**6)
    assert held == [True, False]
    with pytest.raises(ImageError):
        take_in(photo()[:-30], Watched(), 10**6)
    assert not pictures._one_large.locked()


def test_bombs_within_the_old_limit_are_refused_by_default() -> None:
    with pytest.raises(ImageError, match="50 megapixels"):
        take_in(bomb(9_999), FakeEncoder(), Limits().pixels)


def test_an_encoder_without_pixels_says_so() -> None:
    from byname.encoders import PrecomputedEncoder

    with pytest.raises(UsageError, match="takes no pixels"):
        take_in(photo(), PrecomputedEncoder.from_arrays(["a"], [[1.0, 0.0]]), 10**6)


def test_ids_are_never_used_again_and_there_is_an_end() -> None:
    store = Store(2, 2)
    assert [store.add(name, ONE).id for name in "ab"] == ["i0", "i1"]
    with pytest.raises(Problem) as caught:
        store.add("c", ONE)
    assert caught.value.status == 413
    store.remove("i0")
    assert store.add("c", ONE).id == "i2"
    for unknown in ("i0", "i9", "", "../i1"):
        with pytest.raises(Problem) as caught:
            store.remove(unknown)
        assert caught.value.status == 404


def test_a_shot_is_the_same_until_something_changes() -> None:
    store = Store(2, 9)
    store.add("a", ONE)
    shot = store.shot()
    assert store.shot() is shot
    store.add("b", 2 * ONE)
    assert store.shot().version > shot.version
    assert store.shot().X.tolist() == [[1, 1], [2, 2]]
    assert len(shot.X) == 1


def test_keys_are_different_whatever_the_names() -> None:
    store = Store(2, 9)
    for name in ("a", "a", "b", "a (i0)"):
        store.add(name, ONE)
    keys = store.shot().keys()
    assert len(set(keys)) == 4
    store = Store(2, 9)
    for name in ("a", "b", "a"):
        store.add(name, ONE)
    assert store.shot().keys() == ("a (i0)", "b", "a (i2)")


def test_small_pictures_of_given_files_are_made_when_asked_for(tmp_path: Path) -> None:
    folder = make_photos(tmp_path / "p", 1)
    store = Store(2, 9)
    store.add("0000.png", ONE, ref=open_source(folder).refs[0])
    first = store.thumb("i0")
    assert Image.open(io.BytesIO(first)).format == "JPEG"
    (folder / "0000.png").unlink()
    assert store.thumb("i0") is first
    store.add("gone", ONE, ref=store.get("i0").ref)
    store.add("vector", ONE)
    for image in ("i1", "i2"):
        with pytest.raises(Problem) as caught:
            store.thumb(image)
        assert caught.value.status == 404
    assert isinstance(Embeddings.from_arrays(store.shot().X), Embeddings)
