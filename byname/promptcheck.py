"""What is wrong with the texts of a prompt set, and the set without it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from byname.errors import PromptError, UsageError
from byname.moderation import Verdict, default_words
from byname.promptcheck_names import ClassNames, Phrases, words_of
from byname.promptcheck_texts import Action, Flaw, fit, flaws, one_line
from byname.promptset import PromptSet, Provenance
from byname.taxonomy import Taxonomy

__all__ = ["KINDS", "Finding", "Report", "check", "clean"]

KINDS = {
    "hidden": "characters that control, reorder or hide; removed",
    "empty": "nothing left; dropped",
    "number": "a list number, mark or heading alone; dropped, or cut off where more stands before",
    "refusal": "the model gave no answer; dropped",
    "enumeration": "a numbered list; cut at its first number, or down to its first item",
    "space": "line ends and runs of space; one space each",
    "unfinished": "the last sentence of a long text is cut off; left out",
    "too_long": "more tokens than the encoder reads; cut at a sentence, clause or word",
    "duplicate": "the same text again in the class; dropped, a note if of another kind or level",
    "shared": "the same text in several classes",
    "unnamed": "never names its class",
    "names_other": "names another class and not its own",
    "moderation": "a word of the list, or flagged by the endpoint",
    "not_moderated": "the endpoint gave no verdict",
    "about": "hidden characters or over 200 characters in what a text is about; removed, cut",
}
ABOUT = 200  # characters of what a text is about, where that is no node
# Other words for a class, or its parts: that they do not name it is their sense.
_NEED_NO_NAME = frozenset({"subclass", "synonym"})


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing about one text.

    ``number`` counts the texts of the class from 1, or those against the class ``against`` where
    that is not "". ``text`` is what the file holds, ``new`` what this finding makes of it; "" where
    it is dropped.
    """

    class_id: str
    number: int
    kind: str
    action: Action
    text: str
    new: str
    detail: str = ""
    against: str = ""


@dataclass(frozen=True)
class Report:
    """What a check found.

    ``mended`` has an entry a text, those of pairs last: what cleaning leaves of it, None for
    nothing. ``abouts`` is what cleaning makes of what they are about. ``emptied`` are the classes
    that lose their last text, ``missing`` those that have none to begin with, ``not_checked`` says
    what was not looked for, and why.
    """

    findings: tuple[Finding, ...]
    mended: tuple[str | None, ...]
    abouts: tuple[str, ...]
    texts: dict[str, int]
    missing: tuple[str, ...]
    emptied: tuple[str, ...]
    not_checked: tuple[str, ...]
    fingerprint: str = field(repr=False)

    def counts(self) -> dict[str, dict[str, int]]:
        """Findings by kind and action, in the order of ``KINDS``."""
        told = Counter((found.kind, found.action) for found in self.findings)
        return {
            kind: {action: n for (k, action), n in sorted(told.items()) if k == kind}
            for kind in KINDS
            if any(k == kind for k, _ in told)
        }

    def changed(self) -> dict[str, int]:
        """Texts that cleaning drops, and that it keeps but changes."""
        fates: dict[tuple[str, str, int], set[str]] = {}
        for found in self.findings:
            fates.setdefault((found.class_id, found.against, found.number), set()).add(found.action)
        dropped = sum(told is None for told in self.mended)
        cut = sum("cut" in actions and "drop" not in actions for actions in fates.values())
        fixed = sum("fix" in a and not a & {"drop", "cut"} for a in fates.values())
        return {"dropped": dropped, "cut": cut, "fixed": fixed}

    def as_dict(self, taxonomy: Taxonomy) -> dict[str, Any]:
        """Everything, for JSON."""
        return {
            "format": "byname-promptcheck/1",
            "classes": len(taxonomy),
            "texts": len(self.mended),
            "counts": self.counts(),
            "cleaning": self.changed(),
            "missing": list(self.missing),
            "emptied": list(self.emptied),
            "not_checked": list(self.not_checked),
            "findings": [
                {
                    "class_id": found.class_id,
                    "name": taxonomy.node(found.class_id).name,
                    "number": found.number,
                    "against": found.against,
                    "kind": found.kind,
                    "action": found.action,
                    "detail": found.detail,
                    "text": found.text,
                    "new": found.new,
                }
                for found in self.findings
            ],
        }


