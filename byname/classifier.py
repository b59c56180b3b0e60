"""The Classifier: classes, an encoder and a recipe, wired through the five stages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from byname.answers import answer_ids, answer_tables
from byname.diagnose import Diagnosis, diagnose
from byname.embeddings import Embeddings
from byname.encoders import Encoder, load_encoder
from byname.encoders.precision import Verdict
from byname.errors import UsageError
from byname.estimator import Estimator
from byname.extra import Extras
from byname.gathered import Gathered, Means
from byname.inputs import (
    as_embeddings,
    check_arguments,
    check_count,
    check_same,
    check_vectors,
    fingerprints,
    in_place,
    listed,
    opened,
    settled,
)
from byname.ops import softmax, to_numpy
from byname.pipeline import Pipeline, check_level
from byname.progress import tell
from byname.promptchoice import Prompts, chosen_prompts, is_member
from byname.promptset import PromptSet
from byname.recipes import Recipe, get_recipe
from byname.rows import Row, rows_of
from byname.runs.shard import Progress
from byname.stage import Batch, ClassTexts
from byname.taxonomy import Taxonomy
from byname.taxonomy_io import read_taxonomy
from byname.textvectors import inputs_of, texts_of

__all__ = ["Classifier"]


class Classifier(Estimator):
    """Label images by the names of their classes.

    Parameters
    ----------
    classes : sequence of str, mapping, str, Path or Taxonomy
        Names, a nested mapping, a file (text, CSV, TSV, JSON, Newick), or "cat,dog,bird".
    encoder : str, Path or Encoder, optional
        ``"mini"``, ``"onnx:FOLDER"``, a preset; by default ``BYNAME_ENCODER``, else a CLIP model
        from the hub.
    recipe : str or Recipe, default "ensemble"
        See ``byname list recipes``.
    prompts : str, Path, PromptSet or mapping, optional
        A member of the prompts stage, a prompt file, or several joined by "+":
        ``"templates+more.json"``; or ``{class: [texts]}``.
    allow_missing : bool, default False
        Give classes for which a prompt file has no text "a photo of a {}.", with a warning.
    templates : sequence of str, optional
        Own templates with ``{}`` for the name, in place of ``prompts``.
    weigh, score, refine, decide : str, optional
        Members that replace the recipe's.
    lineage : sequence of str, optional
        Columns of the classes file that make the tree, root first.
    level : str or int, optional
        Answer with the nodes of this level of the taxonomy instead of its classes.
    batch_size : int, default 32
    threads : int, optional
        Threads of the encoder; as many as processors by default.
    device : str, default "cpu"
    precision : str, optional
        ``"int8"`` runs an ONNX folder in 8-bit numbers if it agrees with fp32 on the first images
        that are given, and in fp32 with a warning if not; ``"bf16"`` and ``"fp16"`` are for torch
        models.
    cache : bool, default True
        Keep and reuse vectors of images and texts.
    progress : callable, optional
        Called with ``(n, encoded)`` as images are done.
    extra : mapping of str to object, optional
        What else is known: ``{"second": "mini", "captions": "said.csv"}``; see docs/formats.md.

    Attributes
    ----------
    classes_ : array of str, shape (K,)
        Ids of the classes, in the order of the columns of ``predict_proba``.
    taxonomy_ : Taxonomy
    encoder_ : Encoder
    verdict_ : Verdict or None
        What the check of int8 found.
    prompts_ : PromptSet
    pipeline_ : Pipeline
        The fitted stages; ``pipeline_.weight_`` (M,) and ``pipeline_.W_`` (K, D).
    extras_ : Extras
        What was given as ``extra``, opened; ``extras_.record()`` says what was found.

    Notes
    -----
    ``fit`` takes unlabeled images only. It is optional: without it, the methods that predict fit
    on the images that they are given, each call by itself.

    Examples
    --------
    >>> from byname import Classifier
    >>> from byname.encoders import PrecomputedEncoder
    >>> encoder = PrecomputedEncoder.from_arrays(["a cat", "a dog"], [[1.0, 0.0], [0.0, 1.0]])
    >>> model = Classifier(["cat", "dog"], encoder, "plain", templates=["a {}"])
    >>> model.predict(np.array([[0.9, 0.1], [0.2, 0.8]])).tolist()
    ['cat', 'dog']
    """

    def __init__(
        self,
        classes: Any = None,
        encoder: str | Path | Encoder | None = None,
        recipe: str | Recipe = "ensemble",
        *,
        prompts: Prompts | None = None,
        allow_missing: bool = False,
        templates: Sequence[str] | None = None,
        weigh: str | None = None,
        score: str | None = None,
        refine: str | None = None,
        decide: str | None = None,
        lineage: Sequence[str] | None = None,
        level: str | int | None = None,
        batch_size: int = 32,
        threads: int | None = None,
        device: str = "cpu",
        precision: str | None = None,
        cache: bool = True,
        progress: Progress | None = None,
        extra: Mapping[str, Any] | Extras | None = None,
    ) -> None:
        self.classes = classes
        self.encoder = encoder
        self.recipe = recipe
        self.prompts = prompts
        self.allow_missing = allow_missing
        self.templates = templates
        self.weigh = weigh
        self.score = score
        self.refine = refine
        self.decide = decide
        self.lineage = lineage
        self.level = level
        self.batch_size = batch_size
        self.threads = threads
        self.device = device
        self.precision = precision
        self.cache = cache
        self.progress = progress
        self.extra = extra

    encoder_: Encoder
    extras_: Extras
    verdict_: Verdict | None
    _light = frozenset({"batch_size", "cache", "extra", "progress", "threads"})
    _derived = frozenset({"_texts", "_encoded_with"})

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "pipeline_")

    def __getstate__(self) -> dict[str, Any]:
        # Sessions cannot be pickled; an encoder that has a name is loaded again by it.
        named = not isinstance(self.encoder, Encoder)
        return {n: v for n, v in vars(self).items() if not (named and n == "encoder_")}

    def _refresh(self) -> None:
        super()._refresh()
        if hasattr(self, "extras_") and not self.extras_.made_of(self.extra):
            self._forget(keep=frozenset({"encoder_", "verdict_", "_learned_with"}))

    def prepare(
        self, text_progress: Callable[[int, int], None] | None = None, images: Any = None
    ) -> Self:
        """Read the classes, make the prompts, load the encoder and encode the texts; idempotent.

        Everything that can be wrong with the arguments is found here, before any image is read.
        ``text_progress`` is called with how many of how many new texts are encoded. ``images`` are
        what ``precision="int8"`` is checked on.
        """
        self._refresh()
        images = opened(images)
        if images is not None and getattr(getattr(self, "verdict_", None), "images", 1) == 0:
            # There was nothing to check int8 on so far, which is no verdict.
            self._forget(keep=frozenset())
        if hasattr(self, "_texts"):
            if not hasattr(self, "encoder_"):
                self._load_again()
            self.extras_.open(self._means())
            return self
        check_arguments(self.get_params())
        self.taxonomy_: Taxonomy = read_taxonomy(self.classes, lineage=self.lineage)
        answered = self.taxonomy_ if self.level is None else self.taxonomy_.cut(self.level)[0]
        self.recipe_: Recipe = get_recipe(
            self.recipe,
            prompts=str(self.prompts) if is_member(self.prompts) else None,
            weigh=self.weigh,
            score=self.score,
            refine=self.refine,
            decide=self.decide,
        )
        check_level(self.recipe_.create("decide"), self.level)
        self.prompts_: PromptSet = self._make_prompts()
        if not hasattr(self, "encoder_"):
            tell("load the encoder")
            self.encoder_ = self._load_encoder(self.precision)
            names = [node.name for node in self.taxonomy_.classes]
            self.encoder_, self.verdict_ = settled(self.encoder_, images, names)
        self._encoded_with = fingerprints(self.encoder_)
        self.extras_ = getattr(self, "extras_", None) or Extras.of(self.extra)
        self.extras_.open(self._means())
        self.classes_: NDArray[np.str_] = np.array(answered.class_ids)
        self._texts = self._encode_texts(text_progress or (lambda done, total: None))
        self._remember()
        return self

    def _load_encoder(self, precision: str | None) -> Encoder:
        return load_encoder(
            self.encoder, device=self.device, threads=self.threads, precision=precision
        )

    def _load_again(self) -> None:
        """After unpickling: the encoder of that name, if it is still the one that was used."""
        refused = self.verdict_ is not None and not self.verdict_.kept
        found = self._load_encoder(None if refused else self.precision)
        check_same(found, self._encoded_with)
        self.encoder_ = found

    def prompts_origin(self) -> str:
        """Where the texts come from: own templates, a prompt file or set, or members."""
        if self.templates is not None:
            return f"own templates: {'; '.join(self.templates)}"
        if self.prompts is None or is_member(self.prompts):
            return self.recipe_.prompts
        return str(self.prompts) if isinstance(self.prompts, str | Path) else "own texts"

    def _make_prompts(self) -> PromptSet:
        if self.templates is not None:
            return PromptSet.from_templates(self.taxonomy_, self.templates, generator="templates")
        given = self.prompts
        if given is None or is_member(given):
            given = self.recipe_.prompts
        apart = getattr(self.recipe_.create("score"), "reads_states", False)
        allow = self.allow_missing
        return chosen_prompts(given, self.taxonomy_, allow_missing=allow, states=apart)

    def _encode_texts(self, progress: Callable[[int, int], None]) -> ClassTexts:
        second = self.extras_.second_texts
        how = (self.prompts_, self.taxonomy_, self.encoder_, *inputs_of(self.recipe_))
        return texts_of(*how, cache=self.cache, progress=progress, second=second)

    def _means(self) -> Means:
        given = (self.batch_size, self.cache, self.device, self.threads)
        progress = self.progress or (lambda done, encoded: None)
        return Means(self.encoder_, self.taxonomy_, *given, progress)

    def embed(self, X: Any) -> Embeddings:
        """Vectors of images in any accepted form; see :meth:`predict`."""
        X = opened(X)
        self.prepare(images=X)
        how = self._means()
        size, cache, told = how.batch_size, how.cache, how.progress
        found = as_embeddings(
            X, how.encoder, batch_size=size, cache=cache, on_disk=True, progress=told
        )
        check_vectors(found, self.encoder_.info)
        return found

    def gather(self, X: Any, also: frozenset[str] = frozenset()) -> Gathered:
        """Images with everything that is known of them: what all methods take in place of X.

        ``also`` names inputs that further recipes look at.
        """
        if isinstance(X, Gathered):
            self.prepare()
            return X
        X = opened(X)
        self.prepare(images=X)
        self.extras_.match(X)
        return self.extras_.gather(
            X, self.embed(X), frozenset(also).union(*inputs_of(self.recipe_))
        )

    def fit(self, X: Any = None, y: None = None) -> Self:
        """Learn from unlabeled images.

        Parameters
        ----------
        X : images, optional
            As for :meth:`predict`. May be left out where the recipe learns nothing from images.
        y : None
            Present for scikit-learn's pipelines; labels are refused.
        """
        if y is not None:
            raise UsageError(
                "fit", "labels were given", "byname learns from unlabeled images: call fit(X)."
            )
        # A file of classes or prompts may have changed; its texts are found in the cache.
        self._refresh()
        self._forget(keep=frozenset({"encoder_", "verdict_", "extras_", "_learned_with"}))
        if hasattr(self, "extras_"):
            self.extras_.reopen()
        return self.fit_prepared(X)

    def fit_prepared(self, X: Any = None) -> Self:
        """:meth:`fit` without reading files of classes and prompts again."""
        # the images first: an int8 encoder is checked on them
        batch = None if X is None else self.gather(X).batch
        self.prepare()
        if batch is None and (others := self.extras_.others()):
            batch = Batch(self._texts.vectors[:0], **others)
        self.pipeline_: Pipeline = Pipeline(self.recipe_).fit(self._texts, batch)
        return self

    def _fitted(self, batch: Batch) -> Pipeline:
        if hasattr(self, "pipeline_"):
            return self.pipeline_
        return Pipeline(self.recipe_).fit(self._texts, batch)

    def _scores(self, X: Any) -> tuple[Gathered, Pipeline, NDArray[np.float32]]:
        given = self.gather(X)
        pipeline = self._fitted(given.batch)
        return given, pipeline, to_numpy(pipeline.scores(given.batch))

    def decision_function(self, X: Any) -> NDArray[np.float32]:
        """Logits, columns as ``classes_``; with ``level``, log probabilities of its nodes.

        Rows as for :meth:`predict`; those of unreadable files are NaN.
        """
        X = listed(X)
        given, pipeline, S = self._scores(X)
        return in_place(X, given.embeddings, to_numpy(pipeline.roll_up(S, self.level)[0]), np.nan)

    def predict_proba(self, X: Any) -> NDArray[np.float32]:
        """Probabilities, columns as ``classes_``; rows as for :meth:`predict`."""
        return np.asarray(softmax(self.decision_function(X)), np.float32)

    def predict(self, X: Any) -> NDArray[Any]:
        """Id of the answered class, or node, of each image.

        Parameters
        ----------
        X : str, Path, sequence of these, PIL images, array or Embeddings
            A folder, a glob, a list file, a tar; files; decoded images; (N, H, W, 3) uint8
            pixels; (N, D) vectors.

        Returns
        -------
        array, shape (N,)
            Strings: one for each item where X is a sequence, in its order, and sorted by file
            name where X is a folder, glob, list file or tar. An unreadable file gives None (and
            the array is then of type object) with a warning; :meth:`classify` says why, and says
            of each answer whether it was accepted.
        """
        X = listed(X)
        given = self.gather(X)
        ids = answer_ids(self._fitted(given.batch), given.batch, self.level)
        return in_place(X, given.embeddings, ids, None)

    def classify(self, X: Any, k: int = 1) -> list[Row]:
        """Rows as in the files that ``byname classify`` writes: k per image, sorted by file name.

        Raises
        ------
        UsageError
            For k below 1.
        """
        return rows_of(self.table(X, k))

    def diagnose(
        self, X: Any, *, command: str = "byname diagnose IMAGES --classes CLASSES"
    ) -> Diagnosis:
        """Which classes will fail on these unlabeled images, and what to do about it.

        ``command`` is what the commands in the answer begin with; see :mod:`byname.diagnose`.
        """
        batch = self.gather(X).batch
        return diagnose(self._texts, batch, self._fitted(batch), command=command)

    def table(self, X: Any, k: int = 1) -> pa.Table:
        """:meth:`classify` as an Arrow table."""
        return pa.concat_tables(self.tables(X, k))

    def tables(self, X: Any, k: int = 1) -> Iterator[pa.Table]:
        """:meth:`table` in parts, for more images than memory has room for."""
        check_count("classify", "k", k)
        given = self.gather(X)
        pipeline, embeddings = self._fitted(given.batch), given.embeddings
        return answer_tables(pipeline, embeddings, k=k, level=self.level, batch=given.batch)
