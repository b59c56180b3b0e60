"""GLOV: an LLM proposes templates, unlabeled images say which are good, and it proposes again."""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.errors import OutputError, PromptError, UsageError, some
from byname.files import write_text
from byname.programs.glov_fitness import Fitness, fitness
from byname.programs.proposals import problem, read_proposals
from byname.promptset import PromptSet, read_json, safe_json
from byname.stage import Array
from byname.taxonomy import Taxonomy

__all__ = ["Glov", "GlovSettings", "Trial", "fitness", "meta_prompt", "read_proposals"]

FORMAT = "byname-glov/1"
Encode = Callable[[list[str]], Array]
Ask = Callable[[str], Sequence[str]]
PLAIN = "a photo of a {}."
_DIGITS = 4  # decimals of a fitness: finer differences are rounding, and count as ties
_NAMES = 30  # class names that the LLM is shown


@dataclass(frozen=True)
class GlovSettings:
    """How the search goes.

    Parameters
    ----------
    rounds, proposals, top : int
        30 rounds of at most 5 new templates, and an ensemble of the best 3, as in the
        specification of the label-free version; the paper's LLM was Llama-3-8B.
    fitness : {"zpe", "confidence"}
        The paper's is the accuracy on one labelled image a class; these need no label. The
        default was set beforehand; neither chose better than chance in docs/recipes/glov.md.
    penalty : float
        Weight of the marginal entropy in "confidence"; 1, ours.
    shown : int
        Best and worst templates that the LLM is shown, 5 of each; ours.
    longest : int
        Characters of a template, 200; ours.
    task : str
        What the images are, for the LLM.
    """

    rounds: int = 30
    proposals: int = 5
    top: int = 3
    fitness: Fitness = "zpe"
    penalty: float = 1.0
    shown: int = 5
    longest: int = 200
    task: str = "images of everyday things"

    def __post_init__(self) -> None:
        for name in ("rounds", "proposals", "top", "shown", "longest"):
            value = getattr(self, name)
            if not _is_whole(value) or value < 1:
                seen = f"{name} is {value!r}"
                raise UsageError("search for templates", seen, "It is a whole number from 1.")
        if self.fitness not in get_args(Fitness):
            raise UsageError(
                "search for templates", f"fitness is {self.fitness!r}", "Use zpe or confidence."
            )
        if not _is_finite(self.penalty) or self.penalty < 0:
            seen = f"penalty is {self.penalty!r}"
            raise UsageError("search for templates", seen, "It is 0 or more.")


@dataclass(frozen=True)
class Trial:
    """A template, its fitness, and the round that brought it; 0 for those to start from."""

    template: str
    fitness: float
    round: int


def meta_prompt(
    names: Sequence[str], trials: Sequence[Trial], settings: GlovSettings, number: int
) -> str:
    """What the LLM is asked in round ``number``: the task, and the best and worst so far, ranked.

    Templates of one fitness stand or fall together: those that tie with the last one shown are
    shown too, up to twice as many.
    """
    ranked = ranking(trials)
    best = _first(ranked, settings.shown, 2 * settings.shown)
    worst = _first(ranked[len(best) :][::-1], settings.shown, 2 * settings.shown)[::-1]
    parts = [
        f"You help to classify {settings.task} with a model that compares images with sentences.",
        f"The {len(names)} classes are: {some([' '.join(n.split()) for n in names], _NAMES)}.",
        "A template is a short sentence that holds {} once, where the name of a class goes. Each "
        "was scored on images; a higher score is better.",
        "The best templates so far, best first:",
        *(f"{t.fitness:.{_DIGITS}f}  {t.template}" for t in best),
    ]
    if worst:
        parts += [
            "The worst templates so far, the very worst last:",
            *(f"{t.fitness:.{_DIGITS}f}  {t.template}" for t in worst),
        ]
    parts += [
        f"Round {number} of {settings.rounds}. Write {settings.proposals} new templates that may "
        "score higher: unlike the worst, not the same as any above, each with {} once, one a "
        "line, and nothing else.",
    ]
    return "\n".join(parts)


def ranking(trials: Sequence[Trial]) -> list[Trial]:
    """Best first; of equals the shorter, then by the alphabet, so that no order of finding counts.

    Examples
    --------
    >>> [t.template for t in ranking([Trial("b{}", 1, 0), Trial("a{}", 1, 2), Trial("c{}", 2, 1)])]
    ['c{}', 'a{}', 'b{}']
    """
    return sorted(trials, key=lambda t: (-t.fitness, len(t.template), t.template))


def _first(ranked: Sequence[Trial], count: int, most: int | None = None) -> list[Trial]:
    """The first, and all that tie with the last of them, up to ``most``."""
    ties = [t for t in ranked[count:most] if t.fitness == ranked[count - 1].fitness]
    return [*ranked[:count], *ties]


