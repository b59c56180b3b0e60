"""Why this label: what each text of a class adds to the score of an image.

Where the score of a class is ``S = scale * <x, W_k> + bias``, and W_k the weighted sum of the texts
of the class (times a factor where it is brought to length one), the parts
``scale * factor * weight_m * <x, t_m>`` add up to ``S - bias``. Where a member scores otherwise,
weights and cosines are shown without parts.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.classifier import Classifier
from byname.errors import UsageError
from byname.pipeline import Pipeline
from byname.progress import counted
from byname.stage import Batch, ClassTexts

__all__ = ["Explanation", "Part", "Side", "explain", "explain_images"]

TOLERANCE = 1e-3  # in logits, of float32 products at a scale of 100


@dataclass(frozen=True)
class Part:
    """One text: its weight in the class, its cosine to the image, and what it adds to the score.

    ``part`` is None where the score is no sum over the texts.
    """

    text: str
    kind: str
    weight: float
    cosine: float
    part: float | None


@dataclass(frozen=True)
class Side:
    """A class: its score (a logit), how many texts it has, and those that count.

    ``parts`` are the texts that add most, first the most.
    """

    class_id: str
    label: str
    score: float
    texts: int
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Explanation:
    """One image: what is answered, the class behind it, a rival, and what the stages say beside.

    ``class_id``, ``label``, ``probability`` and ``decision`` are those of the rows of ``classify``.
    ``answer`` is the answered class, or the one of the highest score where a group is answered.
    """

    file_name: str
    class_id: str
    label: str
    probability: float
    decision: str
    answer: Side
    rival: Side | None
    details: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


def explain(
    pipeline: Pipeline,
    texts: ClassTexts,
    sentences: Sequence[str],
    batch: Batch,
    *,
    names: Sequence[str] | None = None,
    against: str | None = None,
    top: int = 5,
    S: Any = None,
) -> list[Explanation]:
    """Explain the answers of a pipeline fitted on these texts, image by image.

    Parameters
    ----------
    pipeline, texts : Pipeline, ClassTexts
    sentences : sequence of str, length M or less
        The texts themselves, by their rows.
    batch : Batch
    names : sequence of str, length N, optional
        File names; the numbers of the images by default.
    against : str, optional
        Class id of the rival; the runner-up of each image by default.
    top : int
        Texts of each class to show.
    S : array, shape (N, K), optional
        Their logits, as a member that looks at all images gives them.

    Raises
    ------
    UsageError

    Examples
    --------
    >>> from byname.recipes import get_recipe
    >>> from byname.taxonomy import Taxonomy
    >>> texts = ClassTexts(np.eye(2), np.array([0, 1]), Taxonomy.from_names(["cat", "dog"]))
    >>> pipeline = Pipeline(get_recipe("plain")).fit(texts)
    >>> found = explain(pipeline, texts, ["a cat", "a dog"], Batch(np.array([[0.6, 0.8]])))[0]
    >>> found.answer.label, found.answer.parts[0].text, found.rival.label
    ('dog', 'a dog', 'cat')
    """
    rival = _rival(texts, against, top)
    S = ops.to_numpy(pipeline.scores(batch) if S is None else S)
    answer, taxonomy = pipeline.decide(S, batch=batch)
    table, details = _Table(pipeline, texts, sentences, top), pipeline.details(batch, S)
    X, found, label = ops.to_numpy(batch.X), [], names or [str(i) for i in range(len(batch))]
    order = np.argsort(-S, axis=1, kind="stable")[:, :3].tolist()
    for i, best in enumerate(counted("images explained", order)):
        node = taxonomy.nodes[answer.node[i, 0]]
        first = _place(texts, node.id, best[0])
        second = next((k for k in best if k != first), None) if rival in (None, first) else rival
        sides = [
            None if k is None else table.side(X[i], k, float(S[i, k])) for k in (first, second)
        ]
        assert sides[0] is not None
        said = (node.id, node.name, float(answer.probability[i, 0]), str(answer.decision[i]))
        beside = {name: values[i] for name, values in details.items()}
        found.append(Explanation(label[i], *said, sides[0], sides[1], beside))
    return found


def explain_images(
    model: Classifier, X: Any, *, against: str | None = None, top: int = 5
) -> list[Explanation]:
    """Explain the answers of a classifier; see :func:`explain`.

    Parameters
    ----------
    model : Classifier
        Fitted, or fitted here on the images themselves.
    X : images
        As for :meth:`Classifier.predict`; unreadable files are left out.
    against, top
        As for :func:`explain`.

    Examples
    --------
    >>> from byname.encoders import PrecomputedEncoder
    >>> encoder = PrecomputedEncoder.from_arrays(["a cat", "a dog"], [[1.0, 0.0], [0.0, 1.0]])
    >>> model = Classifier(["cat", "dog"], encoder, "plain", templates=["a {}"])
    >>> explain_images(model, np.array([[0.9, 0.1]]))[0].answer.parts[0].text
    'a cat'
    """
    given = model.gather(X)
    if not hasattr(model, "pipeline_"):
        model = copy.copy(model).fit_prepared(given)
    sentences = [p.text for prompts in model.prompts_.classes.values() for p in prompts]
    names = list(given.embeddings.keys)
    return explain(
        model.pipeline_,
        model._texts,
        sentences,
        given.batch,
        names=names,
        against=against,
        top=top,
    )


class _Table:
    """The texts of each class with what they add."""

    def __init__(
        self, pipeline: Pipeline, texts: ClassTexts, sentences: Sequence[str], top: int
    ) -> None:
        self.texts, self.sentences, self.top = texts, sentences, top
        self.T = ops.to_numpy(ops.as_float(texts.vectors))
        self.index = ops.to_numpy(texts.class_index)
        count = np.bincount(self.index[self.index >= 0], minlength=texts.n_classes)
        given = pipeline.weight_
        equal = 1 / np.maximum(count, 1)[self.index]
        self.weight = equal if given is None else ops.to_numpy(given).astype(np.float64)
        self.W = ops.to_numpy(pipeline.W_).astype(np.float64)

    def side(self, x: NDArray[Any], k: int, score: float) -> Side:
        rows = np.flatnonzero(self.index == k)
        cosine = self.T[rows].astype(np.float64) @ x.astype(np.float64)
        parts = self._parts(x, k, rows, cosine, score)
        by = cosine if parts is None else cosine * self.weight[rows]
        order = np.argsort(-by, kind="stable")[: self.top]
        node = self.texts.taxonomy.classes[k]
        return Side(
            node.id,
            node.name,
            score,
            len(rows),
            tuple(
                Part(
                    self.sentences[rows[j]] if rows[j] < len(self.sentences) else "",
                    self.texts.kind[rows[j]] if self.texts.kind else "",
                    float(self.weight[rows[j]]),
                    float(cosine[j]),
                    None if parts is None else float(parts[j]),
                )
                for j in order
            ),
        )

    def _parts(
        self, x: NDArray[Any], k: int, rows: NDArray[np.intp], cosine: Any, score: float
    ) -> NDArray[np.float64] | None:
        """What each text adds, or None where W and the score are no weighted sums of the texts."""
        scale, weight = self.texts.scale, self.weight[rows]
        mean = weight @ self.T[rows].astype(np.float64)
        length = float(np.linalg.norm(mean))
        factor = float(np.linalg.norm(self.W[k])) / length if length else 0.0
        linear = abs(scale * float(self.W[k] @ x) + self.texts.bias - score) < TOLERANCE
        if not linear or np.abs(self.W[k] - factor * mean).max() * scale > TOLERANCE:
            return None
        parts: NDArray[np.float64] = scale * factor * weight * cosine
        return parts


def _place(texts: ClassTexts, node_id: str, otherwise: int) -> int:
    """Number of a class; another where it is no class."""
    ids = texts.taxonomy.class_ids
    return ids.index(node_id) if node_id in ids else otherwise


def _rival(texts: ClassTexts, class_id: str | None, top: int) -> int | None:
    if top < 1:
        raise UsageError("explain", f"top is {top}", "Give 1 or more.")
    if class_id is None:
        return None
    ids = list(texts.taxonomy.class_ids)
    if class_id not in ids:
        raise UsageError(
            f"explain against '{class_id}'",
            "no class has this id",
            f"Ids: {', '.join(ids[:5])}{', ...' if len(ids) > 5 else ''}.",
        )
    return ids.index(class_id)
