"""What flows through the five stages: images, texts, and what has been computed so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from byname.taxonomy import Taxonomy

__all__ = ["Answer", "Array", "Batch", "ClassTexts", "SecondTexts", "State", "Support"]

Array = Any  # a NumPy or torch array; ops.py is where they are told apart


@dataclass(frozen=True)
class Batch:
    """The unlabeled images, as vectors. No field can hold a label of these images.

    Parameters
    ----------
    X : array, shape (N, D)
        Unit rows.
    views : array, shape (N, V, D), optional
        Several crops of each image.
    tokens : array, shape (N, T, D), optional
        Patch vectors of each image.
    second : array, shape (N, D2), optional
        The same images through another encoder.
    log_var : array, shape (N, D), optional
        Log variance of each vector, from encoders that give one.
    class_probs : tuple of arrays (N, K0) and (K0, D), optional
        A classifier's probabilities over other classes, and the vectors of those classes.
    captions : array, shape (N, J, D), optional
        Vectors of J texts that were said of each image; rows of zeros where one has fewer.
    reference : array, shape (R, D), optional
        Other unlabeled images.
    support : Support, optional
        Vectors with class ids, marked as pseudo-labelled, generated or labelled by the user.
    """

    X: Array
    views: Array | None = None
    tokens: Array | None = None
    second: Array | None = None
    log_var: Array | None = None
    class_probs: tuple[Array, Array] | None = None
    captions: Array | None = None
    reference: Array | None = None
    support: Support | None = None

    def __len__(self) -> int:
        return int(self.X.shape[0])


@dataclass(frozen=True)
class Support:
    """Vectors (R, D) whose class (R,) is known or guessed; ``kind`` says which.

    ``captions`` (R, D) holds the vector of a text about each, where there are texts.
    """

    vectors: Array
    class_index: NDArray[np.intp]
    kind: Literal["pseudo", "generated", "labelled"]
    captions: Array | None = None


@dataclass(frozen=True)
class SecondTexts:
    """The same M texts through the encoder of ``Batch.second``: unit rows (M, D2)."""

    vectors: Array
    scale: float = 100.0
    bias: float = 0.0


@dataclass(frozen=True)
class ClassTexts:
    """The texts of all classes, as vectors, each with what it is about.

    Parameters
    ----------
    vectors : array, shape (M, D)
        Unit rows.
    class_index : array of int, shape (M,)
        Index into ``taxonomy.classes``; -1 for a text of an inner node or of no class.
    taxonomy : Taxonomy
    prompt_index : array of int, shape (M,), optional
        Which template, shared by all classes; -1 for a text of one class only.
    node_id : tuple of str, length M, optional
        Taxonomy node that the text is about; ``""`` for none.
    kind : tuple of str, length M, optional
        What sort of text: ``"template"``, ``"attribute"``, ...
    level, group, context : array of int, shape (M,), optional
        Level of a hierarchy of texts, subclass (a number of its own in every class), and context
        (the same number in all classes) of each text; -1 for none.
    group_names, context_names : tuple of str, optional
        Names of the subclasses and contexts by their numbers.
    weight : array, shape (M,), optional
        Weights that came with the texts; 1 where absent.
    text_log_var : array, shape (M, D), optional
        Log variance of each text, from encoders that give one.
    text_tokens : array, shape (M, L, D), optional
        Token vectors of each text; rows of zeros where it has fewer.
    null : array, shape (J, D), optional
        Texts that name no class, such as "a photo.".
    second_texts : SecondTexts, optional
        The same texts through the encoder of ``Batch.second``.
    scale, bias : float
        Logit scale and bias of the encoder.
    pairs : tuple of (id A, id B, row numbers), optional
        Texts about A against B, as row numbers into ``vectors``.
    """

    vectors: Array
    class_index: NDArray[np.intp]
    taxonomy: Taxonomy
    prompt_index: NDArray[np.intp] | None = None
    node_id: tuple[str, ...] | None = None
    kind: tuple[str, ...] | None = None
    level: NDArray[np.intp] | None = None
    group: NDArray[np.intp] | None = None
    context: NDArray[np.intp] | None = None
    weight: NDArray[np.float64] | None = None
    group_names: tuple[str, ...] | None = None
    context_names: tuple[str, ...] | None = None
    text_log_var: Array | None = None
    text_tokens: Array | None = None
    null: Array | None = None
    second_texts: SecondTexts | None = None
    scale: float = 100.0
    bias: float = 0.0
    pairs: tuple[tuple[str, str, tuple[int, ...]], ...] | None = None

    @property
    def n_classes(self) -> int:
        """K."""
        return len(self.taxonomy.classes)


@dataclass(frozen=True)
class State:
    """What the stages before have computed.

    ``weight`` (M,) one per text; ``W`` (K, D), not necessarily unit rows; ``S`` (N, K) logits
    whose softmax is the answer (a member that yields probabilities returns log(max(p, 1e-30))).
    ``k``: how many ranks ``decide`` shall answer.
    """

    weight: Array | None = None
    W: Array | None = None
    S: Array | None = None
    k: int = 1


@dataclass(frozen=True)
class Answer:
    """What ``decide`` says of N images.

    Parameters
    ----------
    node : array of int, shape (N, k)
        Index into ``taxonomy.nodes``, best first; -1 where a rank is not filled.
    probability : array, shape (N, k)
    margin : array, shape (N,)
        p1 - p2 over the classes; p1 where there is one class.
    decision : array of str, shape (N,)
        ``accept``, ``backoff`` or ``reject``.
    """

    node: NDArray[np.intp]
    probability: NDArray[np.float32]
    margin: NDArray[np.float32]
    decision: NDArray[np.str_]
