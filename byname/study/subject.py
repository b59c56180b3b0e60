"""What is studied: images and texts with a fitted pipeline between them, and never a label."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.classifier import Classifier
from byname.gathered import Gathered
from byname.groups import LIMIT, batch_take, sample, too_many
from byname.images.sources import Source
from byname.pipeline import Pipeline
from byname.recipes import Recipe, get_recipe
from byname.stage import Answer, Batch, ClassTexts
from byname.taskfile import Task
from byname.taxonomy import Taxonomy

__all__ = ["Subject"]


@dataclass(frozen=True, eq=False)
class Subject:
    """Images, texts, and the pipeline that was fitted on them.

    Parameters
    ----------
    texts : ClassTexts
        M texts of K classes.
    sentences : tuple of str, length M
        The texts themselves, by their rows; "" where a text is not known.
    batch : Batch
        N images.
    pipeline : Pipeline
        Fitted on the texts.
    keys : tuple of str, length N
        File names of the images; their numbers where there are no files.
    read : callable, optional
        Bytes of an image by its file name; raises ``ImageError``. None where only vectors are
        known.
    errors : mapping of str to str
        Images that could not be read, and why.
    command : str
        The command of which this is the answer, quoted for a shell.
    input_size : int, optional
        Side in pixels of the square that the encoder sees; None where it is not known.
    squeezed : bool
        Whether the encoder sees the whole picture, squeezed into that square, not its centre.
    whole : Batch, optional
        All images, of which these are a sample; None where these are all.

    Examples
    --------
    >>> task = Task(np.eye(2), np.eye(2)[None], ("a {}",), Taxonomy.from_names(["cat", "dog"]))
    >>> subject = Subject.of_task(task, "plain")
    >>> subject.sentences, subject.answers.tolist()
    (('a cat', 'a dog'), [0, 1])
    """

    texts: ClassTexts
    sentences: tuple[str, ...]
    batch: Batch
    pipeline: Pipeline
    keys: tuple[str, ...]
    read: Callable[[str], bytes] | None = None
    errors: Mapping[str, str] = field(default_factory=dict)
    command: str = "byname diagnose IMAGES --classes CLASSES"
    input_size: int | None = None
    squeezed: bool = False
    whole: Batch | None = None

    @classmethod
    def of_task(
        cls, task: Task, recipe: Recipe | str = "ensemble", *, command: str | None = None
    ) -> Subject:
        """The images and texts of a task, without its labels."""
        chosen = get_recipe(recipe)
        texts, batch = task.texts_for(chosen.prompts), task.batch()
        names = [node.name for node in texts.taxonomy.classes]
        place, index = ops.to_numpy(texts.prompt_index), ops.to_numpy(texts.class_index)
        return cls(
            texts=texts,
            sentences=tuple(
                task.templates[p].replace("{}", names[k]) if p >= 0 and k >= 0 else ""
                for p, k in zip(place.tolist(), index.tolist(), strict=True)
            ),
            batch=batch,
            pipeline=Pipeline(chosen).fit(texts, batch),
            keys=tuple(str(i) for i in range(len(batch))),
            command=command or f"byname diagnose --task {task.path or 'F.npz'}",
        )

    @classmethod
    def of_classifier(
        cls,
        model: Classifier,
        X: Any,
        *,
        command: str | None = None,
        source: Any = None,
        most: int | None = None,
    ) -> Subject:
        """What a classifier sees of images in any form.

        ``source`` is where their pixels are, if X holds their vectors already (``Gathered``).
        Of vectors on disk, and of more images than are looked at together, at most ``most`` are
        studied: a sample by their vectors alone. The pipeline is fitted on all of them.
        """
        source = X if source is None else source
        given: Gathered = model.gather(X)
        if not hasattr(model, "pipeline_"):
            model = copy.copy(model).fit_prepared(given)
        known = [p.text for prompts in model.prompts_.classes.values() for p in prompts]
        if model._texts.pairs:  # their texts come next
            known += [text for pair in model.prompts_.pairs for text in pair.texts]
        M = len(model._texts.vectors)
        refs = {ref.key: ref for ref in source.refs} if isinstance(source, Source) else None
        wanted = model.encoder_.info.preprocess
        batch, keys, whole = given.batch, given.embeddings.keys, None
        if most and (ops.is_stored(batch.X) or too_many(batch, model._texts.n_classes)):
            rows = sample(batch, min(most, LIMIT // (4 * int(batch.X.shape[1]))))
            if len(rows) < len(batch):
                whole, keys = batch, [keys[i] for i in rows.tolist()]
            batch = batch_take(batch, rows)
        return cls(
            texts=model._texts,
            sentences=tuple((known + [""] * M)[:M]),
            batch=batch,
            pipeline=model.pipeline_,
            keys=tuple(keys),
            read=None if refs is None else lambda key: refs[key].read(),
            errors=dict(given.embeddings.errors),
            command=command or "byname diagnose IMAGES --classes CLASSES",
            input_size=None if wanted is None else wanted.size,
            squeezed=wanted is not None and wanted.mode == "squash",
            whole=whole,
        )

    @property
    def n_images(self) -> int:
        """How many images there are, studied or not."""
        return len(self.batch if self.whole is None else self.whole)

    @property
    def taxonomy(self) -> Taxonomy:
        """The classes."""
        return self.texts.taxonomy

    @cached_property
    def X(self) -> NDArray[Any]:  # noqa: N802
        """Vectors of the images (N, D)."""
        return np.asarray(ops.to_numpy(self.batch.X))

    @cached_property
    def S(self) -> NDArray[Any]:  # noqa: N802
        """Logits (N, K)."""
        return np.asarray(ops.to_numpy(self.pipeline.scores(self.batch)))

    @cached_property
    def P(self) -> NDArray[Any]:  # noqa: N802
        """Probabilities (N, K)."""
        return np.asarray(ops.softmax(self.S))

    @cached_property
    def answers(self) -> NDArray[np.intp]:
        """Class of the highest score of each image (N,)."""
        return np.asarray(self.S.argmax(axis=1) if len(self.S) else np.zeros(0, np.intp))

    @cached_property
    def decided(self) -> tuple[Answer, Taxonomy]:
        """What the decide stage answers, and the nodes that it counts."""
        return self.pipeline.decide(self.S, k=1, batch=self.batch)

    @cached_property
    def nodes(self) -> NDArray[np.intp]:
        """Node that is answered for each image (N,): a class or, after a backoff, a group."""
        return np.asarray(self.decided[0].node[:, 0], np.intp)

    @cached_property
    def otherwise(self) -> int:
        """Images that are answered otherwise than with the class of their highest score."""
        return int((self.nodes != np.asarray(self.taxonomy.leaf_index)[self.answers]).sum())
