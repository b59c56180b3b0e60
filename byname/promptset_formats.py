"""Prompt files of other projects: which format one has, and what its texts become."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from byname.errors import PromptError, TaxonomyError, UsageError, quoted
from byname.files import read_text
from byname.names import bearers
from byname.promptset import Prompt, PromptSet, Provenance
from byname.promptset_io import fill_missing, load_prompts, prompts_of, read_json
from byname.sentences import descriptor_sentence
from byname.taxonomy import Node, Taxonomy

__all__ = ["FORMATS", "Format", "ReadPrompts", "guess_format", "read_format"]

Format = Literal["byname", "cupl", "descriptors", "haprompts", "chils", "hie", "templates"]
FORMATS: tuple[Format, ...] = get_args(Format)
SUBCLASS = "a photo of a {}."  # what a label of a CHiLS set is put into
_KNOWN = f"Formats: {', '.join(FORMATS)}; see docs/prompt-files.md."
_ENDS_WELL = re.compile(r"[.!?。！？][\"'”’)\]]*\s*$")
_SEPARATORS = re.compile(r"[\s_-]+")


class ReadPrompts(NamedTuple):
    """A prompt file as it was read.

    ``why`` is the evidence for a guessed format, "" for a given one; ``taxonomy`` holds the
    classes that were given, or else those that the file's own keys make.
    """

    prompts: PromptSet
    format: Format
    why: str
    taxonomy: Taxonomy


def read_format(
    path: str | Path,
    taxonomy: Taxonomy | None = None,
    format: str | None = None,
    allow_missing: bool = False,
    *,
    ignore_extra: bool = False,
    partial: bool = False,
    on_guess: Callable[[Format, str], None] | None = None,
) -> ReadPrompts:
    """The texts of a prompt file in any known format, for the classes of a taxonomy.

    Parameters
    ----------
    path : str or Path
        JSON; for ``templates`` also ``.txt``, a template a line.
    taxonomy : Taxonomy, optional
        Keys of the file are ids, names or paths of its classes; where none fits, "_" and "-" count
        as spaces. None: the keys are the classes, a flat list.
    format : str, optional
        One of ``FORMATS``; docs/prompt-files.md says what each becomes. None: a guess.
    allow_missing : bool
        Give classes without texts "a photo of a {}.", with a warning.
    ignore_extra, partial : bool
        Skip keys that are no class, with a warning; leave classes without texts without.
    on_guess : callable, optional
        Told a guessed format and the evidence, before anything can fail for it.

    Raises
    ------
    UsageError
        For an unknown format, one that cannot be told, and templates without classes.
    PromptError
        For a file that cannot be read or has another shape, and classes that do not fit.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "d.json").write_text('{"hen": ["red comb"]}')
    ...     read_format(Path(folder, "d.json"), format="descriptors").prompts.texts("hen")
    ['hen, which has red comb.']
    """
    path = Path(path)
    asked = f"read the prompts in '{path}'"
    if format is not None and format not in FORMATS:
        raise UsageError(asked, f"there is no format '{format}'", _KNOWN)
    raw = _raw(path, asked)
    kind, why = guess_format(raw, asked) if format is None else (format, "")
    if why and on_guess is not None:
        on_guess(kind, why)
    _check_shape(raw, kind, asked)
    if taxonomy is None:
        taxonomy, raw = _own(path, raw, kind, asked)
    made = _made(path, raw, kind, taxonomy, ignore_extra, asked)
    if partial:
        made = _in_order(made, taxonomy, asked)
    else:
        made = fill_missing(made, taxonomy, allow_missing=allow_missing)
    return ReadPrompts(made, kind, why, taxonomy)


def _own(path: Path, raw: Any, kind: Format, asked: str) -> tuple[Taxonomy, Any]:
    """The classes that the file's own keys make, and what it holds under their ids."""
    if kind == "byname":
        return _own_classes(PromptSet.load(path).classes, kind, asked), raw
    taxonomy = _own_classes(raw, kind, asked)
    # Names of classes are cleaned, keys are not.
    return taxonomy, dict(zip(taxonomy.class_ids, raw.values(), strict=True))


def _made(
    path: Path, raw: Any, kind: Format, taxonomy: Taxonomy, ignore_extra: bool, asked: str
) -> PromptSet:
    """The set of the file, for as many of the classes as it has texts for."""
    if kind == "byname":
        made = load_prompts(path, taxonomy)
        return _without_extra(made, taxonomy) if ignore_extra else made
    if kind == "templates":
        made = PromptSet.from_templates(taxonomy, raw)
    else:
        made = prompts_of(_fitting(raw, taxonomy, ignore_extra, asked), taxonomy, asked)
        made = _converted(made, taxonomy, kind)
    origin = {"generator": path.name, "imported_as": kind}
    return made.model_copy(update={"provenance": Provenance.model_validate(origin)})


