"""The optional arrays of a task file: what each must look like, and where it goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from byname.errors import EmbeddingsError
from byname.ops import unit
from byname.stage import SecondTexts, Support

__all__ = ["OPTIONAL", "TaskExtra", "read_extra"]

Kind = Literal["generated", "pseudo", "labelled"]
IMAGES = {"views": "(N, V, D)", "tokens": "(N, T, D)", "second": "(N, D2)", "captions": "(N, J, D)"}
OTHERS = {"reference": "(R, D)", "support": "(S, D)", "support_captions": "(S, D)"}
TEXTS = {"text_tokens": "(P, K, L, D)", "second_texts": "(P, K, D2)", "null": "(J0, D)"}
UNIT_ROWS = IMAGES | OTHERS | TEXTS | {"class_vectors": "(K0, D)"}
LOG_VARS = {"log_var": "(N, D)", "text_log_var": "(P, K, D)"}
NAMES = {"kinds": "(P,)", "contexts": "(P,)", "groups": "(P, K)"}
ONES = ("second_scale", "support_kind")
OPTIONAL = (
    *UNIT_ROWS,
    *LOG_VARS,
    *NAMES,
    *ONES,
    "class_probs",
    "support_class",
    "levels",
)
"""Keys that a task file may hold beside the vectors of its images and texts."""
PARTNERS = {
    "second_texts": "second",
    "second_scale": "second_texts",
    "class_probs": "class_vectors",
    "class_vectors": "class_probs",
    "support": "support_class",
    "support_class": "support",
    "support_captions": "support",
    "support_kind": "support",
}
TOLERANCE = 0.02  # of sums of probabilities that were kept as float16


@dataclass(frozen=True, eq=False)
class TaskExtra:
    """What a task holds beside the vectors of its images and texts.

    ``images``: fields of :class:`byname.flow.Batch`. ``texts``: arrays (P, K, ...) by fields of
    :class:`byname.flow.ClassTexts`, ``templates``: numbers or texts (P,) likewise, ``group`` texts
    (P, K). ``null`` (J, D).

    Examples
    --------
    >>> found = TaskExtra(templates={"level": np.array([0, 1])}).for_texts(np.array([1]), 2)
    >>> found["level"].tolist()
    [1, 1]
    """

    images: Mapping[str, Any] = field(default_factory=dict)
    texts: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    templates: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    group: NDArray[np.str_] | None = None
    null: NDArray[np.float32] | None = None
    second_scale: float = 100.0

    def for_texts(self, picked: NDArray[np.intp], K: int) -> dict[str, Any]:
        """Fields of ClassTexts for these templates of K classes, class by class."""
        made: dict[str, Any] = {}
        for name, array in self.texts.items():
            array = array if len(picked) == len(array) else array[picked]
            rows = np.ascontiguousarray(np.swapaxes(array, 0, 1))
            made[name] = rows.reshape(-1, *array.shape[2:])
        if "second_texts" in made:
            made["second_texts"] = SecondTexts(made["second_texts"], self.second_scale)
        tiled = {name: np.tile(values[picked], K) for name, values in self.templates.items()}
        if "kind" in tiled:
            made["kind"] = tuple(map(str, tiled["kind"]))
        if "level" in tiled:
            made["level"] = tiled["level"]
        if "context" in tiled:
            made["context"], names = _numbered([name or None for name in tiled["context"].tolist()])
            made["context_names"] = tuple(names)
        if self.group is not None:
            pairs = [(k, str(name)) for k, own in enumerate(self.group[picked].T) for name in own]
            made["group"], keys = _numbered([pair if pair[1] else None for pair in pairs])
            made["group_names"] = tuple(name for _, name in keys)
        if self.null is not None:
            made["null"] = self.null
        return made


def _numbered(keys: Sequence[Any]) -> tuple[NDArray[np.intp], list[Any]]:
    """Number of each key by first appearance, -1 for None; and the different keys."""
    found: dict[Any, int] = {}
    numbers = [-1 if key is None else found.setdefault(key, len(found)) for key in keys]
    return np.array(numbers, np.intp), list(found)


def read_extra(
    raw: Mapping[str, NDArray[Any]], sizes: Mapping[str, int], classes: Sequence[str], asked: str
) -> TaskExtra:
    """Check the optional arrays of a task.

    Parameters
    ----------
    raw : mapping of str to array
        All arrays of the file; those that are not in ``OPTIONAL`` are passed over.
    sizes : mapping of str to int
        N, D, P and K of the task.
    classes : sequence of str, length K
    asked : str
        What was asked for, for messages.

    Raises
    ------
    EmbeddingsError
        For an array whose shape, type or values do not fit, or that lacks its partner, by name.
    """
    given = {key: raw[key] for key in OPTIONAL if key in raw}
    if not given:
        return TaskExtra()
    for key, partner in PARTNERS.items():
        if key in given and partner not in given:
            seen = f"'{key}' is there, but '{partner}' is not"
            raise EmbeddingsError(asked, seen, "Give both or neither; see docs/formats.md.")
    check = _Check(dict(sizes), asked)
    rows = {key: check.rows(key, given[key]) for key in UNIT_ROWS if key in given}
    spread = {key: check.floats(key, given[key], s) for key, s in LOG_VARS.items() if key in given}
    names = {key: check.names(key, given[key], s) for key, s in NAMES.items() if key in given}
    images: dict[str, Any] = {key: rows[key] for key in (*IMAGES, "reference") if key in rows}
    if "log_var" in spread:
        images["log_var"] = spread["log_var"]
    if "class_probs" in given:
        found = check.floats("class_probs", given["class_probs"], "(N, K0)")
        images["class_probs"] = (check.probabilities(found), rows["class_vectors"])
    if "support" in rows:
        images["support"] = Support(
            rows["support"],
            check.classes(given["support_class"], classes),
            check.kind(given.get("support_kind")),
            rows.get("support_captions"),
        )
    texts: dict[str, NDArray[Any]]
    texts = {key: rows[key] for key in ("text_tokens", "second_texts") if key in rows}
    if "text_log_var" in spread:
        texts["text_log_var"] = spread["text_log_var"]
    templates: dict[str, NDArray[Any]]
    templates = {key[:-1]: names[key] for key in ("kinds", "contexts") if key in names}
    if "levels" in given:
        templates["level"] = check.levels(given["levels"])
    return TaskExtra(
        images=images,
        texts=texts,
        templates=templates,
        group=names.get("groups"),
        null=rows.get("null"),
        second_scale=check.scale(given.get("second_scale")),
    )


@dataclass
class _Check:
    """``sizes``: those of the dimensions that are known, by their letters; others are learnt."""

    sizes: dict[str, int]
    asked: str

    def refuse(self, key: str, seen: str, do: str) -> EmbeddingsError:
        return EmbeddingsError(self.asked, f"'{key}' {seen}", do)

    def shape(self, key: str, array: NDArray[Any], wanted: str, kinds: str, what: str) -> None:
        letters = [part.strip() for part in wanted.strip("()").split(",") if part.strip()]
        fits = array.dtype.kind in kinds and array.ndim == len(letters)
        known = {x: self.sizes[x] for x in letters if x in self.sizes}
        for letter, size in zip(letters, array.shape if fits else (), strict=fits):
            fits = fits and self.sizes.setdefault(letter, size) == size
        if not fits:
            values = " and ".join(f"{letter} = {size}" for letter, size in known.items())
            raise self.refuse(
                key,
                f"has the shape {array.shape} and the type {array.dtype}",
                f"It must be {wanted}, of {what}" + (f", with {values}." if values else "."),
            )

    def floats(self, key: str, array: NDArray[Any], wanted: str) -> NDArray[np.float32]:
        self.shape(key, array, wanted, "f", "floats")
        found = np.asarray(array, np.float32)
        bad = int((~np.isfinite(found)).sum())
        if bad:
            raise self.refuse(key, f"holds {bad} NaN or infinite values", "Compute it again.")
        return found

    def rows(self, key: str, array: NDArray[Any]) -> NDArray[np.float32]:
        """Rows of length one; rows of zeros stay zero."""
        found: NDArray[np.float32] = unit(self.floats(key, array, UNIT_ROWS[key]))
        return found

    def names(self, key: str, array: NDArray[Any], wanted: str) -> NDArray[np.str_]:
        self.shape(key, array, wanted, "U", "texts")
        return array

    def probabilities(self, array: NDArray[np.float32]) -> NDArray[np.float32]:
        sums = array.sum(1, dtype=np.float64)
        if array.size and (array.min() < 0 or sums.max() > 1 + TOLERANCE):
            seen = f"has values down to {array.min():.3g} and rows that sum to {sums.max():.3g}"
            raise self.refuse(
                "class_probs", seen, "Give probabilities: 0 or more, at most 1 a row."
            )
        return array

    def classes(self, array: NDArray[Any], classes: Sequence[str]) -> NDArray[np.intp]:
        """Class numbers, or names of classes, as numbers."""
        key, K = "support_class", len(classes)
        self.shape(key, array, "(S,)", "iuU", f"numbers below {K} or names of classes")
        if array.dtype.kind != "U":
            if len(array) and not (array.min() >= 0 and array.max() < K):
                seen = f"goes from {array.min()} to {array.max()}"
                raise self.refuse(key, seen, f"It counts the {K} classes from 0.")
            return array.astype(np.intp)
        place = {name: k for k, name in enumerate(classes)}
        unknown = [str(name) for name in array if str(name) not in place]
        if unknown:
            seen = f"holds {len(unknown)} names of no class, the first is '{unknown[0]}'"
            raise self.refuse(key, seen, "Give names as they stand in 'classes', or their numbers.")
        return np.array([place[str(name)] for name in array], np.intp)

    def kind(self, array: NDArray[Any] | None) -> Kind:
        text = "generated" if array is None else str(array.item()) if array.size == 1 else "?"
        if text not in get_args(Kind):
            raise self.refuse("support_kind", f"is '{text}'", f"Use {', '.join(get_args(Kind))}.")
        return cast(Kind, text)

    def levels(self, array: NDArray[Any]) -> NDArray[np.intp]:
        self.shape("levels", array, "(P,)", "iu", "whole numbers")
        if len(array) and array.min() < -1:
            raise self.refuse("levels", f"goes down to {array.min()}", "-1 is for none.")
        return array.astype(np.intp)

    def scale(self, array: NDArray[Any] | None) -> float:
        if array is None:
            return 100.0
        if array.size != 1 or array.dtype.kind not in "fiu" or not 0 < float(array.item()) < np.inf:
            raise self.refuse("second_scale", f"is {array.tolist()!r}", "Give one positive number.")
        return float(array.item())
