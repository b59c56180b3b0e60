"""CODER: a class scores the mean over its attributes, look-alikes and best name; close calls are
settled by texts about one class against another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.errors import PromptError, RecipeError
from byname.stage import Array, Batch, ClassTexts, Member, StageName, State, register

__all__ = ["NAME_KINDS", "Coder", "CoderParams", "Contrasts", "contrasts", "name_vectors", "rerank"]

NAME_KINDS = frozenset({"name", "template"})
SYNONYM = "synonym"
Missing = Literal["linked", "zero"]
_ROWS = 256  # images at a time: their contrast vectors then stay in the processor's cache
_PAIRS = 512


@dataclass(frozen=True)
class CoderParams:
    """How many candidates are ranked again, below which gap p1 - p2, and what missing pairs do."""

    rerank: int = 5
    gap: float = 0.1
    missing: Missing = "linked"

    def __post_init__(self) -> None:
        if self.rerank < 0 or self.rerank == 1:
            raise RecipeError(
                "use 'coder'",
                f"rerank is {self.rerank}",
                "Give 0 for no second stage, or 2 or more candidates.",
            )
        if not 0 <= self.gap <= 1:
            raise RecipeError("use 'coder'", f"gap is {self.gap}", "Give a number from 0 to 1.")
        if self.missing not in get_args(Missing):
            raise RecipeError(
                "use 'coder'",
                f"missing is {self.missing!r}",
                "Give 'linked', or 'zero' for the rule of the released code.",
            )


@dataclass(frozen=True)
class Contrasts:
    """One direction in space for each pair of classes that has texts both ways.

    ``codes`` (P,): a * K + b for class indices a < b, ascending; ``vectors`` (P, D): mean of the
    texts about a against b, minus the mean of those about b against a.
    """

    codes: NDArray[np.int64]
    vectors: Array
    n_classes: int


@register
class Coder(Member):
    """Cross-modal neighbours: what an image is near to, among all that is said of a class.

    Formula, with c(t) = <x, t>, the attributes and analogous classes of class k as items, and h_k
    the best of its name and synonyms, which together count as one item::

        h_k     = max(c(name_k), c(synonym_k1), c(synonym_k2), ...)
        score_k = scale * mean{ c(attribute_k1), ..., c(analogous_k1), ..., h_k } + bias

    name_k is the unit mean of all texts of the kinds "name" and "template", so that several
    templates of one name are one entry. Without names h_k is no item; without attributes h_k is
    the score. Texts of any other kind than name, template and synonym are items. A text's given
    weight is its share of the mean (h_k weighs 1); synonyms of weight 0 are left out.

    Then, where p1 - p2 < gap for p = softmax(score), the best ``rerank`` classes are put in the
    order of::

        r_A = mean over the other candidates B of [ mean c(texts of A against B)
                                                    - mean c(texts of B against A) ]

    A pair without texts in both directions contributes 0. The logits are permuted among the
    candidates that pairs with texts link to the best one, directly or over other candidates: the
    largest goes to the largest r_A, and so on; equal r_A keep their order. All else stays as it
    is, so that texts about D and E move neither of them past a class that they were not compared
    with. (r_A is the same over all candidates and over the linked ones but for a factor, which
    changes no order.) With ``missing="zero"``, the released rule, all candidates are permuted
    wherever any pair of them has texts; where all pairs have, the two are the same. The gap is
    taken from the scores alone, so no label is needed.

    Shapes: X (N, D), texts (M, D) with ``kind`` to S (N, K). The texts themselves are used; W of
    the weigh stage is not. N * K * D for the items, N * D for each name and synonym;
    rerank * (rerank - 1) / 2 * D for each uncertain image, whatever the number of texts a pair.

    Source: Yi, Ren, Zhan & Ye, "Leveraging Cross-Modal Neighbor Representation for Improved CLIP
    Classification", CVPR 2024, arXiv 2404.17753.

    Parameters
    ----------
    rerank : int
        Number of candidates, 5 as in the paper's code; 2 is the earlier variant, 0 is none. No
        pairs among the texts are the same as 0, and fewer classes than 5 are all candidates.
    gap : float
        Threshold of p1 - p2. The default 0.1 is the code's for ImageNet, fixed beforehand and
        used for all data; 0 leaves every image as it is.
    missing : {"linked", "zero"}
        Which candidates change places where some pairs have no texts: those linked to the best
        one, or all, with 0 for such a pair, as in the paper's code.

    Raises
    ------
    PromptError
        For a class without texts, and pairs that name no class or no text.

    Examples
    --------
    >>> from byname.taxonomy import Taxonomy
    >>> texts = ClassTexts(np.eye(3), np.array([0, 1, 1]), Taxonomy.from_names(["cat", "dog"]),
    ...                    kind=("name", "name", "attribute"))
    >>> batch = Batch(np.array([[0.6, 0.0, 0.8]]))
    >>> Coder().fit(batch, texts, State()).apply(batch, texts, State()).tolist()
    [[60.0, 40.0]]
    """

    stage: ClassVar[StageName] = "score"
    name = "coder"
    needs = frozenset({"kind"})
    uses: ClassVar[frozenset[str]] = frozenset({"pairs"})  # looked at where they are given
    Params = CoderParams
    params: CoderParams

    def fit(self, batch: Batch, texts: ClassTexts, state: State) -> Self:
        """Sum up the texts; the images are not looked at."""
        self.items_, self.levels_ = _sum_up(texts)
        self.contrasts_ = contrasts(texts) if self.params.rerank and self.params.gap else None
        return self

    def apply(self, batch: Batch, texts: ClassTexts, state: State) -> Any:
        """S (N, K)."""
        mean = ops.matmul_t(batch.X, self.items_)
        best = mean * 0
        for i, (classes, vectors) in enumerate(self.levels_):
            new, columns = ops.matmul_t(batch.X, vectors), ops.like(classes, mean)
            if i:
                old = best[:, columns]
                better = new > old
                old[better] = new[better]
                new = old
            best[:, columns] = new
        S = texts.scale * (mean + best) + texts.bias
        if self.contrasts_ is None:
            return S
        p = self.params
        return rerank(S, batch.X, self.contrasts_, p.rerank, p.gap, p.missing)


def name_vectors(texts: ClassTexts) -> tuple[Array, NDArray[np.bool_]]:
    """The unit mean of each class's texts of the kinds "name" and "template".

    Parameters
    ----------
    texts : ClassTexts
        Without ``kind`` none is a name.

    Returns
    -------
    vectors : array, shape (K, D)
    named : array of bool, shape (K,)
        Which classes have such a text; the others are zero.
    """
    index, weight = _used(texts)
    own = np.array([kind in NAME_KINDS for kind in _kinds(texts)], bool)
    chosen = np.where(own & (weight > 0), index, -1)
    named = np.bincount(chosen[chosen >= 0], minlength=texts.n_classes) > 0
    return ops.unit(ops.segment_sum(texts.vectors, chosen, texts.n_classes, weight)), named


def contrasts(texts: ClassTexts) -> Contrasts | None:
    """The pairs of ``texts.pairs`` that have texts in both directions; None where there are none.

    The mean of inner products is the inner product with the mean, so one vector a pair holds all
    that its texts say of an image.

    Raises
    ------
    PromptError
        For a pair of an unknown class, of a class with itself, or with a row that does not exist.
    """
    K, M = texts.n_classes, len(texts.class_index)
    place = {node.id: k for k, node in enumerate(texts.taxonomy.classes)}
    directed: dict[int, list[int]] = {}
    for a, b, rows in texts.pairs or ():
        wrong = [repr(i) for i in (a, b) if i not in place]
        if wrong or a == b or not all(0 <= row < M for row in rows):
            seen = f"no class has the id {', '.join(wrong)}" if wrong else "it is one class twice"
            if not wrong and a != b:
                seen = f"its rows {list(rows)} are not all among the {M} texts"
            raise PromptError(
                f"use the texts about '{a}' against '{b}'", seen, "Pairs name two of the classes."
            )
        directed.setdefault(place[a] * K + place[b], []).extend(rows)
    both = [c for c in sorted(directed) if c // K < c % K]
    both = [c for c in both if directed[c] and directed.get(c % K * K + c // K)]
    if not both:
        return None
    sides = [(directed[c], directed[c % K * K + c // K]) for c in both]
    parts = [_differences(texts.vectors, sides[part]) for part in ops.blocks(len(both), _PAIRS)]
    return Contrasts(np.array(both, np.int64), ops.concat(parts), K)


def rerank(
    S: Array,
    X: Array,
    pairs: Contrasts,
    candidates: int,
    gap: float,
    missing: Missing = "linked",
) -> Array:
    """Put the best classes of uncertain images in the order of their contrasts.

    Parameters
    ----------
    S : array, shape (N, K)
        Logits.
    X : array, shape (N, D)
    pairs : Contrasts
    candidates : int
        How many classes, at most K.
    gap : float
        Images with p1 - p2 below it are uncertain.
    missing : {"linked", "zero"}
        Permute the candidates that known pairs link to the best one, or all.

    Returns
    -------
    array, shape (N, K)
        The same logits, those of the candidates of uncertain images permuted; see :class:`Coder`.
    """
    values, best = ops.topk(S, candidates)
    top = ops.to_numpy(best)
    c = top.shape[1]
    if c < 2:
        return S
    log_p = ops.to_numpy(values)[:, :2] - ops.to_numpy(ops.logsumexp(S))[:, None]
    p = np.exp(log_p)
    uncertain = np.flatnonzero(p[:, 0] - p[:, 1] < gap)
    known, place, sign = _look_up(top[uncertain], pairs)
    # The first c - 1 pairs are those of the best candidate.
    touched = (known[:, : c - 1] if missing == "linked" else known).any(axis=1)
    rows = uncertain[touched]
    if not len(rows):
        return S
    r = _preference(X, rows, pairs.vectors, place[touched], sign[touched], c)
    moved = _linked(known[touched], c) if missing == "linked" else np.ones(r.shape, bool)
    # Those that stay come last in both orders, each opposite itself.
    order = np.argsort(np.where(moved, -r, np.inf), axis=1, kind="stable")
    places = np.argsort(~moved, axis=1, kind="stable")
    classes, before = (np.take_along_axis(top[rows], i, axis=1) for i in (order, places))
    at = ops.like(rows[:, None], S)
    out = S * 1
    out[at, ops.like(classes, S)] = S[at, ops.like(before, S)]
    return out


def _used(texts: ClassTexts) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    index = ops.to_numpy(texts.class_index)
    if texts.weight is None:
        return index, np.ones(len(index))
    return index, ops.to_numpy(texts.weight).astype(np.float64)


def _kinds(texts: ClassTexts) -> tuple[str, ...]:
    return ("",) * len(texts.class_index) if texts.kind is None else texts.kind


def _sum_up(texts: ClassTexts) -> tuple[Array, list[tuple[NDArray[np.intp], Array]]]:
    """Items (K, D) whose product with x is their part of the mean; names and synonyms by rank.

    The l-th entry of the list holds the classes that have an l-th name or synonym, and these
    vectors, already divided by the number of items of the class.
    """
    K, kinds = texts.n_classes, _kinds(texts)
    index, weight = _used(texts)
    named_text = np.array([kind in NAME_KINDS for kind in kinds], bool)
    synonym = np.array([kind == SYNONYM for kind in kinds], bool)
    present = (index >= 0) & (weight > 0)
    names, named = name_vectors(texts)
    item = np.where(present & ~named_text & ~synonym, index, -1)
    rows = np.flatnonzero(present & synonym)
    rows = rows[np.argsort(index[rows], kind="stable")]
    first = np.searchsorted(index[rows], index[rows])
    rank = np.arange(len(rows)) - first + named[index[rows]]
    spoken = named | (np.bincount(index[rows], minlength=K) > 0)
    total = np.bincount(item[item >= 0], weight[item >= 0], minlength=K) + spoken
    _check(texts, total)
    items = ops.segment_sum(texts.vectors, item, K, weight / total[np.maximum(index, 0)])
    levels = []
    for level in range(int(rank.max(initial=-1)) + 1 or 1):
        chosen = rows[rank == level]
        where = np.full(len(index), -1)
        where[chosen] = np.arange(len(chosen))
        share = 1 / total[np.maximum(index, 0)]
        classes = index[chosen]
        vectors = ops.segment_sum(texts.vectors, where, len(chosen), share)
        if level == 0:
            own = np.flatnonzero(named)
            scaled = ops.segment_sum(
                ops.take_rows(names, own), np.arange(len(own)), len(own), 1 / total[own]
            )
            classes, vectors = np.concatenate([own, classes]), ops.concat([scaled, vectors])
        levels.append((classes, vectors))
    return items, levels


def _check(texts: ClassTexts, total: NDArray[Any]) -> None:
    empty = [repr(texts.taxonomy.classes[k].id) for k in np.flatnonzero(total == 0)]
    if empty:
        more = f" and {len(empty) - 5} more" if len(empty) > 5 else ""
        raise PromptError(
            "score with 'coder'",
            f"no text for the classes {', '.join(empty[:5])}{more}",
            "Give each class at least one text.",
        )


def _differences(vectors: Array, sides: list[tuple[list[int], list[int]]]) -> Array:
    """Mean of the rows of the first side minus that of the second, for each pair."""
    rows = np.array([row for a, b in sides for row in (*a, *b)], np.intp)
    counts = [len(a) + len(b) for a, b in sides]
    signed = [[1 / len(a)] * len(a) + [-1 / len(b)] * len(b) for a, b in sides]
    return ops.segment_sum(
        ops.take_rows(vectors, rows),
        np.repeat(np.arange(len(sides)), counts),
        len(sides),
        np.concatenate(signed),
    )


def _look_up(
    top: NDArray[np.intp], pairs: Contrasts
) -> tuple[NDArray[np.bool_], NDArray[np.intp], NDArray[np.float64]]:
    """For each pair of candidates (n, c (c - 1) / 2): has it a contrast, which, with what sign."""
    i, j = np.triu_indices(top.shape[1], 1)
    a, b = top[:, i], top[:, j]
    code = np.minimum(a, b) * np.int64(pairs.n_classes) + np.maximum(a, b)
    place = np.minimum(np.searchsorted(pairs.codes, code), len(pairs.codes) - 1)
    known = pairs.codes[place] == code
    return known, place, np.where(a < b, 1.0, -1.0) * known


def _linked(known: NDArray[np.bool_], c: int) -> NDArray[np.bool_]:
    """Which candidates (n, c) the known pairs link to the first, directly or over others."""
    i, j = np.triu_indices(c, 1)
    near = np.zeros((len(known), c, c), bool)
    near[:, i, j] = near[:, j, i] = known
    near[:, np.arange(c), np.arange(c)] = True
    linked: NDArray[np.bool_] = near[:, 0]
    for _ in range(c - 2):  # a path passes over c - 2 others at most
        linked = np.any(near & linked[:, None], axis=2)
    return linked


def _preference(
    X: Array,
    rows: NDArray[np.intp],
    vectors: Array,
    place: NDArray[np.intp],
    sign: NDArray[np.float64],
    c: int,
) -> NDArray[np.float64]:
    """r (n, c): how much each candidate is preferred to the others; each row sums to 0."""
    i, j = np.triu_indices(c, 1)
    incidence = np.zeros((len(i), c))
    incidence[np.arange(len(i)), i] = 1
    incidence[np.arange(len(i)), j] = -1
    difference = np.empty(place.shape)
    for part in ops.blocks(len(rows), _ROWS):
        x = ops.as_float(ops.take_rows(X, rows[part]))
        d = ops.like(ops.take_rows(vectors, place[part]), x)
        same = d.dtype == x.dtype
        found = (d @ x[:, :, None])[:, :, 0] if same else (d * x[:, None, :]).sum(2)
        difference[part] = ops.to_numpy(found)
    return (difference * sign) @ incidence / (c - 1)
