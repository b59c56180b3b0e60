"""What ``byname prompts`` does: plan queries, write them, read their replies."""

from __future__ import annotations

import csv
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from byname.asking import (
    Asking,
    Given,
    ask,
    count,
    emit,
    emit_batch,
    read_given,
    unanswered,
    writing,
)
from byname.console import collect_warnings, say, working
from byname.encoders import load_encoder
from byname.errors import OutputError, PromptError, RecipeError, UsageError, quoted, some
from byname.files import names_file
from byname.names import bearers
from byname.promptchoice import ready_member
from byname.prompts.atg import ATG
from byname.prompts.wording import refuse_halves
from byname.promptset import PromptSet
from byname.promptset_io import fill_missing, read_json, read_pairs
from byname.queries import QueryMember
from byname.stage import PromptMember, create, members, parse_spec
from byname.taxonomy import Taxonomy
from byname.taxonomy_io import read_taxonomy

__all__ = ["Files", "asking", "make", "read_only"]


@dataclass(frozen=True)
class Files:
    """Where queries go to, and replies come from."""

    emit: Path | None = None
    emit_batch: Path | None = None
    replies: tuple[Path, ...] = ()
    ingest_batch: tuple[Path, ...] = ()
    output: Path | None = None


def asking(
    url: str | None,
    model: str | None,
    mode: str,
    schema: str,
    key_env: str | None,
    concurrency: int,
    timeout: float,
    max_calls: int,
    *,
    fresh: bool,
    quiet: bool,
) -> Asking:
    """Whom to ask, out of the options of the command line.

    Raises
    ------
    UsageError
        For values that are not known, and options of a server without one.
    """
    for option, value, known in (
        ("--llm-mode", mode, ("chat", "completion")),
        ("--llm-schema", schema, ("auto", "on", "off")),
    ):
        if value not in known:
            raise UsageError(
                f"use {option} '{value}'", "there is no such value", f"Known: {', '.join(known)}."
            )
    return Asking(
        url,
        model,
        mode=mode,  # type: ignore[arg-type]
        schema=schema,  # type: ignore[arg-type]
        concurrency=concurrency,
        timeout=timeout,
        max_calls=max_calls,
        key_env=key_env,
        fresh=fresh,
        quiet=quiet,
    )


def make(
    classes: str,
    *,
    style: str,
    options: Mapping[str, Any],
    files: Files,
    how: Asking,
    lineage: tuple[str, ...] | None = None,
    wording: Path | None = None,
    pairs: Path | None = None,
    only: str | None = None,
    encoder: str | None = None,
    dry_run: bool = False,
    record: str = "",
    allow_missing: bool = False,
) -> None:
    """``byname prompts make``: count the queries, write them, or make a prompt file of replies."""
    _check_files(files, dry_run, how)
    with collect_warnings():
        member = _member(style, options, wording)
        _check_use(member, pairs, encoder, only, files)
        with working(how.quiet):
            taxonomy = read_taxonomy(classes, lineage=lineage)
        if pairs is not None:
            member.pairs = tuple(read_pairs(pairs, taxonomy))  # type: ignore[attr-defined]
        if not isinstance(member, QueryMember):
            made = member.generate(taxonomy)
            _report(made)
            if dry_run:
                print(f"texts: {made.summary()['texts']}\nqueries: 0")
            else:
                _save(made, _output(files, member))
            return
        if only is not None:
            member.only = frozenset(read_only(only, taxonomy))
        given = read_given(files.replies, files.ingest_batch)
        if dry_run:
            print("\n".join(count(member, taxonomy, given, how)))
        elif files.emit is not None:
            emit(member, taxonomy, given, files.emit)
        elif files.emit_batch is not None:
            emit_batch(member, taxonomy, given, files.emit_batch, how)
        else:
            asks_nobody = how.url is None and not files.replies and not files.ingest_batch
            if asks_nobody and not _free(member, taxonomy):
                raise _nobody(member)
            output = _output(files, member)
            if how.url is not None:
                answered_by = ask(member, taxonomy, given, how)
                record = record or answered_by
            _save(_collected(member, taxonomy, given, record, allow_missing, encoder), output)


def _nobody(member: PromptMember) -> UsageError:
    return UsageError(
        f"make '{member.spec}'",
        "its texts are replies of an LLM, and none is given",
        "Name a server: --llm-url http://localhost:11434/v1 --llm-model NAME -o prompts.json. Or "
        "write the queries with --emit FILE.jsonl, have them answered, and give the answers, lines "
        'of {"id": ..., "reply": ...}, with --replies FILE.jsonl -o prompts.json. --dry-run counts '
        "them.",
    )


