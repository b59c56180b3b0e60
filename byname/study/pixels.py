"""Findings about the pictures themselves: small, grey, long, or nearly empty ones.

Their files are read again: sizes of at most 2,000 images from the headers, and colours of at most
500 of them from a coarse decoding, of fewer where they are huge. Which ones is decided by a hash of
the file name, so it depends neither on the order of the images nor on chance. Files that can no
longer be read are passed over.

Rules, of a picture w x h and of a grid of 64 x 64 of its pixels::

    low_resolution     min(w, h) < side of the square that the encoder sees
    extreme_aspect     max(w, h) > 2 min(w, h): a centre crop loses 1 - min/max, more than half;
                       an encoder that squeezes the whole picture squeezes it more than twofold
    mostly_one_colour  95 % of the pixels lie within 12 of 255 of their median, in each channel
    greyscale          of the others: 98 % of the pixels have channels within 8 of 255 of each other

8 and 12 leave room for what JPEG and scanners add. A picture in one tint, as old photographs are,
is not called grey.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from byname.diagnose import Diagnosis
from byname.errors import BynameError
from byname.images.decode import _open, decode
from byname.study.finding import SHOWN, Finding, Level
from byname.study.subject import Subject

__all__ = ["Look", "check_pixels", "look"]

SIZES = 2_000  # images of which the size is looked at
COLOURS = 500  # of them, of which the colours are
LARGEST = 16_000_000  # pixels to decode of one picture, above which only its size is looked at
ALL = 1_000_000_000  # of all of them: some 20 seconds
DRAFT = 8  # a JPEG is decoded at an eighth of its size, with so much less work
GRID = 64
LONG = 2.0  # long side over short side
NEAR, MOST = 12, 0.95  # of 255, and share of the pixels, for one colour
GREY, NEARLY_ALL = 8, 0.98  # the same for grey
OFTEN = 0.1  # of the images, from which it is a warning
NAN = float("nan")
# A file may be gone, or another by now; nothing of that is an error here.
UNREADABLE = (BynameError, OSError, ValueError, LookupError, MemoryError)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Look:
    """What is seen of one picture; NaN where its colours were not looked at.

    ``one_colour`` is the share of its pixels that have nearly the median colour, ``grey`` the
    share of those without a hue.
    """

    width: int
    height: int
    one_colour: float = NAN
    grey: float = NAN


def check_pixels(
    subject: Subject, found: Diagnosis
) -> tuple[list[Finding], dict[str, dict[str, float | None]]]:
    """Pictures below the encoder's size, in grey, far from square, or nearly of one colour.

    Examples
    --------
    >>> import io
    >>> from dataclasses import replace
    >>> from byname.diagnose import diagnose
    >>> from byname.taskfile import Task
    >>> from byname.taxonomy import Taxonomy
    >>> out = io.BytesIO()
    >>> Image.new("RGB", (300, 100), "red").save(out, "PNG")
    >>> task = Task(np.eye(2), np.eye(2)[None], ("a {}",), Taxonomy.from_names(["cat", "dog"]))
    >>> subject = replace(Subject.of_task(task, "plain"), read=lambda key: out.getvalue())
    >>> made, _ = check_pixels(subject, diagnose(subject.texts, np.eye(2), subject.pipeline))
    >>> [(one.kind, one.count) for one in made]
    [('extreme_aspect', 2), ('mostly_one_colour', 2)]
    """
    keys, seen = _look_at(subject)
    if not keys:
        return [], {}
    side = np.array([[one.width, one.height] for one in seen], np.float64)
    short, ratio = side.min(axis=1), side.max(axis=1) / side.min(axis=1)
    flat = np.array([one.one_colour for one in seen])
    grey = np.where(flat >= MOST, 0.0, [one.grey for one in seen])
    known = ~np.isnan(flat)
    made = [
        None if subject.input_size is None else _low(subject, keys, short, subject.input_size),
        _long(subject, keys, ratio),
        _flat(subject, keys, flat, int(known.sum())),
        _grey(subject, keys, grey, int(known.sum())),
    ]

    def share(flags: NDArray[np.bool_]) -> float | None:
        return float(flags.sum() / known.sum()) if known.any() else None

    numbers: dict[str, float | None] = {
        "looked_at": float(len(keys)),
        "colours_looked_at": float(known.sum()),
        "median_short_side": float(np.median(short)),
        "median_aspect": float(np.median(ratio)),
        "greyscale_share": share(grey >= NEARLY_ALL),
        "one_colour_share": share(flat >= MOST),
    }
    return [one for one in made if one is not None], {"pixels": numbers}


def look(data: bytes, *, colours: bool = True) -> Look:
    """What is seen of the bytes of a picture.

    Parameters
    ----------
    data : bytes
        The whole file.
    colours : bool
        Whether to decode it, too.

    Raises
    ------
    ImageError
        For anything that is not a picture.

    Examples
    --------
    >>> look(b"P5 2 1 255 " + bytes([0, 99]))
    Look(width=2, height=1, one_colour=0.0, grey=1.0)
    """
    width, height = _open(data).size
    if width < 1 or height < 1:
        raise ValueError("a picture without pixels")
    if not colours:
        return Look(width, height)
    # Pixels as they are: a mean of several would take their hue away.
    picture = decode(data, target=GRID).resize((GRID, GRID), Image.Resampling.NEAREST)
    pixels = np.asarray(picture, np.int16).reshape(-1, 3)
    near = (np.abs(pixels - np.median(pixels, axis=0)) <= NEAR).all(axis=1)
    without = np.ptp(pixels, axis=1) <= GREY
    return Look(width, height, float(near.mean()), float(without.mean()))


def _look_at(subject: Subject) -> tuple[list[str], list[Look]]:
    """Images that could be read again, in the order of a hash of their names."""
    keys: list[str] = []
    seen: list[Look] = []
    if subject.read is None:
        return keys, seen
    left = ALL
    for place, key in enumerate(sorted(set(subject.keys), key=_hash)[:SIZES]):
        try:
            data = subject.read(key)
            one = look(data, colours=False)
        except UNREADABLE:
            continue
        work = one.width * one.height // (DRAFT if data[:2] == b"\xff\xd8" else 1)
        if place < COLOURS and work <= min(LARGEST, left):
            left -= work
            # Where the rest of the file is damaged, there is its size at least.
            with suppress(*UNREADABLE):
                one = look(data)
        keys.append(key)
        seen.append(one)
    return keys, seen


def _hash(key: str) -> tuple[bytes, str]:
    told = key.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(told, digest_size=8).digest(), key


def _low(subject: Subject, keys: list[str], short: Floats, size: int) -> Finding | None:
    n = int((short < size).sum())
    if not n:
        return None
    least = float(short.min())
    says = f"have a shorter side below the {size:,} pixels that the encoder sees, down to {least:g}"
    return _finding(
        "low_resolution",
        says,
        "# use the originals if there are any, or an encoder with a smaller input",
        subject,
        (keys, short, short < size, len(keys)),
        {"input_size": float(size), "least_side": least},
    )


def _long(subject: Subject, keys: list[str], ratio: Floats) -> Finding | None:
    far = ratio > LONG
    if not far.any():
        return None
    most, usual = float(ratio.max()), float(np.median(ratio[far]))
    if subject.squeezed:
        says = (
            f"are more than {LONG:g} times as long as wide, and the encoder squeezes them into a "
            f"square: {usual:.1f}-fold in the middle case, {most:.1f}-fold at most"
        )
    else:
        says = (
            f"are more than {LONG:g} times as long as wide: a centre crop loses more than half, "
            f"{1 - 1 / usual:.0%} in the middle case and {1 - 1 / most:.0%} at most"
        )
    return _finding(
        "extreme_aspect",
        says,
        "# cut what they show into pictures nearer to a square",
        subject,
        (keys, -ratio, far, len(keys)),
        {"most_aspect": most, "median_lost": 0.0 if subject.squeezed else 1 - 1 / usual},
    )


def _flat(subject: Subject, keys: list[str], flat: Floats, n: int) -> Finding | None:
    return _finding(
        "mostly_one_colour",
        f"have one colour on {MOST:.0%} of their pixels or more: there is hardly anything to see",
        "# look at them, and leave out the empty ones: they are given a class like all others",
        subject,
        (keys, -flat, flat >= MOST, n),
        {},
    )


def _grey(subject: Subject, keys: list[str], grey: Floats, n: int) -> Finding | None:
    return _finding(
        "greyscale",
        "are without colour: texts that speak of colours do not help with them",
        "# add --template 'a black and white photo of a {}.', beside the templates in use",
        subject,
        (keys, -grey, grey >= NEARLY_ALL, n),
        {},
        always="note",
    )


def _finding(
    kind: str,
    says: str,
    then: str,
    subject: Subject,
    case: tuple[list[str], Floats, NDArray[np.bool_], int],
    values: dict[str, float],
    always: Level | None = None,
) -> Finding | None:
    """``case``: file names, how striking (least first), which it is about, of how many images."""
    keys, rank, flags, of = case
    rows = np.flatnonzero(flags).tolist()
    if not rows:
        return None
    rows.sort(key=lambda i: (float(rank[i]), keys[i]))
    every, share = len(subject.keys), len(rows) / of
    seen = f"{of:,} image{'' if of == 1 else 's'}"
    seen += f" (a sample of {every:,})" if of < every else ""
    level: Level = "warning" if share >= OFTEN else "note"
    return Finding(
        kind,
        always or level,
        f"{len(rows):,} of {seen} {says}.",
        next=then,
        images=tuple(keys[i] for i in rows[:SHOWN]),
        count=len(rows),
        values={"share": share, "looked_at": float(of), **values},
    )
