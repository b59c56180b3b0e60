"""Bytes, PIL images and arrays to plain 8-bit RGB; whatever is wrong becomes an ImageError.

Rules, fixed so that one file always gives the same pixels:

- The EXIF orientation is applied.
- Transparent pixels are laid over **white**, as web pages and viewers show them. Dropping the alpha
  channel, as ``convert("RGB")`` does, would show the colours hidden below it, most often black.
- 16-bit greyscale is divided by 257 and rounded, so that 65535 becomes 255. 32-bit integers count
  as 16-bit unless a value exceeds 65535; then the largest value is white. For floats, white is the
  first of 1, 255 and 65535 that is at least half the largest value, else the largest value.
- Animations and multi-page files: the first frame. Colour profiles are ignored, as CLIP's own
  preprocessing ignores them.
- Only raster formats that Pillow decodes by itself are tried: PostScript, which would start another
  program, never is.
"""

from __future__ import annotations

import io
import math
import re
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from byname.errors import ImageError, UsageError

__all__ = ["MAX_PIXELS", "array_to_image", "decode", "one_line", "to_rgb", "turn_since"]

MAX_PIXELS = 250_000_000
"""Largest width x height that is decoded (1 GB as Pillow holds it): a 200-megapixel phone passes.

It is byname's own limit, checked on the header; ``PIL.Image.MAX_IMAGE_PIXELS`` is left alone. In
the few places where Pillow checks frames inside a file itself, its limit holds as well.
"""

LARGE = 40_000_000
"""Pixels beyond which images are decoded one at a time: they take up to 12 bytes a pixel, a file
of a few KB can claim ``MAX_PIXELS``, and there are as many threads as processors."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF", "ICO", "HEIF")
"""Pillow's names of the formats tried. HEIF is there only where pillow-heif has registered it."""

_ASKED = "decode the image"
_STRIP = 2**20  # pixels that are in float64 at once
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"heif", b"mif1", b"msf1"}
_STARTS = (
    (b"version https://git-lfs", "a Git LFS pointer, not the image itself: run 'git lfs pull'"),
    (b"%PDF", "a PDF document, not an image"),
    (b"%!PS", "a PostScript document, not a supported image"),
    (b"8BPS", "a Photoshop file, which is not supported: export it as PNG"),
    (b"PK\x03\x04", "a ZIP archive, not an image"),
    (b"\x1f\x8b", "a gzip file, not an image"),
)


