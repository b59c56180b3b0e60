"""Replies to the queries of a style: out of files, out of batch files, or asked of an LLM."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from byname.cache import working_dir
from byname.console import query_progress, say
from byname.errors import OutputError, PromptError, UsageError
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
    "writing",
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
    """Replies so far, and of those out of files where each query's came from."""

    replies: Replies = field(default_factory=dict)
    where: dict[str, str] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        """How many replies each query has."""
        return {key: len(replies) for key, replies in self.replies.items()}

    def add(self, replies: Mapping[str, list[str]]) -> bool:
        """Take more replies; whether there were any."""
        for key, more in replies.items():
            self.replies.setdefault(key, []).extend(more)
        return any(replies.values())


def read_given(files: Iterable[Path], batches: Iterable[Path]) -> Given:
    """All replies in files of lines with id and reply, and in batch files that came back.

    A blank one is none: its query counts as unanswered.
    """
    given, blank = Given(), 0
    for path in files:
        for line, key, reply in read_replies(path):
            given.where.setdefault(key, f"on line {line} of '{path}'")
            if not reply.strip():
                blank += 1
                continue
            given.replies.setdefault(key, []).append(reply)
    if blank:
        say(f"warning: {_n(blank, 'reply is', 'replies are')} blank")
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
    """Queries with fewer replies than they want.

    Raises
    ------
    PromptError
        For replies that answer no query.
    """
    unknown, todo = dict(given.where), []
    for query in member.asked(taxonomy, given.replies):
        unknown.pop(query.id, None)
        if len(given.replies.get(query.id, ())) < query.samples:
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
    cached = lost = 0
    missing: list[tuple[Query, str]] = []
    while todo := [q for q in unanswered(member, taxonomy, given) if q.id not in tried]:
        tried.update(query.id for query in todo)
        have = given.counts
        with query_progress(how.quiet) as progress:
            found = llm.ask(todo, problem=member.problem, progress=progress, have=have)
        given.add(found.replies)
        cached += found.cached
        missing += found.missing
        lost += sum(q.samples - len(given.replies.get(q.id, ())) for q, _ in found.missing)
    say(f"{llm.model}: {_n(llm.calls, 'call')}, {_n(cached, 'reply', 'replies')} from the cache")
    if missing:
        query, reason = missing[0]
        number = _n(lost, "reply is", "replies are")
        say(f"warning: {number} missing, first for {query.class_id!r}: {reason}")
    return llm.model or ""


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A file that is there whole or not at all; errors of the disk name the user's own path.

    Raises
    ------
    OutputError
        Where it cannot be written.
    """
    try:
        with atomic_path(path) as temporary:
            yield temporary
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            f"write '{path}'", reason, "Make room there, or choose another place."
        ) from None


def emit(member: QueryMember, taxonomy: Taxonomy, given: Given, path: Path) -> None:
    """Write what is unanswered, one query a line, for people or programs to answer."""
    queries, have = unanswered(member, taxonomy, given), given.counts
    with writing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for query in queries:
            line = _record(query, taxonomy, query.samples - have.get(query.id, 0))
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    say(f"{_n(len(queries), 'query', 'queries')} -> {path}")


def emit_batch(
    member: QueryMember, taxonomy: Taxonomy, given: Given, path: Path, how: Asking
) -> None:
    """Write what is unanswered as requests in OpenAI's batch format."""
    if how.model is None:
        raise UsageError(f"write '{path}'", "no model was given", "Add --llm-model NAME.")
    made = write_batch(
        unanswered(member, taxonomy, given),
        path,
        model=how.model,
        mode=how.mode,
        schema=how.schema,
        have=given.counts,
    )
    for file in made.paths:
        say(f"-> {file}")
    say(f"{_n(made.requests, 'request')} in {_n(len(made.paths), 'file')}")


def count(member: QueryMember, taxonomy: Taxonomy, given: Given, how: Asking) -> Iterator[str]:
    """Counts by kind, calls and tokens; the last line is ``queries: N``.

    Rounds whose questions follow from kept replies are counted; later ones cannot be.
    """
    queries = {query.id: query for query in unanswered(member, taxonomy, given)}
    have = given.counts
    calls = sum(query.samples - have.get(query.id, 0) for query in queries.values())
    told = [f"calls: {calls}"] if calls != len(queries) else []
    if how.url is not None:
        llm = open_llm(how)
        seen = Given({key: list(replies) for key, replies in given.replies.items()})
        new = list(queries.values())
        while new and seen.add(llm.kept(new, have=have)):
            new = [q for q in unanswered(member, taxonomy, seen) if q.id not in queries]
            queries |= {query.id: query for query in new}
        plan = llm.plan(queries.values(), have=have)
        told = [
            f"calls: {plan.calls} ({_n(plan.cached, 'reply', 'replies')} in the cache)",
            f"tokens: about {plan.prompt_tokens} in the questions, at most "
            f"{plan.completion_tokens} in the replies",
        ]
        calls = plan.calls
    for kind, number in Counter(query.kind for query in queries.values()).items():
        yield f"{kind}: {number}"
    yield from member.remarks(taxonomy)
    yield from told
    if calls > how.max_calls:
        yield f"refused as it is: more calls than --max-calls {how.max_calls}"
    yield f"queries: {len(queries)}"


def _n(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _record(query: Query, taxonomy: Taxonomy, samples: int) -> dict[str, Any]:
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
        "samples": samples,
    }
