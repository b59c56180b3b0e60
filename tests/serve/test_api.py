"""Turns: so many at once, so many waiting, and clients that fall silent."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from byname.progress import tell
from byname.serve import api
from byname.serve.api import Queue
from byname.serve.problems import Problem, refusal


def test_who_finds_the_queue_full_is_told_to_come_again() -> None:
    async def run() -> list[int]:
        queue, found, gate = Queue("score", 1, 1), [], anyio.Event()

        async def work() -> None:
            try:
                async with queue:
                    await gate.wait()
            except Problem as problem:
                found.append(problem.status)
            else:
                found.append(200)

        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(work)
            await anyio.wait_all_tasks_blocked()
            assert found == [429, 429]
            gate.set()
        async with queue:  # and everybody's place is free again
            assert queue.inside == 1
        return found

    assert anyio.run(run) == [429, 429, 200, 200]


def test_who_is_told_to_come_again_is_told_when() -> None:
    reply = refusal(Problem(429, "score", "full"))
    assert (reply.status, reply.headers) == (429, {"Retry-After": "1"})


def test_a_client_that_goes_away_while_waiting_leaves_its_place() -> None:
    async def run() -> int:
        queue = Queue("score", 1, 5)
        async with queue:
            with anyio.move_on_after(0.01):
                async with queue:
                    raise AssertionError
            return queue.inside

    assert anyio.run(run) == 1


def test_a_silent_client_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "SILENCE", 0.01)

    class Silent:
        async def stream(self) -> AsyncIterator[bytes]:
            yield b"x"
            await anyio.sleep(60)

    found: list[bytes] = []

    async def run() -> None:
        request: Any = Silent()
        async for chunk in api._patient(request):
            found.append(chunk)

    with pytest.raises(Problem) as caught:
        anyio.run(run)
    assert (caught.value.status, found) == (408, [b"x"])


def test_a_client_that_drips_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "PATIENCE", 0.05)

    class Dripping:
        async def stream(self) -> AsyncIterator[bytes]:
            while True:
                yield b"x"
                await anyio.sleep(0.01)

    async def run() -> int:
        request: Any = Dripping()
        return len([chunk async for chunk in api._patient(request)])

    with pytest.raises(Problem, match=r"more than .* seconds") as caught:
        anyio.run(run)
    assert caught.value.status == 408


def test_work_ends_when_its_client_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "LOOK", 0.005)
    steps = 0

    class Leaving:
        looks = 0

        async def is_disconnected(self) -> bool:
            self.looks += 1
            return self.looks > 3

    def work() -> None:
        nonlocal steps
        for steps in range(2000):
            tell("steps", steps, 2000)
            time.sleep(0.005)

    async def run(request: Any, what: Any) -> Any:
        return await api._while_awaited(request, what)

    with pytest.raises(Problem, match="taken back"):
        anyio.run(run, Leaving(), work)
    assert 0 < steps < 1000
    assert anyio.run(run, Leaving(), lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        anyio.run(run, Leaving(), lambda: 1 / 0)
