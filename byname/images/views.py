"""Several crops of each image: where they lie, and their pixels.

A photo's crops depend on its own bytes and on the seed, and on nothing else: not on its name, its
neighbours or the order of a run.
"""

from __future__ import annotations

import hashlib
import math
import typing
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from byname.errors import RecipeError, UsageError
from byname.images.decode import decode
from byname.images.preprocess import Preprocess, to_pixels
from byname.stage import parse_spec

__all__ = ["Attention", "Crops", "Rule", "Uniform", "parse_rule"]

Attend = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
Box = tuple[int, int, int, int]
MOST = 1000


@dataclass(frozen=True)
class Uniform:
    """``n`` crops that lie anywhere in the image.

    Parameters
    ----------
    n : int, default 8
    low, high : float, default 0.6, 0.9
        Side of a crop over the side of the image, drawn evenly between the two (ABS).
    places : {"random", "grid"}
        Drawn evenly too; or in rows and columns, all of the mean size, without any chance.
    seed : int, default 0
    """

    kind: str = field(default="uniform", init=False)
    n: int = 8
    low: float = 0.6
    high: float = 0.9
    places: Literal["random", "grid"] = "random"
    seed: int = 0

    def __post_init__(self) -> None:
        _check(self)
        if self.places not in ("random", "grid"):
            raise _unfit(self, "places", "random or grid")


@dataclass(frozen=True)
class Attention:
    """``n`` crops around patches that the encoder attends to, as in ABS.

    Parameters
    ----------
    n : int, default 50
    top : int, default 20
        Centres are drawn among so many patches, those with the strongest attention.
    temperature : float, default 0.03
        Of the softmax over these that the centres are drawn from.
    low, high, seed
        As in :class:`Uniform`.
    """

    kind: str = field(default="attention", init=False)
    n: int = 50
    top: int = 20
    temperature: float = 0.03
    low: float = 0.6
    high: float = 0.9
    seed: int = 0

    def __post_init__(self) -> None:
        _check(self)
        if self.top < 1:
            raise _unfit(self, "top", "1 or more")
        if not 0 < self.temperature < math.inf:
            raise _unfit(self, "temperature", "above 0")


Rule = Uniform | Attention
RULES: dict[str, type[Uniform] | type[Attention]] = {"uniform": Uniform, "attention": Attention}


def parse_rule(text: str) -> Rule:
    """A rule as a user writes it.

    Raises
    ------
    UsageError
        For an unknown rule, an unknown parameter, or a value that does not fit.

    Examples
    --------
    >>> parse_rule("uniform[n=4]").n
    4
    """
    asked = f"make views as '{text}'"
    try:
        name, given = parse_spec(text)
    except RecipeError as error:
        raise UsageError(asked, error.seen, "Write uniform[n=8] or attention[n=50].") from None
    if name not in RULES:
        raise UsageError(asked, f"there is no rule '{name}'", f"Known: {', '.join(RULES)}.")
    types = typing.get_type_hints(RULES[name])
    known = {f.name: types[f.name] for f in fields(RULES[name]) if f.init}
    values: dict[str, Any] = {}
    for key, value in given.items():
        if key not in known:
            seen = f"'{name}' has no parameter '{key}'"
            raise UsageError(asked, seen, f"It has: {', '.join(known)}.")
        kind = known[key] if known[key] in (int, float) else str
        try:
            values[key] = kind(value)
        except ValueError:
            number = "a whole number" if kind is int else "a number"
            raise UsageError(asked, f"{key} is '{value}'", f"Give {number}.") from None
    return RULES[name](**values)


