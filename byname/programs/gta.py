"""GTA: what tells confused classes apart is asked of an LLM, between rounds of transduction."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.errors import UsageError
from byname.knn import agreement, nearest
from byname.pipeline import Pipeline
from byname.prompts.contrast import Contrast
from byname.promptset import Prompt, PromptSet
from byname.queries import Query
from byname.recipes import Recipe, get_recipe
from byname.refine.guard import NEIGHBOURS, TOLERANCE
from byname.stage import Array, Batch, ClassTexts
from byname.taxonomy import Taxonomy

__all__ = ["Gta", "GtaSettings", "GtaStep", "ask_llm", "confused_pairs", "gta"]

SETTLED = 0.001
_BLOCK = 4096
Votes = Literal["refined", "texts"]
Pairs = tuple[tuple[str, str], ...]
Ask = Callable[[Pairs], PromptSet]
Replying = Callable[[Sequence[Query], Callable[[Query, str], str]], Mapping[str, Sequence[str]]]


@dataclass(frozen=True)
class GtaSettings:
    """How the loop goes.

    Parameters
    ----------
    rounds : int
        30 at most, as released.
    gap : float
        An image votes for its two best classes where their probabilities differ by less; 0.1, as
        released.
    share : float
        Of the pairs with a vote that were not asked about yet, the most voted are asked about: so
        many, and one at least; 0.05, as released.
    votes : {"refined", "texts"}
        Whose probabilities those are. "refined", as released, are those after transduction, which
        is so sure that few images are left between classes. "texts", ours, are those of the texts
        alone, which leave more pairs to ask about.
    patience : int
        It ends after so many rounds in a row that changed nothing; 2, ours.
    """

    rounds: int = 30
    gap: float = 0.1
    share: float = 0.05
    votes: Votes = "refined"
    patience: int = 2

    def __post_init__(self) -> None:
        rules = {
            "rounds": (self.rounds >= 1, "1 or more"),
            "gap": (0 < self.gap <= 1, "above 0, at most 1"),
            "share": (0 < self.share <= 1, "above 0, at most 1"),
            "votes": (self.votes in get_args(Votes), "'refined' or 'texts'"),
            "patience": (self.patience >= 1, "1 or more"),
        }
        for name, (fits, rule) in rules.items():
            if not fits:
                seen = f"{name} is {getattr(self, name)!r}"
                raise UsageError("run the GTA rounds", seen, f"It must be {rule}.")


@dataclass(frozen=True, eq=False)
class GtaStep:
    """One round.

    Parameters
    ----------
    asked : tuple of (id, id)
        Pairs, most voted first.
    texts : int
        New texts that came for their classes and can be used.
    left_out : int
        Those that lie where no text of their class would.
    changed_share : float
        Of the images, how many are answered otherwise; 0 where nothing was kept.
    reason : str or None
        Why the texts of this round were not kept; None where they were.
    unanswered : tuple of (id, id)
        Pairs of which no text came: no reply, or none that could be used.
    """

    asked: Pairs
    texts: int
    left_out: int
    changed_share: float
    reason: str | None
    unanswered: Pairs = ()


@dataclass(frozen=True, eq=False)
class Gta:
    """The texts after all rounds, the pipeline fitted on them, what each round did, why it ended.

    Examples
    --------
    >>> from byname.classtexts import class_texts
    >>> animals = Taxonomy.from_names(["cat", "dog"])
    >>> known = {"a cat": [1.0, 0.0], "a dog": [0.99, 0.1], "a dog, barking": [0.0, 1.0]}
    >>> texts_of = lambda p: class_texts(p, animals, lambda ts: np.array([known[t] for t in ts]))
    >>> better = PromptSet(classes={"dog": [{"text": "a dog, barking"}]})
    >>> X = ops.unit(np.array([[1, 0.1], [1, 0.2], [1, 0.05], [1, 2], [1, 2.2], [1, 0.07]]))
    >>> start = PromptSet.from_templates(animals, ["a {}"])
    >>> found = gta(start, X, texts_of, lambda pairs: better, settings=GtaSettings(gap=1.0))
    >>> found.prompts.texts("dog"), found.steps[0].asked, found.ended
    (['a dog', 'a dog, barking'], (('cat', 'dog'),), 'no new pair of classes has images between it')
    """

    prompts: PromptSet
    pipeline: Pipeline
    steps: tuple[GtaStep, ...]
    ended: str


def gta(
    prompts: PromptSet,
    X: Array,
    texts_of: Callable[[PromptSet], ClassTexts],
    ask: Ask,
    recipe: Recipe | str = "mean_similarity",
    *,
    refine: str = "transclip",
    settings: GtaSettings | None = None,
) -> Gta:
    """Transduce, find the pairs of classes that images lie between, ask what differs, and again.

    Each round adds the new texts of the asked pairs to their classes and fits anew. A text that is
    nearer to a class outside its pairs than to those in them, or farther from its class than such
    classes are on average, is left out. The rest is kept unless neighbours agree less than in the
    best state so far, by more than 0.02 beyond chance, on the answers of the texts alone or on the
    refined ones: then the round is undone, and its ``reason`` says so. No pair is asked about
    twice. These checks are ours; the paper takes what comes.

    It ends when the rounds are used up, no new pair has images between it, or ``patience`` rounds
    in a row changed less than 0.1 % of the answers, be it that nobody answered, that the texts were
    undone, or that they made no difference. ``ended`` says which, and how many of the pairs asked
    about were not answered, if any. The last good state is what is returned. What ``ask``
    raises is passed on; a client that keeps its replies makes the same call go on from there.

    The released code also tunes the encoder in between, with the images it is surest of, and
    reports the best round by labels; neither is done here.

    Parameters
    ----------
    prompts : PromptSet
        Texts to start from; in the paper an LLM's attributes of each class. Beside many templates
        a few new texts weigh little.
    X : array, shape (N, D)
        Unlabeled images, unit rows.
    texts_of : callable
        From a prompt set to its vectors: the encoder stays outside.
    ask : callable
        From pairs of ids to a prompt set with texts for their classes, such as :func:`ask_llm`
        makes; texts of other classes are ignored.
    recipe : Recipe or str
        For the scores; as published, the mean similarity to the texts of a class.
    refine : str
        Member of the stage; as published, transclip.
    settings : GtaSettings, optional

    Raises
    ------
    UsageError

    Notes
    -----
    Source: Saha, Lawrence, Van Horn and Maji, "Generate, Transduct, Adapt: Iterative Transduction
    with VLMs", ICCV 2025, arXiv 2501.06031, without its adapt step.
    """
    settings = settings or GtaSettings()
    if not len(X):
        raise UsageError("run the GTA rounds", "there are no images", "Give some, unlabeled.")
    look = _Looking(X, texts_of, get_recipe(recipe, refine=refine))
    return _rounds(prompts, look, ask, settings)


def _rounds(prompts: PromptSet, look: _Looking, ask: Ask, settings: GtaSettings) -> Gta:
    now, steps, done, idle = look.at(prompts), list[GtaStep](), set[tuple[str, str]](), 0
    best, ended = now.agree, "the rounds are used up"
    while len(steps) < settings.rounds:
        pairs = _to_ask(now, settings, done)
        if not pairs:
            ended = "no new pair of classes has images between it"
            break
        done.update(pairs)
        given = ask(pairs)
        merged, texts, odd = look.merged(prompts, given, pairs, now)
        share, reason = 0.0, None if texts else "no usable text came"
        if texts:
            new = look.at(merged)
            reason = new.worse_than(best)
            if reason is None:
                share = float((new.y != now.y).mean())
                prompts, now = merged, new
                best = tuple(map(max, best, new.agree))
        steps.append(GtaStep(pairs, texts, odd, share, reason, _silent(pairs, given)))
        idle = idle + 1 if share < SETTLED else 0
        if idle >= settings.patience:
            ended = f"{idle} rounds in a row changed nothing"
            break
    return Gta(prompts, now.pipeline, tuple(steps), ended + _unanswered(steps))


def _silent(pairs: Pairs, given: PromptSet) -> Pairs:
    """Pairs of which no text came; by the classes where the texts are told of no pair."""
    if given.pairs:
        told = {frozenset((pair.a, pair.b)) for pair in given.pairs if pair.texts}
        return tuple(pair for pair in pairs if frozenset(pair) not in told)
    return tuple(pair for pair in pairs if not any(given.classes.get(i) for i in pair))


def _unanswered(steps: Sequence[GtaStep]) -> str:
    lost = sum(len(step.unanswered) for step in steps)
    asked = sum(len(step.asked) for step in steps)
    return f"; pairs without a usable answer: {lost} of {asked}" if lost else ""


def ask_llm(taxonomy: Taxonomy, replying: Replying) -> Ask:
    """What asks by the style ``contrast``: one question a pair, a list of features for each side.

    Parameters
    ----------
    taxonomy : Taxonomy
    replying : callable
        From queries, and what says of a query and a reply what is wrong, to replies by query id:
        ``lambda queries, problem: llm.ask(queries, problem=problem).replies``. The client keeps
        the replies, so that nothing is asked, or paid for, twice.

    Examples
    --------
    >>> waters = Taxonomy.from_names(["river", "lake"])
    >>> reply = "A:\\n- a current\\nB:\\n- a shore"
    >>> say = lambda queries, problem: {query.id: [reply] for query in queries}
    >>> ask_llm(waters, say)((("river", "lake"),)).texts("lake")
    ['a photo of a lake with a shore.']
    """

    def asked(pairs: Pairs) -> PromptSet:
        member = Contrast(pairs=pairs)
        queries = list(member.queries(taxonomy))
        if not queries:  # two classes of one name, between which nobody can tell
            return PromptSet(classes={})
        replies = replying(queries, member.problem)
        return member.collect(taxonomy, [(q, r) for q in queries for r in replies.get(q.id, ())])

    return asked


def confused_pairs(
    S: Array, *, gap: float = 0.1, share: float = 0.05, without: Collection[tuple[int, int]] = ()
) -> list[tuple[int, int]]:
    """Pairs of columns that rows lie between, most votes first.

    Parameters
    ----------
    S : array, shape (N, K)
        Logits. A row votes for its two most probable classes where these differ by less than
        ``gap`` in probability.
    gap, share : float
        See :class:`GtaSettings`.
    without : collection of (int, int)
        Pairs, lower column first, that do not count.

    Returns
    -------
    list of (int, int)
        The share of those with a vote that have most, one at least; of equals those whose gaps are
        the smaller in all.

    Examples
    --------
    >>> S = np.array([[3.0, 3.0, 0.0], [3.0, 2.9, 0.0], [0.0, 3.0, 2.95], [9.0, 0.0, 0.0]])
    >>> confused_pairs(S), confused_pairs(S, without=[(0, 1)]), confused_pairs(S, share=1.0)
    ([(0, 1)], [(1, 2)], [(0, 1), (1, 2)])
    """
    K = int(S.shape[1])
    if K < 2:
        return []
    codes, gaps = [np.empty(0, np.int64)], [np.empty(0)]
    for rows in ops.blocks(len(S), _BLOCK):
        p, best = map(ops.to_numpy, ops.topk(ops.softmax(S[rows]), 2))
        between = (p[:, 0] - p[:, 1]) < gap
        low, high = best[between].min(axis=1), best[between].max(axis=1)
        codes.append(low.astype(np.int64) * K + high)
        gaps.append((p[:, 0] - p[:, 1])[between].astype(np.float64))
    found, place, votes = np.unique(np.concatenate(codes), return_inverse=True, return_counts=True)
    total = np.bincount(place, np.concatenate(gaps), minlength=len(found))
    order = np.lexsort((found, total, -votes))
    taken = set(without)
    pairs = [divmod(int(found[i]), K) for i in order]
    left = [pair for pair in pairs if pair not in taken]
    return left[: math.ceil(share * len(left))]


@dataclass(frozen=True, eq=False)
class _Look:
    """A fitted pipeline, what it answers, and how far neighbours agree, of texts and refined."""

    pipeline: Pipeline
    ids: tuple[str, ...]
    scores: Mapping[Votes, Array]
    y: NDArray[np.intp]
    agree: tuple[float, ...]

    def worse_than(self, best: tuple[float, ...]) -> str | None:
        for what, before, after in zip(("texts", "refined"), best, self.agree, strict=True):
            if after < before - TOLERANCE:
                return (
                    f"neighbours agree less than before on the answers ({what}): {after:.2f} of "
                    f"what chance leaves, after {before:.2f}"
                )
        return None


class _Looking:
    """What stays the same over all rounds: images, their neighbours, the recipe."""

    def __init__(
        self, X: Array, texts_of: Callable[[PromptSet], ClassTexts], recipe: Recipe
    ) -> None:
        self.batch, self.texts_of, self.recipe = Batch(X), texts_of, recipe
        self.near = nearest(X, NEIGHBOURS)[0]

    def at(self, prompts: PromptSet) -> _Look:
        """Scores for these texts, before and after the refine stage."""
        texts = self.texts_of(prompts)
        plain = Pipeline(get_recipe(self.recipe, refine="none")).fit(texts, self.batch)
        pipeline = Pipeline(self.recipe).fit(texts, self.batch)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that it stepped back: each round anew
            S = pipeline.scores(self.batch)
        scores: dict[Votes, Array] = {"texts": plain.scores(self.batch), "refined": S}
        answers = [ops.to_numpy(ops.argmax(s)).astype(np.intp) for s in scores.values()]
        agree = tuple(agreement(self.near, y, texts.n_classes) for y in answers)
        return _Look(pipeline, texts.taxonomy.class_ids, scores, answers[1], agree)

    def merged(
        self, old: PromptSet, given: PromptSet, pairs: Pairs, now: _Look
    ) -> tuple[PromptSet, int, int]:
        """The texts with new ones beside them, how many came, and how many were left out."""
        asked = {i for pair in pairs for i in pair}
        known = {i: {p.text for p in old.classes.get(i, ())} for i in asked}
        new = {
            i: tuple(p for p in given.classes.get(i, ()) if p.text not in known[i])
            for i in sorted(asked)
        }
        if not any(new.values()):
            return old, 0, 0
        texts = self.texts_of(_beside(old, new))
        W = ops.to_numpy(ops.unit(now.pipeline.W_))
        V, index = ops.to_numpy(ops.as_float(texts.vectors)), ops.to_numpy(texts.class_index)
        place = {i: k for k, i in enumerate(now.ids)}
        kept = {}
        for i, prompts in new.items():
            partners = [place[j] for pair in pairs if i in pair for j in pair]
            rows = np.flatnonzero(index == place[i])[len(old.classes.get(i, ())) :]
            fits = _fitting(V[rows] @ W.T, W @ W[place[i]], place[i], partners)
            kept[i] = tuple(p for p, fit in zip(prompts, fits, strict=True) if fit)
        left = sum(map(len, kept.values()))
        return _beside(old, kept), left, sum(map(len, new.values())) - left


def _fitting(
    cosine: NDArray[np.floating], between: NDArray[np.floating], own: int, partners: Sequence[int]
) -> NDArray[np.bool_]:
    """Which texts, by their cosines (T, K) to all classes, may be texts of class ``own``."""
    others = np.delete(between, partners)
    least = others.mean() if len(others) else -1.0
    found: NDArray[np.bool_] = np.isin(cosine.argmax(axis=1), partners) & (cosine[:, own] >= least)
    return found


def _beside(old: PromptSet, new: Mapping[str, tuple[Prompt, ...]]) -> PromptSet:
    classes = {i: (*given, *new.get(i, ())) for i, given in old.classes.items()}
    return old.model_copy(update={"classes": classes})


def _to_ask(now: _Look, settings: GtaSettings, done: set[tuple[str, str]]) -> Pairs:
    place = {i: k for k, i in enumerate(now.ids)}
    known = {(place[a], place[b]) for a, b in done}
    S = now.scores[settings.votes]
    found = confused_pairs(S, gap=settings.gap, share=settings.share, without=known)
    return tuple((now.ids[a], now.ids[b]) for a, b in found)
