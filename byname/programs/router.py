"""Several encoders, one answer: plain ensembles, and weights that need no label."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.classifier import Classifier
from byname.embeddings import Embeddings
from byname.errors import TaxonomyError, UsageError, quoted
from byname.estimator import Estimator
from byname.inputs import in_place, listed
from byname.pipeline import Pipeline
from byname.programs.mode_gate import mode_weights
from byname.programs.router_images import ALIGN, SeenImages, aligned, is_vectors, seen_images
from byname.recipes import Recipe, get_recipe
from byname.score.encoders import logit_statistics, temperature_of
from byname.stage import ClassTexts

__all__ = ["EncoderEnsemble"]

Floats = NDArray[np.float64]
_BLOCK = 4096


class EncoderEnsemble(Estimator):
    """The weighted mean of what several encoders say of the same images.

    Formula, with S_e (N, K) the logits of expert e, brought to one order of classes::

        L_e = S_e / T_e
        S   = sum_e w_e L_e                         combine="logits"
        S   = log(sum_e w_e softmax(L_e))           combine="probabilities"

        T_e = spread(S_e) / spread(S_1),  spread(S) = sqrt(mean_i var_k S[i,k]);  or 1

    and the weights w, which sum to 1::

        "equal"  1 / E
        given    as given
        "zpe"    softmax(a / temperature),  a_e = mean_i max_k (L_e[i,k] - mean_i L_e[i,k])
        "mode"   see :func:`byname.programs.mode_gate.mode_weights`

    The answer is the class of the largest S. Classes are matched by id, and images by key where
    they have keys; columns and rows are in the order of the first expert.

    Complexity: E runs of the pipeline; E arrays (N, K) are held.

    Source: Ma et al., "MoDE: CLIP Data Experts via Clustering", CVPR 2024, for weighted logits and
    the gate; Allingham et al., "A Simple Zero-shot Prompt Weighting Technique", ICML 2023, for the
    score, which they give to prompts and not to encoders. Matching by spread is ours.

    Parameters
    ----------
    experts : sequence of Classifier or ClassTexts
        Each with its own encoder; class texts are used with ``recipe``.
    weights : "equal", "zpe", "mode" or sequence of float
        Default "equal".
    combine : {"logits", "probabilities"}
        Default "logits", as in MoDE's code.
    match : {"auto", "spread", "none"}
        Whether logits are brought to the spread of the first expert's: "auto" does it for experts
        whose logit scale differs from the first's.
    temperature : float
        Of the softmax under "zpe"; 1 as in ZPE's code.
    class_vectors : array, shape (K, d), optional
        Under "mode": class names in the space of the centres.
    centres : sequence of arrays, shapes (F_e, d), optional
        Under "mode": cluster centres of each expert.
    recipe : str or Recipe
        For experts that are class texts. Default "ensemble".

    Attributes
    ----------
    classes_ : array of str, shape (K,)
        Ids, in the order of the columns.
    weights_, temperatures_ : arrays, shape (E,)
        After ``fit``.
    scores_ : array, shape (E,)
        a under "zpe", else NaN.

    Notes
    -----
    Used from Python; ``--score encoders --with second=...`` does the same for two encoders.
    ``fit`` takes unlabeled images only. Without it, the methods that predict learn from the images
    that they are given, each call by itself.

    Examples
    --------
    >>> from byname.taxonomy import Taxonomy
    >>> animals = Taxonomy.from_names(["cat", "dog"])
    >>> one, two = (ClassTexts(np.eye(d)[:2], np.array([0, 1]), animals) for d in (2, 3))
    >>> images = [np.array([[0.6, 0.8]]), np.array([[1.0, 0.0, 0.0]])]
    >>> model = EncoderEnsemble([one, two])
    >>> model.predict(images).tolist(), model.decision_function(images).round(1).tolist()
    (['cat'], [[80.0, 40.0]])
    """

    weights_: Floats
    temperatures_: Floats
    scores_: Floats
    classes_: NDArray[np.str_]
    _derived = frozenset({"_experts"})

    def __init__(
        self,
        experts: Sequence[Classifier | ClassTexts] = (),
        weights: Literal["equal", "zpe", "mode"] | Sequence[float] = "equal",
        *,
        combine: Literal["logits", "probabilities"] = "logits",
        match: Literal["auto", "spread", "none"] = "auto",
        temperature: float = 1.0,
        class_vectors: Any = None,
        centres: Sequence[Any] | None = None,
        recipe: str | Recipe = "ensemble",
    ) -> None:
        self.experts = experts
        self.weights = weights
        self.combine = combine
        self.match = match
        self.temperature = temperature
        self.class_vectors = class_vectors
        self.centres = centres
        self.recipe = recipe

    def fit(self, X: Any = None, y: None = None) -> Self:
        """Let the experts learn from unlabeled images, and find weights and temperatures.

        Parameters
        ----------
        X : images, optional
            A list with one array (N, D) of vectors, Embeddings or Batch for each expert; or, where
            all experts are classifiers, images in any form that these take. May be left out where
            nothing is learned from images: not with weights="zpe" or match="spread".
        y : None
            Labels are refused.
        """
        if y is not None:
            raise UsageError("fit", "labels were given", "Images alone are learned from.")
        self._forget()
        self._check()
        if X is None and (self._weighs("zpe") or self.match == "spread"):
            seen = f"there are no images, with weights={self.weights!r} and match={self.match!r}"
            raise UsageError("average encoders", seen, "Give unlabeled images to learn from.")
        images = None if X is None else self._read(X)
        self._experts = self._learned(images)
        logits = None if images is None else self._logits(self._experts, images)
        self.weights_, self.temperatures_, self.scores_ = self._gate(self._experts, logits)
        self.classes_ = np.array(self._experts[0].ids)
        self._remember()
        return self

    def decision_function(self, X: Any) -> NDArray[Any]:
        """Logits (N, K), columns as ``classes_``; NaN for unreadable files."""
        S, X, embedded, _ = self._scored(X)
        return S if embedded is None else in_place(X, embedded, S, np.nan)

    def predict_proba(self, X: Any) -> NDArray[Any]:
        """Probabilities (N, K): the softmax of the logits."""
        return np.asarray(ops.softmax(self.decision_function(X)))

    def predict(self, X: Any) -> NDArray[Any]:
        """Id of the best class of each image, shape (N,); None for unreadable files."""
        S, X, embedded, classes = self._scored(X)
        ids: NDArray[Any] = classes[ops.argmax(S)]
        return ids if embedded is None else in_place(X, embedded, ids, None)

    def report(self) -> dict[str, Any]:
        """Weights, temperatures and scores of the experts, and how many count: 1 / sum w^2."""
        if not hasattr(self, "weights_"):
            raise UsageError("report", "the ensemble has learned nothing yet", "Call fit() first.")
        known = np.isfinite(self.scores_).all()
        return {
            "weights": self.weights_.tolist(),
            "temperatures": self.temperatures_.tolist(),
            "scores": self.scores_.tolist() if known else None,
            "effective_experts": float(1 / (self.weights_**2).sum()),
        }

    # what it is made of

    def _heavy(self) -> dict[str, Any]:
        # By identity: experts hold arrays and sessions, which cannot be compared or copied.
        seen = super()._heavy()
        for n in ("experts", "centres"):
            seen[n] = () if seen[n] is None else tuple(map(id, seen[n]))
        if isinstance(self.weights, np.ndarray):
            seen["weights"] = self.weights.tolist()
        return seen

    def _scored(self, X: Any) -> tuple[NDArray[Any], Any, Embeddings | None, NDArray[np.str_]]:
        """S; then, where images and not vectors were given, what they are and their embeddings."""
        self._refresh()
        self._check()
        X = listed(X)
        images = self._read(X)
        fitted = hasattr(self, "weights_")
        experts = self._experts if fitted else self._learned(images)
        logits = self._logits(experts, images)
        gate = self._gate(experts, logits) if not fitted else (self.weights_, self.temperatures_)
        embedded = None if self._each(X) else images[0].embedded
        return self._mean(logits, *gate[:2]), X, embedded, np.array(experts[0].ids)

    def _each(self, X: Any) -> bool:
        """Whether X is a list with the vectors of each expert."""
        several = isinstance(X, list | tuple) and len(X) == len(self.experts)
        return several and all(map(is_vectors, X))

    def _mean(self, logits: list[NDArray[Any]], w: Floats, T: Floats) -> NDArray[Any]:
        """S (N, K)."""
        S = np.zeros(logits[0].shape, np.result_type(*logits))
        for L, share, t in zip(logits, w.tolist(), T.tolist(), strict=True):
            L = L / t
            S += share * (L if self.combine == "logits" else ops.softmax(L))
        return S if self.combine == "logits" else np.asarray(ops.log_probability(S))

    def _gate(
        self, experts: list[_Expert], logits: list[NDArray[Any]] | None
    ) -> tuple[Floats, Floats, Floats]:
        """Weights, temperatures and scores (E,)."""
        E, found = len(experts), [(0.0, 0.0)] * len(experts)
        if logits is not None:
            found = [
                logit_statistics((S[r] for r in ops.blocks(len(S), _BLOCK)), _means(S))
                for S in logits
            ]
        first = experts[0].scale
        T = np.array(
            [
                temperature_of(spread, found[0][0], e.scale, first, self.match)
                for (spread, _), e in zip(found, experts, strict=True)
            ]
        )
        scores = np.full(E, np.nan)
        if self._weighs("zpe"):
            scores = np.array([top for _, top in found]) / T
            return np.asarray(ops.softmax(scores / self.temperature)), T, scores
        if self._weighs("mode"):
            return mode_weights(self.class_vectors, self._centres()), T, scores
        given = np.ones(E) if isinstance(self.weights, str) else np.asarray(self.weights, float)
        return given / given.sum(), T, scores

    def _weighs(self, way: str) -> bool:
        return isinstance(self.weights, str) and self.weights == way

    def _centres(self) -> Sequence[Any]:
        return () if self.centres is None else self.centres

    def _learned(self, images: list[SeenImages] | None) -> list[_Expert]:
        recipe = get_recipe(self.recipe)
        parts = [None] * len(self.experts) if images is None else images
        made: list[_Expert] = []
        for given, part in zip(self.experts, parts, strict=True):
            made.append(
                _of_texts(given, recipe, part)
                if isinstance(given, ClassTexts)
                else _of_classifier(given, part)
            )
        gate = np.shape(self.class_vectors)
        if self._weighs("mode") and gate[:1] != (len(made[0].ids),):
            seen = f"class_vectors has the shape {gate}, for {len(made[0].ids)} classes"
            raise UsageError("average these experts", seen, "Give one vector a class.")
        for i, other in enumerate(made):
            odd = sorted(set(made[0].ids) ^ set(other.ids))
            if odd:
                raise TaxonomyError(
                    "average these experts",
                    f"experts 0 and {i} do not have the same classes: {quoted(odd)}",
                    "Give all of them the same taxonomy; ids are compared, not names.",
                )
        return made

    def _logits(self, experts: list[_Expert], images: list[SeenImages]) -> list[NDArray[Any]]:
        found = []
        for expert, part in zip(experts, images, strict=True):
            place = {i: k for k, i in enumerate(expert.ids)}
            columns = [place[i] for i in experts[0].ids]
            S = expert.logits(part)
            S = S if part.order is None else S[part.order]
            found.append(S if columns == sorted(columns) else S[:, columns])
        return found

    def _read(self, X: Any) -> list[SeenImages]:
        """The images of each expert, with the order that brings them to that of the first."""
        if self._each(X):
            return aligned([seen_images(part, e) for e, part in enumerate(X)])
        if not all(isinstance(expert, Classifier) for expert in self.experts):
            seen = f"there are {len(self.experts)} experts, and not one X for each"
            raise UsageError("read the images", seen, ALIGN)
        parts = [expert.embed(X) for expert in self.experts]  # type: ignore[union-attr]
        return aligned([seen_images(part, e) for e, part in enumerate(parts)])

    def _check(self) -> None:
        asked = "average encoders"
        if self.experts is None or not len(self.experts):
            raise UsageError(asked, "there is no expert", "Give one or more.")
        for e, expert in enumerate(self.experts):
            if not isinstance(expert, Classifier | ClassTexts):
                seen = f"expert {e} is of the type {type(expert).__name__}"
                raise UsageError(asked, seen, "Give classifiers or class texts.")
        choices = {"combine": ("logits", "probabilities"), "match": ("auto", "spread", "none")}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                seen = f"{name} is {getattr(self, name)!r}"
                raise UsageError(asked, seen, f"Known: {', '.join(known)}.")
        number = isinstance(self.temperature, int | float | np.integer | np.floating)
        if not number or not 0 < self.temperature < math.inf:
            seen = f"temperature is {self.temperature!r}"
            raise UsageError(asked, seen, "It must be above 0 and finite.")
        self._check_weights(asked)

    def _check_weights(self, asked: str) -> None:
        w, E = self.weights, len(self.experts)
        if isinstance(w, str):
            if w not in ("equal", "zpe", "mode"):
                raise UsageError(
                    asked, f"weights is {w!r}", "Known: equal, zpe, mode, or one number an expert."
                )
            given = self.class_vectors is not None and len(self._centres()) == E
            if w == "mode" and not given:
                raise UsageError(
                    asked,
                    "weights is 'mode', without class_vectors and centres of every expert",
                    "Give both; fine_centres makes centres from texts.",
                )
            return
        try:
            values = np.asarray(w, float)
        except (TypeError, ValueError):
            values = np.empty(0)
        if values.shape != (E,) or not np.isfinite(values).all() or values.min() < 0:
            raise UsageError(asked, f"weights is {w!r}", f"Give {E} numbers, none negative.")
        if not values.sum():
            raise UsageError(asked, "all weights are 0", "Let one expert count.")


@dataclass(eq=False)
class _Expert:
    """A fitted expert."""

    model: Pipeline | Classifier
    ids: tuple[str, ...]
    scale: float

    def logits(self, images: SeenImages) -> NDArray[Any]:
        if isinstance(self.model, Pipeline):
            return np.asarray(ops.to_numpy(self.model.scores(images.batch)))
        return self.model.decision_function(images.given())


def _of_texts(texts: ClassTexts, recipe: Recipe, images: SeenImages | None) -> _Expert:
    pipeline = Pipeline(recipe).fit(texts, None if images is None else images.batch)
    return _Expert(pipeline, texts.taxonomy.class_ids, texts.scale)


def _of_classifier(given: Classifier, images: SeenImages | None) -> _Expert:
    model = copy.copy(given)  # what it learns here is not the user's own
    model = model.fit(None if images is None else images.given())
    return _Expert(model, tuple(model.classes_.tolist()), model.encoder_.info.logit_scale)


def _means(S: NDArray[Any]) -> NDArray[Any]:
    """Mean logit of each class, summed in float64."""
    return np.asarray(S.mean(axis=0, dtype=np.float64)) if len(S) else np.zeros(S.shape[1])