class _Turn:
    """A lock that tells who has it and who waits for it, by the idents of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.holder: int | None = None
        self.waiting: set[int] = set()
        self.since: dict[int, float] = {}
        """When each thread had its turn last; Python uses idents again, so these are few."""

    def __enter__(self) -> None:
        me = threading.get_ident()
        self.waiting.add(me)
        try:
            self._lock.acquire()
        finally:
            self.waiting.discard(me)
        self.holder, self.since[me] = me, time.monotonic()

    def __exit__(self, *_: object) -> None:
        self.holder = None
        self._lock.release()


_one_large = _Turn()


def turn_since(thread: int, others: Collection[int]) -> float:
    """When a thread had its turn to decode a large image: now, if it waits for one of the others.

    Examples
    --------
    >>> turn_since(-1, ())
    -inf
    """
    holder = _one_large.holder
    if thread in _one_large.waiting and (holder is None or holder in others):
        return time.monotonic()
    return _one_large.since.get(thread, -math.inf)


def decode(
    data: bytes, *, target: int | None = None, large: ExitStack | None = None
) -> Image.Image:
    """Decode the bytes of an image file to an RGB image.

    Parameters
    ----------
    data : bytes
        The whole file.
    target : int, optional
        Side in pixels to which the short side will be resized. A JPEG far larger than that is
        decoded at a half, a quarter or an eighth of its size, with the short side never below
        twice the target: several times faster, at about 0.4/255 mean difference.
    large : ExitStack, optional
        Gets a lock for an image of more than ``LARGE`` pixels. Where all threads give one, and
        close it when they have made the image small, one such image is in memory at a time.

    Returns
    -------
    PIL.Image.Image
        Mode RGB, upright, loaded.

    Raises
    ------
    ImageError
        For anything that is not a complete image: the reason is one line for a person.

    Examples
    --------
    >>> decode(b"P6 2 1 255 " + bytes(6)).size
    (2, 1)
    >>> decode(b"hello")
    Traceback (most recent call last):
    byname.errors.ImageError: not an image: it starts with 'hello'
    """
    image = _open(data)
    width, height = image.size
    if width * height > MAX_PIXELS:
        seen = (
            f"{width:,} x {height:,} pixels is more than the limit of "
            f"{MAX_PIXELS // 1_000_000:,} megapixels"
        )
        raise ImageError(_ASKED, seen, "Make it smaller first.")
    try:
        if target is not None:
            image.draft("RGB", (2 * target, 2 * target))
        if large is not None and image.width * image.height > LARGE:
            large.enter_context(_one_large)
        image.load()
    except Exception as error:  # hostile data raises nearly every class there is
        raise _damaged(image.format or "image", error) from error
    return to_rgb(image)


def to_rgb(image: Image.Image) -> Image.Image:
    """Bring any PIL image to upright 8-bit RGB, by the rules at the top of this module.

    Parameters
    ----------
    image : PIL.Image.Image
        Any mode; it may be opened but not yet loaded. It is loaded, and not otherwise changed.

    Returns
    -------
    PIL.Image.Image
        Mode RGB; the same object where nothing was to be done.

    Raises
    ------
    ImageError
        Where the pixels cannot be loaded or the mode cannot be converted.

    Examples
    --------
    >>> to_rgb(Image.new("RGBA", (1, 1), (0, 0, 0, 0))).getpixel((0, 0))
    (255, 255, 255)
    """
    if 0 in image.size:
        raise ImageError(_ASKED, f"it has no pixels ({image.width} x {image.height})")
    try:
        image.load()
        rgb = _flatten(image)
        turn = _TURNS.get(_orientation(image))
        if turn is None:
            return rgb
        turned = rgb.transpose(turn)
        turned.info = {}  # it holds the orientation, which would be applied once more
        return turned
    except Exception as error:  # hostile data raises nearly every class there is
        raise _damaged(getattr(image, "format", None) or image.mode, error) from error


def array_to_image(array: Any) -> Image.Image:
    """Turn an array of pixels into an RGB image.

    Parameters
    ----------
    array : array, shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)
        uint8, or floats within 0-1. The fourth channel is alpha.

    Raises
    ------
    UsageError
        For another shape, another type, or floats outside 0-1.

    Examples
    --------
    >>> array_to_image(np.ones((2, 3))).getpixel((0, 0))
    (255, 255, 255)
    """
    pixels = np.asarray(array)
    seen = f"it has shape {pixels.shape} and type {pixels.dtype}"
    do = "Give (H, W), (H, W, 3) or (H, W, 4) in uint8, or floats within 0-1."
    asked = "use the array as an image"
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (3, 4)):
        if pixels.ndim == 3 and pixels.shape[0] in (1, 3, 4):
            do = f"{do} The channels seem to come first: use array.transpose(1, 2, 0)."
        elif pixels.ndim == 4:
            do = f"{do} A batch is given as a list of its images."
        raise UsageError(asked, seen, do)
    if pixels.size == 0:
        raise UsageError(asked, f"{seen}: it has no pixels", do)
    if np.issubdtype(pixels.dtype, np.floating):
        low, high = float(pixels.min()), float(pixels.max())
        if not (low >= 0.0 and high <= 1.0):  # also true for NaN
            raise UsageError(asked, f"{seen}, with values from {low:g} to {high:g}", do)
        pixels = np.rint(pixels.astype(np.float64) * 255).astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise UsageError(asked, seen, do)
    return to_rgb(Image.fromarray(np.ascontiguousarray(pixels)))


def one_line(text: str, limit: int = 200) -> str:
    """Make a reason fit a table cell: one line, no control characters, no addresses, no paths.

    Examples
    --------
    >>> one_line("bad\\nfile")
    'bad file'
    """
    text = re.sub(r"<[^<>]* at 0x[0-9a-fA-F]+>", "the file", text)
    text = re.sub(r"(?<![\w.:/])/(?:[^\s/'\"]+/)+[^\s'\"]*", "the file", text)
    text = "".join(c if c.isprintable() else " " for c in text)
    text = re.sub(r"\s+", " ", text).strip()
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _open(data: bytes) -> Image.Image:
    """Read the header. The plugins are asked directly: ``Image.open`` would apply, and warn by, the
    process-wide pixel limit, and neither can be set aside for one thread only."""
    if not data:
        raise ImageError(_ASKED, "empty file (0 bytes)", "Copy or download it again.")
    Image.init()
    failed: tuple[str, Exception] | None = None
    for name in FORMATS:
        factory, accept = Image.OPEN.get(name, (None, None))
        try:
            # A plugin answers with a text where it knows the format but was built without it.
            if factory is None or (accept is not None and accept(data[:16]) is not True):
                continue
            return factory(io.BytesIO(data), "")
        except Exception as error:  # noqa: BLE001 - hostile data raises nearly every class there is
            failed = failed or (name, error)
    if failed and not _is_heic(data):
        raise _damaged(*failed) from failed[1]
    raise ImageError(_ASKED, _what_is_it(data))


def _damaged(name: str, error: Exception) -> ImageError:
    """Say what an exception of Pillow means for the file."""
    if isinstance(error, ImageError):
        return error
    text = one_line(str(error), 120) or type(error).__name__
    if isinstance(error, MemoryError):
        return ImageError(_ASKED, "not enough memory to decode it", "Make it smaller first.")
    if isinstance(error, Image.DecompressionBombError):
        return ImageError(_ASKED, one_line(f"too many pixels: {text}"))
    if "truncated" in text.lower() or isinstance(error, EOFError):
        seen = f"truncated {name} file: the end is missing ({text})"
        return ImageError(_ASKED, one_line(seen), "Copy or download it again.")
    return ImageError(_ASKED, one_line(f"damaged or truncated {name} file ({text})"))


def _is_heic(data: bytes) -> bool:
    return data[4:8] == b"ftyp" and data[8:12] in _HEIC_BRANDS


def _what_is_it(data: bytes) -> str:
    """Name the commonest things that are not images."""
    start = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for magic, meaning in _STARTS:
        if data.startswith(magic):
            return meaning
    if _is_heic(data):
        return "a HEIC photo, which needs the package pillow-heif: convert it to JPEG"
    if data[4:8] == b"ftyp":
        if data[8:12] in (b"avif", b"avis"):
            return "an AVIF image, which needs Pillow 11.3 or later: update Pillow"
        return "a video or another media container, not an image"
    if start.startswith(b"<") and b"<svg" in start:
        return "an SVG drawing, which is not supported: export it as PNG"
    if start.startswith((b"<!doctype html", b"<html", b"<head")) or (
        start.startswith(b"<") and b"<html" in start
    ):
        return "a web page (HTML), not an image: the download went wrong"
    if data.count(0) == len(data):
        return "not an image: it holds only zero bytes"
    return f"not an image: it starts with {repr(data[:12])[1:]}"


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - damaged metadata does not make a picture unreadable
        return 1
    return value if isinstance(value, int) else 1


def _flatten(image: Image.Image) -> Image.Image:
    mode = image.mode
    if mode == "RGB" and "transparency" not in image.info:
        return image
    if mode in ("I", "F") or mode.startswith("I;16"):
        return Image.fromarray(_to_8_bits(image)).convert("RGB")
    if image.has_transparency_data:
        # Premultiplied modes have no direct way to RGBA.
        rgba = image.convert("LA").convert("RGBA") if mode == "La" else image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(rgba, mask=rgba.getchannel("A"))
        return white
    return image.convert("RGB")


def _to_8_bits(image: Image.Image) -> NDArray[np.uint8]:
    """Grey values of more than 8 bits to 8; see the rules at the top.

    A few rows at a time: in float64 the whole image would take many times its own memory.
    """
    highest = max(float(values.max()) for _, values, _ in _strips(image))
    white = max(65535.0, highest)
    if image.mode == "F":
        white = next((w for w in (1.0, 255.0, 65535.0) if highest <= 2 * w), highest)
    grey = np.empty((image.height, image.width), np.uint8)
    for rows, values, transparent in _strips(image):
        values *= 255.0 / white
        np.clip(values, 0.0, 255.0, out=values)
        grey[rows] = np.rint(values, out=values)
        grey[rows][transparent] = 255
    return grey


def _strips(image: Image.Image) -> Iterator[tuple[slice, NDArray[np.float64], NDArray[np.bool_]]]:
    """Rows, their finite values, and where they are transparent."""
    step = max(1, _STRIP // image.width)
    clear = image.info.get("transparency", np.nan)
    for top in range(0, image.height, step):
        bottom = min(top + step, image.height)
        strip = image.crop((0, top, image.width, bottom))
        values = np.asarray(strip).astype(np.float64)
        transparent = values == clear
        values[~np.isfinite(values)] = 0.0
        yield slice(top, bottom), values, transparent
