"""Few labelled images beside the names, and the other images all together: TransCLIP-FS."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from byname import ops
from byname.errors import UsageError
from byname.estimator import Estimator
from byname.programs.fewshot import class_vectors
from byname.programs.shots import (
    askable,
    by_content,
    check_number,
    check_texts,
    check_whole,
    folds,
    read_rows,
    read_support,
)
from byname.refine.guard import NEIGHBOURS, absent, doubt, told
from byname.refine.transclip import Fixed, TransClipParams, mixture
from byname.refine.whole import adjacency, neighbours
from byname.stage import Array, ClassTexts, Support

__all__ = ["GAMMAS", "TransClipFewShot"]

GAMMAS = (0.002, 0.01, 0.02, 0.2)
GAMMA = 0.02  # where nothing can be chosen
_SURE = 100.0  # logit of a given label, for the look at neighbours


@dataclass(frozen=True, eq=False)
class _Scene:
    """Labelled images, then the others: vectors, text logits, classes (-1), and their graph."""

    X: NDArray[Any]
    S: NDArray[Any]
    index: NDArray[np.intp]
    near: NDArray[np.intp]
    A: sparse.csr_matrix


class TransClipFewShot(Estimator):
    """Names, a few labelled images, and all images that are to be labelled at once.

    Formula: that of :class:`byname.refine.transclip.TransClip` over the labelled images L and the
    others U, with the answer z of a labelled image fixed at its class::

        mu_c = unit( mean over L_c of x )    to start with, where class c has labelled images
        z_ic ~ y_ic^text_weight exp( (l_ic + temperature / (2 n) ((W + W^T) z)_ic) / temperature )
                                             for i in U; neighbours in L count with their class
        mu_c = unit( sum over U of z_ic x_i + gamma |U| / |L| sum over L_c of x_i )
        v_j  = the same weights over (x_ij - mu_cj)^2, divided by their sum
        S'   = log z of the images of U

    ``gamma`` is the weight of all labelled images together against that of all others. It is
    chosen by cross-validation among the labelled images: each of up to five folds is answered
    together with the images of U, and its images of classes with three labelled ones or more count;
    among equals the smallest. The order of images and classes does not change the folds; they are
    dealt out once, since each answer is a whole run. With fewer than two such classes it is 0.02.

    Transductive: answers are for the batch as a whole, and other batches give other answers.
    Assumes what TransCLIP does. Goes back to the text logits, and says so in ``reason_``, with no
    or one class, or a single image and no labelled one; and, unless ``guard`` is false, where text
    logits and labels together name less than the share ``present`` of the classes, where there are
    fewer than two images a class, or where neighbours agree less than before, labels counting as
    answers. Classes without labelled images start and live as in TransCLIP.

    Parameters
    ----------
    texts : ClassTexts
        Of K classes.
    gamma : float, optional
        In place of the choice.
    text_weight : float, optional
        0.5 with labelled images and 1 without, as released.
    seeds, top, neighbours, temperature, rounds, steps, present, guard
        As those of the member ``transclip``.
    gammas : sequence of float
        To choose from: 0.002, 0.01, 0.02, 0.2, as released, where they are chosen on further
        labelled images.
    seed : int
        Of the folds.

    Attributes
    ----------
    classes_ : array of str, shape (K,)
    gamma_ : float
        Of the last batch.
    validation_ : dict of str to float
        Accuracy over the folds by gamma, for the last batch; empty where none was chosen.
    unchosen_ : str or None
        Why none was chosen.
    reason_ : str or None
        Why the last batch was answered by its text logits.

    Notes
    -----
    Source: Zanella, Gerin and Ben Ayed, "Boosting Vision-Language Models with Transduction",
    NeurIPS 2024, the variant with labels.

    Cost: that of ``transclip`` on |U| + |L| images; times 1 + folds * gammas where gamma is chosen,
    but for the neighbours, which are searched once.

    Examples
    --------
    >>> from byname.taxonomy import Taxonomy
    >>> texts = ClassTexts(np.eye(2, 3), np.array([0, 1]), Taxonomy.from_names(["cat", "dog"]))
    >>> X = ops.unit(np.array([[9, 1, 0], [9, 2, 0], [9, 3, 0], [5, 9, 9], [6, 7, 9], [8, 7, 9]]))
    >>> model = TransClipFewShot(texts, neighbours=1).fit(X[[0, 5]], ["cat", "dog"])
    >>> model.predict(X[1:5]).tolist()
    ['cat', 'cat', 'dog', 'dog']
    """

    def __init__(
        self,
        texts: ClassTexts,
        gamma: float | None = None,
        *,
        text_weight: float | None = None,
        seeds: Literal["posterior", "column"] = "posterior",
        top: int = 8,
        neighbours: int = 3,
        temperature: float = 50.0,
        rounds: int = 10,
        steps: int = 5,
        present: float = 0.5,
        guard: bool = True,
        gammas: Sequence[float] = GAMMAS,
        seed: int = 0,
    ) -> None:
        self.texts = texts
        self.gamma = gamma
        self.text_weight = text_weight
        self.seeds = seeds
        self.top = top
        self.neighbours = neighbours
        self.temperature = temperature
        self.rounds = rounds
        self.steps = steps
        self.present = present
        self.guard = guard
        self.gammas = gammas
        self.seed = seed

    _derived = frozenset({"_rows", "_index"})

    def fit(self, X: Array | Support, class_ids: Sequence[str] | None = None) -> Self:
        """Keep the labelled images; there may be none.

        Raises
        ------
        UsageError
            As :meth:`FewShot.fit`, and for settings out of range.
        """
        self._check()
        if not isinstance(X, Support) and len(X) == 0 and class_ids is not None:
            rows, index = read_rows("the support", X, self.texts), np.zeros(0, np.intp)
        else:
            rows, index = read_support(self.texts, X, class_ids)
        order = by_content(index, rows)  # so that the one given makes no difference
        self._rows, self._index = rows[order], index[order]
        self.classes_ = np.array(self.texts.taxonomy.class_ids)
        self._remember()
        return self

    def decision_function(self, X: Array) -> NDArray[Any]:
        """Logits (N, K), log z, of these images as one batch."""
        self._refresh()
        if not hasattr(self, "_rows"):
            raise UsageError("predict", "no labelled images are known yet", "Call fit() first.")
        X = read_rows("the images", X, self.texts)
        n, N, K = len(self._rows), len(X), len(self.classes_)
        every = np.concatenate([self._rows.astype(X.dtype, copy=False), X])
        text = np.asarray(ops.matmul_t(every, class_vectors(self.texts).astype(X.dtype)))
        text = np.asarray(self.texts.scale * text + self.texts.bias, X.dtype)
        self.gamma_ = GAMMA if self.gamma is None else self.gamma
        self.validation_: dict[str, float] = {}
        self.unchosen_: str | None = None
        self.reason_ = self._too_little(text, n)
        if self.reason_ is not None:
            return text[n:]
        near = neighbours(every, max(self.neighbours, NEIGHBOURS))
        A = adjacency(near, self.neighbours)
        A.data /= 2 * self.neighbours  # in place: dividing the matrix would make it float64
        A = A.astype(X.dtype)
        index = np.concatenate([self._index, np.full(N, -1, np.intp)])
        scene = _Scene(every, text, index, near[0][:, :NEIGHBOURS], A.tocsr())
        if self.gamma is None and n:
            self._choose(scene)
        found = self._answers(scene, scene.index, self.gamma_)
        if self.guard:
            given = _SURE * np.eye(K, dtype=X.dtype)[self._index]
            old, new = np.concatenate([given, text[n:]]), np.concatenate([given, found])
            self.reason_ = doubt(scene.near, old, new)
        return text[n:] if self.reason_ is not None else found

    def predict_proba(self, X: Array) -> NDArray[Any]:
        """Probabilities (N, K): the softmax of the logits."""
        return np.asarray(ops.softmax(self.decision_function(X)))

    def predict(self, X: Array) -> NDArray[np.str_]:
        """Id of the best class of each image, shape (N,)."""
        best = ops.argmax(self.decision_function(X))
        ids: NDArray[np.str_] = self.classes_[best]
        return ids

    def report(self) -> dict[str, Any]:
        """What was chosen for the last batch, and whether it was answered by its text logits."""
        return {"gamma": self.gamma_, "unchosen": self.unchosen_} | told(self.reason_)

    # what it is made of

    def _params(self, labelled: bool) -> TransClipParams:
        weight = self.text_weight
        return TransClipParams(
            seeds=self.seeds,
            top=self.top,
            neighbours=self.neighbours,
            temperature=self.temperature,
            text_weight=weight if weight is not None else 0.5 if labelled else 1.0,
            rounds=self.rounds,
            steps=self.steps,
            present=self.present,
            guard=self.guard,
        )

    def _check(self) -> None:
        asked = "use TransClipFewShot"
        check_texts(asked, self.texts)
        self._params(True)
        check_whole(asked, "seed", self.seed)
        if isinstance(self.gammas, str) or not isinstance(self.gammas, Iterable):
            raise UsageError(asked, f"gammas is {self.gammas!r}", "Give a list of numbers.")
        if not len(self.gammas):
            raise UsageError(asked, "gammas is empty", "Give one or more.")
        given = [] if self.gamma is None else [("gamma", self.gamma)]
        for name, value in [*given, *(("gammas", g) for g in self.gammas)]:
            check_number(asked, name, value)

    def _too_little(self, text: NDArray[Any], n: int) -> str | None:
        """Why the text logits (n + N, K) should stay as they are, before any work."""
        every, K = text.shape
        if every == n:
            return "there are no images"
        if every < 2:
            return "there is 1 image, and others are what it learns from"
        if K < 2:
            return "there is one class"
        if not self.guard:
            return None
        known = _SURE * np.eye(K, dtype=text.dtype)[self._index]
        if missing := absent(np.concatenate([known, text[n:]]), self.present):
            return missing
        return f"{every} images are fewer than {2 * K} for {K} names" if every < 2 * K else None

    def _choose(self, scene: _Scene) -> None:
        """gamma_ with the most right answers over the folds of the labelled images."""
        counted, self.unchosen_ = askable(self._index)
        if self.unchosen_ is not None:
            return
        n, fold = len(self._index), folds(self._index, self._rows, seed=self.seed)
        right, grid = np.zeros(len(self.gammas)), sorted(self.gammas)
        for f in range(int(fold.max()) + 1):
            index = scene.index.copy()
            index[:n][fold == f] = -1
            asked = (counted & (fold == f))[fold == f]  # the first of those without a class
            truth = self._index[fold == f][asked]
            for i, gamma in enumerate(grid):
                found = self._answers(scene, index, gamma)[: len(asked)][asked]
                right[i] += float((ops.argmax(found) == truth).sum())
        share = right / counted.sum()
        self.gamma_ = grid[int(np.argmax(share))]
        self.validation_ = {f"{g:g}": float(s) for g, s in zip(grid, share, strict=True)}

    def _answers(self, scene: _Scene, index: NDArray[np.intp], gamma: float) -> NDArray[Any]:
        """log z of the images whose class is -1."""
        known, asked = np.flatnonzero(index >= 0), np.flatnonzero(index < 0)
        X, S, rows = scene.X[asked], scene.S[asked], scene.A[asked]
        p = self._params(len(known) > 0)
        fixed, K = None, scene.S.shape[1]
        if len(known):
            of, weight = index[known], gamma * len(asked) / len(known)
            x = scene.X[known].astype(np.float64)
            ones = np.ones(len(known), X.dtype)
            Y = sparse.csr_matrix((ones, (np.arange(len(known)), of)), (len(known), K))
            sums = np.asarray(Y.astype(np.float64).T @ x)
            fixed = Fixed(
                pull=(rows[:, known] @ Y).tocsr(),
                starts=np.asarray(ops.unit(sums)),
                mass=weight * np.bincount(of, minlength=K).astype(np.float64),
                sums=weight * sums,
                squares=weight * np.einsum("ij,ij->j", x, x),
            )
        return mixture(X, S, rows[:, asked].tocsr(), p, fixed)
