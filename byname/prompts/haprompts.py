"""Questions that know the tree: how a class differs from its peers, and what it is a kind of."""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from importlib import resources
from typing import Any, NamedTuple

import pydantic

from byname.errors import PromptError, RecipeError
from byname.prompts.wording import Question, with_parent
from byname.queries import Query, QueryMember
from byname.stage import register
from byname.taxonomy import Node, Taxonomy

__all__ = [
    "Ask",
    "HAPrompts",
    "HAPromptsParams",
    "default_wording",
    "parse_wording",
]

PEER_KINDS = ("leaf_peer", "ancestor_peer")
PATH_KINDS = ("path_look", "path_picture", "path_traits")
_PARTS = {
    "lp": ("lp",),
    "ap": ("ap",),
    "comp": ("lp", "ap"),
    "path": ("path",),
    "full": ("lp", "ap", "path"),
}
_SLOT = re.compile(r"\{(name|peer|ancestor)\}")


Wording = Mapping[str, Question]  # by kind of question


@cache
def default_wording() -> Wording:
    """The wording that comes with byname, by kind of question.

    Examples
    --------
    >>> list(default_wording())
    ['leaf_peer', 'ancestor_peer', 'path_look', 'path_picture', 'path_traits']
    """
    file = resources.files("byname.prompts") / "data" / "haprompts.json"
    raw = json.loads(file.read_text(encoding="utf-8"))
    return {kind: Question.model_validate(value) for kind, value in raw.items()}


def parse_wording(raw: Any, source: str = "the wording") -> Wording:
    """A user's wording: an object with a text, or a :class:`Question`, for some kinds or all.

    Parameters
    ----------
    raw : object
        What JSON gives. Kinds that are left out keep byname's wording, and so does ``alone``.
    source : str
        Named in errors.

    Raises
    ------
    PromptError
        For anything else: unknown kinds, missing placeholders, settings out of range.

    Examples
    --------
    >>> parse_wording({"leaf_peer": "{name}, not {peer}: why?"})["leaf_peer"].text
    '{name}, not {peer}: why?'
    """
    default = default_wording()
    asked = f"use the wording in {source}"
    if not isinstance(raw, dict) or not raw:
        raise PromptError(
            asked, "it is not a JSON object with kinds of questions", f"Kinds: {', '.join(default)}"
        )
    if unknown := [kind for kind in raw if kind not in default]:
        raise PromptError(
            asked, f"there is no kind of question {unknown[0]!r}", f"Kinds: {', '.join(default)}."
        )
    made = dict(default)
    for kind, value in raw.items():
        changes = {"text": value} if isinstance(value, str) else value
        try:
            made[kind] = Question.model_validate({"alone": default[kind].alone, **changes})
        except (pydantic.ValidationError, TypeError) as error:
            listed = error.errors()[0] if isinstance(error, pydantic.ValidationError) else None
            where = "/".join(map(str, (kind, *listed["loc"]))) if listed else kind
            seen = listed["msg"] if listed else "it is neither a text nor an object"
            raise PromptError(asked, f"at {where}: {seen}", 'Write {"text": "..."}.') from None
        _check_slots(asked, kind, made[kind])
    return made


def _check_slots(asked: str, kind: str, question: Question) -> None:
    other = "peer" if kind in PEER_KINDS else "ancestor"
    wanted = {"text": {"name", other}}
    if kind in PATH_KINDS:
        wanted["alone"] = {"name"}
    for field, slots in wanted.items():
        found = set(_SLOT.findall(getattr(question, field)))
        if found != slots:
            lacking, extra = sorted(slots - found), sorted(found - slots)
            seen = (
                f"{kind}/{field} lacks {{{lacking[0]}}}"
                if lacking
                else (f"{kind}/{field} holds {{{extra[0]}}}, which it has no value for")
            )
            needed = " and ".join(f"{{{slot}}}" for slot in sorted(slots, reverse=True))
            raise PromptError(asked, seen, f"Write {needed} where the names go.")


class Ask(NamedTuple):
    """Who is asked about whom, apart from the wording; ``about`` is None for no other node."""

    leaf: Node
    about: Node | None
    kind: str