class _Text:
    """A text on its way through the checks; ``now`` is None once it is dropped."""

    __slots__ = ("about", "against", "class_id", "found", "key", "now", "number", "text")

    def __init__(
        self, class_id: str, number: int, text: str, about: str, key: Any, against: str = ""
    ) -> None:
        self.class_id, self.number, self.text = class_id, number, text
        self.about, self.key, self.against = about, key, against
        self.now: str | None = text
        self.found: list[Finding] = []

    def add(self, kind: str, action: Action, detail: str = "", new: str | None = None) -> None:
        """A finding, which is carried out at once."""
        kept = "" if action == "drop" else (self.now or "") if new is None else new
        self.found.append(
            Finding(self.class_id, self.number, kind, action, self.text, kept, detail, self.against)
        )
        self.now = None if action == "drop" else kept


def check(
    prompts: PromptSet,
    taxonomy: Taxonomy,
    *,
    count_tokens: Callable[[Sequence[str]], Sequence[int]] | None = None,
    context: int | None = None,
    words: Collection[str] | None = None,
    moderate: Callable[[Sequence[str]], Sequence[Verdict]] | None = None,
    drop: Collection[str] = (),
) -> Report:
    """Look at every text of a set; nothing is changed.

    Parameters
    ----------
    prompts : PromptSet
    taxonomy : Taxonomy
        With every class of the set.
    count_tokens : callable, optional
        Tokens of each of many texts, markers included: ``Encoder.count_tokens``.
    context : int, optional
        Most tokens that the encoder reads. Lengths are checked where both are given.
    words : collection of str, optional
        Words and phrases that are noted; ``default_words()`` if None.
    moderate : callable, optional
        A verdict for each of many texts: :class:`byname.moderation.Moderator`.
    drop : collection of str
        Kinds of findings, see ``KINDS``, that drop a text, whatever cleaning does else.

    Raises
    ------
    UsageError
        For an unknown kind in ``drop``.

    Examples
    --------
    >>> taxonomy = Taxonomy.from_names(["cat"])
    >>> prompts = PromptSet.from_templates(taxonomy, ["1{}", "I'm sorry, {}", "fur of a {}"])
    >>> [(f.number, f.kind, f.action) for f in check(prompts, taxonomy).findings]
    [(1, 'unnamed', 'note'), (2, 'refusal', 'drop')]
    """
    if unknown := sorted(set(drop) - set(KINDS)):
        raise UsageError(
            f"drop texts with '{unknown[0]}'", "there is no such kind", f"Kinds: {', '.join(KINDS)}"
        )
    _check_each(texts := list(_texts(prompts)), taxonomy, drop)
    not_checked = _check_length(texts, count_tokens, context, drop)
    _check_repeats(texts, drop)
    _check_words(texts, taxonomy, default_words() if words is None else words, drop)
    not_checked += _check_verdicts(texts, moderate, drop)
    left = {one.class_id for one in texts if one.now is not None and not one.against}
    return Report(
        findings=tuple(finding for one in texts for finding in one.found),
        mended=tuple(one.now for one in texts),
        abouts=tuple(one.about for one in texts),
        texts=dict(Counter(one.class_id for one in texts)),
        missing=tuple(i for i in taxonomy.class_ids if not prompts.classes.get(i)),
        emptied=tuple(i for i, given in prompts.classes.items() if given and i not in left),
        not_checked=tuple(not_checked),
        fingerprint=prompts.fingerprint(),
    )


