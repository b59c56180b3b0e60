"""The Classifier: classes, an encoder and a recipe, wired through the five stages."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from byname.cache import TextCache, working_dir
from byname.classtexts import class_texts
from byname.diagnose import Diagnosis, diagnose
from byname.embeddings import Embeddings
from byname.encoders import Encoder, load_encoder
from byname.errors import EmbeddingsError, UsageError
from byname.inputs import as_embeddings
from byname.ops import softmax, to_numpy
from byname.pipeline import Pipeline
from byname.promptset import PromptSet
from byname.promptset_io import fill_missing, read_prompts
from byname.recipes import Recipe, get_recipe
from byname.rows import SCHEMA, Row, rows_of
from byname.runs.shard import Progress
from byname.stage import STAGES, Answer, Batch, ClassTexts, PromptMember, create
from byname.taxonomy import Taxonomy
from byname.taxonomy_io import read_taxonomy

__all__ = ["Classifier"]


class Classifier:
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
    prompts : str, Path or PromptSet, optional
        A member of the prompts stage, or a prompt file.
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
    cache : bool, default True
        Keep and reuse vectors of images and texts.
    progress : callable, optional
        Called with ``(n, encoded)`` as images are done.

    Attributes
    ----------
    classes_ : array of str, shape (K,)
        Ids of the classes, in the order of the columns of ``predict_proba``.
    taxonomy_ : Taxonomy
    encoder_ : Encoder
    prompts_ : PromptSet
    pipeline_ : Pipeline
        The fitted stages; ``pipeline_.weight_`` (M,) and ``pipeline_.W_`` (K, D).

    Notes
    -----
    ``fit`` takes unlabeled images only. It is optional: without it, the methods that predict fit
    on the images that they are given, each call by itself.

    Examples
    --------
    >>> from byname import Classifier, Embeddings
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
        prompts: str | Path | PromptSet | None = None,
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
        cache: bool = True,
        progress: Progress | None = None,
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
        self.cache = cache
        self.progress = progress

    # scikit-learn's manners

    @classmethod
    def _parameter_names(cls) -> list[str]:
        return [name for name in inspect.signature(cls.__init__).parameters if name != "self"]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters as given, so that ``sklearn.base.clone`` works."""
        return {name: getattr(self, name) for name in self._parameter_names()}

    def set_params(self, **params: Any) -> Self:
        """Change parameters; what was fitted is forgotten."""
        for name, value in params.items():
            if name not in self._parameter_names():
                known = ", ".join(self._parameter_names())
                raise UsageError(f"set '{name}'", "Classifier has no such parameter", known)
            setattr(self, name, value)
        for name in [n for n in vars(self) if n.endswith("_") or n == "_texts"]:
            delattr(self, name)
        return self

    def __repr__(self) -> str:
        defaults = inspect.signature(type(self).__init__).parameters
        given = [
            f"{name}={value!r}"
            for name, value in self.get_params().items()
            if value is not defaults[name].default
        ]
        return f"Classifier({', '.join(given)})"

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "pipeline_")

    # the five stages

    def prepare(self, text_progress: Callable[[int, int], None] | None = None) -> Self:
        """Read the classes, make the prompts, load the encoder and encode the texts; idempotent.

        Everything that can be wrong with the arguments is found here, before any image is read.
        ``text_progress`` is called with how many of how many new texts are encoded.
        """
        if hasattr(self, "_texts"):
            return self
        if self.classes is None:
            raise UsageError("classify", "no classes were given", "Pass classes=['cat', 'dog'].")
        if self.templates is not None and self.prompts is not None:
            raise UsageError("make prompts", "both templates and prompts were given", "Choose one.")
        if isinstance(self.templates, str):
            raise UsageError("make prompts", "templates is one string", "Pass a list of strings.")
        if isinstance(self.batch_size, bool) or self.batch_size < 1:
            raise UsageError("classify", f"batch_size is {self.batch_size}", "Use 1 or more.")
        self.taxonomy_: Taxonomy = read_taxonomy(self.classes, lineage=self.lineage)
        if self.level is not None:
            self.taxonomy_.cut(self.level)
        self.recipe_: Recipe = get_recipe(
            self.recipe,
            prompts=None if self._prompts_are_texts() else self.prompts,  # type: ignore[arg-type]
            weigh=self.weigh,
            score=self.score,
            refine=self.refine,
            decide=self.decide,
        )
        self.prompts_: PromptSet = self._make_prompts()
        self.encoder_: Encoder = load_encoder(
            self.encoder, device=self.device, threads=self.threads
        )
        self.classes_: NDArray[np.str_] = np.array(self.taxonomy_.class_ids)
        self._texts = self._encode_texts(text_progress or (lambda done, total: None))
        return self

    def _prompts_are_texts(self) -> bool:
        """Whether ``prompts`` is a prompt set or a file, rather than a member's name."""
        if isinstance(self.prompts, str):
            return self.prompts.lower().endswith(".json") or Path(self.prompts).is_file()
        return self.prompts is not None

    def _make_prompts(self) -> PromptSet:
        if self.templates is not None:
            return PromptSet.from_templates(self.taxonomy_, self.templates, generator="templates")
        if isinstance(self.prompts, PromptSet):
            return fill_missing(self.prompts, self.taxonomy_, allow_missing=self.allow_missing)
        if self._prompts_are_texts():
            path: Any = self.prompts
            return read_prompts(path, self.taxonomy_, allow_missing=self.allow_missing)
        member: PromptMember = create(self.recipe_.prompts, "prompts")
        return member.generate(self.taxonomy_)

    def _encode_texts(self, progress: Callable[[int, int], None]) -> ClassTexts:
        encode, info = self.encoder_.encode_texts, self.encoder_.info
        if self.cache and info.weights_sha256:
            store = TextCache(working_dir(), info.text_fingerprint(), info.dim)
            encode = partial(store.encode, encode=self.encoder_.encode_texts, progress=progress)
        made = [self.recipe_.create(stage) for stage in STAGES]
        return class_texts(
            self.prompts_,
            self.taxonomy_,
            encode,
            scale=info.logit_scale,
            bias=info.logit_bias,
            # Texts about pairs can be many: they are encoded for those who look at them.
            pairs=any("pairs" in getattr(member, "uses", ()) for member in made),
        )

    def embed(self, X: Any) -> Embeddings:
        """Vectors of images in any accepted form; see :meth:`predict`."""
        self.prepare()
        found = as_embeddings(
            X,
            self.encoder_,
            batch_size=self.batch_size,
            cache=self.cache,
            progress=self.progress or (lambda done, encoded: None),
        )
        info = self.encoder_.info
        if found.dim != info.dim:
            raise EmbeddingsError(
                "use these vectors",
                f"their width is {found.dim}, but '{info.id}' has {info.dim}",
                "Use the encoder that made them"
                + (f" ('{found.encoder}')." if found.encoder else "."),
            )
        if found.fingerprint and found.fingerprint != info.image_fingerprint():
            raise EmbeddingsError(
                "use these vectors",
                f"they were made by '{found.encoder}', which is not this '{info.id}'",
                "Use the same encoder for images and texts.",
            )
        return found

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
        self.prepare()
        batch = None if X is None else Batch(self.embed(X).vectors)
        self.pipeline_: Pipeline = Pipeline(self.recipe_).fit(self._texts, batch)
        return self

    def _fitted(self, batch: Batch) -> Pipeline:
        if hasattr(self, "pipeline_"):
            return self.pipeline_
        return Pipeline(self.recipe_).fit(self._texts, batch)

    def _scores(self, X: Any) -> tuple[Embeddings, Pipeline, NDArray[np.float32]]:
        embeddings = self.embed(X)
        batch = Batch(embeddings.vectors)
        pipeline = self._fitted(batch)
        return embeddings, pipeline, to_numpy(pipeline.scores(batch))

    def decision_function(self, X: Any) -> NDArray[np.float32]:
        """Logits (N, K) after the refine stage; rows of unreadable files are NaN."""
        embeddings, _, S = self._scores(X)
        return _in_place(embeddings, S, np.nan)

    def predict_proba(self, X: Any) -> NDArray[np.float32]:
        """Probabilities (N, K), columns as ``classes_``; rows of unreadable files are NaN."""
        embeddings, _, S = self._scores(X)
        return _in_place(embeddings, np.asarray(softmax(S), np.float32), np.nan)

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
            Strings, sorted by file name where X names files. An unreadable file gives None (and
            the array is then of type object) with a warning; :meth:`classify` says why.
        """
        embeddings, pipeline, S = self._scores(X)
        answer, taxonomy = pipeline.decide(S, k=1, level=self.level)
        ids = np.array([node.id for node in taxonomy.nodes])[answer.node[:, 0]]
        return _in_place(embeddings, ids, None)

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
        vectors = self.embed(X).vectors
        pipeline = self._fitted(Batch(vectors))
        return diagnose(self._texts, vectors, pipeline, command=command)

    def table(self, X: Any, k: int = 1) -> pa.Table:
        """:meth:`classify` as an Arrow table."""
        if k < 1:
            raise UsageError("classify", f"k is {k}", "Use 1 or more.")
        embeddings, pipeline, S = self._scores(X)
        answer, taxonomy = pipeline.decide(S, k=k, level=self.level)
        return _table(embeddings.keys, answer, taxonomy, embeddings.errors)


def _in_place(embeddings: Embeddings, values: NDArray[Any], absent: Any) -> NDArray[Any]:
    """Results in the order of all files, with ``absent`` where a file could not be read."""
    if not embeddings.errors:
        return values
    order = sorted([*embeddings.keys, *embeddings.errors])
    name, why = next(iter(embeddings.errors.items()))
    warnings.warn(
        f"{len(embeddings.errors)} of {len(order)} images could not be read, the first is "
        f"'{name}': {why}. classify() lists them all.",
        stacklevel=3,
    )
    position = {key: i for i, key in enumerate(order)}
    kind = object if absent is None else values.dtype
    result: NDArray[Any] = np.full((len(order), *values.shape[1:]), absent, kind)
    result[[position[key] for key in embeddings.keys]] = values
    return result


def _table(
    keys: Sequence[str], answer: Answer, taxonomy: Taxonomy, errors: Mapping[str, str]
) -> pa.Table:
    n, k = answer.node.shape
    used = np.unique(answer.node)
    paths = dict.fromkeys(range(len(taxonomy.nodes)), "")
    paths.update({int(i): taxonomy.path_string(taxonomy.nodes[i].id) for i in used if i >= 0})
    nodes, flat = taxonomy.nodes, answer.node.reshape(-1)
    columns = {
        "file_name": pa.array(keys, pa.string()).take(np.repeat(np.arange(n), k)),
        "rank": np.tile(np.arange(1, k + 1, dtype=np.int32), n),
        "class_id": pa.array([x.id for x in nodes], pa.string()).take(flat),
        "label": pa.array([x.name for x in nodes], pa.string()).take(flat),
        "probability": np.asarray(answer.probability, np.float32).reshape(-1),
        "margin": np.repeat(np.asarray(answer.margin, np.float32), k),
        "level": np.asarray(taxonomy.depths, np.int32)[flat],
        "path": pa.array(list(paths.values()), pa.string()).take(flat),
        "decision": np.repeat(answer.decision.astype(object), k),
        "error": pa.nulls(n * k, pa.string()),
    }
    table = pa.table({name: columns[name] for name in SCHEMA.names}).cast(SCHEMA)
    if not errors:
        return table
    failed = pa.Table.from_pylist(
        [{"file_name": key, "rank": 1, "error": why} for key, why in errors.items()], schema=SCHEMA
    )
    together = pa.concat_tables([table, failed])
    return together.sort_by([("file_name", "ascending"), ("rank", "ascending")])
