"""The state of one server: images, class list, corrections, and what was computed of them."""

from __future__ import annotations

import base64
import functools
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from byname import __version__
from byname.embeddings import Embeddings
from byname.errors import BynameError
from byname.images.sources import Source
from byname.inputs import as_embeddings, check_vectors
from byname.promptset import PromptSet
from byname.provenance import versions
from byname.recipes import Recipe, get_recipe
from byname.report.data import make_report
from byname.report.page import page
from byname.serve.classlist import MOST, ClassItem, described, taxonomy_of
from byname.serve.encoder import SharedEncoder, Stopped
from byname.serve.export import table
from byname.serve.menu import kind, menu
from byname.serve.pictures import Picture, Shot, Store, take_in
from byname.serve.problems import Problem
from byname.serve.scores import (
    Run,
    chosen,
    differ,
    make_run,
    order_of,
    rows_of,
    summary_of,
    why_of,
)
from byname.serve.uploads import Limits
from byname.taxonomy import Taxonomy
from byname.textvectors import text_vectors

__all__ = ["ScoreRequest", "Session"]

RUNS = 6  # (class list, recipe) that are kept fitted
BATCH = 16  # images encoded together at the start, so that others get their turn soon
NOTHING: dict[str, Any] = {
    "expected_accuracy": None,
    "interval": None,
    "classes": [],
    "notes": [],
}
_menu = functools.lru_cache(maxsize=2)(menu)


class ScoreRequest(BaseModel):
    """The body of ``POST /api/score``."""

    model_config = ConfigDict(extra="ignore")

    classes: list[ClassItem] | None = Field(default=None, max_length=MOST)
    recipes: list[Annotated[str, Field(max_length=200)]] | None = Field(
        default=None, min_length=1, max_length=3
    )
    template: str | None = Field(default=None, max_length=500)
    offset: int = Field(default=0, ge=0, le=10**9)
    limit: int = Field(default=200, ge=0, le=1000)
    order: Literal["doubt", "class", "name"] = "doubt"
    only_class: str | None = Field(default=None, max_length=300)
    only_differ: bool = False
    only_corrected: bool = False
    find: str = Field(default="", max_length=200)


