"""The texts of every class, with what each is about, and where they came from."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import BaseModel, ConfigDict, Field

from byname.errors import PromptError, quoted
from byname.files import parse_json, write_text
from byname.taxonomy import Taxonomy

__all__ = [
    "UNSEEN",
    "Pair",
    "Prompt",
    "PromptSet",
    "Provenance",
    "escape_unseen",
    "read_json",
    "safe_json",
]

# Characters that no reader sees but that change what is seen: control characters, Unicode line
# ends, marks and overrides of direction, zero-width ones. In JSON they can be written as escapes.
UNSEEN = re.compile(
    "[\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f]"
)
_SURROGATE = re.compile("[\ud800-\udfff]")
_SHAPE = (
    'The format is {"format": "byname-prompts/1", "classes": {id: [{"text": ...}]}}; '
    "see docs/formats.md."
)


class Prompt(BaseModel):
    """One text of a class.

    ``about``: id of the node, or name of the attribute, that the text is about; "" for the class
    itself. ``template``: index of the template that all classes share; -1 for a text of one class
    only. ``level``: level in a hierarchy of texts, 0 for the general ones; -1 for none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    text: str = Field(min_length=1)
    kind: str = "text"
    about: str = ""
    weight: float = Field(default=1.0, ge=0.0, allow_inf_nan=False)
    template: int = Field(default=-1, ge=-1)
    level: int = Field(default=-1, ge=-1)


class Pair(BaseModel):
    """Texts that tell class ``a`` from class ``b``, seen from ``a``."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    a: str
    b: str
    texts: tuple[Annotated[str, Field(min_length=1)], ...]


class Provenance(BaseModel):
    """Who made the texts."""

    model_config = ConfigDict(frozen=True, extra="allow")
    generator: str = ""
    model: str = ""
    date: str = ""
    queries_sha256: str = ""


class PromptSet(BaseModel):
    """Texts of each class, keyed by class id, in the order of the taxonomy's classes.

    Examples
    --------
    >>> PromptSet(classes={"cat": [Prompt(text="a photo of a cat.")]}).texts("cat")
    ['a photo of a cat.']
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: Literal["byname-prompts/1"] = "byname-prompts/1"
    classes: dict[str, tuple[Prompt, ...]]
    pairs: tuple[Pair, ...] = ()
    provenance: Provenance = Provenance()

    def texts(self, class_id: str) -> list[str]:
        """Texts of one class, in order."""
        return [prompt.text for prompt in self.classes[class_id]]

    @classmethod
    def from_templates(
        cls, taxonomy: Taxonomy, templates: Iterable[str], **provenance: str
    ) -> PromptSet:
        """Every template filled with every class's name. Each must hold ``{}`` exactly once.

        Raises
        ------
        PromptError
            For a template without ``{}``, or no template at all.
        """
        templates = tuple(templates)
        if not templates:
            raise PromptError(
                "make prompts", "the list of templates is empty", "Give at least one."
            )
        for template in templates:
            # str.format is not used: a template is the user's text, and its other braces are inert.
            if template.count("{}") != 1:
                raise PromptError(
                    f"use the template {template!r}",
                    f"it holds {{}} {template.count('{}')} times",
                    "Write {} once, where the class name goes: 'a photo of a {}.'",
                )
        classes = {
            leaf.id: tuple(
                Prompt(text=t.replace("{}", leaf.name), kind="template", template=p)
                for p, t in enumerate(templates)
            )
            for leaf in taxonomy.classes
        }
        return cls(classes=classes, provenance=Provenance(**provenance))

    @classmethod
    def load(cls, path: str | Path) -> PromptSet:
        """Read the JSON format ``byname-prompts/1``; halves of characters become U+FFFD.

        Raises
        ------
        PromptError
            For a missing file, text that is not JSON, or JSON of another shape.
        """
        path = Path(path)
        asked = f"read the prompts in '{path}'"
        raw = read_json(path, asked, _SHAPE)
        try:
            return cls.model_validate(raw)
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            where = "/".join(map(str, first["loc"])) or "the file"
            raise PromptError(asked, f"at {where}: {first['msg']}", _SHAPE) from None

    def save(self, path: str | Path) -> None:
        """Write JSON with one text a line, so that two versions can be compared line by line.

        Characters that hide or reorder what stands around them are written as escapes.

        Raises
        ------
        OutputError
            Where the file cannot be written; an older one is then still whole.
        """
        path = Path(path)
        text = escape_unseen(self.model_dump_json(indent=1))
        write_text(path, text + "\n", f"write the prompts to '{path}'")

    def fingerprint(self) -> str:
        """SHA-256 over the texts of every class and pair, in order."""
        told = self.model_dump_json(include={"classes", "pairs"})
        return hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()

    @classmethod
    def concatenate(cls, sets: Sequence[PromptSet]) -> PromptSet:
        """All texts of all sets, class by class, in the order of the sets.

        Templates are numbered on, so that those of different sets stay different.

        Examples
        --------
        >>> a = PromptSet(classes={"cat": [Prompt(text="a cat", template=0)]})
        >>> both = PromptSet.concatenate([a, a])
        >>> [prompt.template for prompt in both.classes["cat"]]
        [0, 1]
        """
        classes: dict[str, list[Prompt]] = {}
        first = 0
        for part in sets:
            for class_id, prompts in part.classes.items():
                classes.setdefault(class_id, []).extend(
                    p if p.template < 0 else p.model_copy(update={"template": p.template + first})
                    for p in prompts
                )
            numbers = [p.template for prompts in part.classes.values() for p in prompts]
            first += max(numbers, default=-1) + 1
        return cls(
            classes={class_id: tuple(prompts) for class_id, prompts in classes.items()},
            pairs=tuple(pair for part in sets for pair in part.pairs),
            provenance=Provenance(
                generator=" + ".join(part.provenance.generator or "texts" for part in sets)
            ),
        )

    @classmethod
    def merge(
        cls, sets: Sequence[PromptSet], mix: Literal["count", "equal"] = "count"
    ) -> PromptSet:
        """The sets as one, every text of each kept, also where two are the same.

        Parameters
        ----------
        sets : sequence of PromptSet
        mix : {"count", "equal"}
            ``count``: texts keep their weights, so that a set counts by the number of its texts.
            ``equal``: in each class, the weights of each set are scaled to a sum of 1, so that
            every set that has texts of the class counts the same. Texts that all weigh 0 still do.

        Returns
        -------
        PromptSet
            With the classes in the order in which they first occur. The provenance lists the
            provenance and fingerprint of each source.

        Raises
        ------
        PromptError
            For no set, or an unknown ``mix``.

        Examples
        --------
        >>> one = PromptSet(classes={"cat": [Prompt(text="a cat")]})
        >>> two = PromptSet(classes={"cat": [Prompt(text="fur"), Prompt(text="a tail")]})
        >>> [p.weight for p in PromptSet.merge([one, two], "equal").classes["cat"]]
        [1.0, 0.5, 0.5]
        """
        if not sets:
            raise PromptError("merge prompts", "there are none", "Give at least one set.")
        if mix not in ("count", "equal"):
            raise PromptError(
                f"merge with mix '{mix}'", "there is none such", "Use count or equal."
            )
        sources = [
            {**part.provenance.model_dump(exclude_defaults=True), "fingerprint": part.fingerprint()}
            for part in sets
        ]
        made = cls.concatenate(sets if mix == "count" else [_evened(part) for part in sets])
        told = {"generator": made.provenance.generator, "mix": mix, "sources": sources}
        return made.model_copy(update={"provenance": Provenance.model_validate(told)})

    def align(self, taxonomy: Taxonomy) -> PromptSet:
        """The same texts in the order of the taxonomy's classes.

        Raises
        ------
        PromptError
            When a class has no text, or a text belongs to no class.
        """
        wanted = [leaf.id for leaf in taxonomy.classes]
        missing = [i for i in wanted if not self.classes.get(i)]
        extra = sorted(set(self.classes) - set(wanted))
        if missing or extra:
            parts = []
            if missing:
                parts.append(f"no texts for {quoted(missing)}")
            if extra:
                parts.append(f"texts for unknown classes {quoted(extra)}")
            raise PromptError(
                "match the prompts with the classes",
                " and ".join(parts),
                "Ids must be equal; 'byname taxonomy convert FILE classes.csv' lists yours.",
            )
        return self.model_copy(update={"classes": {i: self.classes[i] for i in wanted}})

    def summary(self) -> Mapping[str, Any]:
        """Counts for provenance: classes, texts, kinds."""
        kinds = Counter(p.kind for prompts in self.classes.values() for p in prompts)
        return {"classes": len(self.classes), "texts": sum(kinds.values()), "kinds": dict(kinds)}