def _report(made: PromptSet) -> None:
    """What a style that asks nobody has guessed or left out."""
    for key in ("guessed", "without_sense", "dropped"):
        told = made.provenance.model_dump().get(key)
        if isinstance(told, dict):
            told = [f"{name} {value}" for name, value in told.items() if value]
        if told:
            say(
                f"{key.replace('_', ' ')}: {some(told) if isinstance(told, list | tuple) else told}"
            )


def _free(member: QueryMember, taxonomy: Taxonomy) -> bool:
    """Whether the style, with these options, asks nothing at all."""
    return next(member.asked(taxonomy), None) is None


def _output(files: Files, member: PromptMember) -> Path:
    if files.output is None:
        raise UsageError(f"make '{member.spec}'", "no output was given", "Add -o prompts.json.")
    return files.output


def _check_files(files: Files, dry_run: bool, how: Asking) -> None:
    given = {
        "--dry-run": dry_run,
        "--emit": files.emit is not None,
        "--emit-batch": files.emit_batch is not None,
    }
    chosen = [name for name, on in given.items() if on]
    if len(chosen) > 1:
        raise UsageError("make prompts", f"{' and '.join(chosen)} were given", "Choose one.")
    if files.output is not None and chosen:
        raise UsageError("make prompts", f"{chosen[0]} makes no prompt file", "Leave -o out.")
    if how.url is not None and chosen not in ([], ["--dry-run"]):
        raise UsageError("make prompts", f"{chosen[0]} asks nobody", "Leave --llm-url out.")
    if files.replies and files.output is None and not chosen:
        raise UsageError(
            f"use the replies in '{files.replies[0]}'",
            "no output was given",
            "Add -o prompts.json.",
        )
    if files.output is not None and files.output.suffix.lower() != ".json":
        raise OutputError(f"write '{files.output}'", "prompt files end in .json", "Rename it.")
    for path in (files.emit, files.emit_batch, files.output):
        if path is not None and not path.absolute().parent.is_dir():
            raise OutputError(
                f"write '{path}'", f"'{path.parent}' does not exist", "Make the folder first."
            )
        if path is not None and path.is_dir():
            raise OutputError(f"write '{path}'", "it is a folder", "Give the name of a file.")


def _member(style: str, options: Mapping[str, Any], wording: Path | None) -> PromptMember:
    """The member of a style; options that are not given keep the style's own values."""
    name, given = parse_spec(style)
    given |= {key: str(value) for key, value in options.items() if value not in (None, False)}
    inside = ",".join(f"{key}={value}" for key, value in given.items())
    spec = f"{name}[{inside}]" if inside else name
    known = members("prompts")
    begun = [style for style in known if style.startswith(name.lower())]
    if name not in known and begun:
        raise RecipeError(
            f"use '{spec}' as the prompts stage",
            f"there is no member '{name}'",
            f"Did you mean {' or '.join(begun)}? Known: {', '.join(known)}.",
        )
    # Before the member is made ready: that may want data which would be of no use.
    if wording is not None and not hasattr(create(spec, "prompts"), "use_wording"):
        raise UsageError(
            f"use '{wording}' with '{name}'", "its wording is fixed", "Leave --wording out."
        )
    member = ready_member(spec)
    if wording is not None:
        asked = f"read the wording in '{wording}'"
        raw = read_json(wording, asked, "See docs/formats.md.")
        refuse_halves(raw, asked)
        member.use_wording(raw, f"'{wording}'")  # type: ignore[attr-defined]
    return member


def _check_use(
    member: PromptMember,
    pairs: Path | None,
    encoder: str | None,
    only: str | None,
    files: Files,
) -> None:
    asks = isinstance(member, QueryMember)
    for option, value, fits, use in (
        ("--pairs", pairs, hasattr(member, "pairs"), "asks for no pairs"),
        ("--encoder", encoder, isinstance(member, ATG), "asks for no look-alikes"),
        ("--only", only, asks, "asks nobody"),
        ("--emit", files.emit, asks, "asks nobody"),
        ("--emit-batch", files.emit_batch, asks, "asks nobody"),
        ("--replies", files.replies, asks, "asks nobody"),
        ("--ingest-batch", files.ingest_batch, asks, "asks nobody"),
    ):
        if value and not fits:
            raise UsageError(
                f"use {option} with '{member.name}'", f"it {use}", f"Leave {option} out."
            )
    if encoder is not None and (files.emit or files.emit_batch):
        raise UsageError("use --encoder", "there are no replies yet", "Give it with --replies.")


