"""The client: what a run would cost, and the run itself."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from byname.errors import UsageError, some
from byname.files import parse_json
from byname.llm.address import Key, LLMError, base_url, find_key, one_line
from byname.llm.loop import run_to_end
from byname.llm.replies import ReplyCache, reply_key
from byname.llm.run import Answers, Budget, Job, Run
from byname.llm.transport import AgainError, Settings, fetch, open_client
from byname.llm.wire import Mode, complaint, samples_left
from byname.queries import Query, clean_reply, is_refusal

__all__ = ["LLM", "Plan"]

_FRAME = 8  # tokens that a chat puts around a question, about


@dataclass(frozen=True)
class Plan:
    """What asking would take; the tokens are an estimate.

    Parameters
    ----------
    queries : int
    calls : int
        Requests to make if none has to be repeated: replies that are not kept yet.
    cached : int
        Replies that are kept.
    prompt_tokens : int
        Of the calls, at four bytes a token and a few tokens around each question.
    completion_tokens : int
        Upper bound: every reply as long as it may be.
    """

    queries: int
    calls: int
    cached: int
    prompt_tokens: int
    completion_tokens: int


@dataclass
class _Wanted:
    """Queries without repetition, the keys of their replies, and what is known already."""

    keys: dict[str, list[bytes]]
    queries: dict[str, Query]
    replies: dict[bytes, str]
    jobs: list[Job]

    def total(self) -> int:
        """How many replies are wanted."""
        return len({key for keys in self.keys.values() for key in keys})


def _usual_problem(query: Query, reply: str) -> str:
    text = clean_reply(reply)
    return "empty" if not text else "refusal" if is_refusal(text) else ""


def _odd_name(name: str, key: Key) -> str:
    """What is wrong with the name that a server gives its model, "" for nothing."""
    if key.is_in(name):
        return "its model's name holds the key"
    if not name.strip() or not name.isprintable():
        return "its model's name is empty or holds control characters"
    return "its model's name is longer than 200 characters" if len(name) > 200 else ""


class LLM:
    """A language model behind an OpenAI-compatible address.

    Servers such as OpenAI's, vLLM, Ollama, llama.cpp and LM Studio. The key comes from the
    environment: ``BYNAME_LLM_KEY``, for https://api.openai.com also ``OPENAI_API_KEY``.

    Two processes that run at the same time with one cache both ask what neither of them has yet,
    and ``max_calls`` holds for each of them.

    Parameters
    ----------
    url : str
        Such as "http://localhost:8000/v1"; an address without a path gets "/v1".
    model : str, optional
        Without it, the one model that the server has.
    mode : {"chat", "completion"}
        "completion" for base models, which go on with a text.
    concurrency : int
        Most requests at a time.
    timeout : float
        Seconds for one request as a whole.
    retries : int
        How often a request that failed is repeated; three times as often while the server says
        that it is busy (429).
    max_calls : int, optional
        Most requests that this object makes, in all calls of :meth:`ask` together.
    schema : {"auto", "on", "off"}
        Hold replies that are lists to a JSON schema: where the server can, always, never.
    key_env : str, optional
        Another variable that holds the key.
    cache : ReplyCache, optional
        Where replies are kept.
    fresh : bool
        Ask again what is kept.
    backoff : float
        Seconds; a pause is up to this long after the first failure, twice after the second, ...

    Raises
    ------
    UsageError
        For an address, key or option that cannot be used.

    Examples
    --------
    >>> LLM("http://localhost:8000", "llama3")
    LLM('http://localhost:8000/v1', 'llama3', mode='chat')
    """

    def __init__(
        self,
        url: str,
        model: str | None = None,
        *,
        mode: Mode = "chat",
        concurrency: int = 8,
        timeout: float = 120.0,
        retries: int = 6,
        max_calls: int | None = None,
        schema: Literal["auto", "on", "off"] = "auto",
        key_env: str | None = None,
        cache: ReplyCache | None = None,
        fresh: bool = False,
        backoff: float = 1.0,
    ) -> None:
        checks: list[tuple[str, object, bool, str]] = [
            ("mode", mode, mode in ("chat", "completion"), "chat or completion"),
            ("schema", schema, schema in ("auto", "on", "off"), "auto, on or off"),
            ("concurrency", concurrency, 1 <= concurrency <= 1000, "1 to 1000"),
            ("timeout", timeout, 0 < timeout < math.inf, "a number of seconds above 0"),
            ("retries", retries, 0 <= retries <= 100, "0 to 100"),
            ("max_calls", max_calls, max_calls is None or max_calls >= 0, "0 or more"),
            ("backoff", backoff, 0 <= backoff <= 60, "0 to 60 seconds"),
        ]
        for name, value, fits, do in checks:
            if not fits:
                raise UsageError("ask an LLM", f"{name} is {value!r}", f"Give {do}.")
        self.model = model or None
        self.cache, self.fresh = cache, fresh
        self._budget, self._begun = Budget(max_calls), False
        where = base_url(url)
        self._settings = Settings(
            url=where,
            mode=mode,
            concurrency=concurrency,
            timeout=timeout,
            retries=retries,
            schema=schema,
            backoff=backoff,
            key=find_key(where, key_env),
        )

    def __repr__(self) -> str:
        return f"LLM({self.url!r}, {self.model!r}, mode={self._settings.mode!r})"

    @property
    def url(self) -> str:
        """The address that paths such as "/chat/completions" are put after."""
        return self._settings.url

    @property
    def calls(self) -> int:
        """Requests that were made so far, by all calls of :meth:`ask`."""
        return self._budget.used

    def plan(self, queries: Iterable[Query], *, have: Mapping[str, int] | None = None) -> Plan:
        """How many calls and tokens these would take; nothing is asked.

        Tokens are estimated: four bytes of a question each, and replies as long as they may be.
        Without a model, the server is asked for its name, since replies are kept by it.
        ``have`` is as in :meth:`ask`.

        Raises
        ------
        LLMError
            Where no model was given and the server does not name exactly one.
        """
        wanted = self._wanted(queries, have)
        texts = (len(job.query.text.encode("utf-8", "surrogatepass")) for job in wanted.jobs)
        return Plan(
            queries=len(wanted.keys),
            calls=len(wanted.jobs),
            cached=wanted.total() - len(wanted.jobs),
            prompt_tokens=sum(-(-size // 4) + _FRAME for size in texts),
            completion_tokens=sum(job.query.max_tokens for job in wanted.jobs),
        )

    def kept(
        self, queries: Iterable[Query], have: Mapping[str, int] | None = None
    ) -> dict[str, list[str]]:
        """The replies that are kept, by query id, in the order of their samples; none is asked for.

        Raises
        ------
        LLMError
            As :meth:`plan`.
        """
        wanted = self._wanted(queries, have)
        found = {
            name: [wanted.replies[key] for key in keys if key in wanted.replies]
            for name, keys in wanted.keys.items()
        }
        return {name: replies for name, replies in found.items() if replies}

    def ask(
        self,
        queries: Iterable[Query],
        *,
        have: Mapping[str, int] | None = None,
        problem: Callable[[Query, str], str] = _usual_problem,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Answers:
        """Ask all that is not kept yet; each reply is kept as it arrives.

        Parameters
        ----------
        queries : iterable of Query
            Of several with one id, the first counts; the same question has one reply.
        have : mapping, optional
            By query id, how many replies are there already, from elsewhere: so many samples, the
            first ones, are not asked for.
        problem : callable
            A query and a reply to what is wrong with it, "" for nothing. Such replies are asked
            for twice more, and the last one is taken as it is; it is not kept where the run could
            not ask that often.
        progress : callable
            Called with the number of replies that are there or given up, and all.

        Returns
        -------
        Answers
            Questions without a reply are ``missing``, also those left at ``max_calls``; those of
            which ``have`` has all are in neither.

        Raises
        ------
        UsageError
            Before any call, when more than ``max_calls`` are needed. Only the first time: later
            rounds ask what still fits, so that nothing is lost that was paid for.
        LLMError
            For a server that is down or takes no such requests; ``answers`` is what came before.
        """
        wanted = self._wanted(queries, have)
        self._check_limit(wanted)
        total = wanted.total()
        done = cached = total - len(wanted.jobs)
        progress(done, total)
        run = Run(self._settings, self.model or "", problem, self.cache, self._budget)

        def one_done() -> None:
            nonlocal done
            done += 1
            progress(done, total)

        try:
            if wanted.jobs:
                run_to_end(run.ask(wanted.jobs, one_done))
        except LLMError as error:
            error.answers = self._answers(wanted, run, cached)
            raise
        finally:
            if self.cache is not None:
                self.cache.close()
        return self._answers(wanted, run, cached)

    def _check_limit(self, wanted: _Wanted) -> None:
        limit, needed = self._budget.limit, len(wanted.jobs)
        if not self._begun and limit is not None and needed + self.calls > limit:
            raise UsageError(
                f"ask {len(wanted.keys):,} questions",
                f"{needed:,} calls are needed, and at most {limit:,} are allowed",
                "Raise --max-calls, or ask about fewer classes.",
            )
        self._begun = True

    def _wanted(self, queries: Iterable[Query], have: Mapping[str, int] | None) -> _Wanted:
        if self.model is None:
            self.model = run_to_end(self._only_model())
        known: dict[str, Query] = {}
        for query in queries:
            known.setdefault(query.id, query)
        where, mode = self._settings.url, self._settings.mode
        keys = {
            query.id: [reply_key(where, self.model, mode, query, n) for n in numbers]
            for query in known.values()
            if (numbers := samples_left(query, have))
        }
        asked = {key: known[name] for name, every in reversed(keys.items()) for key in every}
        replies: dict[bytes, str] = {}
        if self.cache is not None and not self.fresh:
            replies = {key: held.text for key, held in self.cache.lookup(list(asked)).items()}
        jobs = {key: None for every in keys.values() for key in every if key not in replies}
        return _Wanted(keys, known, replies, [Job(key, asked[key]) for key in jobs])

    def _answers(self, wanted: _Wanted, run: Run, cached: int) -> Answers:
        made = Answers(
            calls=run.calls,
            cached=cached,
            prompt_tokens=run.prompt_tokens,
            completion_tokens=run.completion_tokens,
            model=self.model or "",
        )
        replies = wanted.replies | run.replies
        for name, keys in wanted.keys.items():
            if found := [replies[key] for key in keys if key in replies]:
                made.replies[name] = found
            if lost := [key for key in keys if key not in replies]:
                reason = run.missing.get(lost[0], "not asked: the run ended before")
                made.missing.append((wanted.queries[name], reason))
        return made

    async def _only_model(self) -> str:
        asked, give = f"choose a model of {self.url}", "Give its name with --llm-model."
        seen, hide = "", self._settings.key.hide
        async with open_client(self._settings) as client:
            for tries in range(self._settings.retries + 1):
                try:
                    status, _, data = await fetch(client, self._settings, "GET", "/models")
                except AgainError as again:
                    seen = again.reason
                else:
                    seen = f"HTTP {status}: {complaint(data, hide).text}".rstrip(": ")
                    if status < 500 and status != 429:
                        break
                await asyncio.sleep(min(10.0, self._settings.backoff * 2**tries) / 2)
            else:
                raise LLMError(asked, seen, "Start it, or look at it.")
        names: list[str] = []
        if status == 200:
            try:
                held = parse_json(data)
            except ValueError:
                held = None
            rows = held.get("data") if isinstance(held, dict) else None
            names = [
                row["id"]
                for row in (rows if isinstance(rows, list) else [])
                if isinstance(row, dict) and isinstance(row.get("id"), str)
            ]
            shown = [one_line(name, 80, hide) for name in names[:11]] + names[11:]
            seen = f"it has {len(names)}" + (f": {some(shown, 10)}" if names else "")
            if len(names) == 1:
                seen = _odd_name(names[0], self._settings.key)
        if seen:
            do = "Put its key in BYNAME_LLM_KEY." if status in (401, 403) else give
            raise LLMError(asked, one_line(seen, 1000, hide), do)
        return names[0]
