"""Texts of classes from files: prompt sets by id or by name, and replies to queries."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from byname.errors import PromptError, quoted
from byname.files import guess_delimiter, parse_json
from byname.names import bearers, name_path
from byname.promptset import Prompt, PromptSet, Provenance, read_json
from byname.taxonomy import Taxonomy

__all__ = [
    "TEMPLATE",
    "fill_missing",
    "load_prompts",
    "read_json",
    "read_pairs",
    "read_prompts",
    "read_replies",
]

TEMPLATE = "a photo of a {}."  # what a class without texts gets, where that is allowed
_PAIRS = "Give a CSV file with the columns a and b, or JSON: [[a, b], ...]."
_SHAPE = 'Give {"class": ["text", ...]} or byname-prompts/1; see docs/formats.md.'


def read_prompts(path: str | Path, taxonomy: Taxonomy, *, allow_missing: bool = False) -> PromptSet:
    """The texts in a JSON file, for the classes of a taxonomy and in their order.

    Parameters
    ----------
    path : str or Path
        ``byname-prompts/1``, by class id; or an object ``{class: [texts]}``, by id, by name where
        one class bears it, or by path ("Fruit/Apple"). In place of texts, each class may have one
        list of texts a level, the general ones first: level 0, 1, ...
    taxonomy : Taxonomy
    allow_missing : bool, default False
        Give classes without texts "a photo of a {}.", with a warning.

    Returns
    -------
    PromptSet
        With every class of the taxonomy, and no other.

    Raises
    ------
    PromptError
        For a file that cannot be read, classes that are missing, unknown or share a name, and
        texts that are empty or no texts.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "p.json").write_text('{"Cat": ["a cat", "the cat"]}')
    ...     read_prompts(Path(folder, "p.json"), Taxonomy.from_names(["cat"])).texts("cat")
    ['a cat', 'the cat']
    """
    return fill_missing(load_prompts(path, taxonomy), taxonomy, allow_missing=allow_missing)


def load_prompts(path: str | Path, taxonomy: Taxonomy) -> PromptSet:
    """As :func:`read_prompts`, but for as many of the classes as the file has texts for."""
    path = Path(path)
    asked = f"read the prompts in '{path}'"
    raw = read_json(path, asked, _SHAPE)
    if not (isinstance(raw, dict) and isinstance(raw.get("format"), str)):
        return prompts_of(raw, taxonomy, asked, path.name)
    made = PromptSet.load(path)
    for class_id, prompts in made.classes.items():
        if blank := [i for i, prompt in enumerate(prompts, 1) if not prompt.text.strip()]:
            raise PromptError(
                asked, f"text {blank[0]} of {class_id!r} is empty", "Write it, or leave it out."
            )
    for pair in made.pairs:
        if not all(text.strip() for text in pair.texts):
            raise PromptError(
                asked,
                f"a text of {pair.a!r} against {pair.b!r} is empty",
                "Write it, or leave it out.",
            )
    return made


def prompts_of(raw: Any, taxonomy: Taxonomy, asked: str, generator: str = "") -> PromptSet:
    """The set of an object ``{class: [texts]}``, for as many of the classes as it has texts for."""
    if not isinstance(raw, dict):
        raise PromptError(asked, f"it holds a {type(raw).__name__}, not an object", _SHAPE)
    ids = _class_ids(raw, taxonomy, asked)
    classes = {ids[key]: _prompts(value, key, asked) for key, value in raw.items()}
    return PromptSet(classes=classes, provenance=Provenance(generator=generator))


def fill_missing(
    made: PromptSet,
    taxonomy: Taxonomy,
    *,
    allow_missing: bool = False,
    do: str = "Write texts for them, or add --allow-missing to give them a template.",
) -> PromptSet:
    """The set in the order of the classes; where allowed, a template for classes without texts.

    Parameters
    ----------
    made : PromptSet
    taxonomy : Taxonomy
    allow_missing : bool
    do : str
        What the error for classes without texts advises.

    Raises
    ------
    PromptError
        For texts and pairs of unknown classes and, where that is not allowed, classes without
        texts.

    Warns
    -----
    UserWarning
        For pairs with texts in one direction only, which are of no use.

    Examples
    --------
    >>> fill_missing(PromptSet(classes={}), Taxonomy.from_names(["cat"]), allow_missing=True
    ...              ).texts("cat")
    ['a photo of a cat.']
    """
    _check_pairs(made, taxonomy)
    missing = [i for i in taxonomy.class_ids if not made.classes.get(i)]
    if not missing or set(made.classes) - set(taxonomy.class_ids):
        return made.align(taxonomy)
    if not allow_missing:
        raise PromptError(
            "match the prompts with the classes",
            f"no texts for {len(missing)} of {len(taxonomy)} classes: {quoted(missing)}",
            do,
        )
    warnings.warn(
        f"{len(missing)} of {len(taxonomy)} classes have no texts and get '{TEMPLATE}': "
        f"{quoted(missing)}",
        stacklevel=3,
    )
    filled = {
        i: (Prompt(text=TEMPLATE.replace("{}", taxonomy.node(i).name), kind="template"),)
        for i in missing
    }
    return made.model_copy(update={"classes": {**made.classes, **filled}}).align(taxonomy)


def _check_pairs(made: PromptSet, taxonomy: Taxonomy) -> None:
    told = {(pair.a, pair.b) for pair in made.pairs if pair.texts}
    known = set(taxonomy.class_ids)
    if unknown := dict.fromkeys(i for p in made.pairs for i in (p.a, p.b) if i not in known):
        raise PromptError(
            "match the prompts with the classes",
            f"pairs name unknown classes {quoted(list(unknown))}",
            "Ids must be equal; 'byname taxonomy convert FILE classes.csv' lists yours.",
        )
    if one_way := [f"{a} against {b}" for a, b in sorted(told) if (b, a) not in told]:
        warnings.warn(
            f"{len(one_way)} of {len(told)} pairs have texts in one direction only and are not "
            f"used: {quoted(one_way)}",
            stacklevel=4,
        )


def read_pairs(path: str | Path, taxonomy: Taxonomy) -> list[tuple[str, str]]:
    """Pairs of class ids from a file.

    Parameters
    ----------
    path : str or Path
        CSV or TSV with the columns ``a`` and ``b``, or JSON: a list of two-element lists or of
        objects with ``a`` and ``b``. Classes are named by id, by name where one class bears it, or
        by path, as in :func:`read_prompts`.
    taxonomy : Taxonomy

    Raises
    ------
    PromptError
        For a file that cannot be read or holds no pair, classes that are unknown or share a name,
        and a class paired with itself.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "p.csv").write_text("a,b\\ncat,Dog\\n")
    ...     read_pairs(Path(folder, "p.csv"), Taxonomy.from_names(["cat", "dog"]))
    [('cat', 'dog')]
    """
    path = Path(path)
    asked = f"read the pairs in '{path}'"
    raw = _json_pairs(path, asked) if path.suffix.lower() == ".json" else _csv_pairs(path, asked)
    if not raw:
        raise PromptError(asked, "it holds no pair", _PAIRS)
    meant, made = bearers([key for pair in raw for key in pair], taxonomy), []
    for number, pair in enumerate(raw, 1):
        for key in pair:
            ids = meant[key]
            if len(ids) != 1:
                seen = "is no class" if not ids else f"may be {quoted(ids)}"
                raise PromptError(
                    asked, f"{key!r} of pair {number} {seen}", "Give ids, names or paths."
                )
        a, b = (meant[key][0] for key in pair)
        if a == b:
            raise PromptError(asked, f"pair {number} is {a!r} twice", "Give two classes.")
        made.append((a, b))
    return made


def _json_pairs(path: Path, asked: str) -> list[tuple[str, str]]:
    made = []
    raw = read_json(path, asked, _PAIRS)
    for number, item in enumerate(raw if isinstance(raw, list) else [raw], 1):
        two = [item.get("a"), item.get("b")] if isinstance(item, dict) else item
        if not isinstance(two, list) or [type(key) for key in two] != [str, str]:
            raise PromptError(asked, f"pair {number} is not two texts", _PAIRS)
        made.append((two[0], two[1]))
    return made


def _csv_pairs(path: Path, asked: str) -> list[tuple[str, str]]:
    try:
        text = _bytes(path, asked).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PromptError(asked, f"it is not UTF-8: {error.reason}", _PAIRS) from None
    table = csv.DictReader(io.StringIO(text, ""), delimiter=guess_delimiter(text, path.suffix))
    try:
        if not {"a", "b"} <= set(table.fieldnames or ()):
            raise PromptError(asked, f"its columns are {table.fieldnames or 'none'}", _PAIRS)
        return [(row["a"] or "", row["b"] or "") for row in table]
    except csv.Error as error:
        raise PromptError(asked, f"line {table.line_num}: {error}", _PAIRS) from None


def read_replies(path: str | Path) -> Iterator[tuple[int, str, str]]:
    """Line number, query id and reply of every line of a JSONL file; blank lines are skipped.

    Each line is an object with ``id`` and ``reply``; what else it holds is not looked at.

    Raises
    ------
    PromptError
        For a file that cannot be read, and, with its number, for a line of another shape.
    """
    path = Path(path)
    asked = f"read the replies in '{path}'"
    for number, line in enumerate(_bytes(path, asked).split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            item = parse_json(line.decode("utf-8-sig" if number == 1 else "utf-8"))
        except ValueError as error:
            raise PromptError(
                asked, f"line {number} is not JSON: {error}", 'Write {"id": "...", "reply": "..."}.'
            ) from None
        if not isinstance(item, dict):
            raise PromptError(
                asked, f"line {number} is no object", 'Write {"id": "...", "reply": "..."}.'
            )
        for field in ("id", "reply"):
            if not isinstance(item.get(field), str):
                seen = f"holds no '{field}'" if field not in item else f"has a '{field}' of no text"
                raise PromptError(
                    asked,
                    f"line {number} {seen}",
                    "Give each line both as texts, or leave the line out.",
                )
        yield number, item["id"], item["reply"]


def _bytes(path: Path, asked: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise PromptError(asked, error.strerror or str(error), "Check the path.") from None


def _prompts(value: Any, key: str, asked: str) -> tuple[Prompt, ...]:
    """Texts of one class: a list of texts, or a list of such lists, one a level."""
    if not isinstance(value, list):
        raise PromptError(asked, f"{key!r} has a {type(value).__name__}, not a list", _SHAPE)
    if value and all(isinstance(level, list) for level in value):
        levels = list(enumerate(value))
    else:
        levels = [(-1, value)]
    made = []
    for level, texts in levels:
        for i, text in enumerate(texts, 1):
            where = f"text {i} of {key!r}" + (f", level {level}," if level >= 0 else "")
            if not isinstance(text, str):
                raise PromptError(asked, f"{where} is a {type(text).__name__}, not a text", _SHAPE)
            if not text.strip():
                raise PromptError(asked, f"{where} is empty", "Write it, or leave it out.")
            made.append(Prompt(text=text, level=level))
    return tuple(made)


def _class_ids(raw: Mapping[str, Any], taxonomy: Taxonomy, asked: str) -> dict[str, str]:
    """Class id of every key."""
    found: dict[str, str] = {}
    clashes, unknown = [], []
    for key, ids in bearers(raw, taxonomy).items():
        if len(ids) == 1:
            found[key] = ids[0]
        elif ids:
            clashes.append(f"{key!r} may be {quoted([name_path(taxonomy, i) for i in ids])}")
        else:
            unknown.append(key)
    if clashes:
        raise PromptError(
            asked,
            f"several classes fit a key: {'; '.join(clashes[:5])}"
            + (f"; and {len(clashes) - 5} more keys" if len(clashes) > 5 else ""),
            "Write the path or the id in place of the name.",
        )
    if unknown:
        raise PromptError(
            asked,
            f"there are no classes {quoted(unknown)}",
            "Keys are ids, names or paths of classes; "
            "'byname taxonomy convert FILE classes.csv' lists yours.",
        )
    owners: dict[str, str] = {}
    for key, class_id in found.items():
        if class_id in owners:
            raise PromptError(
                asked, f"{owners[class_id]!r} and {key!r} are one class", "Join their texts."
            )
        owners[class_id] = key
    return found