def _evened(part: PromptSet) -> PromptSet:
    """The same with weights that sum to 1 in each class."""
    classes = {}
    for class_id, prompts in part.classes.items():
        # Divided by the largest first: weights may be as large as a float can be.
        top = max((prompt.weight for prompt in prompts), default=0.0) or 1.0
        shares = [prompt.weight / top for prompt in prompts]
        total = sum(shares) or 1.0
        classes[class_id] = tuple(
            prompt.model_copy(update={"weight": share / total})
            for prompt, share in zip(prompts, shares, strict=True)
        )
    return part.model_copy(update={"classes": classes})


def read_json(path: Path, asked: str, do: str) -> Any:
    """What a JSON file holds; halves of characters become U+FFFD, since no file can hold them.

    A byte order mark is skipped; a key that stands twice in one object is an error.

    Raises
    ------
    PromptError
        With ``asked`` and ``do``, for a missing file or one that is not JSON.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
        raw = parse_json(text, _no_repeated_keys)
    except OSError as error:
        raise PromptError(asked, error.strerror or str(error), "Check the path.") from None
    except PromptError as error:
        raise PromptError(asked, error.seen, error.do) from None
    except ValueError as error:
        raise PromptError(asked, f"it is not JSON: {error}", do) from None
    return raw if "\\u" not in text else _whole(raw, asked)


def _no_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise PromptError("read JSON", f"the key {twice!r} stands twice", "Join the two.")
    return made


def _whole(value: Any, asked: str) -> Any:
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, list):
        return [_whole(item, asked) for item in value]
    if isinstance(value, dict):
        made = {_whole(key, asked): _whole(item, asked) for key, item in value.items()}
        if len(made) < len(value):
            raise PromptError(asked, "two keys differ only in halves of characters", "Rename one.")
        return made
    return value


def safe_json(value: Any, indent: int | None = None) -> str:
    """JSON in readable Unicode, with escapes for the characters that a reader cannot see.

    Examples
    --------
    >>> print(safe_json({"é": "a\\u202eb\\u2028"}))
    {"é": "a\\u202eb\\u2028"}
    """
    return escape_unseen(json.dumps(value, ensure_ascii=False, indent=indent))


def escape_unseen(text: str) -> str:
    """The same JSON, with escapes for the characters that a reader cannot see."""
    return UNSEEN.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    # json.dumps leaves DEL as it is.
    return "\\u007f" if found[0] == "\x7f" else json.dumps(found[0])[1:-1]
