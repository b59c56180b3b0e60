"""One run of questions: a bounded number of workers that ask, wait, adapt and give up in time."""

from __future__ import annotations

import asyncio
import random
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx

from byname.files import parse_json
from byname.llm.address import LLMError, one_line
from byname.llm.replies import ReplyCache, StoredReply
from byname.llm.transport import AgainError, Settings, fetch, open_client, retry_after
from byname.llm.wire import (
    WITHHELD,
    BadReplyError,
    Complaint,
    Manner,
    Reply,
    adapted,
    complaint,
    endpoint,
    read_reply,
    request_body,
)
from byname.queries import Query

__all__ = ["Answers", "Budget", "Job", "Run"]

MAX_PAUSE = 60.0
"""Most seconds that a server is obeyed when it asks for a pause."""
RE_ASKED = 2
"""How often a question is asked again whose reply is empty, refuses, or holds no list."""
HOPELESS = 20
"""As many questions failing in a row end the run."""


@dataclass
class Answers:
    """What a run got.

    Parameters
    ----------
    replies : dict
        By query id, as many texts as the query wanted samples, less those that are missing.
    missing : list of (Query, str)
        Queries that lack a reply, each once, with the reason.
    calls : int
        Requests that were sent, those that came to nothing among them.
    cached : int
        Replies that had been kept and were not asked for.
    prompt_tokens, completion_tokens : int
        As the server counted them; 0 where it does not.
    model : str
        Who was asked.
    """

    replies: dict[str, list[str]] = field(default_factory=dict)
    missing: list[tuple[Query, str]] = field(default_factory=list)
    calls: int = 0
    cached: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    model: str = ""


@dataclass(frozen=True)
class Job:
    """One request to make: the key its reply is kept under, and what is asked."""

    key: bytes
    query: Query


@dataclass
class Budget:
    """How many requests may be sent, over all runs that share it, and how many were."""

    limit: int | None = None
    used: int = 0

    def take(self) -> bool:
        """Count one more, if it fits."""
        fits = self.limit is None or self.used < self.limit
        self.used += fits
        return fits