@dataclass(frozen=True)
class Crops(Preprocess):
    """A preprocessing that makes the pixels (V, size, size, 3) of the crops of one image.

    Being a preprocessing, it is part of the fingerprint under which vectors are cached.

    Examples
    --------
    >>> crops = Crops.of(Preprocess(size=8, resize=8), Uniform(n=3))
    >>> crops.pixels(Image.new("RGB", (40, 30)), b"a photo").shape
    (3, 8, 8, 3)
    """

    rule: Rule = field(default_factory=Uniform)
    # Set by `of`; no field, since a function has no place in a fingerprint.
    attend: ClassVar[Any] = None

    @classmethod
    def of(cls, preprocess: Preprocess, rule: Rule, attend: Attend | None = None) -> Self:
        """Crops for the encoder of this preprocessing; ``attend`` is its attention (B, h, w)."""
        made = cls(**asdict(preprocess), rule=rule)
        object.__setattr__(made, "attend", attend)
        return made

    def load(self, data: bytes) -> NDArray[np.uint8]:
        """Decode a file and cut its crops; the crops depend on its bytes."""
        return self.pixels(decode(data, target=math.ceil(self.resize / self.rule.low)), data)

    def pixels(self, image: Image.Image, content: bytes) -> NDArray[np.uint8]:
        """(V, size, size, 3) pixels; ``content`` decides, with the seed, where the crops lie."""
        digest = hashlib.blake2b(content, digest_size=8).digest()
        rng = np.random.default_rng([self.rule.seed, int.from_bytes(digest, "big")])
        boxes = self.boxes(image, rng)
        return np.stack([to_pixels(image.crop(box), self) for box in boxes])

    def boxes(self, image: Image.Image, rng: np.random.Generator) -> list[Box]:
        """Left, top, right, bottom of each crop.

        A crop is a square, of a share of the short side; or, where the encoder sees the whole image
        squashed, the same share of both sides. One that would reach beyond the image is moved
        inside it.
        """
        rule, size = self.rule, np.array(image.size, np.float64)
        if isinstance(rule, Uniform) and rule.places == "grid":
            ratios, places = np.full(rule.n, (rule.low + rule.high) / 2), _grid(rule.n)
        else:
            ratios = rng.uniform(rule.low, rule.high, rule.n)
            places = rng.random((rule.n, 2))
        base = size if self.mode == "squash" else np.full(2, size.min())
        sides = np.maximum(np.rint(ratios[:, None] * base), 1)
        corners = places * (size - sides)
        if isinstance(rule, Attention):
            corners = self._centres(image, rule, rng) - sides / 2
        corners = np.rint(np.clip(corners, 0, size - sides))
        found = np.concatenate([corners, corners + sides], axis=1).astype(int)
        return [(box[0], box[1], box[2], box[3]) for box in found.tolist()]

    def _centres(
        self, image: Image.Image, rule: Attention, rng: np.random.Generator
    ) -> NDArray[np.float64]:
        """Centres (n, 2), in pixels of the image, of patches drawn by their attention."""
        assert self.attend is not None
        seen = self.attend(to_pixels(image, self)[None])[0]
        h, w = seen.shape
        values = seen.astype(np.float64).reshape(-1)
        best = np.argsort(-values, kind="stable")[: rule.top]
        odds = np.exp((values[best] - values[best[0]]) / rule.temperature)
        row, column = np.divmod(rng.choice(best, rule.n, p=odds / odds.sum()), w)
        size = np.array(image.size, np.float64)
        window = size
        if self.mode == "shortest":  # the part that the encoder sees, in pixels of the image
            window = np.full(2, size.min() * self.size / self.resize)
        share = np.stack([(column + 0.5) / w, (row + 0.5) / h], axis=1)
        centres: NDArray[np.float64] = (size - window) / 2 + share * window
        return centres


def _grid(n: int) -> NDArray[np.float64]:
    """n places (x, y) between 0 and 1, in rows that are as even as can be."""
    rows = max(1, round(math.sqrt(n)))
    lengths = [len(part) for part in np.array_split(np.arange(n), rows)]
    ys = _spread(rows)
    return np.array([(x, y) for y, c in zip(ys, lengths, strict=True) for x in _spread(c)])


def _spread(count: int) -> list[float]:
    return [0.5] if count == 1 else np.linspace(0, 1, count).tolist()


def _check(rule: Rule) -> None:
    if not 1 <= rule.n <= MOST:
        raise _unfit(rule, "n", f"1 to {MOST}")
    if not 0 < rule.low <= rule.high <= 1:
        seen = f"low is {rule.low} and high is {rule.high}"
        raise UsageError(
            f"make views as '{rule.kind}'", seen, "They are shares: 0 < low <= high <= 1."
        )
    if rule.seed < 0:
        raise _unfit(rule, "seed", "0 or more")


def _unfit(rule: Rule, name: str, wanted: str) -> UsageError:
    seen = f"{name} is {getattr(rule, name)!r}"
    return UsageError(f"make views as '{rule.kind}'", seen, f"It is {wanted}.")
