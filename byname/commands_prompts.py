"""What ``byname prompts`` does: plan queries, write them, read their replies."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from byname.console import collect_warnings, console, say
from byname.encoders import load_encoder
from byname.errors import OutputError, PromptError, RecipeError, UsageError
from byname.files import atomic_path
from byname.prompts.atg import ATG
from byname.promptset import PromptSet
from byname.promptset_io import fill_missing, read_json, read_pairs, read_replies
from byname.queries import Query, QueryMember
from byname.stage import PromptMember, create, members, parse_spec
from byname.taxonomy import Taxonomy
from byname.taxonomy_io import read_taxonomy

__all__ = ["make"]


def make(
    classes: str,
    *,
    style: str,
    options: Mapping[str, Any],
    lineage: tuple[str, ...] | None = None,
    wording: Path | None = None,
    pairs: Path | None = None,
    encoder: str | None = None,
    dry_run: bool = False,
    emit: Path | None = None,
    replies: Path | None = None,
    output: Path | None = None,
    model: str = "",
    allow_missing: bool = False,
) -> None:
    """``byname prompts make``: count the queries, write them, or make a prompt file of replies."""
    _check_options(dry_run, emit, replies, output)
    with collect_warnings():
        member = _member(style, options, wording)
        _check_atg(member, pairs, encoder, replies)
        taxonomy = read_taxonomy(classes, lineage=lineage)
        if pairs is not None and isinstance(member, ATG):
            member.pairs = tuple(read_pairs(pairs, taxonomy))
        if dry_run:
            _show(member, taxonomy)
        elif not isinstance(member, QueryMember):
            if output is None:
                raise UsageError(
                    f"make '{member.spec}'", "no output was given", "Add -o prompts.json."
                )
            _save(member.generate(taxonomy), output)
        elif emit is not None:
            _emit(member, taxonomy, emit)
        elif replies is not None and output is not None:
            _save(_collected(member, taxonomy, replies, model, allow_missing, encoder), output)
        else:
            raise UsageError(
                f"make '{member.spec}'",
                "its texts are replies of an LLM, and a client for one comes with a later version",
                "Write the queries with --emit FILE.jsonl, have them answered, and give the "
                'answers, lines of {"id": ..., "reply": ...}, with --replies FILE.jsonl -o '
                "prompts.json. --dry-run counts them.",
            )


def _check_options(
    dry_run: bool, emit: Path | None, replies: Path | None, output: Path | None
) -> None:
    given = {"--dry-run": dry_run, "--emit": emit is not None, "--replies": replies is not None}
    chosen = [name for name, on in given.items() if on]
    if len(chosen) > 1:
        raise UsageError("make prompts", f"{' and '.join(chosen)} were given", "Choose one.")
    if replies is not None and output is None:
        raise UsageError(
            f"use the replies in '{replies}'", "no output was given", "Add -o prompts.json."
        )
    if output is not None and chosen in (["--emit"], ["--dry-run"]):
        raise UsageError("make prompts", f"{chosen[0]} makes no prompt file", "Leave -o out.")
    if output is not None and output.suffix.lower() != ".json":
        raise OutputError(f"write '{output}'", "prompt files end in .json", "Rename it.")
    for path in (emit, output):
        if path is not None and not path.absolute().parent.is_dir():
            raise OutputError(
                f"write '{path}'", f"'{path.parent}' does not exist", "Make the folder first."
            )


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
    member: PromptMember = create(spec, "prompts")
    if wording is None:
        return member
    if not isinstance(member, QueryMember):
        raise UsageError(
            f"use '{wording}' with '{name}'", "its wording is fixed", "Leave --wording out."
        )
    raw = read_json(wording, f"read the wording in '{wording}'", f"See docs/recipes/{name}.md.")
    member.use_wording(raw, f"'{wording}'")
    return member


def _check_atg(
    member: PromptMember, pairs: Path | None, encoder: str | None, replies: Path | None
) -> None:
    for option, value, use in (("--pairs", pairs, "pairs"), ("--encoder", encoder, "look-alikes")):
        if value is not None and not isinstance(member, ATG):
            raise UsageError(
                f"use {option} with '{member.name}'",
                f"it asks for no {use}",
                f"Leave {option} out, or give --style atg.",
            )
    if encoder is not None and replies is None:
        raise UsageError("use --encoder", "there are no replies yet", "Give it with --replies.")


def _show(member: PromptMember, taxonomy: Taxonomy) -> None:
    """Counts by kind; the last line is ``queries: N``."""
    if not isinstance(member, QueryMember):
        console.print(f"texts: {member.generate(taxonomy).summary()['texts']}", markup=False)
        print("queries: 0")
        return
    kinds = Counter(query.kind for query in member.queries(taxonomy))
    for kind, count in kinds.items():
        print(f"{kind}: {count}")
    for line in member.remarks(taxonomy):
        print(line)
    print(f"queries: {kinds.total()}")


def _emit(member: QueryMember, taxonomy: Taxonomy, path: Path) -> None:
    count = 0
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for query in member.queries(taxonomy):
            file.write(json.dumps(_record(query, taxonomy), ensure_ascii=False) + "\n")
            count += 1
    say(f"{count} {'query' if count == 1 else 'queries'} -> {path}")


def _record(query: Query, taxonomy: Taxonomy) -> dict[str, Any]:
    return {
        "id": query.id,
        "class_id": query.class_id,
        "class_name": taxonomy.node(query.class_id).name,
        "about": query.about,
        "about_name": taxonomy.node(query.about).name if query.about else "",
        "kind": query.kind,
        "text": query.text,
        "stop": query.stop,
        "temperature": query.temperature,
        "max_tokens": query.max_tokens,
    }


def _collected(
    member: QueryMember,
    taxonomy: Taxonomy,
    path: Path,
    model: str,
    allow_missing: bool,
    encoder: str | None,
) -> PromptSet:
    known = {query.id: query for query in member.queries(taxonomy)}
    answered = set()
    unknown: list[tuple[int, str]] = []

    def pairs() -> Iterator[tuple[Query, str]]:
        for line, key, reply in read_replies(path):
            if key in known:
                answered.add(key)
                yield known[key], reply
            else:
                unknown.append((line, key))

    given = list(pairs())
    if unknown:
        line, key = unknown[0]
        raise PromptError(
            f"use the replies in '{path}'",
            f"{len(unknown)} of {len(unknown) + len(given)} answer no query of these classes, "
            f"first {key!r} on line {line}",
            "Use the classes, --style, --variant, --pairs and --wording that the queries were "
            "written with.",
        )
    if isinstance(member, ATG) and encoder is not None:
        made = member.collect(taxonomy, given, embed=load_encoder(encoder).encode_texts)
    else:
        made = member.collect(taxonomy, given)
        if any(query.kind == "analogous" for query, _ in given):
            say("look-alikes were not filtered: give --encoder")
    if len(answered) < len(known):
        say(f"warning: {len(known) - len(answered)} of {len(known)} queries have no reply")
    dropped = {name: n for name, n in made.provenance.model_dump()["dropped"].items() if n}
    if dropped:
        say(f"dropped replies: {', '.join(f'{n} {name}' for name, n in dropped.items())}")
    if model:
        provenance = made.provenance.model_copy(update={"model": model})
        made = made.model_copy(update={"provenance": provenance})
    return fill_missing(
        made,
        taxonomy,
        allow_missing=allow_missing,
        do="Answer their queries, or add --allow-missing to give them a template.",
    )


def _save(made: PromptSet, path: Path) -> None:
    with atomic_path(path) as temporary:
        made.save(temporary)
    found = made.summary()
    texts, classes = found["texts"], found["classes"]
    say(f"{texts} text{'s' * (texts != 1)} of {classes} class{'es' * (classes != 1)} -> {path}")
