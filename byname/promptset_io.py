"""Texts of classes from files: prompt sets by id or by name, and replies to queries."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from byname.errors import PromptError
from byname.files import parse_json
from byname.promptset import Prompt, PromptSet, Provenance
from byname.taxonomy import Taxonomy

__all__ = ["TEMPLATE", "fill_missing", "load_prompts", "read_json", "read_prompts", "read_replies"]

TEMPLATE = "a photo of a {}."  # what a class without texts gets, where that is allowed
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
    if isinstance(raw, dict) and isinstance(raw.get("format"), str):
        made = PromptSet.load(path)
        for class_id, prompts in made.classes.items():
            if blank := [i for i, prompt in enumerate(prompts, 1) if not prompt.text.strip()]:
                raise PromptError(
                    asked, f"text {blank[0]} of {class_id!r} is empty", "Write it, or leave it out."
                )
        return made
    if not isinstance(raw, dict):
        raise PromptError(asked, f"it holds a {type(raw).__name__}, not an object", _SHAPE)
    ids = _class_ids(raw, taxonomy, asked)
    classes = {ids[key]: _prompts(value, key, asked) for key, value in raw.items()}
    return PromptSet(classes=classes, provenance=Provenance(generator=path.name))


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
        For texts of unknown classes and, where that is not allowed, classes without texts.

    Examples
    --------
    >>> fill_missing(PromptSet(classes={}), Taxonomy.from_names(["cat"]), allow_missing=True
    ...              ).texts("cat")
    ['a photo of a cat.']
    """
    missing = [i for i in taxonomy.class_ids if not made.classes.get(i)]
    if not missing or set(made.classes) - set(taxonomy.class_ids):
        return made.align(taxonomy)
    if not allow_missing:
        raise PromptError(
            "match the prompts with the classes",
            f"no texts for {len(missing)} of {len(taxonomy)} classes: {_some(missing)}",
            do,
        )
    warnings.warn(
        f"{len(missing)} of {len(taxonomy)} classes have no texts and get '{TEMPLATE}': "
        f"{_some(missing)}",
        stacklevel=3,
    )
    filled = {
        i: (Prompt(text=TEMPLATE.replace("{}", taxonomy.node(i).name), kind="template"),)
        for i in missing
    }
    return made.model_copy(update={"classes": {**made.classes, **filled}}).align(taxonomy)


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


def read_json(path: Path, asked: str, do: str) -> Any:
    """What a JSON file holds; a key that stands twice in one object is an error.

    Raises
    ------
    PromptError
        With ``asked`` and ``do``, for a missing file or one that is not JSON.
    """
    try:
        text = _bytes(path, asked).decode("utf-8-sig")
        return parse_json(text, _no_repeated_keys)
    except PromptError as error:
        raise PromptError(asked, error.seen, error.do) from None
    except ValueError as error:
        raise PromptError(asked, f"it is not JSON: {error}", do) from None


def _no_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise PromptError("read JSON", f"the key {twice!r} stands twice", "Join the two.")
    return made


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
    if set(raw) <= set(taxonomy.class_ids):
        return {key: key for key in raw}
    tables = _tables(taxonomy)
    found: dict[str, str] = {}
    clashes, unknown = [], []
    for key in raw:
        ids = _bearers(key, tables)
        if len(ids) == 1:
            found[key] = ids[0]
        elif ids:
            paths = ", ".join(repr(_name_path(taxonomy, i)) for i in ids[:5])
            more = f" and {len(ids) - 5} more" if len(ids) > 5 else ""
            clashes.append(f"{key!r} may be {paths}{more}")
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
            f"there are no classes {_some(unknown)}",
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


def _tables(taxonomy: Taxonomy) -> list[dict[str, list[str]]]:
    """Bearers of each exact id or name, each name in any case, and each path; in this order."""
    exact: dict[str, list[str]] = {}
    folded: dict[str, list[str]] = {}
    paths: dict[str, list[str]] = {}
    for node in taxonomy.classes:
        for table, keys in (
            (exact, {node.id, node.name}),
            (folded, {node.name.casefold()}),
            (paths, {taxonomy.path_string(node.id), _name_path(taxonomy, node.id)}),
        ):
            for key in keys:
                table.setdefault(key, []).append(node.id)
    return [exact, folded, paths]


def _bearers(key: str, tables: list[dict[str, list[str]]]) -> list[str]:
    exact, folded, paths = tables
    return exact.get(key) or folded.get(key.strip().casefold()) or paths.get(key) or []


def _name_path(taxonomy: Taxonomy, node_id: str) -> str:
    return "/".join(taxonomy.node(i).name for i in taxonomy.path(node_id))


def _some(names: list[str], most: int = 5) -> str:
    shown = ", ".join(repr(n) for n in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")
