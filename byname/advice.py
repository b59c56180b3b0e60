"""What to do about a class that will fail, as a command to run."""

from __future__ import annotations

import json
import shlex

from byname.recipes import Recipe
from byname.stage import create

__all__ = ["advice"]

QUERIES = "queries.jsonl"
FILES = ("FILE.json", "MORE.json")  # the second, where the first is in use


def advice(flag: str, class_id: str, command: str, recipe: Recipe) -> str:
    """What to do about a class, or "".

    Better texts come first: weights can only choose among the texts that are there. What follows
    ``#`` is for the reader, so that the line can be pasted into a shell.

    Parameters
    ----------
    flag : str
        "weak", "never predicted", "ambiguous name" or "".
    class_id : str
    command : str
        The command that found this, with its options, quoted for a shell.
    recipe : Recipe

    Examples
    --------
    >>> from byname.recipes import get_recipe
    >>> command = "byname diagnose photos --classes c.csv --lineage group,name"
    >>> advice("ambiguous name", "crane", command, get_recipe("cpe"))
    "# give 'crane' and its namesakes different names or aliases in c.csv"
    >>> advice("weak", "dog", command, get_recipe("cpe")).split("  #")[1][:50]
    ' answer those with class_id dog, write the answers'
    """
    if not flag:
        return ""
    words = shlex.split(command)
    tree = ["--lineage", lineage] if (lineage := _value(words, "--lineage")) else []
    about = _printable(shlex.quote(class_id))
    if task := _value(words, "--task"):
        if flag != "ambiguous name":
            return f"# write the task again, with more texts for {about}"
        file = _value(words, "--taxonomy")
        do = f"# write the task {_printable(shlex.quote(task))} again, with another name"
        return f"{do} for {about}" if file is None else _rename(class_id, file)
    classes = _value(words, "--classes") or "CLASSES"
    if flag == "ambiguous name":
        return _rename(class_id, classes)
    make = _join(
        "byname prompts make --style haprompts",
        ["--classes", classes, *tree, "--emit", QUERIES],
    )
    entry = _printable(json.dumps({class_id: ["..."]}, ensure_ascii=False))
    held = _value(words, "--prompts") or create(recipe.prompts, "prompts").spec
    file = FILES[FILES[0] in held]
    hint = f"answer those with class_id {about}, write the answers into {file} as {entry}, then: "
    hint += _with_prompts(words, f"{held}+{file}")
    if flag == "never predicted":
        hint += f"; or take {about} out of the classes, if it does not occur"
    return f"{make}  # {hint}"


def _rename(class_id: str, classes: str) -> str:
    """``byname taxonomy check`` would say that the classes can be used: only the user can help."""
    one = f"'{class_id}' and its namesakes"
    return _printable(f"# give {one} different names or aliases in {shlex.quote(classes)}")


def _with_prompts(words: list[str], prompts: str) -> str:
    """The command again, with other texts."""
    kept, skip = [], False
    for word in words:
        if not skip and word not in ("--prompts", "--template"):
            kept.append(word)
        skip = not skip and word in ("--prompts", "--template")
    again = _join("", [*kept, "--prompts", prompts])
    return again + (", where --template has no place" if "--template" in words else "")


def _value(words: list[str], option: str) -> str | None:
    """The word after an option."""
    places = [i for i, word in enumerate(words[:-1]) if word == option]
    return words[places[-1] + 1] if places else None


def _join(start: str, words: list[str]) -> str:
    return _printable(f"{start} {shlex.join(words)}".strip())


def _printable(text: str) -> str:
    """On one line: a line break in a name would end the comment."""
    return " ".join(text.splitlines())
