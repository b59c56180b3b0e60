"""The stages after ``prompts``, wired over arrays: no files, no encoders."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from dataclasses import fields, replace
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import numpy as np

from byname import groups, ops
from byname.errors import EmbeddingsError, PromptError, UsageError
from byname.groups import batch_rows, batch_take
from byname.progress import tell
from byname.stage import Answer, Array, Batch, ClassTexts, Member, State

if TYPE_CHECKING:
    from byname.recipes import Recipe
    from byname.taxonomy import Taxonomy

__all__ = ["Pipeline", "batch_rows", "batch_take", "check_level"]

_BATCH = frozenset(f.name for f in fields(Batch))


class Pipeline:
    """A recipe over stored vectors.

    Parameters
    ----------
    recipe : Recipe
        Its prompts stage is not used here: the texts come to ``fit`` as vectors.

    Attributes
    ----------
    inductive : bool
        Whether, once fitted, every image is treated by itself.
    weight_ : array, shape (M,)
        After ``fit``: weight of each text.
    W_ : array, shape (K, D)
        After ``fit``: class vectors, not necessarily unit rows.

    Examples
    --------
    >>> from byname.recipes import get_recipe
    >>> from byname.taxonomy import Taxonomy
    >>> texts = ClassTexts(np.eye(2), np.array([0, 1]), Taxonomy.from_names(["cat", "dog"]))
    >>> pipeline = Pipeline(get_recipe("plain")).fit(texts)
    >>> answer, taxonomy = pipeline.decide(pipeline.scores(Batch(np.array([[0.6, 0.8]]))))
    >>> taxonomy.nodes[answer.node[0, 0]].name
    'dog'
    """

    weight_: Array
    W_: Array

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.weigh: Member = recipe.create("weigh")
        self.score: Member = recipe.create("score")
        self.refine: Member | None = recipe.create("refine")
        self.decider: Member = recipe.create("decide")
        self._texts: ClassTexts | None = None
        self._told: dict[str, dict[str, Any]] = {}  # of members that learn from each batch anew
        self._apart: dict[str, list[dict[str, Any]]] | None = None  # the same, group by group

    @property
    def members(self) -> tuple[Member, ...]:
        """The members in the order in which data flows."""
        made = (self.weigh, self.score, self.refine, self.decider)
        return tuple(member for member in made if member is not None)

    @property
    def inductive(self) -> bool:
        """Whether, once fitted, every image is treated by itself."""
        return all(member.inductive for member in self.members)

    def fit(self, texts: ClassTexts, batch: Batch | None = None) -> Pipeline:
        """Weigh the texts, and let the inductive members learn from the unlabeled images.

        Parameters
        ----------
        texts : ClassTexts
        batch : Batch, optional
            Unlabeled images; none are the same as N = 0.

        Raises
        ------
        NeedsError, EmbeddingsError, PromptError
            Before any work, where an input is missing or does not fit.
        """
        _check_texts(texts)
        batch = Batch(texts.vectors[:0]) if batch is None else batch
        _check_width(batch, texts)
        for member in self.members:
            now = member is self.weigh or (member.inductive and _learns(member)) or len(batch)
            # Otherwise what a batch brings can still come with the images that are to be scored.
            member.check_needs(batch, texts, frozenset() if now else _BATCH)
        _check_finite(batch)
        self._texts = texts
        tell(f"weigh the texts: {self.weigh.name}")
        self.weigh.fit(batch, texts, State())
        self.weight_ = getattr(self.weigh, "weight_", None)
        self.W_ = self.weigh.apply(batch, texts, State(weight=self.weight_))
        state, after = self._state(), self.members[1:]
        if any(m.inductive and _learns(m) for m in after):
            learning = [m.name for m in after if m.inductive and _learns(m)]
            batch = groups.some(batch, texts.n_classes, learning)
        for i, member in enumerate(after):
            if not any(m.inductive and _learns(m) for m in after[i:]):
                break  # nobody is left who would look at the scores of this batch
            if i:
                state = replace(state, S=self._apply(after[i - 1], batch, state))
            if member.inductive:
                tell(f"learn from the images: {member.name}")
                member.fit(batch, texts, state)
        for member in self.members:
            if member.inductive:  # the others have not looked yet
                _tell(member, member.report(), stacklevel=3)
        return self

    def inductive_at(self, level: int | str | None) -> bool:
        """Whether every image is treated by itself also where a level is answered.

        Not so where the decide member has to learn about the groups of that level.
        """
        return self.inductive and not (level is not None and self._learns_anew)

    @property
    def _learns_anew(self) -> bool:
        return _learns(self.decider) and not self.decider.of_classes

    def scores(self, batch: Batch, *, block: int = 4096) -> Array:
        """S' (N, K): logits whose softmax is the answer.

        Parameters
        ----------
        batch : Batch
            Of N images. A member that is not inductive sees them all at once.
        block : int
            Images at a time for the other members; it does not change the result.

        Raises
        ------
        NeedsError, EmbeddingsError, UsageError
            Where an input is missing or does not fit, or before ``fit``.
        """
        texts = self._fitted()
        _check_width(batch, texts)
        _check_finite(batch)
        for member in self.members:
            member.check_needs(batch, texts, frozenset({"X"}))
        stages = [m for m in (self.score, self.refine) if m is not None]
        if len(stages) > sum(m.inductive for m in stages):
            if groups.too_many(batch, texts.n_classes):
                return self._grouped(batch)
            batch = groups.in_memory(batch)
        streamed = list(takewhile(lambda m: m.inductive, stages))
        S: Any = None
        start = 0
        for rows in batch_rows(batch, block) if streamed else ():
            if len(batch) > block:  # a caller that gives small parts counts them itself
                tell("images scored", start, len(batch))
            state = self._state()
            for member in streamed:
                state = replace(state, S=self._apply(member, rows, state))
            # Written into one array, so that the parts' memory is used again and again.
            part: Any = state.S
            S = ops.full(part, (len(batch), part.shape[1]), 0.0) if S is None else S
            S[start : start + len(rows)] = part
            start += len(rows)
        for member in stages[len(streamed) :]:
            tell(f"{member.stage}: {member.name}")
            S = self._apply(member, batch, self._state(S))
        return S

    def parts(
        self, batch: Batch, *, block: int = 4096, level: int | str | None = None
    ) -> Iterator[tuple[Any, Batch, Array]]:
        """Places of images, the images, and their logits, a part of the batch at a time.

        Blocks in order where every image is treated by itself, so that no array (N, K) is made;
        else all images at once, or, where they are too many for that, the groups of
        :mod:`byname.groups`: each is a batch of its own, and a warning says so.
        """
        K, n = self._fitted().n_classes, len(batch)
        if self.inductive_at(level):
            start = 0
            for rows in batch_rows(batch, block):
                if n > block:
                    tell("images answered", start, n)
                if len(rows):
                    yield slice(start, start + len(rows)), rows, self.scores(rows)
                start += len(rows)
            return
        if not groups.too_many(batch, K):
            batch = groups.in_memory(batch)
            yield slice(0, n), batch, self.scores(batch)
            return
        self._apart, done = {}, 0
        try:
            for place, group in groups.divided(batch, K):
                tell("images answered, in groups", done, n)
                yield place, group, self.scores(group)
                done += len(place)
            names = [m.name for m in self.members if not m.inductive] or [self.decider.name]
            warnings.warn(groups.note(names, n, len(place)), stacklevel=2)
            for member in (m for m in self.members if m.name in self._apart):
                self._told[member.name] = told = groups.combined(self._apart[member.name])
                _tell(member, told, stacklevel=3)
        finally:
            self._apart = None

    def _grouped(self, batch: Batch) -> Array:
        S: Any = None
        for rows, _, part in self.parts(batch):
            S = ops.full(part, (len(batch), part.shape[1]), 0.0) if S is None else S
            S[ops.like(rows, S)] = part
        return S

    def decide(
        self,
        S: Array,
        *,
        k: int = 1,
        level: int | str | None = None,
        batch: Batch | None = None,
    ) -> tuple[Answer, Taxonomy]:
        """What is answered for logits (N, K).

        Parameters
        ----------
        S : array, shape (N, K)
        k : int
            Ranks to answer.
        level : int or str, optional
            Decide between the ancestors at this depth; their probability is the sum over their
            classes.
        batch : Batch, optional
            The images that S is about, for members that look at more than S.

        Raises
        ------
        NeedsError
            Where the member needs more than is given.

        Returns
        -------
        Answer, Taxonomy
            ``Answer.node`` counts the nodes of this taxonomy, which is cut where ``level`` is
            given.
        """
        texts, decider = self._fitted(), self.decider
        if k < 1:
            raise UsageError(f"answer with {k} ranks", "the number is below 1", "Give 1 or more.")
        batch, state = batch or Batch(S[:, :0]), replace(self._state(S), k=k)
        decider.check_needs(batch, texts, frozenset({"X"}))
        check_level(decider, level)
        if level is not None:
            S, texts = self.roll_up(S, level)
            state = replace(state, S=S)
        anew = self._learns_anew if level is not None else not decider.inductive
        if anew and _learns(decider):
            # What it learned was about the classes and not these groups, or about other images.
            tell(f"decide: {decider.name}")
            decider = copy.copy(decider).fit(batch, texts, state)
        return decider.apply(batch, texts, state), texts.taxonomy

    def report(self) -> dict[str, dict[str, Any]]:
        """What the members learned, by their names, ready for JSON; see :meth:`Member.report`."""
        self._fitted()
        told = {
            member.name: self._told.get(member.name, member.report()) for member in self.members
        }
        return {name: report for name, report in told.items() if report}

    def details(self, batch: Batch, S: Array) -> dict[str, list[Any]]:
        """What the members say of each image beside the answer; see :meth:`Member.details`.

        ``S`` are the logits of these images, as :meth:`scores` gives them.
        """
        texts, found = self._fitted(), {}
        for member in self.members:
            found.update(member.details(batch, texts, self._state(S)))
        return found

    def roll_up(self, S: Array, level: int | str | None) -> tuple[Array, ClassTexts]:
        """Logits (N, K) to log probabilities of the nodes at a level, and texts that count those.

        Without a level, both as they are.
        """
        texts = self._fitted()
        if level is None:
            return S, texts
        cut, index = texts.taxonomy.cut(level)
        P = ops.segment_sum(ops.softmax(S).T, index, len(cut.classes)).T
        own = ops.to_numpy(texts.class_index)
        own = np.where(own < 0, -1, index[own])
        return ops.log_probability(P), replace(texts, taxonomy=cut, class_index=own)

    def _state(self, S: Array | None = None) -> State:
        return State(weight=self.weight_, W=self.W_, S=S)

    def _fitted(self) -> ClassTexts:
        if self._texts is None:
            raise UsageError("score images", "the pipeline has no class texts yet", "Call fit().")
        return self._texts

    def _apply(self, member: Member, batch: Batch, state: State) -> Any:
        """Apply a member; one that is not inductive learns from this batch, in a copy."""
        texts = self._fitted()
        if not member.inductive and len(batch):
            member = copy.copy(member).fit(batch, texts, state)
            told = member.report()
            if self._apart is not None:
                self._apart.setdefault(member.name, []).append(told)
            else:
                self._told[member.name] = told
                _tell(member, told, stacklevel=4)
        elif not member.inductive and member.stage == "refine":
            return state.S  # no image, nothing to learn from
        return member.apply(batch, texts, state)


def check_level(decider: Member, level: int | str | None) -> None:
    """Refuse a level for a decide member that can answer no groups."""
    if level is not None and not decider.levels:
        raise UsageError(
            f"answer the level '{level}' with '{decider.name}'",
            "it asks of each class by itself whether it is there, and groups are no such question",
            "Leave --level out, or give the groups as classes.",
        )


def _tell(member: Member, told: dict[str, Any], *, stacklevel: int) -> None:
    """Warn of what a user must hear of a member that has looked at the images."""
    if told.get("stepped_back"):
        warnings.warn(f"{member.name} changed nothing: {told['reason']}", stacklevel=stacklevel)
    if text := told.get("warning"):
        warnings.warn(f"{member.name}: {text}", stacklevel=stacklevel)


def _learns(member: Member) -> bool:
    return type(member).fit is not Member.fit


def _check_width(batch: Batch, texts: ClassTexts) -> None:
    wide, known = tuple(batch.X.shape), texts.vectors.shape[1]
    if len(wide) != 2 or wide[1] != known:
        raise EmbeddingsError(
            "compare the images with the class texts",
            f"the image vectors have the shape {wide}, the text vectors are {known} wide",
            "Both must come from one encoder, one row an image.",
        )


def _check_finite(batch: Batch) -> None:
    """Refuse NaN and infinities, which would spread from one image to all."""
    for name in ("X", "second", "views", "tokens", "captions", "log_var", "reference"):
        rows = getattr(batch, name)
        if rows is None or not len(rows) or not hasattr(rows, "shape") or ops.is_stored(rows):
            continue  # what is on disk is looked at when it is read
        # A sum is finite only if all its terms are (or are far larger than any vector's).
        sums = ops.to_numpy(ops.as_float(rows).reshape(len(rows), -1).sum(axis=1))
        if len(bad := np.flatnonzero(~np.isfinite(sums))):
            raise EmbeddingsError(
                "use these images",
                f"row {bad[0]} of '{name}' holds NaN or infinity",
                "Leave the image out, or embed it anew.",
            )


def _check_texts(texts: ClassTexts) -> None:
    shape, index = tuple(texts.vectors.shape), ops.to_numpy(texts.class_index)
    if len(shape) != 2 or index.shape != shape[:1]:
        raise PromptError(
            "use the class texts",
            f"their vectors have the shape {shape}, their classes {index.shape}",
            "Give vectors (M, D) and one class index for each.",
        )
    if len(index) and not (index.min() >= -1 and index.max() < texts.n_classes):
        raise PromptError(
            "use the class texts",
            f"class indices go from {index.min()} to {index.max()}",
            f"They count {texts.n_classes} classes from 0; -1 is for texts of no class.",
        )
