"""Clusters of the images are classified, and hand their answer to the images (ZeroBERTo)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.errors import RecipeError
from byname.kmeans import Clusters, kmeans, tiles
from byname.knn import nearest
from byname.refine.guard import NEIGHBOURS, caution, doubt, told, too_few
from byname.refine.shares import answered_shares, effective, refuse_nan
from byname.refine.whole import barred, floored
from byname.stage import Array, Batch, ClassTexts, Member, StageName, State, register

__all__ = ["ClusterVote", "ClusterVoteParams", "cluster_logits", "clusters_of", "coherence"]

_LEAST = 5  # images a cluster has in the mean, at least
_IMAGES = 10  # that each class that seems to be there has in the mean: two clusters of five
_RISE = 0.3  # of the agreement, for each image that moved
_COHERENT = 0.3  # of what chance leaves: share of images that have their cluster's answer


@dataclass(frozen=True)
class ClusterVoteParams:
    """How many clusters, how sharply images belong to them, and the k-means behind."""

    clusters: int | None = None
    sharpness: float = 5.0
    iterations: int = 30
    restarts: int = 1
    seed: int = 0
    guard: bool = True

    def __post_init__(self) -> None:
        least = {"clusters": 2, "iterations": 1, "restarts": 1, "seed": 0}
        for name, lowest in least.items():
            value = getattr(self, name)
            if value is not None and value < lowest:
                raise RecipeError("use 'clusters'", f"{name} is {value}", f"Give {lowest} or more.")
        if not 0 < self.sharpness < np.inf:
            seen = f"sharpness is {self.sharpness}"
            raise RecipeError("use 'clusters'", seen, "Give a number above 0.")


def clusters_of(N: int, K: int) -> int:
    """Clusters by default: ten a class, but no more than leave five images each.

    Examples
    --------
    >>> clusters_of(1005, 19), clusters_of(300, 19), clusters_of(100_000, 1000)
    (190, 60, 10000)
    """
    return min(10 * K, N // _LEAST)


def cluster_logits(S: Array, found: Clusters) -> Array:
    """Logits (T, K) of the clusters' centres, from those of the images.

    The mean of the members' logits, divided by the length of the mean of their vectors: where S are
    scaled cosines, exactly the logits of the centre brought to length one.

    Examples
    --------
    >>> X = np.array([[0.6, 0.8], [0.8, 0.6]])
    >>> cluster_logits(X @ np.eye(2), kmeans(X, 1)).round(4).tolist()
    [[0.7071, 0.7071]]
    """
    means = ops.segment_mean(S, found.member, len(found))
    length = np.linalg.norm(ops.to_numpy(found.centres).astype(np.float64), axis=1, keepdims=True)
    return means / ops.cast(np.where(length > 1e-6, length, 1), means)


def coherence(answer: NDArray[np.intp], voted: NDArray[np.intp], K: int) -> float:
    """How often images have the answer of their cluster, beyond chance: 1 is always.

    Chance is that of an image drawn by lot for each cluster.

    Examples
    --------
    >>> coherence(np.array([0, 0, 1, 1]), np.array([0, 0, 1, 1]), 2)
    1.0
    """
    shares = [np.bincount(a, minlength=K) / len(answer) for a in (answer, voted)]
    chance = float(shares[0] @ shares[1])
    same = float((answer == voted).mean())
    return (same - chance) / (1 - chance) if chance < 1 - 1e-12 else 1.0


@register
class ClusterVote(Member):
    """Images are grouped, the groups are classified, and each image asks the groups it is near to.

    Formula::

        T clusters of the images by k-means, with centres m_t and members
        L_t      = mean of S_i over the members / ||m_t||       logits of the centre
        P(y | t) = softmax(L_t)
        P(t | x) = softmax over t of  -sharpness * ||x - m_t||^2 / v
        v        = mean over the images of the squared distance to their own centre
        S'       = log of the sum over t of P(t | x) P(y | t)

    It needs no more than S of a score member, whichever it is; with ``cosine`` L_t are the logits
    of the unit centre. Distances are measured in their own mean v, so that one sharpness serves
    all encoders. Images with a vector of zeros keep their own probabilities.

    Assumes that images of a cluster are of one class, for which a class needs enough images to have
    clusters of its own; a rare one can be voted down, of which it warns where shares look uneven.
    It keeps S, and says why, with one class, with too few images for two clusters, and, unless
    ``guard`` is false, with fewer than 10 images for each class that seems to be there (exp of the
    entropy of the answers), where fewer images than 30 % of what chance leaves have the answer of
    their cluster (the clusters are about something else), and where neighbours do not agree more by
    0.3 times the share of the images that moved. 10 and 0.3 were chosen on made-up tasks.

    Shapes: X (N, D), S (N, K) to S' (N, K). N T D for each step of the k-means and once more, in
    tiles, then N T K; beside S and S' there is one (T, K) array.

    Source: Alcoforado et al., "ZeroBERTo: Leveraging Zero-Shot Text Classification by Topic
    Modeling", PROPOR 2022, with images for texts and centres for topics.

    Parameters
    ----------
    clusters : int or None
        None is ten times the classes, as for the paper's topics, cut to a fifth of the images.
    sharpness : float
        5 is ours: a centre that is twice as far, in squared distance, as is usual counts e^-5.
    iterations : int
        Steps of the k-means at most; 30 is ours.
    restarts : int
        Runs of the k-means, of which the one of the least squared distances counts; 1 is ours.
    seed : int
        Of the k-means.
    guard : bool
        Whether clusters must go with answers, and neighbours agree as before.

    Attributes
    ----------
    clusters_ : Clusters or None
        None where S was kept.
    logits_ : array, shape (T, K), or None
        Of the clusters; None where S was kept.
    coherence_ : float
        Share of the images with the answer of their cluster, beyond chance; NaN if not known.
    reason_ : str or None
        Why S was kept.
    warning_ : str or None
        What to know where shares look uneven (:func:`byname.refine.guard.caution`).

    Raises
    ------
    RecipeError
        For a parameter that does not fit.
    UsageError
        For an image that holds NaN or infinity.

    Examples
    --------
    >>> from byname.taxonomy import Taxonomy
    >>> texts = ClassTexts(np.eye(2), np.array([0, 1]), Taxonomy.from_names(["cat", "dog"]))
    >>> X = np.array([[1.0, 0.0], [0.96, 0.28], [0.28, 0.96], [0.0, 1.0], [0.1, 0.995]])
    >>> state = State(S=10 * X + np.array([[0, 0], [0, 9], [0, 0], [0, 0], [0, 0]]))
    >>> member = ClusterVote(clusters=2, guard=False).fit(Batch(X), texts, state)
    >>> state.S.argmax(axis=1).tolist()
    [0, 1, 1, 1, 1]
    >>> member.apply(Batch(X), texts, state).argmax(axis=1).tolist()
    [0, 0, 1, 1, 1]
    """

    stage: ClassVar[StageName] = "refine"
    name = "clusters"
    needs = frozenset({"X"})
    inductive = False
    Params = ClusterVoteParams
    params: ClusterVoteParams
    clusters_: Clusters | None = None
    logits_: Array | None = None
    coherence_: float = float("nan")
    reason_: str | None = "nothing was learned yet"
    warning_: str | None = None

    def fit(self, batch: Batch, texts: ClassTexts, state: State) -> Self:
        """Group the images."""
        refuse_nan(self.name, batch.X, logits=state.S)
        p, S = self.params, ops.as_float(state.S)
        K = int(S.shape[1])
        self.clusters_, self.logits_, self.coherence_ = None, None, float("nan")
        self.warning_ = None
        wanted = p.clusters or clusters_of(len(batch), K)
        self.reason_ = too_few(S, p.clusters or 0)
        if self.reason_ is None and wanted < 2:
            self.reason_ = f"there are {len(batch)} images, which is too few for two clusters"
        if self.reason_ is None and p.guard:
            self.reason_ = _small(S)
        if self.reason_ is not None:
            return self
        found = kmeans(batch.X, wanted, seed=p.seed, iterations=p.iterations, restarts=p.restarts)
        answer = ops.to_numpy(ops.argmax(S))
        self.logits_ = cluster_logits(floored(S), found)
        voted = ops.to_numpy(ops.argmax(self.logits_))
        self.coherence_ = coherence(answer, voted[found.member], K)
        self.clusters_ = found
        if not float(ops.to_numpy(self.logits_).max(initial=0)) < np.inf:
            self.reason_ = "the logits of the clusters are not finite"
        elif p.guard:
            near, S2 = nearest(batch.X, NEIGHBOURS)[0], self.apply(batch, texts, state)
            self.reason_ = self._astray() or doubt(near, S, S2, rise=_RISE)
            self.warning_ = caution(near, S, S2)
        if self.reason_ is not None:
            self.clusters_ = self.logits_ = None
        return self

    def apply(self, batch: Batch, texts: ClassTexts, state: State) -> Any:
        """S' (N, K)."""
        S = ops.as_float(state.S)
        found = self.clusters_
        if found is None or not len(S):
            return S
        P = ops.softmax(self.logits_)
        X = ops.as_float(batch.X)
        squares = ops.cast((ops.to_numpy(found.centres).astype(np.float64) ** 2).sum(axis=1), X)
        spread = float(found.distance.mean())
        factor = self.params.sharpness / spread if spread > 1e-9 else 1e6
        out = []
        for part in tiles(len(X), len(found)):
            rows = X[part]
            near = (2 * factor) * ops.matmul_t(rows, found.centres) - factor * squares
            mixed = ops.log_probability(ops.softmax(near) @ P)
            empty = ops.cast((ops.to_numpy(rows) == 0).all(axis=1)[:, None], rows)
            own = ops.log_probability(ops.softmax(S[part]))
            out.append(ops.cast(mixed * (1 - empty) + own * empty, S))
        return barred(ops.concat(out), S)

    def details(self, batch: Batch, texts: ClassTexts, state: State) -> dict[str, list[Any]]:
        """Cluster of each image, where S was not kept."""
        if self.clusters_ is None or len(self.clusters_.member) != len(batch):
            return {}
        return {"cluster": self.clusters_.member.tolist()}

    def report(self) -> dict[str, Any]:
        """Clusters, how far they go with the answers, and whether and why S was kept."""
        known = np.isfinite(self.coherence_)
        return {
            "clusters": len(self.clusters_) if self.clusters_ else None,
            "coherence": self.coherence_ if known else None,
            **told(self.reason_, self.warning_),
        }

    def _astray(self) -> str | None:
        if self.coherence_ >= _COHERENT:
            return None
        return (
            f"the clusters do not go with the classes: beyond chance, {self.coherence_:.0%} of "
            "the images have the answer of their cluster"
        )


def _small(S: Array) -> str | None:
    """Why there are too few images for clusters of one class each."""
    seen = effective(answered_shares(S))
    if len(S) >= _IMAGES * seen:
        return None
    return (
        f"{len(S)} images over some {seen:.1f} classes are fewer than {_IMAGES} each, and a "
        "cluster would hold several"
    )