def clean(prompts: PromptSet, report: Report) -> PromptSet:
    """The set with every finding of a report carried out; notes change nothing.

    Classes that lose their last text are not in it: see ``Report.emptied``. The provenance tells
    how many texts were dropped, cut and fixed.

    Raises
    ------
    PromptError
        For a report about other texts.

    Examples
    --------
    >>> prompts = PromptSet.model_validate({"classes": {"cat": [{"text": "1"}, {"text": "a cat"}]}})
    >>> clean(prompts, check(prompts, Taxonomy.from_names(["cat"]))).texts("cat")
    ['a cat']
    """
    if report.fingerprint != prompts.fingerprint():
        raise PromptError(
            "clean the prompts", "the report is about other texts", "Check these ones."
        )
    mended = zip(report.mended, report.abouts, strict=True)
    classes = {}
    for class_id, given in prompts.classes.items():
        kept = []
        for prompt in given:
            text, about = next(mended)
            if text is not None and (text, about) != (prompt.text, prompt.about):
                prompt = prompt.model_copy(update={"text": text, "about": about})
            if text is not None:
                kept.append(prompt)
        if kept:
            classes[class_id] = tuple(kept)
    pairs = []
    for pair in prompts.pairs:
        told = tuple(text for _ in pair.texts if (text := next(mended)[0]) is not None)
        if told:
            pairs.append(pair.model_copy(update={"texts": told}))
    done = {**report.changed(), "kinds": report.counts()}
    provenance = Provenance.model_validate({**prompts.provenance.model_dump(), "cleaned": done})
    return prompts.model_copy(
        update={"classes": classes, "pairs": tuple(pairs), "provenance": provenance}
    )


def _texts(prompts: PromptSet) -> Iterator[_Text]:
    for class_id, given in prompts.classes.items():
        for number, prompt in enumerate(given, 1):
            key = (prompt.kind, prompt.level)
            yield _Text(class_id, number, prompt.text, prompt.about, key)
    for pair in prompts.pairs:
        for number, text in enumerate(pair.texts, 1):
            yield _Text(pair.a, number, text, pair.b, ("one-to-one", -1), pair.b)


def _live(texts: Sequence[_Text]) -> list[tuple[_Text, str]]:
    return [(one, one.now) for one in texts if one.now is not None]


def _check_each(texts: Sequence[_Text], taxonomy: Taxonomy, drop: Collection[str]) -> None:
    names = {node.id: (node.name, *node.aliases) for node in taxonomy.classes}
    numbers = {
        class_id
        for class_id, given in names.items()
        if any(not any(c.isalpha() for c in name) for name in given)
    }
    for one in texts:
        for flaw in flaws(one.text, one.class_id in numbers, names[one.class_id]):
            _carry_out(one, flaw, drop)
            if one.now is None:
                break
        # The id of a node is a key, and stays whatever it is made of.
        if one.now is not None and one.about not in taxonomy:
            about = one_line(one.about, ABOUT)
            if about != one.about:
                detail = f"{len(one.about):,} characters, now {len(about):,}"
                _carry_out(one, Flaw("about", "fix", detail, one.now), drop)
                one.about = about


def _carry_out(one: _Text, flaw: Flaw, drop: Collection[str]) -> None:
    """Mend the text, or drop it where that is wanted of findings of this kind."""
    kind, action, detail, new = flaw
    one.add(kind, "drop" if kind in drop else action, detail, new)


