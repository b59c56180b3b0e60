"""The client: what a run would cost, and the run itself."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from byname.errors import UsageError, some
from byname.files import parse_json
from byname.llm.address import LLMError, base_url, find_key, one_line
from byname.llm.replies import ReplyCache, reply_key
from byname.llm.run import Answers, Job, Run
from byname.llm.transport import AgainError, Settings, fetch, open_client
from byname.llm.wire import Mode, complaint
from byname.queries import Query, clean_reply, is_refusal

__all__ = ["LLM", "Plan"]

T = TypeVar("T")
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


class LLM:
    """A language model behind an OpenAI-compatible address.

    Servers such as OpenAI's, vLLM, Ollama, llama.cpp and LM Studio. The key comes from the
    environment: ``BYNAME_LLM_KEY``, for https://api.openai.com also ``OPENAI_API_KEY``.

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
        Most requests that :meth:`ask` may make.
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
        where = base_url(url)
        self._settings = Settings(
            url=where,
            mode=mode,
            concurrency=concurrency,
            timeout=timeout,
            retries=retries,
            max_calls=max_calls,
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

    def plan(self, queries: Iterable[Query]) -> Plan:
        """How many calls and tokens these would take; nothing is asked.

        Tokens are estimated: four bytes of a question each, and replies as long as they may be.
        Without a model, the server is asked for its name, since replies are kept by it.

        Raises
        ------
        LLMError
            Where no model was given and the server does not name exactly one.
        """
        wanted = self._wanted(queries)
        texts = (len(job.query.text.encode("utf-8", "surrogatepass")) for job in wanted.jobs)
        return Plan(
            queries=len(wanted.keys),
            calls=len(wanted.jobs),
            cached=wanted.total() - len(wanted.jobs),
            prompt_tokens=sum(-(-size // 4) + _FRAME for size in texts),
            completion_tokens=sum(job.query.max_tokens for job in wanted.jobs),
        )

    def ask(
        self,
        queries: Iterable[Query],
        *,
        problem: Callable[[Query, str], str] = _usual_problem,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Answers:
        """Ask all that is not kept yet; each reply is kept as it arrives.

        Parameters
        ----------
        queries : iterable of Query
            Of several with one id, the first counts. Queries that ask the same in the same way
            share their replies.
        problem : callable
            A query and a reply to what is wrong with it, "" for nothing. Such replies are asked
            for twice more, and the last one is taken as it is.
        progress : callable
            Called with the number of replies that are there or given up, and of all.

        Returns
        -------
        Answers
            Questions without a reply are ``missing``, also those left at ``max_calls``.

        Raises
        ------
        UsageError
            Before any call, when more than ``max_calls`` are needed.
        LLMError
            For a server that is down or takes no such requests; ``answers`` is what came before.
        """
        wanted = self._wanted(queries)
        limit, needed = self._settings.max_calls, len(wanted.jobs)
        if limit is not None and needed > limit:
            raise UsageError(
                f"ask {len(wanted.keys):,} questions",
                f"{needed:,} calls are needed, and at most {limit:,} are allowed",
                "Raise --max-calls, or ask about fewer classes.",
            )
        total = wanted.total()
        done = cached = total - needed
        progress(done, total)
        run = Run(self._settings, self.model or "", problem, self.cache)

        def one_done() -> None:
            nonlocal done
            done += 1
            progress(done, total)

        try:
            if wanted.jobs:
                _run(run.ask(wanted.jobs, one_done))
        except LLMError as error:
            error.answers = self._answers(wanted, run, cached)
            raise
        finally:
            if self.cache is not None:
                self.cache.close()
        return self._answers(wanted, run, cached)

    def _wanted(self, queries: Iterable[Query]) -> _Wanted:
        if self.model is None:
            self.model = _run(self._only_model())
        known: dict[str, Query] = {}
        for query in queries:
            known.setdefault(query.id, query)
        where, mode = self._settings.url, self._settings.mode
        keys = {
            query.id: [reply_key(where, self.model, mode, query, n) for n in range(query.samples)]
            for query in known.values()
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
        seen = ""
        async with open_client(self._settings) as client:
            for tries in range(self._settings.retries + 1):
                try:
                    status, _, data = await fetch(client, self._settings, "GET", "/models")
                except AgainError as again:
                    seen = again.reason
                else:
                    seen = f"HTTP {status}: {complaint(data).text}"
                    if status < 500 and status != 429:
                        break
                await asyncio.sleep(min(10.0, self._settings.backoff * 2**tries) / 2)
            else:
                raise LLMError(asked, self._settings.key.hide(seen), "Start it, or look at it.")
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
            seen = f"it has {len(names)}" + (f": {some(names, 10)}" if names else "")
        if len(names) != 1:
            do = "Put its key in BYNAME_LLM_KEY." if status in (401, 403) else give
            raise LLMError(asked, self._settings.key.hide(one_line(seen, 1000)), do)
        return names[0]


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end, also where a loop runs already, as in notebooks: then in another thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    ended: Future[T] = Future()
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = Future()

    async def main() -> T:
        task = asyncio.current_task()
        assert task is not None
        started.set_result((asyncio.get_running_loop(), task))
        return await work

    def thread() -> None:
        try:
            ended.set_result(asyncio.run(main()))
        except BaseException as error:  # noqa: BLE001 - it is raised again where it belongs
            ended.set_exception(error)

    other = threading.Thread(target=thread, name="byname-llm")
    other.start()
    try:
        # Not without end, which no key interrupts on some systems; and not join(), after whose
        # interrupt Python takes the thread for stopped.
        while not ended.done():
            wait([ended], timeout=0.1)
        return ended.result()
    finally:
        # A key interrupt comes here and not there.
        if not ended.done():
            loop, task = started.result()
            loop.call_soon_threadsafe(task.cancel)
            wait([ended])
        other.join()