def read_only(only: str, taxonomy: Taxonomy) -> list[str]:
    """Ids of the classes to ask about: listed, or those that a diagnosis says will fail.

    Parameters
    ----------
    only : str
        Ids or names joined by commas, or a file that ``byname diagnose --json`` wrote.
    taxonomy : Taxonomy

    Raises
    ------
    PromptError
        For unknown classes, names of several classes, and a file without any that fails.
    """
    asked = f"ask about '{only}' only"
    if not names_file(only):
        # As in a CSV file: a name with a comma stands in quotes.
        given = [part.strip() for part in next(csv.reader([only]), []) if part.strip()]
        if not given or only.lower().endswith(".json"):
            seen = "there is no such file" if given else "it names no class"
            raise PromptError(asked, seen, "Give ids or names, a,b, or a diagnosis.")
    else:
        raw = read_json(Path(only), asked, "Give a file that 'byname diagnose --json' wrote.")
        told = raw.get("classes") if isinstance(raw, dict) else None
        if not isinstance(told, dict):
            raise PromptError(
                asked, "it is no diagnosis", "Give a file that 'byname diagnose --json' wrote."
            )
        given = [i for i, found in told.items() if isinstance(found, dict) and found.get("flag")]
        if not given:
            raise PromptError(asked, "it says of no class that it will fail", "Name some: a,b.")
    meant = bearers(given, taxonomy)
    if wrong := [key for key in given if len(meant[key]) != 1]:
        seen = "is no class" if not meant[wrong[0]] else f"may be {quoted(meant[wrong[0]])}"
        raise PromptError(asked, f"{wrong[0]!r} {seen}", "Give ids, names or paths.")
    return [meant[key][0] for key in given]


def _collected(
    member: QueryMember,
    taxonomy: Taxonomy,
    given: Given,
    record: str,
    allow_missing: bool,
    encoder: str | None,
) -> PromptSet:
    missing = len(unanswered(member, taxonomy, given))
    known = list(member.asked(taxonomy, given.replies))
    pairs = [(query, reply) for query in known for reply in given.replies.get(query.id, ())]
    if isinstance(member, ATG) and encoder is not None:
        made = member.collect(taxonomy, pairs, embed=load_encoder(encoder).encode_texts)
    else:
        made = member.collect(taxonomy, pairs)
        if any(query.kind == "analogous" for query, _ in pairs):
            say("look-alikes were not filtered: give --encoder")
    if missing:
        say(f"warning: {missing} of {len(known)} queries lack replies")
    _tell_dropped(made, member, len(pairs))
    about = {"date": time.strftime("%Y-%m-%d")} | ({"model": record} if record else {})
    made = made.model_copy(update={"provenance": made.provenance.model_copy(update=about)})
    if member.only is not None or not member.per_class:
        return made  # of some classes: for a sum, --prompts templates+FILE.json
    return fill_missing(
        made,
        taxonomy,
        allow_missing=allow_missing,
        do="Answer their queries (again: --fresh --only THEM), or add --allow-missing to give them "
        "a template.",
    )


def _tell_dropped(made: PromptSet, member: QueryMember, replies: int) -> None:
    """Say what was of no use; refuse a result in which nothing is left."""
    told = made.provenance.model_dump()
    lost = [
        f"{name}: {', '.join(f'{n} {reason}' for reason, n in counts.items() if n)}"
        for name, key in (("dropped replies", "dropped"), ("dropped answers", "answers_dropped"))
        if any((counts := told.get(key) or {}).values())
    ]
    of_all = member.only is None and member.per_class  # then a later error names the classes
    if not made.pairs and not any(made.classes.values()) and (replies or not of_all):
        seen = f"{replies} {'reply makes' if replies == 1 else 'replies make'} no text: "
        why = "; ".join(lost) or "there is nothing of use in them"
        raise PromptError(
            f"make '{member.spec}'",
            seen + why if replies else "no query was answered",
            "Look at the replies; another model, or a question in other words (--wording), may do "
            "better.",
        )
    for line in lost:
        say(line)
    if cut := told.get("answers_cut"):
        say(f"answers cut, for they were too long: {cut}")
    if told.get("concept") == "":
        say("warning: no concept was found; the texts are those of the plain template")


def _save(made: PromptSet, path: Path) -> None:
    with writing(path) as temporary:
        made.save(temporary)
    found = made.summary()
    texts, classes = found["texts"], found["classes"]
    say(f"{texts} text{'s' * (texts != 1)} of {classes} class{'es' * (classes != 1)} -> {path}")