def guess_format(raw: Any, asked: str = "tell the format") -> tuple[Format, str]:
    """The format of what JSON gave, and the evidence for it.

    A list is ``templates``; an object with ``format`` is ``byname``; lists of lists are ``hie``.
    ``{class: [texts]}`` is told by its texts: ``cupl`` where 90 % end like a sentence and they have
    4 words or more on average; ``haprompts`` where less than half do and they have 12 words or
    more; ``chils`` where 90 % of the classes list their own name among at most 6 words a text and
    almost none ends like a sentence; ``descriptors`` where texts have less than 8 words, almost
    none ends like a sentence, and less than half of them name their class.

    Raises
    ------
    UsageError
        Where none of these holds, with the formats that are possible.

    Examples
    --------
    >>> guess_format({"hen": ["red comb", "short beak"]})[0]
    'descriptors'
    """
    if isinstance(raw, list):
        return "templates", "it is a list and names no classes"
    if not isinstance(raw, dict) or not raw:
        raise UsageError(asked, "it holds no classes with texts", _KNOWN)
    if isinstance(raw.get("format"), str):
        return "byname", f"it says that it is {raw['format']!r}"
    lists = [value for value in raw.values() if isinstance(value, list) and value]
    if lists and all(isinstance(level, list) for value in lists for level in value):
        return "hie", "each class has lists of texts, one a level"
    mixed = {key: _has_levels(value) for key, value in raw.items() if isinstance(value, list)}
    if any(mixed.values()):
        key = next(key for key, levels in mixed.items() if levels)
        other = next((key for key, levels in mixed.items() if not levels), key)
        raise UsageError(
            asked,
            f"it mixes shapes: {key!r} has lists of lists, {other!r} texts",
            "Give every class either texts, or with --format hie a list of texts a level.",
        )
    return _guess_by_texts(raw, asked)


def _has_levels(value: list[Any]) -> bool:
    return any(isinstance(level, list) for level in value)


def _guess_by_texts(raw: dict[str, Any], asked: str) -> tuple[Format, str]:
    texts = [
        (key.casefold().replace("_", " "), text)
        for key, value in raw.items()
        if isinstance(value, list)
        for text in value
        if isinstance(text, str)
    ]
    if not texts:
        raise UsageError(asked, "it holds no texts", _KNOWN)
    ends = sum(bool(_ENDS_WELL.search(text)) for _, text in texts) / len(texts)
    words = sum(len(text.split()) for _, text in texts) / len(texts)
    named = sum(key in text.casefold() for key, text in texts) / len(texts)
    own = len({key for key, text in texts if key == text.casefold().strip()}) / len(raw)
    fits: dict[Format, bool] = {
        "cupl": ends >= 0.9 and words >= 4,
        "haprompts": ends < 0.5 and words >= 12,
        "chils": ends < 0.1 and own >= 0.9 and words <= 6,
        "descriptors": ends < 0.1 and own < 0.1 and words < 8 and named < 0.5,
    }
    why = (
        f"{ends:.0%} of {len(texts)} texts, of {words:.1f} words on average, end like a sentence "
        f"and {named:.0%} name their class"
    )
    if own >= 0.9:
        why += f", and {own:.0%} of the classes list their own name"
    found = [name for name, fit in fits.items() if fit]
    if len(found) == 1:
        return found[0], why
    short = words < 12 and ends < 0.9
    maybe: list[Format] = ["cupl", "chils", "descriptors"] if short else ["cupl", "haprompts"]
    raise UsageError(
        asked,
        f"its format may be {' or '.join(found or maybe)}: {why}",
        "Say which with --format; cupl takes the texts as they stand.",
    )


def _raw(path: Path, asked: str) -> Any:
    if path.suffix.lower() == ".txt":
        lines = read_text(path, PromptError, asked, "Give one template a line.").splitlines()
        return [line.strip() for line in lines if line.strip() and not line.startswith("# ")]
    return read_json(path, asked, _KNOWN)


def _check_shape(raw: Any, kind: Format, asked: str) -> None:
    seen, given = "", isinstance(raw, dict) and isinstance(raw.get("format"), str)
    if kind == "templates":
        if not isinstance(raw, list) or not all(isinstance(text, str) for text in raw):
            seen = "templates are a list of texts, which it is not"
    elif not isinstance(raw, dict) or not raw:
        what = "templates or other texts of no class" if isinstance(raw, list) else "no classes"
        seen = f"it holds {what}, and '{kind}' is an object of classes with texts"
    elif given != (kind == "byname"):
        seen = f"it is {raw['format']!r}" if given else "it has no 'format': \"byname-prompts/1\""
    else:
        nested = [
            isinstance(value, list)
            and bool(value)
            and all(isinstance(level, list) for level in value)
            for value in raw.values()
        ]
        if kind == "hie" and not all(nested):
            key = list(raw)[nested.index(False)]
            seen = f"{key!r} has no list of texts a level, as 'hie' has"
        elif kind not in ("hie", "byname") and any(nested):
            key = list(raw)[nested.index(True)]
            seen = f"{key!r} has lists of lists, as 'hie' has and '{kind}' has not"
    if seen:
        raise PromptError(asked, seen, f"Give another --format. {_KNOWN}")