class Glov:
    """The search.

    Each round asks once, keeps the new templates that can be used, scores them on the unlabeled
    images, and writes everything down. A proposal is dropped, and counted in ``dropped_``, for
    holding ``{}`` not exactly once, for being too long, unprintable, or known already; other
    braces are plain text.

    Parameters
    ----------
    taxonomy : Taxonomy
    X : array, shape (N, D)
        Unlabeled images, unit rows.
    encode : callable
        Texts to unit rows: the encoder stays outside.
    settings : GlovSettings, optional
    start : sequence of str
        Templates to start from.
    scale : float
        Of the encoder.
    path : path, optional
        A JSON file with all trials, written after every round. Where it is there already the
        search goes on from it, if it is of the same images, classes, start and settings; another
        number of rounds may be asked for.

    Attributes
    ----------
    trials : list of Trial
        In the order in which they were tried.
    round : int
        Rounds done.
    dropped_ : Counter
        Proposals that were dropped, by reason.

    Notes
    -----
    Source: Mirza et al., "GLOV: Guided Large Language Models as Implicit Optimizers for Vision
    Language Models", TMLR 2025, arXiv 2410.06154. Its fitness is the accuracy on one labelled
    image of each class, and it also steers the LLM's hidden states; neither is done here.
    Complexity: K texts and N*K*D for each template.

    Examples
    --------
    >>> known = {"a cat": [1, 0], "a dog": [1, 0.1], "my cat": [1, 0], "my dog": [0, 1]}
    >>> search = Glov(Taxonomy.from_names(["cat", "dog"]), np.eye(2),
    ...               lambda texts: np.array([known[t] for t in texts]),
    ...               GlovSettings(rounds=1, top=1), start=["a {}"])
    >>> search.run(lambda question: ["my {}"]).texts("dog")
    ['my dog']
    """

    def __init__(
        self,
        taxonomy: Taxonomy,
        X: Array,
        encode: Encode,
        settings: GlovSettings | None = None,
        *,
        start: Sequence[str] = (PLAIN,),
        scale: float = 100.0,
        path: str | Path | None = None,
    ) -> None:
        _check_images(X, scale)
        self.taxonomy, self.X, self.encode = taxonomy, X, encode
        self.settings = settings or GlovSettings()
        self.start = tuple(dict.fromkeys(start))
        PromptSet.from_templates(taxonomy, self.start)  # refuses what is no template
        self.scale, self.path = float(scale), None if path is None else Path(path)
        self.trials: list[Trial] = []
        self.round = 0
        self.dropped_: Counter[str] = Counter()
        if self.path is not None and self.path.exists():
            self._resume(self.path)

    def run(self, ask: Ask) -> PromptSet:
        """Go on to the last round.

        Before anything is encoded or asked, it is seen whether ``path`` can be written. Whatever
        ``ask`` raises is passed on; the rounds before it stay, here and in the file, and
        the same call goes on from there.

        Parameters
        ----------
        ask : callable
            From a question to replies, of which each may hold several templates.

        Returns
        -------
        PromptSet
            Of the best templates, all that tie with the last of them included.
        """
        if not self.trials:
            self._check_path()
            self.trials = self._tried(self.start, 0)
            self._write()
        names = [leaf.name for leaf in self.taxonomy.classes]
        while self.round < self.settings.rounds:
            replies = ask(meta_prompt(names, self.trials, self.settings, self.round + 1))
            new, dropped = self._usable(replies)
            self.trials += self._tried(new, self.round + 1)
            self.dropped_ += dropped
            self.round += 1
            self._write()
        return self.prompts()

    def best(self) -> list[Trial]:
        """The ``top`` trials, and all that tie with the last of them."""
        return _first(ranking(self.trials), self.settings.top)

    def prompts(self) -> PromptSet:
        """The ensemble of the best templates so far."""
        if not self.trials:
            raise UsageError("make prompts", "nothing was tried yet", "Call run first.")
        found = [trial.template for trial in self.best()]
        label = f"glov[fitness={self.settings.fitness}]"
        return PromptSet.from_templates(self.taxonomy, found, generator=label)

    def _usable(self, replies: Sequence[str]) -> tuple[list[str], Counter[str]]:
        known = {trial.template.casefold() for trial in self.trials}
        new: list[str] = []
        dropped: Counter[str] = Counter()
        listed = [replies] if isinstance(replies, str) else replies
        if not isinstance(listed, list | tuple) or not all(isinstance(r, str) for r in listed):
            seen = f"ask gave {replies!r:.100}"
            raise UsageError(f"read the replies of round {self.round + 1}", seen, "Return texts.")
        for template in (line for reply in listed for line in read_proposals(reply)):
            if why := problem(template, self.settings.longest):
                dropped[why] += 1
            elif template.casefold() in known:
                dropped["duplicate"] += 1
            elif len(new) == self.settings.proposals:
                dropped["more than asked for"] += 1
            else:
                known.add(template.casefold())
                new.append(template)
        return new, dropped

    def _tried(self, templates: Sequence[str], number: int) -> list[Trial]:
        if not templates:
            return []
        made = PromptSet.from_templates(self.taxonomy, templates)
        texts = [p.text for prompts in made.classes.values() for p in prompts]
        rows = self.encode(texts)
        held, D = ops.to_numpy(rows), self.X.shape[1]
        if held.shape != (len(texts), D) or not np.isfinite(held).all():
            seen = f"encode gave the shape {held.shape}, or numbers that are not finite"
            do = f"It gives {len(texts)} texts one row of {D} finite numbers each."
            raise UsageError("encode templates", seen, do)
        by_class = held.reshape(len(made.classes), len(templates), -1)
        s = self.settings
        found = []
        for p, template in enumerate(templates):
            W = ops.like(np.ascontiguousarray(by_class[:, p]), self.X)
            value = fitness(self.X, W, s.fitness, scale=self.scale, penalty=s.penalty)
            found.append(Trial(template, round(value, _DIGITS), number))
        return found

    def _inputs(self) -> str:
        """What must be the same for a search to go on."""
        told = {k: v for k, v in asdict(self.settings).items() if k != "rounds"}
        names = [(leaf.id, leaf.name) for leaf in self.taxonomy.classes]
        digest = hashlib.sha256(json.dumps([told, names, self.start, self.scale]).encode())
        X: NDArray[Any] = np.ascontiguousarray(ops.to_numpy(self.X))
        digest.update(f"{X.shape} {X.dtype}".encode() + X.tobytes())
        return digest.hexdigest()

    def _check_path(self) -> None:
        if self.path is not None:
            try:
                with tempfile.TemporaryFile(dir=self.path.parent):
                    pass
            except OSError as error:
                asked, reason = f"write the search to '{self.path}'", error.strerror or str(error)
                do = "Choose a folder that exists and is writable."
                raise OutputError(asked, reason, do) from None

    def _write(self) -> None:
        if self.path is not None:
            told = {
                "format": FORMAT,
                "inputs": self._inputs(),
                "settings": asdict(self.settings),
                "round": self.round,
                "dropped": dict(self.dropped_),
                "trials": [asdict(trial) for trial in self.trials],
            }
            write_text(self.path, safe_json(told, 1) + "\n", f"write the search to '{self.path}'")

    def _resume(self, path: Path) -> None:
        asked, do = f"go on with the search in '{path}'", "Choose another file for a new search."
        held = read_json(path, asked, do)
        try:
            if held["format"] != FORMAT:
                raise PromptError(asked, "it is something else", do)
            if held["inputs"] != self._inputs():
                seen = "it is of other images, classes, start or settings"
                raise PromptError(asked, seen, do)
            self.trials, self.round = self._read_trials(held), held["round"]
            if not all(_is_whole(v) and v >= 0 for v in held["dropped"].values()):
                raise ValueError
            self.dropped_ = Counter(held["dropped"])
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            if isinstance(error, PromptError):
                raise
            seen = "it is something else, or was changed by hand"
            raise PromptError(asked, seen, do) from None

    def _read_trials(self, held: Any) -> list[Trial]:
        """Trials of a file, which may be anybody's: only what a search can have written."""
        rounds, most = held["round"], held["settings"]["rounds"]
        trials = [Trial(**t) for t in held["trials"]]
        fits = _is_whole(rounds) and _is_whole(most) and 0 <= rounds <= most
        begin, new = trials[: len(self.start)], trials[len(self.start) :]
        fits = fits and tuple(t.template for t in begin) == self.start
        fits = fits and all(_is_whole(t.round) and _is_finite(t.fitness) for t in trials)
        fits = fits and not any(t.round for t in begin)
        fits = fits and all(1 <= t.round <= rounds for t in new)
        fits = fits and not any(problem(t.template, self.settings.longest) for t in new)
        known = {t.template.casefold() for t in new}
        if not fits or len(known) < len(new) or known & {t.casefold() for t in self.start}:
            raise ValueError
        return [Trial(t.template, float(t.fitness), t.round) for t in trials]


def _is_whole(x: Any) -> bool:
    return isinstance(x, int | np.integer) and not isinstance(x, bool)


def _is_finite(x: Any) -> bool:
    number = isinstance(x, int | float | np.integer | np.floating) and not isinstance(x, bool)
    return number and math.isfinite(x)


def _check_images(X: Array, scale: float) -> None:
    asked, V = "search for templates", ops.to_numpy(X)
    if not len(V):
        raise UsageError(asked, "there are no images", "Give some, unlabeled.")
    if V.ndim != 2:
        raise UsageError(asked, f"the images have the shape {V.shape}", "Give an array (N, D).")
    odd = np.flatnonzero(~np.isfinite(V).all(axis=1))
    if len(odd):
        seen = f"row {odd[0]} of the images holds a number that is not finite"
        raise UsageError(asked, seen, "Leave such images out.")
    if not _is_finite(scale) or scale <= 0:
        raise UsageError(asked, f"scale is {scale!r}", "It is above 0 and finite.")
