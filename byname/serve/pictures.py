"""The images in memory: a vector, a small picture and a name each; nothing of a file is kept."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from byname.embeddings import Embeddings
from byname.encoders import Encoder
from byname.errors import ImageError, UsageError
from byname.images.decode import _open, decode
from byname.images.load import image_pixels
from byname.images.sources import ImageRef
from byname.serve.problems import Problem

__all__ = ["Picture", "Shot", "Store", "small_jpeg", "take_in"]

SIDE = 256  # pixels of a small picture
LARGE = 12_000_000  # pixels; above, one image at a time is decoded
_one_large = threading.Lock()


@dataclass(frozen=True, eq=False)
class Picture:
    """One image. ``ref`` says where the file is, for images that were given at the start."""

    id: str
    name: str
    vector: NDArray[np.float32]
    thumb: bytes | None = None
    ref: ImageRef | None = None


@dataclass(frozen=True, eq=False)
class Shot:
    """All images at one moment: ``X[i]`` is the vector of ``pictures[i]``."""

    version: int
    pictures: tuple[Picture, ...]
    X: NDArray[np.float32]

    def keys(self) -> tuple[str, ...]:
        """A name for each image, all different: those that repeat get their id."""
        seen: set[str] = set()
        repeated: set[str] = set()
        for picture in self.pictures:
            (repeated if picture.name in seen else seen).add(picture.name)
        # A file may itself be called "a.jpg (i3)": an id in brackets is then no use.
        plain = [f"{p.name} ({p.id})" if p.name in repeated else p.name for p in self.pictures]
        if len(set(plain)) < len(plain):
            return tuple(f"{p.id}: {p.name}" for p in self.pictures)
        return tuple(plain)


class Store:
    """The images, by ids that are never used again.

    Parameters
    ----------
    dim : int
        Width of the vectors.
    most : int
        How many images are held.

    Examples
    --------
    >>> store = Store(2, 1)
    >>> store.add("a.jpg", np.ones(2, np.float32)).id, len(store.shot().X)
    ('i0', 1)
    """

    def __init__(self, dim: int, most: int) -> None:
        self.dim, self.most = dim, most
        self._lock = threading.Lock()
        self._held: dict[str, Picture] = {}
        self._next = self._version = 0
        self._shot: Shot | None = None
        self._thumbs: dict[str, bytes] = {}

    def __len__(self) -> int:
        return len(self._held)

    def add(
        self,
        name: str,
        vector: NDArray[np.float32],
        thumb: bytes | None = None,
        ref: ImageRef | None = None,
    ) -> Picture:
        """Take one image in; a ``Problem`` where there is no room."""
        with self._lock:
            if len(self._held) >= self.most:
                raise self._full()
            picture = Picture(f"i{self._next}", name, vector, thumb, ref)
            self._next += 1
            self._version += 1
            self._held[picture.id] = picture
            self._shot = None
            return picture

    def check_room(self) -> None:
        """Raise where not one more image can be held."""
        if len(self._held) >= self.most:
            raise self._full()

    def _full(self) -> Problem:
        seen = f"{self.most} images are held already"
        return Problem(413, "hold one more image", seen, "Remove some, or raise --max-images.")

    def get(self, image: str) -> Picture:
        """One image by its id; a ``Problem`` where there is none."""
        found = self._held.get(image)
        if found is None:
            asked = f"find the image {image[:40]!r}"
            raise Problem(404, asked, "there is no such image", "Load the list of images again.")
        return found

    def remove(self, image: str) -> None:
        """Forget one image."""
        with self._lock:
            self.get(image)
            del self._held[image]
            self._thumbs.pop(image, None)
            self._version += 1
            self._shot = None

    def shot(self) -> Shot:
        """All images now; the same object as long as none is added or removed."""
        with self._lock:
            if self._shot is None:
                held = tuple(self._held.values())
                X = np.zeros((len(held), self.dim), np.float32)
                for row, picture in zip(X, held, strict=True):
                    row[:] = picture.vector
                self._shot = Shot(self._version, held, X)
            return self._shot

    def thumb(self, image: str) -> bytes:
        """The small picture (JPEG); those of files given at the start are made when asked for."""
        picture = self.get(image)
        made = picture.thumb or self._thumbs.get(image)
        if made is not None:
            return made
        asked = f"show the image '{picture.name}'"
        if picture.ref is None:
            raise Problem(404, asked, "only its vector was given", "Give images, not embeddings.")
        try:
            data = picture.ref.read()
            with _in_turn(data, None):
                made = small_jpeg(decode(data, target=SIDE))
        except (ImageError, OSError):
            raise Problem(404, asked, "its file cannot be read any more", "Restore it.") from None
        with self._lock:
            if image in self._held:
                self._thumbs[image] = made
        return made


def take_in(data: bytes, encoder: Encoder, pixels: int) -> tuple[NDArray[np.float32], bytes]:
    """The vector (D,) and the small picture of an image file, as ``byname classify`` sees it.

    Parameters
    ----------
    data : bytes
    encoder : Encoder
    pixels : int
        Width x height that is decoded at most.

    Raises
    ------
    ImageError
        For whatever is wrong with the file.
    UsageError
        Where the encoder takes no images.
    """
    preprocess = encoder.info.preprocess
    if preprocess is None:
        seen, do = "it takes no pixels", "Start byname serve with an encoder of images."
        raise UsageError(f"encode images with '{encoder.info.id}'", seen, do)
    with _in_turn(data, pixels):
        image = decode(data, target=preprocess.resize)
        seen_as, small = image_pixels(image, preprocess), small_jpeg(image)
        del image  # before the next large one is decoded
    vectors = encoder.encode_images(seen_as[None])
    # As stored vectors, which are what 'byname classify' works with, are rounded.
    kept: NDArray[np.float32] = Embeddings.from_arrays(vectors.astype(np.float16)).vectors[0]
    return kept, small


@contextmanager
def _in_turn(data: bytes, most: int | None) -> Iterator[None]:
    """As long as the pixels of an image are held; the header says how many before one is made.

    A few large images together would fill the memory: one is held at a time, to the end.
    """
    width, height = _open(data).size if data else (0, 0)
    if most is not None and width * height > most:
        seen = f"{width:,} x {height:,} pixels is more than the limit of {most / 1e6:g} megapixels"
        raise ImageError("decode the image", seen, "Make it smaller first.")
    if width * height <= LARGE:
        yield
        return
    with _one_large:
        yield


def small_jpeg(image: Image.Image, side: int = SIDE) -> bytes:
    """A small JPEG of an RGB image, encoded anew: no metadata of the file is left.

    Examples
    --------
    >>> small_jpeg(Image.new("RGB", (900, 300)))[:3]
    b'\\xff\\xd8\\xff'
    """
    scale = min(1.0, side / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    small = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
    small.info = {}  # a comment of the file would be written again
    out = io.BytesIO()
    small.save(out, "JPEG", quality=80)
    return out.getvalue()
