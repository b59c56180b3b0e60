"""Replies to the queries of a style: out of files, out of batch files, or asked of an LLM."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from byname.cache import working_dir
from byname.console import query_progress, say
from byname.errors import PromptError, UsageError
from byname.files import atomic_path
from byname.llm.batch import read_batch, write_batch
from byname.llm.client import LLM
from byname.llm.replies import ReplyCache
from byname.promptset_io import read_replies
from byname.queries import Query, QueryMember
from byname.taxonomy import Taxonomy

__all__ = [
    "Asking",
    "Given",
    "Replies",
    "ask",
    "count",
    "emit",
    "emit_batch",
    "open_llm",
    "read_given",
    "unanswered",
]

Replies = dict[str, list[str]]  # by query id


@dataclass(frozen=True)
class Asking:
    """Whom to ask, and how; without ``url``, nobody.

    Parameters
    ----------
    url, model : str or None
        An OpenAI-compatible server, and what it is to answer with.
    mode : {"chat", "completion"}
    schema : {"auto", "on", "off"}
        Whether replies that are lists are held to a JSON schema.
    concurrency : int
        Requests under way at a time.
    timeout : float
        Seconds a request.
    max_calls : int
        More calls than these are never made.
    key_env : str or None
        Environment variable that holds the key.
    fresh : bool
        Ask again what was answered before.
    quiet : bool
    """

    url: str | None = None
    model: str | None = None
    mode: Literal["chat", "completion"] = "chat"
    schema: Literal["auto", "on", "off"] = "auto"
    concurrency: int = 8
    timeout: float = 120.0
    max_calls: int = 5000
    key_env: str | None = None
    fresh: bool = False
    quiet: bool = False


@dataclass
class Given:
    """Replies out of files, and where those came from that answer no query so far."""

    replies: Replies = field(default_factory=dict)
    where: dict[str, str] = field(default_factory=dict)


def read_given(files: Iterable[Path], batches: Iterable[Path]) -> Given:
    """All replies in files of lines with id and reply, and in batch files that came back."""
    given = Given()
    for path in files:
        for line, key, reply in read_replies(path):
            given.replies.setdefault(key, []).append(reply)
            given.where.setdefault(key, f"on line {line} of '{path}'")
    for path in batches:
        found = read_batch(path)
        for key, reply in found:
            given.replies.setdefault(key, []).append(reply)
            given.where.setdefault(key, f"in '{path}'")
        if found.failed:
            key, reason = found.failed[0]
            number = _n(len(found.failed), "line holds", "lines hold")
            say(f"warning: {number} no reply in '{path}'; {key}: {reason}")
    return given


def unanswered(member: QueryMember, taxonomy: Taxonomy, given: Given) -> list[Query]:
    """Queries without a reply so far.

    Raises
    ------
    PromptError
        For replies that answer no query.
    """
    unknown, todo = dict(given.where), []
    for query in member.asked(taxonomy, given.replies):
        unknown.pop(query.id, None)
        if query.id not in given.replies:
            todo.append(query)
    if unknown:
        key, where = next(iter(unknown.items()))
        raise PromptError(
            "use the replies",
            f"{len(unknown)} of {len(given.where)} answer no query of these classes, first {key!r} "
            f"{where}",
            "Use the classes, --style, its options, --pairs and --wording that the queries were "
            "written with.",
        )
    return todo


def open_llm(how: Asking) -> LLM:
    """The client that ``how`` describes.

    Raises
    ------
    UsageError
        Where no server is named.
    """
    if how.url is None:
        raise UsageError(
            "ask an LLM",
            "no server was given",
            "Name an OpenAI-compatible one: --llm-url http://localhost:11434/v1.",
        )
    return LLM(
        how.url,
        how.model,
        mode=how.mode,
        schema=how.schema,
        concurrency=how.concurrency,
        timeout=how.timeout,
        max_calls=how.max_calls,
        key_env=how.key_env,
        cache=ReplyCache(working_dir()),
        fresh=how.fresh,
    )


def ask(member: QueryMember, taxonomy: Taxonomy, given: Given, how: Asking) -> str:
    """Have the LLM answer what is unanswered, round after round; returns the model's name.

    What it answers is added to ``given``. Queries that get no reply are told, and left out.
    """
    llm = open_llm(how)
    tried: set[str] = set()
    calls = cached = 0
    missing: list[tuple[Query, str]] = []
    while todo := [q for q in unanswered(member, taxonomy, given) if q.id not in tried]:
        tried.update(query.id for query in todo)
        with query_progress(how.quiet) as progress:
            found = llm.ask(todo, problem=member.problem, progress=progress)
        given.replies.update({key: replies for key, replies in found.replies.items() if replies})
        calls, cached = calls + found.calls, cached + found.cached
        missing += found.missing
    say(f"{llm.model}: {_n(calls, 'call')}, {_n(cached, 'reply', 'replies')} from the cache")
    if missing:
        query, reason = missing[0]
        say(f"warning: {len(missing)} replies are missing, first for {query.class_id!r}: {reason}")
    return llm.model or ""


def emit(queries: Iterable[Query], taxonomy: Taxonomy, path: Path) -> None:
    """Write queries, one a line, for people or programs to answer."""
    count = 0
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for query in queries:
            file.write(json.dumps(_record(query, taxonomy), ensure_ascii=False) + "\n")
            count += 1
    say(f"{_n(count, 'query', 'queries')} -> {path}")


def emit_batch(queries: list[Query], path: Path, how: Asking) -> None:
    """Write queries as requests in OpenAI's batch format."""
    if how.model is None:
        raise UsageError(f"write '{path}'", "no model was given", "Add --llm-model NAME.")
    made = write_batch(queries, path, model=how.model, mode=how.mode, schema=how.schema)
    for file in made.paths:
        say(f"-> {file}")
    say(f"{_n(made.requests, 'request')} in {_n(len(made.paths), 'file')}")


def count(member: QueryMember, taxonomy: Taxonomy, given: Given, how: Asking) -> Iterator[str]:
    """Counts by kind, calls and tokens; the last line is ``queries: N``."""
    queries = unanswered(member, taxonomy, given)
    for kind, number in Counter(query.kind for query in queries).items():
        yield f"{kind}: {number}"
    yield from member.remarks(taxonomy)
    calls = sum(query.samples for query in queries)
    if how.url is not None:
        plan = open_llm(how).plan(queries)
        yield f"calls: {plan.calls} ({_n(plan.cached, 'reply', 'replies')} in the cache)"
        yield (
            f"tokens: about {plan.prompt_tokens} in the questions, at most "
            f"{plan.completion_tokens} in the replies"
        )
    elif calls != len(queries):
        yield f"calls: {calls}"
    yield f"queries: {len(queries)}"


def _n(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _record(query: Query, taxonomy: Taxonomy) -> dict[str, Any]:
    def name(node_id: str) -> str:
        return taxonomy.node(node_id).name if node_id else ""

    return {
        "id": query.id,
        "class_id": query.class_id,
        "class_name": name(query.class_id),
        "about": query.about,
        "about_name": name(query.about),
        "kind": query.kind,
        "text": query.text,
        "stop": query.stop,
        "temperature": query.temperature,
        "max_tokens": query.max_tokens,
        "form": query.form,
        "samples": query.samples,
    }