def _own_classes(keys: Iterable[str], kind: Format, asked: str) -> Taxonomy:
    """The classes that a file's keys make: names; for byname's own format ids."""
    if kind == "templates":
        raise UsageError(asked, "templates name no classes", "Give the classes with --classes.")
    keys = list(keys)
    try:
        if kind == "byname":
            return Taxonomy(Node(key, _fold(key.rpartition(".")[2]) or key) for key in keys)
        names = [key.replace("_", " ") for key in keys]
        _warn_of_twins(keys)
        return Taxonomy.from_names(names if len(set(names)) == len(names) else keys)
    except TaxonomyError as error:
        raise PromptError(asked, error.seen, "Name each class, or give --classes.") from None


def _warn_of_twins(keys: Iterable[str]) -> None:
    folded: dict[str, list[str]] = {}
    for key in keys:
        folded.setdefault(_fold(key), []).append(key)
    if twins := [given for given in folded.values() if len(given) > 1]:
        warnings.warn(
            f"keys that differ only in case, spaces, '_' or '-' make classes of their own: "
            f"{'; '.join(quoted(given) for given in twins[:3])}"
            + (f"; and {len(twins) - 3} more" if len(twins) > 3 else ""),
            stacklevel=4,
        )


def _fold(text: str) -> str:
    return _SEPARATORS.sub(" ", text.casefold()).strip()


def _fitting(
    raw: dict[str, Any], taxonomy: Taxonomy, ignore_extra: bool, asked: str
) -> dict[str, Any]:
    """The same under keys that ``prompts_of`` knows, without those of no class if that is wanted.

    "_" and "-" are spaces only where a key fits no class as it is.
    """
    unknown = [key for key, ids in bearers(raw, taxonomy).items() if not ids]
    if not unknown:
        return raw
    folded: dict[str, set[str]] = {}
    for node in taxonomy.classes:
        for way in (node.id, node.name):
            folded.setdefault(_fold(way), set()).add(node.id)
    fits = {key: folded.get(_fold(key), set()) for key in unknown}
    ids = {key: next(iter(found)) for key, found in fits.items() if len(found) == 1}
    lost = [key for key, found in fits.items() if not found] if ignore_extra else []
    made: dict[str, Any] = {}
    for key in (key for key in raw if key not in set(lost)):
        if ids.get(key, key) in made:
            raise PromptError(asked, f"two keys are {ids[key]!r}, one {key!r}", "Join their texts.")
        made[ids.get(key, key)] = raw[key]
    if not made:
        raise PromptError(
            asked,
            f"none of its {len(raw)} classes is yours: {quoted(list(raw))}",
            "Give the classes that it was made for.",
        )
    if lost:
        warnings.warn(
            f"{len(lost)} of {len(raw)} classes in the file are not yours and are skipped: "
            f"{quoted(lost)}",
            stacklevel=3,
        )
    return made


def _without_extra(made: PromptSet, taxonomy: Taxonomy) -> PromptSet:
    known = set(taxonomy.class_ids)
    lost = [class_id for class_id in made.classes if class_id not in known]
    pairs = tuple(pair for pair in made.pairs if {pair.a, pair.b} <= known)
    if lost or len(pairs) < len(made.pairs):
        warnings.warn(
            f"{len(lost)} of {len(made.classes)} classes in the file are not yours and are "
            f"skipped, and {len(made.pairs) - len(pairs)} pairs: {quoted(lost)}",
            stacklevel=3,
        )
    classes = {class_id: texts for class_id, texts in made.classes.items() if class_id in known}
    return made.model_copy(update={"classes": classes, "pairs": pairs})


def _converted(made: PromptSet, taxonomy: Taxonomy, kind: Format) -> PromptSet:
    """Texts of phrases and labels; sentences stay as they are."""
    if kind not in ("descriptors", "chils"):
        return made
    classes = {}
    for class_id, prompts in made.classes.items():
        name, texts = taxonomy.node(class_id).name, []
        for about in (prompt.text.strip() for prompt in prompts):
            if kind == "chils":
                text, what = SUBCLASS.replace("{}", about), "subclass"
            else:
                stop = "" if about.endswith((".", "!", "?")) else "."
                text, what = descriptor_sentence(name, about, suffix=stop), "descriptor"
            texts.append(Prompt(text=text, kind=what, about=about))
        classes[class_id] = tuple(texts)
    return made.model_copy(update={"classes": classes})


def _in_order(made: PromptSet, taxonomy: Taxonomy, asked: str) -> PromptSet:
    """The set in the order of the classes; those without texts are not in it."""
    known = set(taxonomy.class_ids)
    named = [*made.classes, *(i for pair in made.pairs for i in (pair.a, pair.b))]
    if unknown := [class_id for class_id in dict.fromkeys(named) if class_id not in known]:
        raise PromptError(
            asked,
            f"there are no classes {quoted(unknown)}",
            "Ids must be equal; 'byname taxonomy convert FILE classes.csv' lists yours.",
        )
    classes = {i: made.classes[i] for i in taxonomy.class_ids if made.classes.get(i)}
    return made.model_copy(update={"classes": classes})