def _check_length(
    texts: Sequence[_Text],
    count: Callable[[Sequence[str]], Sequence[int]] | None,
    context: int | None,
    drop: Collection[str],
) -> list[str]:
    """Cut what is too long; why nothing was looked at, if so."""
    if count is None:
        return ["too_long: no encoder is given"]
    if context is None:
        return ["too_long: the encoder has no limit"]
    live = _live(texts)
    most = 64 * context  # characters; a longer text is cut, whatever its tokens are
    counted = count([text[:most] for _, text in live])
    wrong = [
        (one, text, tokens)
        for (one, text), tokens in zip(live, counted, strict=True)
        if tokens > context or len(text) > most
    ]
    shorter = fit([text for _, text, _ in wrong], count, context)
    for (one, text, tokens), new in zip(wrong, shorter, strict=True):
        more = "more than " if len(text) > most else ""
        detail = f"{more}{tokens} tokens, the encoder reads {context}"
        _carry_out(one, Flaw("too_long", "cut" if new else "drop", detail, new), drop)
    return []


def _check_repeats(texts: Sequence[_Text], drop: Collection[str]) -> None:
    seen: dict[tuple[str, str, str], dict[Any, int]] = {}
    owners: dict[str, dict[str, None]] = {}
    for one, text in _live(texts):
        known = seen.setdefault((one.class_id, one.against, text), {})
        if one.key in known:
            one.add("duplicate", "drop", f"as text {known[one.key]}")
        else:
            if known:
                first = next(iter(known.values()))
                action: Action = "drop" if "duplicate" in drop else "note"
                one.add("duplicate", action, f"as text {first}, of another kind or level")
            known[one.key] = one.number
            if not one.against:
                owners.setdefault(text, {})[one.class_id] = None
    for one, text in _live(texts):
        if not one.against and len(classes := owners[text]) > 1:
            other = next(class_id for class_id in classes if class_id != one.class_id)
            more = f" and {len(classes) - 2} more" if len(classes) > 2 else ""
            one.add("shared", "drop" if "shared" in drop else "note", f"with {other}{more}")


def _check_words(
    texts: Sequence[_Text], taxonomy: Taxonomy, listed: Collection[str], drop: Collection[str]
) -> None:
    """Names of classes, and words of the list: one pass over the words of each text."""
    names, ids = ClassNames(taxonomy), taxonomy.class_ids
    listed = list(dict.fromkeys(listed))
    phrases = Phrases({word: [i] for i, word in enumerate(listed)})
    # "gypsy moth" is a name, and no judgement about anybody.
    innocent = {
        node.id: phrases.found(words_of(" . ".join((node.name, *node.aliases))))
        for node in taxonomy.classes
    }
    for one, text in _live(texts):
        words = words_of(text)
        own, others = names.named(one.class_id, text, words)
        if not own:
            told = [taxonomy.node(ids[k]).name for k in sorted(others) if ids[k] != one.about]
            kind = "names_other" if told else "unnamed"
            if told or one.key[0] not in _NEED_NO_NAME:
                more = f" and {len(told) - 3} more" if len(told) > 3 else ""
                detail = ", ".join(told[:3]) + more
                one.add(kind, "drop" if kind in drop else "note", detail)
        marked = phrases.found(words) - innocent[one.class_id]
        if marked and one.now is not None:
            detail = ", ".join(listed[i] for i in sorted(marked))
            one.add("moderation", "drop" if "moderation" in drop else "note", detail)


def _check_verdicts(
    texts: Sequence[_Text],
    moderate: Callable[[Sequence[str]], Sequence[Verdict]] | None,
    drop: Collection[str],
) -> list[str]:
    """Ask the endpoint; why nobody was asked, if so."""
    if moderate is None:
        return ["moderation endpoint: none is given"]
    live = _live(texts)
    asked = list(dict.fromkeys(text for _, text in live))
    verdicts = dict(zip(asked, moderate(asked), strict=True))
    for one, text in live:
        verdict = verdicts[text]
        if verdict.error:
            action: Action = "drop" if "not_moderated" in drop else "note"
            one.add("not_moderated", action, verdict.error)
        elif verdict.categories:
            action = "drop" if "moderation" in drop else "note"
            one.add("moderation", action, "endpoint: " + ", ".join(verdict.categories))
    return []
