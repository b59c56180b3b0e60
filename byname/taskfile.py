"""Ready tasks: one .npz file with vectors of images and texts, and a taxonomy beside it."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from byname.errors import (
    EmbeddingsError,
    NeedsError,
    TaxonomyError,
    quoted,
)
from byname.npz import read_arrays
from byname.ops import unit
from byname.stage import Batch, ClassTexts, parse_spec
from byname.taskextra import OPTIONAL, TaskExtra, read_extra
from byname.taxonomy import Node, Taxonomy, clean_text
from byname.taxonomy_io import read_taxonomy

__all__ = ["PLAIN_TEMPLATE", "Task"]

PLAIN_TEMPLATE = "a photo of a {}."
_PEEK = 200  # bytes of a file that tell a report from a taxonomy
_KEYS = ("images", "texts", "classes", "templates")
_DO = (
    "A task holds images (N, D), texts (P, K, D), labels (N,), classes (K,), templates (P,) and, "
    "if it is not 100, scale; see docs/formats.md."
)


@dataclass(frozen=True, eq=False)
class Task:
    """The vectors of N images and of K classes in P templates.

    Parameters
    ----------
    images : array, shape (N, D), float32
        Unit rows.
    texts : array, shape (P, K, D), float32
        Unit rows.
    templates : tuple of str, length P
    taxonomy : Taxonomy
        With the names of the classes as ids, in the order of ``texts``.
    scale : float
        Logit scale.
    labels : array of intp, shape (N,), optional
        For ``evaluate`` alone: neither :meth:`batch` nor :meth:`texts_for` hands them on.
    path : str
        Where it was read from.
    extra : TaskExtra
        What else it holds of its images and texts: see docs/formats.md.

    Examples
    --------
    >>> task = Task(np.eye(2), np.eye(2)[None], ("a {}",), Taxonomy.from_names(["cat", "dog"]))
    >>> len(task.batch()), task.texts_for("templates[set=single]").vectors.shape
    (2, (2, 2))
    """

    images: NDArray[np.float32]
    texts: NDArray[np.float32]
    templates: tuple[str, ...]
    taxonomy: Taxonomy
    scale: float = 100.0
    labels: NDArray[np.intp] | None = None
    path: str = ""
    extra: TaskExtra = field(default_factory=TaskExtra)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        taxonomy: str | os.PathLike[str] | Taxonomy | None = None,
        with_labels: bool = True,
    ) -> Self:
        """Read a task.

        Parameters
        ----------
        path : path of an .npz file
        taxonomy : path or Taxonomy, optional
            By default the .json or .csv file of the same stem, if there is one, else a flat list;
            an empty .json file and a report are passed over.
            Its classes are matched by id or by name.
        with_labels : bool
            False: the labels are not even read.

        Raises
        ------
        EmbeddingsError
            For a missing, damaged or incomplete file, and shapes, names or values that do not fit.
        UnsafeFileError
            For arrays of Python objects, or sizes beyond all measure.
        TaxonomyError
            For a taxonomy with other classes.
        """
        path = Path(path)
        asked = f"read the task '{path}'"
        keys = ("labels", *_KEYS) if with_labels else _KEYS
        raw = read_arrays(path, asked, keys, ("scale", *OPTIONAL), _DO)
        images, texts = raw["images"], raw["texts"]
        classes, templates = (_names(raw[key], key, asked) for key in ("classes", "templates"))
        _check_shapes(asked, images, texts, classes, templates)
        _check_classes(asked, classes)
        chosen = taxonomy if taxonomy is not None else _beside(path)
        sizes = dict(zip("PKD", texts.shape, strict=True)) | {"N": len(images)}
        return cls(
            extra=read_extra(raw, sizes, classes, asked),
            images=_unit_rows(asked, images, lambda i: f"image {i[0]}"),
            texts=_unit_rows(
                asked, texts, lambda i: f"class '{classes[i[1]]}' in template '{templates[i[0]]}'"
            ),
            templates=templates,
            taxonomy=_taxonomy(classes, chosen),
            scale=_scale(asked, raw.get("scale")),
            labels=_labels(asked, raw["labels"], len(images), classes) if with_labels else None,
            path=str(path),
        )

    def batch(self) -> Batch:
        """The images and what else the task holds of them, without labels."""
        return Batch(self.images, **self.extra.images)

    def with_second(self, other: Task) -> Self:
        """This task with the vectors of another one, of the same images, as ``second``.

        Its texts come with it: classes and templates are matched by name.

        Raises
        ------
        EmbeddingsError
            For another number of images, or other classes or templates.
        """
        asked = f"use '{other.path}' as the second encoder of '{self.path}'"
        if len(self.images) != len(other.images):
            seen = f"it has {len(other.images)} images, and not {len(self.images)}"
            raise EmbeddingsError(asked, seen, "Both must hold the same images in the same order.")
        order = []
        for what, ours, theirs in (
            ("classes", self.taxonomy.class_ids, other.taxonomy.class_ids),
            ("templates", self.templates, other.templates),
        ):
            if sorted(ours) != sorted(theirs):
                odd = sorted(set(ours) ^ set(theirs))
                seen = f"its {what} differ: {quoted(odd) or 'one stands twice'}"
                raise EmbeddingsError(asked, seen, f"Both must have the same {what}.")
            place = {name: i for i, name in enumerate(theirs)}
            order.append([place[name] for name in ours])
        texts = other.texts[np.ix_(order[1], order[0])]
        extra = replace(
            self.extra,
            images={**self.extra.images, "second": other.images},
            texts={**self.extra.texts, "second_texts": texts},
            second_scale=other.scale,
        )
        return replace(self, extra=extra)

    def texts_for(self, prompts: str) -> ClassTexts:
        """The texts that a recipe with this prompts stage uses.

        Parameters
        ----------
        prompts : str
            ``"templates[set=single]"``: "a photo of a {}." if the task has it, else its first
            template. Any other set of templates: all templates of the task.

        Returns
        -------
        ClassTexts
            Class by class, the templates of each in order.

        Raises
        ------
        NeedsError
            For a prompts stage of other texts, which a task does not have.
        """
        name, given = parse_spec(prompts)
        if name != "templates":
            raise NeedsError(
                f"use the prompts '{prompts}' with the task '{self.path}'",
                "a task holds the vectors of templates only",
                "Choose a recipe with templates, or classify images with an encoder.",
            )
        if given.get("set") != "single":
            return self._class_texts(np.arange(len(self.templates)))
        plain = self.templates.index(PLAIN_TEMPLATE) if PLAIN_TEMPLATE in self.templates else 0
        return self._class_texts(np.array([plain]))

    def _class_texts(self, picked: NDArray[np.intp]) -> ClassTexts:
        texts = self.texts if len(picked) == len(self.texts) else self.texts[picked]
        P, K, D = texts.shape
        index = np.repeat(np.arange(K), P)
        given = {"kind": ("template",) * (K * P)} | self.extra.for_texts(picked, K)
        return ClassTexts(
            vectors=np.ascontiguousarray(texts.transpose(1, 0, 2)).reshape(K * P, D),
            class_index=index,
            taxonomy=self.taxonomy,
            prompt_index=np.tile(np.arange(P), K),
            node_id=tuple(self.taxonomy.class_ids[k] for k in index),
            scale=self.scale,
            **given,
        )


def _names(array: NDArray[Any], key: str, asked: str) -> tuple[str, ...]:
    if array.ndim != 1 or array.dtype.kind != "U" or not len(array):
        seen = f"'{key}' has the shape {array.shape} and the type {array.dtype}"
        raise EmbeddingsError(asked, seen, "Give a list of texts, at least one.")
    return tuple(str(name) for name in array)


def _check_shapes(
    asked: str,
    images: NDArray[Any],
    texts: NDArray[Any],
    classes: Sequence[str],
    templates: Sequence[str],
) -> None:
    for key, array, wanted in (("images", images, "(N, D)"), ("texts", texts, "(P, K, D)")):
        if array.ndim != wanted.count(",") + 1 or array.dtype.kind != "f" or not array.shape[-1]:
            seen = f"'{key}' has the shape {array.shape} and the type {array.dtype}"
            raise EmbeddingsError(asked, seen, f"It must be {wanted}, of floats.")
    if images.shape[1] != texts.shape[2]:
        seen = f"images are {images.shape[1]} wide, texts {texts.shape[2]}"
        raise EmbeddingsError(asked, seen, "Both must come from one encoder.")
    if texts.shape[:2] != (len(templates), len(classes)):
        seen = (
            f"texts are {texts.shape[0]} x {texts.shape[1]}, but there are {len(templates)} "
            f"templates and {len(classes)} classes"
        )
        raise EmbeddingsError(asked, seen, "Texts have the shape (templates, classes, width).")


def _check_classes(asked: str, classes: Sequence[str]) -> None:
    counts = Counter(map(clean_text, classes))
    twice = [name for name, n in counts.items() if n > 1]
    if twice:
        seen = f"{len(twice)} class names stand twice: {quoted(twice)}"
        raise EmbeddingsError(asked, seen, "Names are the ids of a task: make them unique.")


def _unit_rows(asked: str, array: NDArray[Any], name: Any) -> NDArray[np.float32]:
    bad = np.argwhere(~np.isfinite(array).all(axis=-1))
    if len(bad):
        seen = f"{len(bad)} vectors hold NaN or infinite values, the first is {name(bad[0])}"
        raise EmbeddingsError(asked, seen, "Leave them out, or embed them again.")
    return np.asarray(unit(array), np.float32)


def _scale(asked: str, array: NDArray[Any] | None) -> float:
    if array is None:
        return 100.0
    if array.size != 1 or array.dtype.kind not in "fiu" or not 0 < float(array.item()) < np.inf:
        raise EmbeddingsError(asked, f"scale is {array.tolist()!r}", "Give one positive number.")
    return float(array.item())


def _labels(asked: str, array: NDArray[Any], n: int, classes: Sequence[str]) -> NDArray[np.intp]:
    if array.shape != (n,) or array.dtype.kind not in "iu":
        seen = f"labels have the shape {array.shape} and the type {array.dtype}"
        raise EmbeddingsError(asked, seen, f"Give {n} whole numbers, one an image.")
    if n and not (array.min() >= 0 and array.max() < len(classes)):
        seen = f"labels go from {array.min()} to {array.max()}"
        raise EmbeddingsError(asked, seen, f"They count the {len(classes)} classes from 0.")
    return array.astype(np.intp)


def _beside(path: Path) -> Path | None:
    files = [path.with_suffix(suffix) for suffix in (".json", ".csv")]
    return next((file for file in files if file.is_file() and not _is_output(file)), None)


def _is_output(path: Path) -> bool:
    """Whether this is what ``diagnose --json > F.json`` leaves beside F.npz, and no taxonomy."""
    if path.suffix != ".json":
        return False
    with path.open("rb") as file:
        start = file.read(_PEEK).strip()
    return not start or re.match(rb'\{\s*"format"\s*:\s*"byname-report/', start) is not None


def _taxonomy(classes: Sequence[str], source: str | os.PathLike[str] | Taxonomy | None) -> Taxonomy:
    """The tree over the classes, with their names as ids and in their order."""
    if source is None:
        return Taxonomy(Node(name, name) for name in classes)
    found = read_taxonomy(source)
    unique = found.unique_names()
    ids = set(found.class_ids)
    wanted = {name: clean_text(name) for name in classes}
    leaf = {name: text if text in ids else unique.get(text) for name, text in wanted.items()}
    missing = [name for name, node in leaf.items() if node is None]
    extra = sorted(ids - set(leaf.values()))
    if missing or extra or len(set(leaf.values())) < len(leaf):
        parts = [f"no leaf for the classes {quoted(missing)}"] if missing else []
        parts += [f"no class for the leaves {quoted(extra)}"] if extra else []
        raise TaxonomyError(
            "match the taxonomy with the classes of the task",
            " and ".join(parts) or "two classes match one leaf",
            "Its leaves bear the classes' names, each once."
            + ("" if isinstance(source, Taxonomy) else f" It was read from '{source}'."),
        )
    inner = [node for node in found.nodes if node.id and node.id not in ids]
    free: dict[str, str] = {}
    taken = {*wanted.values(), *(node.id for node in inner)}
    for node in inner:  # a group may be called as a class is
        new = node.id
        while new in wanted.values() or (new != node.id and new in taken):
            new += " (group)"
        free[node.id] = new
        taken.add(new)
    nodes = [replace(node, id=free[node.id], parent=free.get(node.parent or "")) for node in inner]
    for name in classes:
        node = found.node(leaf[name] or "")
        nodes.append(Node(name, name, free.get(node.parent or ""), node.aliases, node.description))
    return Taxonomy(nodes, levels=found.levels)