@dataclass(frozen=True)
class HAPromptsParams:
    """Which questions: ``lp``, ``ap``, ``comp``, ``path``, ``full`` or a union like ``lp+path``."""

    variant: str = "full"
    fallback: bool = False
    dedup: bool = False

    def __post_init__(self) -> None:
        self.parts()

    def parts(self) -> tuple[str, ...]:
        """Which of lp, ap and path, in this order, however the union is written."""
        wanted: set[str] = set()
        for name in self.variant.lower().split("+"):
            if name.strip() not in _PARTS:
                raise RecipeError(
                    f"use the variant '{self.variant}' of 'haprompts'",
                    f"'{name.strip()}' is none",
                    f"Known: {', '.join(_PARTS)}, and unions such as lp+path.",
                )
            wanted.update(_PARTS[name.strip()])
        return tuple(part for part in ("lp", "ap", "path") if part in wanted)


@register
class HAPrompts(QueryMember):
    """Hierarchy-aware questions: comparisons with peers, and descriptions along the path.

    Formula: with path(l) = (l, a_1, ..., a_m), the class and its ancestors, nearest first and the
    root left out, and siblings(n) the other children of n's parent (classes or groups)::

        lp    for s in siblings(l):                      how do l and s differ?
        ap    for a in a_1..a_m, for s in siblings(a):   how do l and s differ?
        comp  lp, then ap
        path  for a in a_1..a_m:                         three questions on l, a kind of a
        full  comp, then path

    A class right below the root (m = 0) is asked the three questions of ``path`` without the note
    "a kind of". Unions are written ``lp+path``; nothing is asked twice for it. Nodes are told
    apart by id, never by name, and the root is never mentioned. The texts come class by class.
    Replies to comparisons get the depth of the compared node as their ``level`` and those of
    ``path`` the level 0, so that ``hie`` can fuse them.

    Number of queries: sum over classes of the siblings along the path, and of 3 m.

    Source: Liang & Davis, "Making Better Mistakes in CLIP-Based Zero-Shot Classification with
    Hierarchy-Aware Language Prompts", arXiv 2503.02248. The questions are byname's own, so results
    with the original wording differ; stop text, temperature and length limit are the paper's.

    Parameters
    ----------
    variant : str
        Which questions; the default ``full`` is the paper's own choice and the row of its ablation
        with the highest mean top-1.
    fallback : bool
        Ask a class without siblings the ``ap`` questions in place of its ``lp`` ones, as the
        paper's code does. Off: the published counts are without.
    dedup : bool
        Leave out comparisons with a peer of the class's own name, and names that one class was
        asked about before (trees may hold one name in several places). Off: node pairs are counted.
    wording : mapping of str to Question, optional
        Of :func:`parse_wording`; not part of the spec.

    Examples
    --------
    >>> tree = Taxonomy([Node("f", "fruit"), Node("a", "apple", "f"), Node("p", "pear", "f"),
    ...                  Node("m", "milk")])
    >>> [(q.class_id, q.about, q.kind) for q in HAPrompts(variant="comp").queries(tree)][:3]
    [('a', 'p', 'leaf_peer'), ('a', 'm', 'ancestor_peer'), ('p', 'a', 'leaf_peer')]
    """

    name = "haprompts"
    Params = HAPromptsParams
    params: HAPromptsParams

    def __init__(self, params: Any = None, *, wording: Wording | None = None, **kw: Any) -> None:
        super().__init__(params, **kw)
        self.wording = wording

    def use_wording(self, raw: Any, source: str) -> None:
        """Ask in a user's words; see :func:`parse_wording`."""
        self.wording = parse_wording(raw, source)

    def plan(self, taxonomy: Taxonomy) -> Iterator[Ask]:
        """Who is asked about whom; lazy."""
        for leaf in taxonomy.classes:
            asks = self._of_class(taxonomy, leaf)
            yield from _without_repeats(leaf, [*asks]) if self.params.dedup else asks

    def _of_class(self, taxonomy: Taxonomy, leaf: Node) -> Iterator[Ask]:
        parts, ancestors = self.params.parts(), taxonomy.ancestors(leaf.id)
        siblings = taxonomy.siblings(leaf.id) if "lp" in parts else ()
        for peer in siblings:
            yield Ask(leaf, taxonomy.node(peer), "leaf_peer")
        stands_in = self.params.fallback and "lp" in parts and not siblings
        for ancestor in ancestors if "ap" in parts or stands_in else ():
            for peer in taxonomy.siblings(ancestor):
                yield Ask(leaf, taxonomy.node(peer), "ancestor_peer")
        if "path" not in parts:
            return
        above_all: list[Node | None] = [taxonomy.node(a) for a in ancestors]
        for above in above_all or [None]:
            for kind in PATH_KINDS:
                yield Ask(leaf, above, kind)

    def queries(self, taxonomy: Taxonomy) -> Iterator[Query]:
        """Every query, class by class, in the order of the formula; lazy."""
        wording = self.wording or default_wording()
        for leaf, about, kind in self.plan(taxonomy):
            question = wording[kind]
            names = {"name": leaf.name}
            if about is not None and kind in PEER_KINDS:
                names["name"], names["peer"] = _apart(taxonomy, leaf, about)
            elif about is not None:
                names["ancestor"] = about.name
            # One pass and no str.format: names and wordings are the user's text.
            template = question.text if about is not None else question.alone
            yield Query.make(
                leaf.id,
                "" if about is None else about.id,
                kind,
                _SLOT.sub(partial(_name, names), template),
                stop=question.stop,
                temperature=question.temperature,
                max_tokens=question.max_tokens,
                form=question.form,
                samples=question.samples,
            )

    def level_of(self, taxonomy: Taxonomy, query: Query) -> int:
        """0 for descriptions; for comparisons the depth of the node compared with."""
        if query.kind not in PEER_KINDS:
            return 0
        return int(taxonomy.depths[taxonomy.index(query.about)])

    def remarks(self, taxonomy: Taxonomy) -> list[str]:
        """What ``fallback`` and ``dedup`` do to the number of queries."""
        here = self._count(taxonomy, self.params)
        alone = sum(not taxonomy.siblings(leaf.id) for leaf in taxonomy.classes)
        why = {
            "fallback": f"classes without a sibling: {alone}",
            "dedup": "repeated or equal names",
        }
        lines = []
        for option, reason in why.items():
            on = getattr(self.params, option)
            changes: dict[str, Any] = {option: not on}
            there = self._count(taxonomy, dataclasses.replace(self.params, **changes))
            change = here - there if on else there - here
            state = "on, it changes" if on else "off, it would change"
            lines.append(f"{option}: {state} the number by {change:+d} ({reason})")
        return lines

    @staticmethod
    def _count(taxonomy: Taxonomy, params: HAPromptsParams) -> int:
        return sum(1 for _ in HAPrompts(params).plan(taxonomy))

    def counts(self, taxonomy: Taxonomy) -> Counter[str]:
        """Number of queries of each kind."""
        return Counter(ask.kind for ask in self.plan(taxonomy))