class _MissingError(Exception):
    """A question that gets no reply; ``failed`` where that is the server's fault."""

    def __init__(self, reason: str, *, failed: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.failed = reason, failed


class _RefusedError(Exception):
    """A request that the server finds fault with."""

    def __init__(self, status: int, said: Complaint, body: dict[str, Any]) -> None:
        super().__init__(said.text)
        self.status, self.said, self.body = status, said, body


class Run:
    """Asks the jobs it is given, once.

    Parameters
    ----------
    settings : Settings
    model : str
    problem : callable
        A query and a reply to what is wrong with it, "" for nothing.
    cache : ReplyCache, optional
        Where each reply is kept as it arrives.
    budget : Budget, optional
        Shared with other runs.
    """

    def __init__(
        self,
        settings: Settings,
        model: str,
        problem: Callable[[Query, str], str],
        cache: ReplyCache | None,
        budget: Budget | None = None,
    ) -> None:
        self.settings, self.model, self.problem, self.cache = settings, model, problem, cache
        self.budget = Budget() if budget is None else budget
        self.replies: dict[bytes, str] = {}
        self.missing: dict[bytes, str] = {}
        self.calls = self.prompt_tokens = self.completion_tokens = 0
        self._manner = Manner(schema=settings.schema != "off" and settings.mode == "chat")
        self._not_before = 0.0
        self._reached = False
        self._failed_in_a_row = 0

    async def ask(self, jobs: list[Job], done: Callable[[], None]) -> None:
        """Ask all; ``done`` is called after each.

        Raises
        ------
        LLMError
            For a server that is down, lets nobody in, or takes no such requests.
        """
        async with open_client(self.settings) as client:
            left = iter(jobs)
            count = min(self.settings.concurrency, len(jobs))
            workers = [asyncio.create_task(self._worker(client, left, done)) for _ in range(count)]
            try:
                ended, _ = await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
                for worker in ended:
                    worker.result()
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)

    async def _worker(
        self, client: httpx.AsyncClient, left: Iterator[Job], done: Callable[[], None]
    ) -> None:
        for job in left:
            try:
                reply, final = await self._answer(client, job.query)
            except _MissingError as missing:
                self.missing[job.key] = missing.reason
                if missing.failed:
                    self._count_failure(missing.reason)
            else:
                self.replies[job.key] = reply.text
                if final and self.cache is not None:
                    self.cache.put(job.key, StoredReply(reply.text, reply.finish, reply.model))
            done()

    def _count_failure(self, reason: str) -> None:
        self._failed_in_a_row += 1
        if self._failed_in_a_row >= HOPELESS:
            raise self._error(
                f"{HOPELESS} questions in a row got no answer; the last {reason}",
                "Look at the server's log; what was answered is kept.",
            )

    async def _answer(self, client: httpx.AsyncClient, query: Query) -> tuple[Reply, bool]:
        """A reply without a problem, or the last of those that have one.

        And whether it is final: not where it has a problem and could not be asked for as often as
        it should be, so that a next run asks again.
        """
        last: Reply | None = None
        for _ in range(1 + RE_ASKED):
            try:
                last = await self._request(client, query)
            except _MissingError:
                if last is None:
                    raise
                return last, False
            if not self.problem(query, last.text):
                break
        assert last is not None
        return last, True

    async def _request(self, client: httpx.AsyncClient, query: Query) -> Reply:
        """The first reply that arrives whole, however often it takes."""
        retries = self.settings.retries
        failed = busy = 0
        while True:
            while (pause := self._not_before - time.monotonic()) > 0:
                # Not all workers at the same moment.
                await asyncio.sleep(pause + random.uniform(0, 0.1 * pause))
            manner = self._manner
            try:
                reply = await self._send(client, query, manner)
            except _RefusedError as refused:
                if (withheld := self._adapt(manner, refused)) is None:
                    continue
                reply = withheld
            except AgainError as again:
                # A busy server is no broken one: it gets more patience.
                busy, failed = busy + again.busy, failed + (not again.busy)
                if failed > retries or busy > 3 * retries:
                    raise self._gave_up(again, busy + failed) from None
                await self._back_off(again, busy + failed)
                continue
            self._failed_in_a_row = 0
            return reply

    def _gave_up(self, again: AgainError, tries: int) -> Exception:
        if not again.reached and not self._reached:
            return self._error(
                f"{again.reason} ({tries} tries)", "Start the server, or check the address."
            )
        return _MissingError(f"failed {tries} times, at last: {again.reason}", failed=True)

    async def _back_off(self, again: AgainError, tries: int) -> None:
        delay = random.uniform(0, min(MAX_PAUSE, self.settings.backoff * 2 ** (tries - 1)))
        if again.wait is not None:
            delay = max(delay, min(again.wait, MAX_PAUSE))
        if again.wait is not None or again.busy:
            self._not_before = max(self._not_before, time.monotonic() + delay)
        else:
            await asyncio.sleep(delay)

    async def _send(self, client: httpx.AsyncClient, query: Query, manner: Manner) -> Reply:
        if not self.budget.take():
            raise _MissingError(f"not asked: the limit of {self.budget.limit} calls is reached")
        body = request_body(query, self.model, self.settings.mode, manner)
        self.calls += 1
        try:
            status, headers, data = await fetch(
                client, self.settings, "POST", endpoint(self.settings.mode), body
            )
        except AgainError as again:
            self.calls -= not again.reached
            self.budget.used -= not again.reached
            raise
        self._reached = True
        if status >= 300:
            self._judge(status, headers, complaint(data, self._hide), body)
        try:
            reply = read_reply(parse_json(data), self._hide)
        except BadReplyError as error:
            raise AgainError(str(error)) from None
        except ValueError:
            page = complaint(data, self._hide).text
            seen = page if page == "an HTML page" else "an answer that is not whole JSON"
            raise AgainError(seen) from None
        self.prompt_tokens += reply.prompt_tokens
        self.completion_tokens += reply.completion_tokens
        text = self.settings.key.hide_in_reply(reply.text)
        if query.stop and not manner.stop:
            text = text.partition(query.stop)[0]
        return Reply(text, reply.finish, reply.model)

    def _judge(
        self, status: int, headers: httpx.Headers, said: Complaint, body: dict[str, Any]
    ) -> None:
        """Raise what an answer means that is no reply."""
        seen = f"HTTP {status}: {said.text}" if said.text else f"HTTP {status}"
        if status in (400, 413, 422, 500) and said.kind == "context":
            raise _MissingError(f"too long for the model ({seen})")
        # llama-cpp-python's server calls a request that it does not know an error of its own.
        schema = "response_format" in body and self.settings.schema == "auto"
        if schema and status in (500, 501) and adapted(self._manner, body, said.text):
            raise _RefusedError(status, said, body)
        if status >= 500 or status in (408, 409, 425, 429):
            if said.kind == "quota":
                raise self._error(seen, "Look at the account's quota; what was answered is kept.")
            wait = retry_after(headers.get("retry-after", ""))
            raise AgainError(seen, wait=wait, busy=status == 429)
        if status < 400:
            to = one_line(headers.get("location", "elsewhere"), hide=self._hide)
            raise self._error(f"it redirects to {to}", "Give the final address.")
        raise _RefusedError(status, said, body)

    def _adapt(self, manner: Manner, refused: _RefusedError) -> Reply | None:
        """Ask in another manner from now on, or take the refusal for the reply, or stop."""
        if refused.status in (400, 422, 500, 501):
            if refused.said.kind == "filter":
                return Reply(WITHHELD, "content_filter")
            if self._manner != manner:  # another worker was told so first
                return None
            new = adapted(manner, refused.body, refused.said.text)
            if new is not None and (new.schema == manner.schema or self.settings.schema == "auto"):
                self._manner = new
                name = next(
                    n
                    for n in ("schema", "tokens", "temperature", "stop")
                    if getattr(new, n) != getattr(manner, n)
                )
                what = {"schema": "JSON schema", "tokens": "max_tokens"}.get(name, name)
                warnings.warn(
                    f"The LLM server does not take '{what}' ({refused.said.text}): asked without "
                    "it from here on.",
                    stacklevel=2,
                )
                return None
        do = {
            401: "Put its key in BYNAME_LLM_KEY.",
            402: "Look at the account.",
            403: "Put its key in BYNAME_LLM_KEY, or ask who runs it.",
            404: f"Check the address and the model; {self.model!r} was asked for.",
        }.get(refused.status, "Check the model and the wording's settings.")
        raise self._error(f"HTTP {refused.status}: {refused.said.text}".rstrip(": "), do)

    def _error(self, seen: str, do: str) -> LLMError:
        return LLMError(f"ask the LLM at {self.settings.url}", seen, do)

    def _hide(self, text: str) -> str:
        return self.settings.key.hide(text)