class Session:
    """Everything that one user's page works with; safe for several threads.

    Parameters
    ----------
    taxonomy : Taxonomy
        The classes given at the start.
    encoder : SharedEncoder
    recipe : str
        The recipe that is shown first.
    title : str
    limits : Limits

    Examples
    --------
    >>> import numpy as np
    >>> from byname.encoders import PrecomputedEncoder
    >>> texts = ["a photo of a cat.", "a photo of a dog."]
    >>> encoder = SharedEncoder(PrecomputedEncoder.from_arrays(texts, np.eye(2)))
    >>> session = Session(Taxonomy.from_names(["cat", "dog"]), encoder, recipe="plain")
    >>> _ = session.store.add("a.jpg", np.array([1.0, 0.0]))
    >>> session.score(ScoreRequest())["rows"][0]["answers"][0]["class_id"]
    'cat'
    """

    def __init__(
        self,
        taxonomy: Taxonomy,
        encoder: SharedEncoder,
        *,
        recipe: str = "ensemble",
        title: str = "byname",
        limits: Limits | None = None,
    ) -> None:
        self.base, self.encoder, self.title = taxonomy, encoder, title
        self.limits = limits or Limits()
        self.store = Store(encoder.info.dim, self.limits.images)
        able, self.unavailable = _menu(taxonomy.height > 1)
        self.recipe: Recipe = get_recipe(recipe)
        self.recipes = [one for one in able if one["name"] != self.recipe.name]
        own = {"name": self.recipe.name, "idea": self.recipe.title, "kind": kind(recipe)}
        self.recipes.insert(0, own)
        self.unreadable: dict[str, str] = {}
        self._runs: OrderedDict[tuple[Any, ...], Run] = OrderedDict()
        self._lock, self._work = threading.Lock(), threading.Lock()
        self._current, self._template = taxonomy, None  # type: Taxonomy, str | None
        # By image: id and name of the class that it shows, and of the node that was answered.
        self._corrections: dict[str, tuple[tuple[str, str], tuple[str, str]]] = {}
        self._predicted: dict[str, tuple[str, str]] = {}
        self._progress: dict[str, tuple[int, int]] = {}
        encoder.progress = self.advance

    # -- work that takes long

    def advance(self, what: str, done: int, total: int) -> None:
        """Note how far some work is; it is over where all is done."""
        with self._lock:
            if done >= total:
                self._progress.pop(what, None)
            else:
                self._progress[what] = (done, total)

    def progress(self) -> dict[str, Any]:
        """What is being done, and how much of how much; "" where nothing is."""
        with self._lock:
            what = next(reversed(self._progress), "")
            done, total = self._progress.get(what, (0, 0))
        return {"what": what, "done": done, "total": total}

    def warm(self, prompts: PromptSet, cache: bool, progress: Callable[[int, int], None]) -> None:
        """Encode the texts of the start, through the cache on disk."""
        texts = list(dict.fromkeys(p.text for each in prompts.classes.values() for p in each))
        vectors = text_vectors(self.encoder.inner, cache, progress)(texts)
        self.encoder.remember(texts, vectors, most=max(50_000, 2 * len(texts)))

    def embed(self, source: Source | Embeddings, *, cache: bool = True) -> None:
        """Take in the images of the start: through runs and cache, as ``byname classify`` does."""
        total, done = len(source), 0

        def advance(n: int, encoded: bool) -> None:
            nonlocal done
            if self.encoder.stopped.is_set():
                raise Stopped
            done += n
            self.advance("images", min(done, total - 1), total)

        self.advance("images", 0, total)
        try:
            found = as_embeddings(
                source, self.encoder, batch_size=BATCH, cache=cache, progress=advance
            )
            check_vectors(found, self.encoder.info)
            refs = {r.key: r for r in source.refs} if isinstance(source, Source) else {}
            for key, vector in zip(found.keys, found.vectors, strict=True):
                self.store.add(key, vector, ref=refs.get(key))
            self.unreadable.update(found.errors)
        finally:
            self.advance("images", 0, 0)

    def add_upload(self, name: str, data: bytes) -> Picture:
        """Decode, encode, keep a vector and a small picture; the bytes are dropped.

        Raises
        ------
        ImageError, Problem, UsageError
        """
        self.store.check_room()
        vector, thumb = take_in(data, self.encoder, self.limits.pixels)
        return self.store.add(name, vector, thumb)

    def stop(self) -> None:
        """End what is going on: the next call of the encoder is refused."""
        self.encoder.stopped.set()

    # -- what is asked

    def state(self) -> dict[str, Any]:
        """What the page begins with."""
        limits = self.limits
        return {
            "title": self.title,
            "encoder": self.encoder.info.id,
            "recipes": self.recipes,
            "unavailable": self.unavailable,
            "recipe": self.recipe.name,
            "classes": described(self._current),
            "template": self._template,
            "images": len(self.store),
            "unreadable": [{"name": n, "error": e} for n, e in list(self.unreadable.items())[:100]],
            "corrections": len(self._corrections),
            "limits": {
                "upload_bytes": limits.file,
                "request_bytes": limits.body,
                "files": limits.parts,
                "images": limits.images,
                "pixels": limits.pixels,
                "classes": MOST,
            },
            "version": __version__,
        }

    def score(self, asked: ScoreRequest) -> dict[str, Any]:
        """Answers of one to three recipes for a class list, and part of the rows.

        What is wrong with the classes is an error; what one recipe lacks stands in its run.
        """
        start = time.perf_counter()
        taxonomy = taxonomy_of(asked.classes, self.base)
        shot = self.store.shot()
        names = list(dict.fromkeys(asked.recipes or [self.recipe.name]))
        runs: list[Run | None] = []
        told: list[dict[str, Any]] = []
        for name in names:
            try:
                run = self._run(shot, taxonomy, name, asked.template)
                runs.append(run)
                told.append(summary_of(run))
            except BynameError as error:
                runs.append(None)
                said = {"asked": error.asked, "seen": error.seen, "do": error.do}
                told.append({"recipe": name, **NOTHING, "error": said})
        first = next((run for run in runs if run is not None), None)
        if first is not None:
            self._remember(taxonomy, asked.template, first)
        corrected = self._corrected()
        differing = differ(runs, len(shot.pictures))
        wanted = chosen(
            runs,
            shot,
            only_class=asked.only_class,
            only_differ=differing if asked.only_differ else None,
            only=set(corrected) if asked.only_corrected else None,
            find=asked.find,
        )
        order = order_of(first, shot, asked.order)
        order = order[wanted[order]]
        places = order[asked.offset : asked.offset + asked.limit].tolist()
        return {
            "seconds": round(time.perf_counter() - start, 4),
            "runs": told,
            "total": len(order),
            "differ": int(differing.sum()),
            "rows": rows_of(runs, shot, places, corrected),
            "notes": list(taxonomy.warnings),
        }

    def _remember(self, taxonomy: Taxonomy, template: str | None, run: Run) -> None:
        answer, tree = run.subject.decided
        predicted = {
            picture.id: (tree.nodes[k].id, tree.nodes[k].name)
            for picture, k in zip(run.shot.pictures, answer.node[:, 0].tolist(), strict=True)
        }
        with self._lock:
            self._current, self._template, self._predicted = taxonomy, template, predicted

    def _run(self, shot: Shot, taxonomy: Taxonomy, name: str, template: str | None) -> Run:
        """The fitted run, made if it is not there; one is made at a time."""
        key = (shot.version, taxonomy.fingerprint(), name, template)
        with self._work:
            if key in self._runs:
                self._runs.move_to_end(key)
                return self._runs[key]
            # Runs of images that are no longer these are of no use, and hold their vectors.
            for old in [k for k in self._runs if k[0] != shot.version]:
                del self._runs[old]
            run = make_run(shot, taxonomy, self._known(name), self.encoder, template=template)
            self._runs[key] = run
            while len(self._runs) > RUNS:
                self._runs.popitem(last=False)
            return run

    def _known(self, name: str) -> Recipe:
        """Only recipes of the menu: parameters of a member could name files."""
        if name == self.recipe.name:
            return self.recipe
        if name not in {one["name"] for one in self.recipes}:
            reasons = {one["name"]: one["reason"] for one in self.unavailable}
            seen = reasons.get(name, "there is no such recipe here")
            raise Problem(400, f"use the recipe {name[:80]!r}", seen, "Choose one of the list.")
        return get_recipe(name)

    def _now(self, recipe: str | None) -> Run:
        """The class list that was scored last, under a recipe."""
        with self._lock:
            taxonomy, template = self._current, self._template
        return self._run(self.store.shot(), taxonomy, recipe or self.recipe.name, template)

    def why(self, image: str, recipe: str | None = None) -> dict[str, Any]:
        """Why one image is answered so."""
        self.store.get(image)
        run = self._now(recipe)
        place = {picture.id: i for i, picture in enumerate(run.shot.pictures)}
        if image not in place:
            raise Problem(404, f"explain the image '{image}'", "it was just removed", "")
        return why_of(run, place[image])

    def remove(self, image: str) -> int:
        """Forget an image and its correction; how many are left."""
        self.store.remove(image)
        with self._lock:
            self._corrections.pop(image, None)
        return len(self.store)

    # -- corrections

    def correct(self, image: str, class_id: str | None) -> int:
        """Set, or with None take back, what an image really shows; how many are corrected."""
        self.store.get(image)
        with self._lock:
            if class_id is None:
                self._corrections.pop(image, None)
            elif class_id not in set(self._current.class_ids):
                asked, seen = f"correct {image!r} to {class_id[:80]!r}", "no class has this id"
                raise Problem(400, asked, seen, "Choose a class of the list that was scored last.")
            else:
                right = (class_id, self._current.node(class_id).name)
                self._corrections[image] = (right, self._predicted.get(image, ("", "")))
            return len(self._corrections)

    def _corrected(self) -> dict[str, str]:
        with self._lock:
            return {image: right[0] for image, (right, _) in self._corrections.items()}

    def corrections(self) -> bytes:
        """All corrections as CSV, sorted by file name."""
        shot = self.store.shot()
        with self._lock:
            rows = [
                (key, *right, *predicted)
                for key, p in zip(shot.keys(), shot.pictures, strict=True)
                for right, predicted in [self._corrections.get(p.id, (None, None))]
                if right is not None and predicted is not None
            ]
        return table(sorted(rows))

    # -- the report

    def report(self, recipe: str | None = None) -> str:
        """The page of ``byname diagnose`` for the images that are here now."""
        run = self._now(recipe)
        subject = replace(run.subject, errors=dict(self.unreadable))
        made = make_report(
            subject,
            title=f"{self.title}, {run.recipe}",
            provenance={
                "command": ["byname", "serve"],
                "encoder": {"id": self.encoder.info.id},
                "versions": versions(),
                "warnings": [],
            },
            thumbnails=True,
        )
        by_key = dict(zip(subject.keys, run.shot.pictures, strict=True))
        for one in made["images"]:
            thumb = by_key[one["file_name"]].thumb
            if thumb is not None:  # of an upload, whose bytes the report could not read
                one["thumbnail"] = "data:image/jpeg;base64," + base64.b64encode(thumb).decode()
        return page(made)