def _apart(taxonomy: Taxonomy, a: Node, b: Node) -> tuple[str, str]:
    """What two nodes are called in one question: of equal names with their parents, or ids."""
    if a.name.casefold() != b.name.casefold():
        return a.name, b.name
    shown = with_parent(taxonomy, a), with_parent(taxonomy, b)
    if shown[0].casefold() == shown[1].casefold():
        return f"{a.name} ({a.id})", f"{b.name} ({b.id})"
    return shown


def _name(names: Mapping[str, str], found: re.Match[str]) -> str:
    return names[found[1]]


def _without_repeats(leaf: Node, asks: list[Ask]) -> list[Ask]:
    """Drop nodes that bear the class's own name, and names that the class was asked about before.

    A class of which every ancestor bears its name is asked the path questions without a note.
    """
    kept: list[Ask] = []
    seen: set[tuple[str, str]] = set()
    for ask in asks:
        if ask.about is not None:
            key = ("peer" if ask.kind in PEER_KINDS else ask.kind, ask.about.name)
            if ask.about.name == leaf.name or key in seen:
                continue
            seen.add(key)
        kept.append(ask)
    lost = {ask.kind for ask in asks} - {ask.kind for ask in kept}
    return kept + [Ask(leaf, None, kind) for kind in PATH_KINDS if kind in lost]
